"""One client's session: what it has executed, what it keeps for retransmission, what its lanes hold back.

Part of the exactly-once table (`clients`), which decides when any of this happens.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bft.config import Protocol
from bft.core.tablepages import Held, Kept, KeptEvent, SessionPage, session_page_decoder
from bft.messages import EVENTS_MAX, PAYLOAD_BYTES_MAX, Event, EventBodies
from bft.wire.codec import encode

BUNDLE_BYTES_MAX = 6 * 1024 * 1024
"""A larger bundle is never sent: its operations have executed, and their results are unavailable."""
OPERATION_ENTRY_BYTES = 80
"""What a page spends at most on one operation of the window, beside bytes of replies and operations."""
EVENT_ENTRY_BYTES = 100
"""What keeping an event costs beside its payload."""
PAGE_OVERHEAD_BYTES = 64 * 1024


def part_bytes_max(protocol: Protocol) -> int:
    """Bytes that a session may keep of replies, of held operations, and of events: each this much.

    All three, one bundle of the largest size and the entries of a full window fit into one page, and a page into a
    packet: else no replica could catch up any more once a client has filled its session.
    """
    room = PAYLOAD_BYTES_MAX - PAGE_OVERHEAD_BYTES - OPERATION_ENTRY_BYTES * protocol.session_window
    return min(protocol.session_reply_bytes_max, (room - BUNDLE_BYTES_MAX) // 2)


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
        followers: number -> held operations that wait for it; follows from `held`.
        events: the latest events emitted for the session, oldest first.
    """

    client: bytes
    incarnation: int
    used: int = 0
    low: int = 0
    done: dict[int, int] = field(default_factory=dict)
    kept: dict[int, Kept] = field(default_factory=dict)
    kept_bytes: int = 0
    held: dict[int, Held] = field(default_factory=dict)
    held_bytes: int = 0
    followers: dict[int, list[int]] = field(default_factory=dict)
    next_event: int = 1
    events: list[KeptEvent] = field(default_factory=list)
    event_bytes: int = 0

    def finished(self, number: int) -> bool:
        """True if the operation needs no more ordering: executed, forgotten, or held back by its lane."""
        return number <= self.low or number in self.done or number in self.held

    def acknowledge(self, acknowledged: int, window: int) -> list[int]:
        """The client has the results of everything below `acknowledged`: forget them.

        Every number known here is below `low + window + 1`, so a huge step costs no more than the window
        (`test_huge_acknowledgement_costs_nothing`).

        Returns:
            Held operations that wait for nobody any more, ascending.
        """
        if acknowledged - 1 <= self.low:
            return []
        freed: list[int] = []
        for number in range(self.low + 1, min(acknowledged, self.low + window + 1)):
            self.done.pop(number, None)
            held = self.held.pop(number, None)
            if held is not None:
                self.held_bytes -= len(held.operation)
            freed += self.followers.pop(number, ())
        self.low = acknowledged - 1
        for seq in [seq for seq, kept in self.kept.items() if kept.last <= self.low]:
            self.kept_bytes -= len(self.kept.pop(seq).bundle)
        return sorted(number for number in freed if number in self.held)

    def hold(self, number: int, after: int, operation: bytes) -> None:
        """Let an operation wait for another one."""
        self.held[number] = Held(number, after, operation)
        self.held_bytes += len(operation)
        self.followers.setdefault(after, []).append(number)

    def keep(self, kept: Kept, bytes_max: int) -> None:
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

    def forget_bundles(self, seq: int) -> None:
        """Shrink every kept bundle to its digest, but for the one of slot `seq`."""
        for kept in self.kept.values():
            if kept.seq != seq:
                self.kept_bytes -= len(kept.bundle)
                kept.bundle = b""

    def emit(self, payload: bytes, bytes_max: int) -> Event:
        """Number an event and keep it; beyond the bounds the oldest go, which the client will see as a gap."""
        event = Event(self.next_event, payload)
        self.next_event += 1
        self.events.append(KeptEvent(event.number, payload))
        self.event_bytes += len(payload)
        while len(self.events) > 1 and (len(self.events) > EVENTS_MAX or self.event_bytes > bytes_max):
            self.event_bytes -= len(self.events.pop(0).payload)
        return event

    @property
    def kept_event_bytes(self) -> int:
        """What the session's events cost."""
        return self.event_bytes + EVENT_ENTRY_BYTES * len(self.events)

    def forget_events(self) -> None:
        """Keep no event; a client that missed one will see a gap, since numbers go on."""
        self.events.clear()
        self.event_bytes = 0

    def events_after(self, number: int) -> EventBodies:
        """The kept events above `number`, and where the kept ones begin."""
        first = self.events[0].number if self.events else self.next_event
        later = tuple(Event(event.number, event.payload) for event in self.events if event.number > number)
        return EventBodies(self.incarnation, first, later)

    def encoded(self) -> bytes:
        """The session's page in a checkpoint."""
        return encode(
            SessionPage(
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
        value = session_page_decoder.decode(page)
        session = cls(
            client=value.client,
            incarnation=value.incarnation,
            used=value.used,
            low=value.low,
            done=dict(value.done),
            kept={kept.seq: kept for kept in value.kept},
            kept_bytes=sum(len(kept.bundle) for kept in value.kept),
            next_event=value.next_event,
            events=value.events,
            event_bytes=sum(len(event.payload) for event in value.events),
        )
        for held in value.held:
            session.hold(held.number, held.after, held.operation)
        return session
