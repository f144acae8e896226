"""What the refusals of replicas say, and from how many of them it is believed.

BUSY is back-pressure: while replicas have no room, nothing new is signed, and what was refused is sent again later and
later. It says nothing of an outcome: others may have taken the envelope in, and a liar may keep it. So an operation is
known not to execute only while no byte of it has left (`Session.holds_back`): that is `Overloaded`; one that was sent,
and refused by however many, is `OutcomeUnknown`.
"""

from __future__ import annotations

from bft.client.window import Envelope
from bft.config import MILLISECOND
from bft.ids import Nanos
from bft.membership import Quorums
from bft.messages import Refusal

EARLY = "session-early"
REASONS = frozenset(("session-expired", EARLY, "result-unavailable", "busy"))
EARLY_NS = 2000 * MILLISECOND
"""A session dated ahead by no more than this waits for its time; one further ahead is given up for another."""
LEVEL_MAX = 4


class Refusals:
    """What replicas have refused of one session.

    Attributes:
        until: nothing new leaves before this time; 0 for no wait.
    """

    def __init__(self, quorums: Quorums) -> None:
        self._quorums = quorums
        self._hints: dict[int, Nanos] = {}
        self._level = 0
        self.until: Nanos = 0

    def enter(self, quorums: Quorums) -> None:
        """The members of another epoch are asked: what former ones said counts no more, among the new ones' least."""
        self._quorums = quorums
        self._hints = {}
        self.until = 0

    def take(self, replica: int, refusal: Refusal, envelope: Envelope) -> str:
        """Count a refusal of an envelope; returns its reason once enough say so, else nothing.

        `weak` replicas are enough but for a session that is early, where the agreed time decides what follows.
        """
        if refusal.reason not in REASONS:
            return ""
        self._hints[replica] = refusal.time_ns
        voters = envelope.refusals.setdefault(refusal.reason, set())
        voters.add(replica)
        needed = self._quorums.strong if refusal.reason == EARLY else self._quorums.weak
        return refusal.reason if len(voters) >= needed else ""

    def agreed_time(self) -> Nanos:
        """No later than the agreed time at some correct replica; with a strong quorum of hints no earlier either."""
        hints = sorted(self._hints.values(), reverse=True)
        return hints[self._quorums.weak - 1] if len(hints) >= self._quorums.weak else 0

    # --- back-pressure --------------------------------------------------------------------------------------------

    def press(self, envelope: Envelope, now: Nanos, patience: Nanos) -> None:
        """Replicas have no room for it: nothing new leaves for a while, which is twice as long each time."""
        envelope.refusals.clear()
        self._level = min(self._level + 1, LEVEL_MAX)
        self.until = max(self.until, now + (patience << self._level))
        envelope.deadline = max(envelope.deadline, self.until)

    def wait_for(self, envelope: Envelope) -> None:
        """The primary alone has no room: wait until the envelope goes to everybody. So a liar gains as by silence."""
        self.until = max(self.until, envelope.deadline)

    def ease(self) -> bool:
        """Something was ordered, so there is room again; True if operations were held back."""
        was_pressed = self.until > 0
        if was_pressed:
            self.until = 0
            self._level //= 2
        return was_pressed

    def is_over(self, now: Nanos) -> bool:
        """True, once, when the wait has ended."""
        if not self.until or self.until > now:
            return False
        self.until = 0
        return True
