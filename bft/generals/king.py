"""Run the King algorithm: oral messages of one order each, polynomially many, n > 3m [BGP89].

    round 1: the commander sends his order; everybody holds what he received, or the default. Then m + 1
    phases of three rounds:
    ballot:   send the order held;
    proposal: if some order has n - m ballots or more, propose it; whoever sees more than m proposals of one
              order holds it;
    crown:    the king of the phase sends the order he holds; whoever saw fewer than n - m proposals of his
              own order takes the king's.

Why this algorithm and not polynomial EIG (Garay-Moses): both are optimal in resilience (n > 3m), but King
needs three counting rules that fit a slide and constant-size messages, at the price of 3(m + 1) + 1 rounds
instead of m + 1; Garay-Moses reaches m + 1 rounds through pages of fault discovery and masking that a reader
cannot check at a glance. For comparison with OM(m) the interesting number is messages, and there King shows
the step from exponential to (m + 1)(2n + 1)(n - 1).

Two proposed orders cannot coexist among the loyal: each has n - 2m loyal ballots at least, and 2(n - 2m) > n
- m when n > 3m. If all loyal hold the same order they keep it through any phase (persistence); a loyal king
makes them hold the same; one of m + 1 kings is loyal.
"""

from __future__ import annotations

from collections.abc import Sequence

from bft.generals.ids import GeneralId, Order
from bft.generals.plan import Plan
from bft.generals.seam import (
    Ballot,
    Crown,
    Decide,
    Deliver,
    Effect,
    Event,
    Fault,
    Message,
    Opening,
    Proposal,
    Report,
    RoundEnds,
    RoundStarts,
    Send,
    dispatch,
)

ROUNDS_PER_PHASE = 3


def rounds(plan: Plan) -> int:
    """Return the rounds: the commander's, then three for each of m + 1 phases."""
    return 1 + ROUNDS_PER_PHASE * (plan.m + 1)


def king_of(phase: int, plan: Plan) -> GeneralId:
    """Return the king of a phase (from 1): the lieutenants in turn, the commander last, as he has had his
    say."""
    order = (*plan.lieutenants, plan.commander)
    return order[(phase - 1) % plan.n]


def proposal_of(ballots: Sequence[Order], plan: Plan) -> Order | None:
    """Return the order that at least n - m ballots name, None when there is none; mine is among the
    ballots."""
    return next((order for order in plan.orders if ballots.count(order) >= plan.n - plan.m), None)


def adopt(held: Order, proposals: Sequence[Order], plan: Plan) -> tuple[Order, bool]:
    """Return the order held after the proposals, and whether n - m of them make it firm against the king."""
    for order in plan.orders:
        if proposals.count(order) > plan.m:
            held = order
            break
    return held, proposals.count(held) >= plan.n - plan.m


def crowned(held: Order, *, firm: bool, king: Order | None, plan: Plan) -> Order:
    """Return the order held after the king spoke; a silent king speaks the default."""
    if firm:
        return held
    return plan.default if king is None else king


class KingGeneral:
    """Be one loyal general of the King algorithm. `held` is the order he would obey now."""

    def __init__(self, me: GeneralId, plan: Plan) -> None:
        """Take part as `me`."""
        self.me = me
        self.plan = plan
        self.round = 0
        self.held: Order = plan.order if me == plan.commander else plan.default
        self.firm = False
        self.box: dict[GeneralId, Order] = {}

    def step(self, event: Event, now: int, /) -> Sequence[Effect]:
        """Take one event; time plays no part, the runner keeps the rounds."""
        return dispatch(self, event)

    def on_round_starts(self, event: RoundStarts, /) -> Sequence[Effect]:
        """Send the message of this round, if I have one to send."""
        assert event.round == self.round + 1, f"round {event.round} starts after round {self.round}"
        self.round = event.round
        ballots, self.box = list(self.box.values()), {}
        message = self._message(ballots)
        if message is None:
            return []
        if not isinstance(message, Opening | Crown):
            self.box[self.me] = message.value
        return [Send(to, message) for to in self.plan.others(self.me)]

    def on_deliver(self, event: Deliver, /) -> Sequence[Effect]:
        """Put a message of this round's kind into the box, one a sender."""
        fault = self._fault(event)
        if fault is not None:
            return [Report(event.sender, fault)]

        assert isinstance(event.message, Opening | Ballot | Proposal | Crown)
        self.box[event.sender] = event.message.value
        return []

    def on_round_ends(self, event: RoundEnds, /) -> Sequence[Effect]:
        """Count the box; decide after the last phase."""
        assert event.round == self.round, f"round {event.round} ends within round {self.round}"
        phase, kind = self._place()
        if kind is Opening and self.me != self.plan.commander:
            self.held = self.box.get(self.plan.commander, self.plan.default)
        elif kind is Proposal:
            self.held, self.firm = adopt(self.held, list(self.box.values()), self.plan)
        elif kind is Crown and self.me != king_of(phase, self.plan):
            king = self.box.get(king_of(phase, self.plan))
            self.held = crowned(self.held, firm=self.firm, king=king, plan=self.plan)

        if self.round < rounds(self.plan):
            return []
        return [Decide(self.held)]

    def _place(self) -> tuple[int, type[Message]]:
        """Return the phase and the kind of message of the current round; phase 0 is the commander's."""
        if self.round == 1:
            return 0, Opening
        phase, place = divmod(self.round - 2, ROUNDS_PER_PHASE)
        kinds: tuple[type[Message], ...] = (Ballot, Proposal, Crown)
        return phase + 1, kinds[place]

    def _message(self, ballots: list[Order]) -> Message | None:
        phase, kind = self._place()
        if kind is Ballot:
            return Ballot(phase, self.held)
        if kind is Proposal:
            proposed = proposal_of(ballots, self.plan)
            return None if proposed is None else Proposal(phase, proposed)
        if kind is Crown:
            return Crown(phase, self.held) if self.me == king_of(phase, self.plan) else None
        return Opening(self.held) if self.me == self.plan.commander else None

    def _fault(self, event: Deliver) -> Fault | None:
        phase, kind = self._place()
        message = event.message
        if not isinstance(message, Opening | Ballot | Proposal | Crown):
            return Fault.WRONG_KIND
        if not isinstance(message, kind) or (not isinstance(message, Opening) and message.phase != phase):
            return Fault.WRONG_ROUND
        if isinstance(message, Opening) and event.sender != self.plan.commander:
            return Fault.WRONG_SENDER
        if isinstance(message, Crown) and event.sender != king_of(phase, self.plan):
            return Fault.WRONG_SENDER
        if message.value not in self.plan.orders:
            return Fault.UNKNOWN_ORDER
        return Fault.REPEATED if event.sender in self.box else None
