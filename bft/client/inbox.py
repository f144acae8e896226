"""Events of a session, put back into order.

PURE. Events are numbered 1, 2, 3 ... in replicated state. Slots may be believed out of order, so an early event waits
for those before it, up to a limit in number and time, while the replicas are asked for them: they keep the latest ones
of every session. What they do not have any more, or what does not come in time, is reported as missed.
"""

from __future__ import annotations

from bft.client.seam import EventArrived, EventsMissed
from bft.ids import Nanos
from bft.membership import Quorums
from bft.messages import Event, EventBodies

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

    @property
    def last(self) -> int:
        """Number of the last event that was handed out."""
        return self._next - 1

    def skip_to(self, first: int) -> list[EventArrived | EventsMissed]:
        """Nothing before `first` exists any more: report it as missed."""
        out: list[EventArrived | EventsMissed] = []
        if first > self._next:
            out.append(EventsMissed(self._next, first - 1))
            self._next = first
            self._early = {number: payload for number, payload in self._early.items() if number >= first}
            self._drain(out)
            self.deadline = self.deadline if self._early else None
        return out

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


class EventVotes:
    """What replicas say of the events that were asked for; a weak quorum of equal statements is believed."""

    __slots__ = ("_quorums", "_votes")

    def __init__(self, quorums: Quorums) -> None:
        self._quorums = quorums
        self._votes: dict[int, EventBodies] = {}

    def clear(self) -> None:
        """Begin a new question."""
        self._votes = {}

    def add(self, replica: int, bodies: EventBodies) -> tuple[int, tuple[Event, ...]]:
        """Take one replica's answer (its latest stands).

        Returns:
            The first event that a correct replica still keeps (0 while unknown), and the events that are certain.
        """
        self._votes[replica] = bodies
        if len(self._votes) < self._quorums.weak:
            return 0, ()
        firsts = sorted((vote.first for vote in self._votes.values()), reverse=True)
        counts: dict[tuple[int, bytes], int] = {}
        for vote in self._votes.values():
            for name in dict.fromkeys((event.number, event.payload) for event in vote.events):
                counts[name] = counts.get(name, 0) + 1
        certain = tuple(Event(*name) for name, count in sorted(counts.items()) if count >= self._quorums.weak)
        return firsts[self._quorums.weak - 1], certain
