"""The exactly-once table: sessions with many outstanding operations [CL99 4.1, 4.3].

PBFT keeps one last timestamp per client; with pipelining that lets a primary censor (order 2 before 1, and 1 is
dropped for ever). Here a session has a window, and only the client's own acknowledgement moves its lower edge: no
other party can make an operation stale. The whole table, kept replies and held-back lane operations included, is part
of the checkpoint: a replica that caught up by state transfer neither re-executes nor forgets an answer.

Every decision here depends on replicated state only, so it is the same on every correct replica.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from bft.config import MILLISECOND, Protocol
from bft.digests import bundle_digest, page_digest
from bft.events import OperationCall
from bft.messages import ENVELOPE_BYTES_MAX, EVENTS_MAX, Bundle, Event, EventBodies, Request, Result
from bft.wire.codec import encode

CLOCK_SLACK_NS = 3_600_000 * MILLISECOND
"""How far ahead of the agreed time a new session's incarnation may lie.

Incarnations are clock readings; without a bound one hostile client could push the table's floor beyond all others.
"""


def envelope_flaw(request: Request, payload_bytes: int, window: int) -> str | None:
    """What is statically wrong with an envelope; needs no state, so all correct replicas agree."""
    count = len(request.operations)
    if payload_bytes > ENVELOPE_BYTES_MAX:
        return "envelope-too-large"
    if request.session < 1 or not 1 <= request.acknowledged <= request.number:
        return "bad-numbers"
    if request.number + count > request.acknowledged + window:
        return "outside-session-window"
    if request.after:
        if len(request.after) != count:
            return "bad-lanes"
        if any(after >= request.number + place for place, after in enumerate(request.after)):
            return "bad-lanes"
    return None


class _Kept(msgspec.Struct, array_like=True):
    """A bundle kept for retransmission: bytes until the byte cap takes them, digest until acknowledged."""

    seq: int
    last: int
    digest: bytes
    bundle: bytes


class _Held(msgspec.Struct, array_like=True):
    """A lane's operation that waits for its predecessor."""

    number: int
    after: int
    operation: bytes


class _KeptEvent(msgspec.Struct, array_like=True):
    """An event kept for a client that missed its bundle."""

    number: int
    payload: bytes


class _Page(msgspec.Struct, array_like=True):
    """Encoding of a session in a checkpoint."""

    client: bytes
    incarnation: int
    used: int
    low: int
    done: list[tuple[int, int]]
    kept: list[_Kept]
    held: list[_Held]
    next_event: int
    events: list[_KeptEvent]


class _TablePage(msgspec.Struct, array_like=True):
    """Encoding of what the table has beside sessions."""

    floor: int


_page_decoder = msgspec.msgpack.Decoder(_Page)
_table_decoder = msgspec.msgpack.Decoder(_TablePage)


