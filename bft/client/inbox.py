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
    """What replicas say of the events that were asked for; a weak quorum of equal statements is believed.

    An answer costs what it is long, as does the one that it replaces, whatever the others have sent: a liar that sends
    short ones for ever would else have the client count long ones for ever.
    """

    __slots__ = ("_counts", "_firsts", "_names", "_quorums")

    def __init__(self, quorums: Quorums) -> None:
        self._quorums = quorums
        self.clear()

    def clear(self) -> None:
        """Begin a new question."""
        self._firsts: dict[int, int] = {}
        self._names: dict[int, dict[tuple[int, bytes], None]] = {}
        self._counts: dict[tuple[int, bytes], int] = {}

    def add(self, replica: int, bodies: EventBodies) -> tuple[int, tuple[Event, ...]]:
        """Take one replica's answer (its latest stands).

        Returns:
            The first event that a correct replica still keeps (0 while unknown), and those of this answer's events
            that are certain.
        """
        counts, weak = self._counts, self._quorums.weak
        for name in self._names.get(replica, ()):
            counts[name] -= 1
            if not counts[name]:
                del counts[name]
        names = self._names[replica] = dict.fromkeys((event.number, event.payload) for event in bodies.events)
        for name in names:
            counts[name] = counts.get(name, 0) + 1
        self._firsts[replica] = bodies.first
        if len(self._firsts) < weak:
            return 0, ()
        firsts = sorted(self._firsts.values(), reverse=True)
        return firsts[weak - 1], tuple(Event(*name) for name in sorted(names) if counts[name] >= weak)
