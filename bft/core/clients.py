"""The exactly-once table: sessions with many outstanding operations [CL99 4.1, 4.3].

PBFT keeps one last timestamp per client; with pipelining that lets a primary censor (order 2 before 1, and 1 is
dropped for ever). Here a session has a window, and only the client's own acknowledgement moves its lower edge: no
other party can make an operation stale. The whole table, kept replies and held-back lane operations included, is part
of the checkpoint: a replica that caught up by state transfer neither re-executes nor forgets an answer.

Every decision here depends on replicated state only, so it is the same on every correct replica.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from heapq import heapify, heappop, heappush

from bft.config import MILLISECOND, Protocol
from bft.core.session import BUNDLE_BYTES_MAX, Session, part_bytes_max
from bft.core.tablepages import Kept, TablePage, table_page_decoder
from bft.digests import bundle_digest, page_digest
from bft.events import OperationCall
from bft.messages import ENVELOPE_BYTES_MAX, Bundle, Event, Request, Result
from bft.wire.codec import encode

Name = tuple[bytes, int]
"""(client, incarnation): what a session is known by."""
CLOCK_SLACK_NS = 3_600_000 * MILLISECOND
"""How far ahead of the agreed time a new session's incarnation may lie.

Incarnations are clock readings; without a bound one dated at the end of time would keep its place for ever.
"""
AHEAD_SHARE = 4
"""Sessions dated ahead of the agreed time may fill this part of the table, a quarter: they cannot be evicted."""
TABLE_BYTES_MAX = 256 * 1024 * 1024
"""Reply bytes kept of all sessions together, as much again of operations that lanes hold back, and of events: what one
session may have, times all sessions of keys that anybody can make, would fill the memory of every replica."""
TABLE_OPERATIONS_MAX = 1_000_000
"""Operations that all sessions together have executed and not acknowledged: each takes some hundred bytes."""
FUTURE_SLACK = 64
"""Ended sessions that may still wait for their time, beside twice as many as may be dated ahead."""
SHED_SHARE = 8
"""When that is exceeded an eighth becomes free, so that whoever holds most is not looked for in every slot."""


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


def _reply_bytes(session: Session) -> int:
    return session.kept_bytes


def _event_bytes(session: Session) -> int:
    return session.kept_event_bytes


class SessionTable:
    """All live sessions, a bounded number per client key.

    The floor never rises above the agreed time: only sessions dated at or before it are evicted, and those dated ahead,
    of which there is room for a few, wait until it has passed them. So however many keys an adversary has, and however
    it dates their sessions, a client whose clock is right can open one (`test_sessions_dated_ahead_lock_nobody_out`).
    Nor does it weaken the tombstone: an evicted session lies at or below the floor that its eviction leaves, whichever
    was chosen, so none of its operations executes again. Who is ahead follows from the incarnations and the agreed
    time, both replicated.

    Bytes are bounded, too: when all kept replies, or all kept events, are too many together, those sessions that keep
    most lose theirs, and what lanes would hold back beyond the bound is skipped (`_shed`, `_select_lanes`). What has
    executed cannot be forgotten while its session lives: when it is too much, sessions that have more than an equal
    share of it are evicted (`_make_room`); those dated ahead count only when the agreed time has passed them, else
    they would end everybody's sessions but their own (`test_sessions_dated_ahead_end_nobody_elses`).
    """

    def __init__(
        self, protocol: Protocol, bytes_max: int = TABLE_BYTES_MAX, operations_max: int = TABLE_OPERATIONS_MAX
    ) -> None:
        """An empty table.

        Args:
            bytes_max: of kept replies beside those of the last slot; as much again of held operations, and of events.
            operations_max: entries of executed operations, beside those of sessions dated ahead.
        """
        self._protocol = protocol
        self._table_bytes_max = bytes_max
        self._operations_max = operations_max
        self._operations = 0
        self._kept_bytes = 0
        self._event_bytes = 0
        self._held_bytes = 0
        self._bytes_max = part_bytes_max(protocol)
        self._sessions: dict[Name, Session] = {}
        self._incarnations: dict[bytes, list[int]] = {}
        self._ahead_max = protocol.sessions_max // AHEAD_SHARE
        self._ahead: dict[Name, None] = {}
        self._future: list[tuple[int, bytes]] = []
        self._idle: list[tuple[int, Name]] = []
        self._idle_since = 0
        self._floor = 0
        self._pages: dict[Name, bytes] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, client: bytes, incarnation: int) -> Session | None:
        """The client's session if it is that incarnation and alive."""
        return self._sessions.get((client, incarnation))

    def is_expired(self, client: bytes, incarnation: int) -> bool:
        """True if no operation of that incarnation can execute any more.

        No tombstone per client is needed: a session ends either by eviction, which lifts the floor to it, or while
        its key is at its limit, and then it lies below all of the key's live ones until one of those is evicted.
        """
        if (client, incarnation) in self._sessions:
            return False
        live = self._incarnations.get(client, [])
        return incarnation <= self._floor or (len(live) >= self._protocol.sessions_per_client and incarnation < live[0])

    def is_finished(self, client: bytes, request: Request) -> bool:
        """True if no operation of the envelope needs ordering any more."""
        session = self.get(client, request.session)
        if session is None:
            return self.is_expired(client, request.session)
        first = request.number
        return all(session.finished(number) for number in range(first, first + len(request.operations)))

    def select(self, requests: tuple[tuple[bytes, Request], ...], seq: int, time_ns: int) -> list[OperationCall]:
        """Which operations of a batch execute, in order: each at most once, lanes first in first out."""
        calls: list[OperationCall] = []
        self._mature(time_ns)
        for client, request in requests:
            session = self._open(client, request.session, seq, time_ns)
            if session is None:
                continue
            session.used = seq
            name = (client, request.session)
            self._pages.pop(name, None)
            self._kept_bytes -= session.kept_bytes
            self._held_bytes -= session.held_bytes
            before = len(session.done)
            freed = session.acknowledge(request.acknowledged, self._protocol.session_window)
            self._release(session, freed, seq, calls)
            if request.after:
                self._select_lanes(session, request, seq, calls)
            else:
                self._select_plain(session, request, seq, calls)
            self._kept_bytes += session.kept_bytes
            self._held_bytes += session.held_bytes
            if name not in self._ahead:
                self._operations += len(session.done) - before
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
                self._release(session, sorted(session.followers.pop(number, ())), seq, calls)

    def _select_lanes(self, session: Session, request: Request, seq: int, calls: list[OperationCall]) -> None:
        """Hold an operation back until its predecessor has executed.

        Bounded by the session window in number, and in bytes by the reply cap and by what all sessions may have; beyond
        that an operation is skipped as if it had not been ordered, and the client's retransmission brings it again.
        """
        room = min(self._bytes_max, self._table_bytes_max - self._held_bytes)
        for place, (operation, after) in enumerate(zip(request.operations, request.after, strict=True)):
            number = request.number + place
            if session.finished(number):
                continue
            if after > session.low and after not in session.done:
                if session.held_bytes + len(operation) <= room:
                    session.hold(number, after, operation)
                continue
            session.done[number] = seq
            calls.append(OperationCall(session.client, session.incarnation, number, len(calls), operation))
            self._release(session, sorted(session.followers.pop(number, ())), seq, calls)

    def _release(self, session: Session, ready: list[int], seq: int, calls: list[OperationCall]) -> None:
        """Execute held operations, and what waited for those, in order of number; `ready` grows on the way."""
        for number in ready:
            held = session.held.pop(number)
            session.held_bytes -= len(held.operation)
            session.done[number] = seq
            calls.append(OperationCall(session.client, session.incarnation, number, len(calls), held.operation))
            ready += sorted(session.followers.pop(number, ()))

    def _open(self, client: bytes, incarnation: int, seq: int, time_ns: int) -> Session | None:
        session = self._sessions.get((client, incarnation))
        if session is not None:
            return session
        if self.is_expired(client, incarnation) or incarnation > time_ns + CLOCK_SLACK_NS:
            return None
        is_ahead = incarnation > time_ns
        if is_ahead and len(self._ahead) >= self._ahead_max:
            return None
        live = self._incarnations.get(client, [])
        if len(live) >= self._protocol.sessions_per_client:
            self._end((client, live[0]))
        elif len(self._sessions) >= self._protocol.sessions_max:
            self._evict(self._oldest(seq))
        session = Session(client, incarnation, used=seq)
        self._sessions[client, incarnation] = session
        insort(self._incarnations.setdefault(client, []), incarnation)
        if is_ahead:
            self._ahead[client, incarnation] = None
            heappush(self._future, (incarnation, client))
            if len(self._future) > 2 * self._ahead_max + FUTURE_SLACK:  # a key may replace its own again and again
                self._future = [(later, owner) for owner, later in self._ahead]
                heapify(self._future)
        return session

    def _mature(self, time_ns: int) -> None:
        """Sessions that the agreed time has passed can be evicted from now on."""
        while self._future and self._future[0][0] <= time_ns:
            incarnation, client = heappop(self._future)
            name = (client, incarnation)
            if name not in self._ahead:
                continue  # it ended before
            del self._ahead[name]
            session = self._sessions[name]
            self._operations += len(session.done)
            used = session.used
            if self._idle and used < self._idle_since:
                heappush(self._idle, (used, name))

    def _end(self, name: Name) -> None:
        client, incarnation = name
        session = self._sessions.pop(name)
        self._kept_bytes -= session.kept_bytes
        self._held_bytes -= session.held_bytes
        self._event_bytes -= session.kept_event_bytes
        if name in self._ahead:
            del self._ahead[name]
        else:
            self._operations -= len(session.done)
        self._pages.pop(name, None)
        self._incarnations[client].remove(incarnation)
        if not self._incarnations[client]:
            del self._incarnations[client]

    def _evict(self, session: Session) -> None:
        """Drop a session that is not dated ahead; the floor is its tombstone, so nothing of it executes again."""
        self._floor = max(self._floor, session.incarnation)
        self._end((session.client, session.incarnation))

    def _make_room(self) -> None:
        """Evict sessions with more than an equal share of the executed operations: the least recently used first.

        Of those with more than their share, not whoever has most: a client with a full window that goes on would have
        to give way to many that stopped just below it. These cannot go on without acknowledging. A session with no more
        than its share never ends here, and without all the others there is room enough. As in `_shed` an eighth becomes
        free.
        """
        room = self._operations_max - self._operations_max // SHED_SHARE
        counted = [session for name, session in self._sessions.items() if name not in self._ahead]
        share = room // len(counted)
        large = [session for session in counted if len(session.done) > share]
        large.sort(key=lambda session: (session.used, -len(session.done), session.client, session.incarnation))
        for session in large:
            if self._operations <= room:
                return
            self._evict(session)

    def _oldest(self, seq: int) -> Session:
        """The session with the lowest (slot of last use, client, incarnation) of those not dated ahead.

        Gathered once per many evictions: what is not in the heap, or was used since, was used in slot `_idle_since` or
        later, and all that is in it before. So the first entry that still holds is the minimum, however old the heap.
        """
        if not self._idle:
            self._idle_since = seq
            self._idle = [
                (session.used, name)
                for name, session in self._sessions.items()
                if session.used < seq and name not in self._ahead
            ]
            heapify(self._idle)
        while self._idle:
            used, name = heappop(self._idle)
            session = self._sessions.get(name)
            if session is not None and session.used == used:
                return session
        candidates = (session for name, session in self._sessions.items() if name not in self._ahead)
        return min(candidates, key=lambda session: (session.used, session.client, session.incarnation))

    def record(
        self,
        seq: int,
        calls: list[OperationCall],
        results: list[tuple[int, bytes]],
        events: list[tuple[bytes, int, bytes]],
    ) -> list[tuple[Session, bytes, bytes]]:
        """Keep the results of a slot; returns (session, bundle digest, bundle bytes) in order of first mention.

        A session that ended within the slot, replaced or evicted, has nobody left to answer; its results must not
        pass for those of the same client's next one (`test_restarted_clients_results_do_not_mix`).
        """
        gathered: dict[tuple[bytes, int], tuple[list[Result], list[Event]]] = {}
        for call, (status, value) in zip(calls, results, strict=True):
            entry = gathered.get((call.client, call.session))
            if entry is None:
                entry = gathered[call.client, call.session] = ([], [])
            entry[0].append(Result(call.number, call.index, status, value))
        for client, incarnation, payload in events:
            session = self.get(client, incarnation)
            if session is None:
                continue
            entry = gathered.setdefault((client, incarnation), ([], []))
            self._event_bytes -= session.kept_event_bytes
            entry[1].append(session.emit(payload, self._bytes_max))
            self._event_bytes += session.kept_event_bytes
            self._pages.pop((client, incarnation), None)
        live = ((self.get(*name), entry) for name, entry in gathered.items())
        bundles = [self._bundle(seq, session, *entry) for session, entry in live if session is not None]
        if self._kept_bytes > self._table_bytes_max:
            self._kept_bytes -= self._shed(self._kept_bytes, _reply_bytes, lambda session: session.forget_bundles(seq))
        if self._event_bytes > self._table_bytes_max:
            self._event_bytes -= self._shed(self._event_bytes, _event_bytes, Session.forget_events)
        if self._operations > self._operations_max:
            self._make_room()
        return bundles

    def _shed(self, total: int, size: Callable[[Session], int], forget: Callable[[Session], None]) -> int:
        """Let those who keep most forget it: of replies the bytes, but for those of this slot, or the events.

        Safe: a digest is kept of every bundle, so nothing executes twice, and a result is unavailable, never another;
        events are numbered, so a gap shows. Who is chosen follows from the pages of a checkpoint and the slot alone:
        the same ones on every correct replica.

        Returns:
            Bytes that became free.
        """
        excess = total - (self._table_bytes_max - self._table_bytes_max // SHED_SHARE)
        freed = 0
        for name, session in sorted(self._sessions.items(), key=lambda item: (-size(item[1]), item[0])):
            if freed >= excess:
                break
            before = size(session)
            forget(session)
            freed += before - size(session)
            self._pages.pop(name, None)
        return freed

    def _bundle(
        self, seq: int, session: Session, results: list[Result], events: list[Event]
    ) -> tuple[Session, bytes, bytes]:
        bundle = encode(Bundle(tuple(results), tuple(events)))
        digest = bundle_digest(bundle)
        if len(bundle) > BUNDLE_BYTES_MAX:
            bundle = b""
        last = max((result.number for result in results), default=session.low)
        if results:
            self._kept_bytes -= session.kept_bytes
            session.keep(Kept(seq, last, digest, bundle), self._bytes_max)
            self._kept_bytes += session.kept_bytes
        return session, digest, bundle

    # --- checkpoints -----------------------------------------------------------------------------------------------

    def checkpoint(self) -> tuple[tuple[bytes, ...], dict[bytes, bytes]]:
        """Digests of all session pages (the table's own first, then ascending by name), and the changed pages."""
        table = encode(TablePage(self._floor))
        digests = [page_digest(table)]
        fresh = {digests[0]: table}
        for name in sorted(self._sessions):
            known = self._pages.get(name)
            if known is None:
                page = self._sessions[name].encoded()
                known = page_digest(page)
                fresh[known] = page
                self._pages[name] = known
            digests.append(known)
        return tuple(digests), fresh

    def restore(self, pages: list[bytes]) -> None:
        """Replace the table by verified pages, in the order that `checkpoint` gave."""
        self._floor = table_page_decoder.decode(pages[0]).floor
        self._sessions = {}
        self._incarnations = {}
        self._idle = []
        self._pages = {}
        self._ahead = {}
        self._future = []
        for page in pages[1:]:
            session = Session.decoded(page)
            name = (session.client, session.incarnation)
            self._sessions[name] = session
            insort(self._incarnations.setdefault(session.client, []), session.incarnation)
            self._ahead[name] = None  # until `_mature` knows the time
            self._future.append((session.incarnation, session.client))
            self._pages[name] = page_digest(page)
        self._kept_bytes = sum(session.kept_bytes for session in self._sessions.values())
        self._held_bytes = sum(session.held_bytes for session in self._sessions.values())
        self._event_bytes = sum(session.kept_event_bytes for session in self._sessions.values())
        self._operations = 0
        heapify(self._future)