@dataclass(slots=True)
class Session:
    """One live session of one client key.

    Attributes:
        incarnation: a higher one of the same key replaces this one.
        used: slot that last touched the session; decides eviction.
        low: every operation up to it is finished and forgotten.
        done: number -> slot of every executed operation above `low`.
        kept: slot -> bundle, ascending.
        held: number -> operation that waits for its lane's predecessor.
        events: the latest events emitted for the session, oldest first.
    """

    client: bytes
    incarnation: int
    used: int = 0
    low: int = 0
    done: dict[int, int] = field(default_factory=dict)
    kept: dict[int, _Kept] = field(default_factory=dict)
    kept_bytes: int = 0
    held: dict[int, _Held] = field(default_factory=dict)
    held_bytes: int = 0
    next_event: int = 1
    events: list[_KeptEvent] = field(default_factory=list)
    event_bytes: int = 0

    def finished(self, number: int) -> bool:
        """True if the operation needs no more ordering: executed, forgotten, or held back by its lane."""
        return number <= self.low or number in self.done or number in self.held

    def acknowledge(self, acknowledged: int) -> None:
        """The client has the results of everything below `acknowledged`: forget them."""
        if acknowledged - 1 <= self.low:
            return
        for number in range(self.low + 1, acknowledged):
            self.done.pop(number, None)
            held = self.held.pop(number, None)
            if held is not None:
                self.held_bytes -= len(held.operation)
        self.low = acknowledged - 1
        for seq in [seq for seq, kept in self.kept.items() if kept.last <= self.low]:
            self.kept_bytes -= len(self.kept.pop(seq).bundle)

    def keep(self, kept: _Kept, bytes_max: int) -> None:
        """Keep a bundle for retransmission; beyond the cap the oldest shrink to their digest."""
        self.kept[kept.seq] = kept
        self.kept_bytes += len(kept.bundle)
        if self.kept_bytes <= bytes_max:
            return
        for old in self.kept.values():
            if self.kept_bytes <= bytes_max or old is kept:
                return
            self.kept_bytes -= len(old.bundle)
            old.bundle = b""

    def emit(self, payload: bytes, bytes_max: int) -> Event:
        """Number an event and keep it; beyond the bounds the oldest go, which the client will see as a gap."""
        event = Event(self.next_event, payload)
        self.next_event += 1
        self.events.append(_KeptEvent(event.number, payload))
        self.event_bytes += len(payload)
        while len(self.events) > 1 and (len(self.events) > EVENTS_MAX or self.event_bytes > bytes_max):
            self.event_bytes -= len(self.events.pop(0).payload)
        return event

    def events_after(self, number: int) -> EventBodies:
        """The kept events above `number`, and where the kept ones begin."""
        first = self.events[0].number if self.events else self.next_event
        later = tuple(Event(event.number, event.payload) for event in self.events if event.number > number)
        return EventBodies(self.incarnation, first, later)

    def encoded(self) -> bytes:
        """The session's page in a checkpoint."""
        return encode(
            _Page(
                self.client,
                self.incarnation,
                self.used,
                self.low,
                sorted(self.done.items()),
                list(self.kept.values()),
                [self.held[number] for number in sorted(self.held)],
                self.next_event,
                self.events,
            )
        )

    @classmethod
    def decoded(cls, page: bytes) -> Session:
        """Rebuild a session from its (verified) page."""
        value = _page_decoder.decode(page)
        return cls(
            client=value.client,
            incarnation=value.incarnation,
            used=value.used,
            low=value.low,
            done=dict(value.done),
            kept={kept.seq: kept for kept in value.kept},
            kept_bytes=sum(len(kept.bundle) for kept in value.kept),
            held={held.number: held for held in value.held},
            held_bytes=sum(len(held.operation) for held in value.held),
            next_event=value.next_event,
            events=value.events,
            event_bytes=sum(len(event.payload) for event in value.events),
        )


