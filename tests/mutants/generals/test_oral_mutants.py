"""Break the oral algorithms on purpose: each mutant must be caught by a check that the real one passes.

Every check fights the mutants through all behaviours of one traitor and asks `conditions.judge`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations, product

import pytest

from bft.generals import exhaustive
from bft.generals.algorithms import KING, ORAL, Algorithm
from bft.generals.crimes import CRIME_NAMES, crime_named
from bft.generals.ids import GeneralId, Order
from bft.generals.king import KingGeneral
from bft.generals.oral import OralGeneral
from bft.generals.plan import Plan, majority
from bft.generals.run import fight
from bft.generals.seam import Effect, Event, General, RoundEnds, RoundStarts
from bft.generals.signatures import Signer, Verifier

Make = Callable[[GeneralId, Plan, Signer, Verifier], General]


def _honest(me: GeneralId, plan: Plan, signer: Signer, verifier: Verifier) -> General:
    return OralGeneral(me, plan)


def _first_seen(orders: Sequence[Order], plan: Plan) -> Order:
    """Vote without a rule for ties: whoever came first among the most frequent wins."""
    return max(orders, key=orders.count)


def _without_tie_rule(me: GeneralId, plan: Plan, signer: Signer, verifier: Verifier) -> General:
    return OralGeneral(me, plan, vote=_first_seen)


def _without_own_value(me: GeneralId, plan: Plan, signer: Signer, verifier: Verifier) -> General:
    def vote(orders: Sequence[Order], plan: Plan) -> Order:
        return majority(orders[1:] or orders, plan)

    return OralGeneral(me, plan, vote=vote)


class _NoDefault(OralGeneral):
    """Wait for ever for what was not said: relay nothing for it, and never decide."""

    def on_round_starts(self, event: RoundStarts, /) -> Sequence[Effect]:
        for path in self.absent:
            self.heard.setdefault(path, self.plan.default)  # only so that the machine goes on at all
        return super().on_round_starts(event)

    def on_round_ends(self, event: RoundEnds, /) -> Sequence[Effect]:
        effects = super().on_round_ends(event)
        return [] if self.absent else effects


def _no_default(me: GeneralId, plan: Plan, signer: Signer, verifier: Verifier) -> General:
    return _NoDefault(me, plan)


def _one_round_too_few(me: GeneralId, plan: Plan, signer: Signer, verifier: Verifier) -> General:
    return OralGeneral(me, replace(plan, m=plan.m - 1))


def _violations(make: Make, n: int, m: int, *, fewer_rounds: int = 0) -> int:
    """Count violated runs over every behaviour of every single traitor, for both orders."""
    algorithm: Algorithm = replace(ORAL, make=make, rounds=lambda plan: plan.m + 1 - fewer_rounds)
    broken = 0
    for (traitor,) in combinations([GeneralId(i) for i in range(n)], 1):
        for order in ("attack",) if traitor == 0 else ("attack", "retreat"):
            plan = Plan(n=n, m=m, order=order)
            space = exhaustive.make_space(plan, [traitor])
            slots = [slot for rows in (space.shared, space.private) for row in rows for slot in row]
            for said in product(space.symbols, repeat=len(slots)):
                lies = dict(zip(slots, said, strict=True))
                broken += not fight(algorithm, plan, exhaustive.liars([traitor], lies)).verdict.holds
    return broken


@pytest.mark.parametrize(
    ("make", "n", "fewer_rounds"),
    [
        (_one_round_too_few, 4, 1),
        (_no_default, 4, 0),
        (_without_tie_rule, 5, 0),
        (_without_own_value, 4, 0),
    ],
)
def test_mutant_of_om_is_caught(make: Make, n: int, fewer_rounds: int) -> None:
    """A round too few, no default for silence, no rule for ties, no own value: each violates a condition in
    some run.

    [LSP82 3]
    """
    assert _violations(make, n, 1, fewer_rounds=fewer_rounds) > 0


@pytest.mark.parametrize("n", [4, 5])
def test_real_om_passes_the_same_check(n: int) -> None:
    """The unmutated algorithm violates nothing in the same runs.

    [LSP82 3, Theorem 1]
    """
    assert _violations(_honest, n, 1) == 0


class _HumbleKing(KingGeneral):
    """Take the king's word always, however many proposals there were."""

    def step(self, event: Event, now: int, /) -> Sequence[Effect]:
        self.firm = False if isinstance(event, RoundStarts) else self.firm
        return super().step(event, now)


class _StubbornKing(KingGeneral):
    """Never take the king's word, however few proposals there were."""

    def on_round_ends(self, event: RoundEnds, /) -> Sequence[Effect]:
        effects = super().on_round_ends(event)
        self.firm = True
        return effects


def _king_violations(general: type[KingGeneral]) -> int:
    """Count violated runs over named crimes, scripted splits and seeds, one traitor among four."""

    def make(me: GeneralId, plan: Plan, signer: Signer, verifier: Verifier) -> General:
        return general(me, plan)

    algorithm = replace(KING, make=make)
    broken = 0
    for traitor, name, order, seed in product(range(4), CRIME_NAMES, ("attack", "retreat"), range(6)):
        plan = Plan(n=4, m=1, order=order)
        crimes = {GeneralId(traitor): crime_named(name, plan)}
        broken += not fight(algorithm, plan, crimes, dice=random.Random(seed)).verdict.holds
    return broken


@pytest.mark.parametrize("mutant", [_HumbleKing, _StubbornKing])
def test_mutant_of_king_is_caught(mutant: type[KingGeneral]) -> None:
    """Always obeying the king, or never, violates a condition in some run.

    [BGP89]
    """
    assert _king_violations(mutant) > 0


def test_real_king_passes_the_same_check() -> None:
    """The unmutated algorithm violates nothing in the same runs.

    [BGP89]
    """
    assert _king_violations(KingGeneral) == 0
