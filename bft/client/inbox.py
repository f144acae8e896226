"""Events of a session, put back into order (`DESIGN.md` 8, point 2).

PURE. Events are numbered 1, 2, 3 ... in replicated state. Slots may be believed out of order, so an early event waits
for those before it, up to a limit in number and time; what does not come by then is reported as missed.
"""

from __future__ import annotations

from bft.client.seam import EventArrived, EventsMissed
from bft.ids import Nanos
from bft.messages import Event

EARLY_MAX = 1024


class Inbox:
    """Orders events; drops what was delivered before.

    Attributes:
        deadline: when to stop waiting for a missing event; None while none is missing.
    """

    __slots__ = ("_early", "_next", "_patience", "deadline")

    def __init__(self, patience: Nanos) -> None:
        self._next = 1
        self._early: dict[int, bytes] = {}
        self._patience = patience
        self.deadline: Nanos | None = None

    def add(self, events: tuple[Event, ...], now: Nanos) -> list[EventArrived | EventsMissed]:
        """Take a bundle's events; returns what is due now, in order."""
        for event in events:
            if event.number >= self._next:
                self._early[event.number] = event.payload
        out: list[EventArrived | EventsMissed] = []
        self._drain(out)
        while len(self._early) > EARLY_MAX:
            self._skip(out)
        self.deadline = (self.deadline or now + self._patience) if self._early else None
        return out

    def expire(self, now: Nanos) -> list[EventArrived | EventsMissed]:
        """Give up on a missing event past its deadline."""
        out: list[EventArrived | EventsMissed] = []
        if self.deadline is not None and self.deadline <= now:
            self._skip(out)
            self.deadline = now + self._patience if self._early else None
        return out

    def _drain(self, out: list[EventArrived | EventsMissed]) -> None:
        while self._next in self._early:
            out.append(EventArrived(self._next, self._early.pop(self._next)))
            self._next += 1

    def _skip(self, out: list[EventArrived | EventsMissed]) -> None:
        lowest = min(self._early)
        out.append(EventsMissed(self._next, lowest - 1))
        self._next = lowest
        self._drain(out)
