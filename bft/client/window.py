"""Numbers of a session's operations: what waits, what is on its way, what is acknowledged.

PURE. `acknowledged` is the lowest number without an outcome, and no envelope reaches `size` numbers beyond it. An
operation of a lane names its unfinished predecessor; a finished one needs no mention, since it has executed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from bft.config import Protocol
from bft.ids import Nanos
from bft.messages import ENVELOPE_BYTES_MAX, OPERATIONS_MAX, Request, SignedRequest

OPERATION_OVERHEAD_BYTES = 16
"""Length header of an operation and its entry in `after`, rounded up."""
ENVELOPE_OVERHEAD_BYTES = 64
BACKLOG_WINDOWS = 16
"""Operations that may wait for the window, in multiples of it: a burst of calls is no overload."""


@dataclass(slots=True)
class Envelope:
    """An envelope on its way.

    Attributes:
        first: number of its first operation.
        left: how many of its operations have no outcome yet.
        deadline: when to send it again.
        attempts: how often it was sent to all replicas.
        refusals: replicas that refused it, by reason.
        is_unavailable: a result of it is gone for good; what has no outcome by the deadline is lost.
    """

    first: int
    sent_at: Nanos
    left: int = 0
    deadline: Nanos = 0
    attempts: int = 0
    refusals: dict[str, set[int]] = field(default_factory=dict)
    is_unavailable: bool = False
    packet: SignedRequest | None = None

    @property
    def signed(self) -> SignedRequest:
        """The envelope as it was signed, once."""
        assert self.packet is not None, f"envelope {self.first} is not signed"
        return self.packet


class Window:
    """The operations of a session.

    Attributes:
        envelopes: unfinished ones by first number, ascending.
        late: how many of them were sent to all replicas, because the primary kept silent.
    """

    __slots__ = (
        "_acknowledged",
        "_bytes_max",
        "_lanes",
        "_next",
        "_open",
        "_operations_max",
        "_size",
        "_waiting",
        "envelopes",
        "late",
    )

    def __init__(self, protocol: Protocol) -> None:
        self._size = protocol.session_window
        self._operations_max = min(protocol.batch_operations_max, OPERATIONS_MAX)
        self._bytes_max = min(protocol.batch_bytes_max, ENVELOPE_BYTES_MAX)
        self._waiting: dict[int, tuple[bytes, int]] = {}
        self._open: dict[int, tuple[int, int, Envelope]] = {}
        self._lanes: dict[int, int] = {}
        self._next = 1
        self._acknowledged = 1
        self.envelopes: dict[int, Envelope] = {}
        self.late = 0

    def __len__(self) -> int:
        """Operations without an outcome."""
        return len(self._waiting) + len(self._open)

    @property
    def may_send(self) -> bool:
        """True if something waits and the window has room for it."""
        return bool(self._waiting) and self._next < self._acknowledged + self._size

    @property
    def is_full(self) -> bool:
        """True if what waits must wait for outcomes."""
        return self._next >= self._acknowledged + self._size

    def add(self, ticket: int, operation: bytes, lane: int) -> bool:
        """Let an operation wait; False if too many wait already."""
        assert ticket not in self._waiting, f"ticket {ticket} is in use"
        if len(self._waiting) >= BACKLOG_WINDOWS * self._size:
            return False
        self._waiting[ticket] = (operation, lane)
        return True

    def is_waiting(self, ticket: int) -> bool:
        """True if the operation has no number yet."""
        return ticket in self._waiting

    def cancel(self, ticket: int) -> bool:
        """Drop an operation that waits; False if it does not."""
        return self._waiting.pop(ticket, None) is not None

    def seal(self, session: int, now: Nanos) -> tuple[Envelope, Request]:
        """Number the front of what waits: at least one operation, and as many as limits permit."""
        limit = min(self._operations_max, self._acknowledged + self._size - self._next)
        room = self._bytes_max - ENVELOPE_OVERHEAD_BYTES
        envelope = Envelope(self._next, now)
        operations: list[bytes] = []
        tickets: list[int] = []
        after: list[int] = []
        for ticket, (operation, lane) in self._waiting.items():
            room -= len(operation) + OPERATION_OVERHEAD_BYTES
            if len(operations) == limit or (operations and room < 0):
                break
            after.append(self._follow(lane) if lane else 0)
            self._open[self._next] = (ticket, lane, envelope)
            self._next += 1
            operations.append(operation)
            tickets.append(ticket)
        for ticket in tickets:
            del self._waiting[ticket]
        envelope.left = len(operations)
        self.envelopes[envelope.first] = envelope
        lanes = tuple(after) if any(after) else ()
        return envelope, Request(session, envelope.first, self._acknowledged, tuple(operations), lanes)

    def _follow(self, lane: int) -> int:
        """Put the next number into a lane; returns the unfinished number that it follows, 0 for none."""
        before = self._lanes.get(lane, 0)  # `close` removes a lane whose last operation is finished
        self._lanes[lane] = self._next
        return before

    def close(self, number: int) -> tuple[int, Envelope] | None:
        """An operation has its outcome; returns its ticket and envelope, None if it had one before."""
        entry = self._open.pop(number, None)
        if entry is None:
            return None
        ticket, lane, envelope = entry
        if lane and self._lanes.get(lane) == number:
            del self._lanes[lane]
        envelope.left -= 1
        if envelope.left == 0:
            del self.envelopes[envelope.first]
            self.late -= envelope.attempts > 0
        return ticket, envelope

    def acknowledge(self) -> None:
        """Move the lower edge to the lowest number without an outcome."""
        while self._acknowledged < self._next and self._acknowledged not in self._open:
            self._acknowledged += 1

    def numbers(self, envelope: Envelope) -> list[int]:
        """Operations of an envelope without an outcome."""
        return [number for number, entry in self._open.items() if entry[2] is envelope]

    def drop_all(self) -> Iterator[int]:
        """Forget everything; returns the tickets."""
        tickets = [entry[0] for entry in self._open.values()] + list(self._waiting)
        self._open.clear()
        self._waiting.clear()
        self._lanes.clear()
        self.envelopes.clear()
        self.late = 0
        return iter(tickets)