class SessionTable:
    """All live sessions, at most one per client key."""

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self._sessions: dict[bytes, Session] = {}
        self._floor = 0
        self._pages: dict[bytes, bytes] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, client: bytes, incarnation: int) -> Session | None:
        """The client's session if it is that incarnation and alive."""
        session = self._sessions.get(client)
        return session if session is not None and session.incarnation == incarnation else None

    def is_expired(self, client: bytes, incarnation: int) -> bool:
        """True if no operation of that incarnation can execute any more."""
        session = self._sessions.get(client)
        return incarnation < session.incarnation if session is not None else incarnation <= self._floor

    def select(self, requests: tuple[tuple[bytes, Request], ...], seq: int, time_ns: int) -> list[OperationCall]:
        """Which operations of a batch execute, in order: each at most once, lanes first in first out."""
        calls: list[OperationCall] = []
        for client, request in requests:
            session = self._open(client, request.session, seq, time_ns)
            if session is None:
                continue
            session.used = seq
            self._pages.pop(client, None)
            session.acknowledge(request.acknowledged)
            if request.after:
                self._select_lanes(session, request, seq, calls)
            else:
                self._select_plain(session, request, seq, calls)
        return calls

    def _select_plain(self, session: Session, request: Request, seq: int, calls: list[OperationCall]) -> None:
        done = session.done
        low = session.low
        number = request.number - 1
        for operation in request.operations:
            number += 1
            if number <= low or number in done or number in session.held:
                continue
            done[number] = seq
            calls.append(OperationCall(session.client, session.incarnation, number, len(calls), operation))
            if session.held:
                self._release(session, number, seq, calls)

    def _select_lanes(self, session: Session, request: Request, seq: int, calls: list[OperationCall]) -> None:
        """Hold an operation back until its predecessor has executed.

        Bounded by the session window in number and by the reply cap in bytes; beyond the cap an operation is skipped
        as if it had not been ordered, and the client's retransmission brings it again.
        """
        for place, (operation, after) in enumerate(zip(request.operations, request.after, strict=True)):
            number = request.number + place
            if session.finished(number):
                continue
            if after > session.low and after not in session.done:
                if session.held_bytes + len(operation) <= self._protocol.session_reply_bytes_max:
                    session.held[number] = _Held(number, after, operation)
                    session.held_bytes += len(operation)
                continue
            session.done[number] = seq
            calls.append(OperationCall(session.client, session.incarnation, number, len(calls), operation))
            self._release(session, number, seq, calls)

    def _release(self, session: Session, number: int, seq: int, calls: list[OperationCall]) -> None:
        """Execute what waited for `number`, and what waited for that, in order of number."""
        ready = [number]
        while ready:
            before = ready.pop(0)
            for waiting in sorted(held.number for held in session.held.values() if held.after == before):
                held = session.held.pop(waiting)
                session.held_bytes -= len(held.operation)
                session.done[waiting] = seq
                calls.append(OperationCall(session.client, session.incarnation, waiting, len(calls), held.operation))
                ready.append(waiting)

    def _open(self, client: bytes, incarnation: int, seq: int, time_ns: int) -> Session | None:
        session = self._sessions.get(client)
        if session is not None and session.incarnation == incarnation:
            return session
        if self.is_expired(client, incarnation) or incarnation > time_ns + CLOCK_SLACK_NS:
            return None
        if session is None and len(self._sessions) >= self._protocol.sessions_max:
            self._evict()
        session = Session(client, incarnation, used=seq)
        self._sessions[client] = session
        return session

    def _evict(self) -> None:
        """Drop the least recently used session; the floor is its tombstone, so nothing of it executes again."""
        oldest = min(self._sessions.values(), key=lambda session: (session.used, session.client))
        self._floor = max(self._floor, oldest.incarnation)
        del self._sessions[oldest.client]
        self._pages.pop(oldest.client, None)

    def record(
        self,
        seq: int,
        calls: list[OperationCall],
        results: list[tuple[int, bytes]],
        events: list[tuple[bytes, int, bytes]],
    ) -> list[tuple[Session, bytes, bytes]]:
        """Keep the results of a slot; returns (session, bundle digest, bundle bytes) in order of first mention."""
        gathered: dict[bytes, tuple[list[Result], list[Event]]] = {}
        for call, (status, value) in zip(calls, results, strict=True):
            entry = gathered.get(call.client)
            if entry is None:
                entry = gathered[call.client] = ([], [])
            entry[0].append(Result(call.number, call.index, status, value))
        for client, incarnation, payload in events:
            session = self.get(client, incarnation)
            if session is None:
                continue
            entry = gathered.setdefault(client, ([], []))
            entry[1].append(session.emit(payload, self._protocol.session_reply_bytes_max))
            self._pages.pop(client, None)
        return [self._bundle(seq, client, *entry) for client, entry in gathered.items()]

    def _bundle(
        self, seq: int, client: bytes, results: list[Result], events: list[Event]
    ) -> tuple[Session, bytes, bytes]:
        session = self._sessions[client]
        bundle = encode(Bundle(tuple(results), tuple(events)))
        digest = bundle_digest(bundle)
        last = max((result.number for result in results), default=session.low)
        if results:
            session.keep(_Kept(seq, last, digest, bundle), self._protocol.session_reply_bytes_max)
        return session, digest, bundle

    # --- checkpoints -----------------------------------------------------------------------------------------------

    def checkpoint(self) -> tuple[tuple[bytes, ...], dict[bytes, bytes]]:
        """Digests of all session pages (the table's own first, then ascending by client), and the changed pages."""
        table = encode(_TablePage(self._floor))
        digests = [page_digest(table)]
        fresh = {digests[0]: table}
        for client in sorted(self._sessions):
            known = self._pages.get(client)
            if known is None:
                page = self._sessions[client].encoded()
                known = page_digest(page)
                fresh[known] = page
                self._pages[client] = known
            digests.append(known)
        return tuple(digests), fresh

    def restore(self, pages: list[bytes]) -> None:
        """Replace the table by verified pages, in the order that `checkpoint` gave."""
        self._floor = _table_decoder.decode(pages[0]).floor
        self._sessions = {}
        self._pages = {}
        for page in pages[1:]:
            session = Session.decoded(page)
            self._sessions[session.client] = session
            self._pages[session.client] = page_digest(page)
