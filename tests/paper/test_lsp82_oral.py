"""Hold the claims of [LSP82 3]: the algorithm OM(m)."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest

from bft.generals import exhaustive
from bft.generals.algorithms import ORAL
from bft.generals.crimes import flip, silent, silent_to, split
from bft.generals.ids import GeneralId, Order, Path
from bft.generals.oral import OralGeneral, paths
from bft.generals.plan import Plan, majority, median
from bft.generals.run import fight, fight_with, make_army
from bft.generals.signatures import SymbolicNotary

G = GeneralId


def om(
    plan: Plan,
    m: int,
    path: Path,
    lieutenants: Sequence[GeneralId],
    said: Callable[[Path, GeneralId], Order | None],
) -> dict[GeneralId, Order]:
    """The recursion as the paper writes it; `said` tells what a traitor says, None where the speaker is
    loyal."""
    received: dict[GeneralId, Order] = {}
    for i in lieutenants:
        received[i] = said(path, i) or plan.default
    if m == 0:
        return received
    obtained: dict[GeneralId, dict[GeneralId, Order]] = {}
    for i in lieutenants:
        others = [j for j in lieutenants if j != i]

        def relayed(below: Path, to: GeneralId, i: GeneralId = i, length: int = len(path)) -> Order | None:
            told = said(below, to)
            return received[i] if told == "(honest)" and len(below) == length + 1 else told

        obtained[i] = om(plan, m - 1, (*path, i), others, relayed)
    return {i: majority([received[i], *(obtained[j][i] for j in lieutenants if j != i)], plan) for i in lieutenants}


@pytest.mark.parametrize(("n", "m"), [(4, 1), (5, 1), (6, 2), (7, 2), (5, 3)])
def test_unfolded_tree_equals_the_recursion_of_the_paper(n: int, m: int) -> None:
    """The tree of paths decides what the nested instances of OM(m) decide, whatever the traitors say.

    [LSP82 3, algorithm OM(m)]
    """
    dice = random.Random(7)
    for _ in range(12):
        traitors = tuple(sorted(dice.sample(range(n), min(m, n - 2))))
        plan = Plan(n=n, m=m, order=dice.choice(("attack", "retreat")))
        space = exhaustive.make_space(plan, [G(t) for t in traitors])
        lies = next(exhaustive.random_lies(space, dice, 1))

        def said(path: Path, to: GeneralId, traitors: tuple[int, ...] = traitors, plan: Plan = plan) -> Order | None:
            if path[-1] in traitors:
                return lies.get((path, to), plan.default)  # noqa: B023 - called within this turn only
            return plan.order if len(path) == 1 else "(honest)"

        by_recursion = om(plan, m, (G(0),), plan.lieutenants, said)
        outcome = fight(ORAL, plan, exhaustive.liars(space.traitors, lies))
        for lieutenant in outcome.loyal_lieutenants:
            assert outcome.decisions[lieutenant] == by_recursion[lieutenant]


def test_om_0_uses_what_is_received_or_retreat() -> None:
    """OM(0): each lieutenant uses the value he receives, or RETREAT if he receives none.

    [LSP82 3, OM(0)]
    """
    outcome = fight(ORAL, Plan(n=4, m=0), {G(0): silent_to([G(2)])})
    assert [outcome.decisions[G(i)] for i in (1, 2, 3)] == ["attack", "retreat", "attack"]


def test_om_1_with_four_generals_survives_a_lieutenant() -> None:
    """The example of the paper: lieutenant 3 lies, lieutenants 1 and 2 have v, v, x and obey v.

    [LSP82 3, Figure 3]
    """
    outcome = fight(ORAL, Plan(n=4, m=1), {G(3): flip()})
    assert outcome.verdict.holds
    assert outcome.decisions[G(1)] == outcome.decisions[G(2)] == "attack"


def test_om_1_with_four_generals_survives_the_commander() -> None:
    """The example of the paper: the commander sends x, y, z and all three lieutenants use the same value.

    [LSP82 3, Figure 4]
    """
    for favoured in ([], [1], [2, 3], [1, 2, 3]):
        outcome = fight(ORAL, Plan(n=4, m=1), {G(0): split([G(i) for i in favoured])})
        assert outcome.verdict.ic1


@pytest.mark.parametrize(("n", "runs"), [(4, 81), (5, 297)])
def test_om_1_holds_in_every_run(n: int, runs: int) -> None:
    """Theorem 1 for m = 1: no behaviour of any one traitor violates IC1 or IC2.

    [LSP82 3, Theorem 1]
    """
    found = exhaustive.brute_force(n, 1, 1)
    assert found.holds
    assert found.runs == runs


def test_om_2_with_seven_generals_holds_in_every_run() -> None:
    """Theorem 1 for m = 2, n = 7: none of 3.3 10^13 behaviours of up to two traitors violates a condition.

    [LSP82 3, Theorem 1]
    """
    found = exhaustive.verify(7, 2, random.Random(1))
    assert found.holds
    assert found.method.value == "exhaustive"
    assert found.runs > 3 * 10**13


@pytest.mark.parametrize(("n", "m", "k"), [(4, 1, 1), (5, 0, 2), (6, 1, 2), (7, 2, 2), (3, 0, 1)])
def test_om_satisfies_ic2_with_more_than_2k_plus_m_generals(n: int, m: int, k: int) -> None:
    """Lemma 1: OM(m) satisfies IC2 with more than 2k + m generals and at most k traitors, even where IC1
    fails.

    [LSP82 3, Lemma 1]
    """
    assert n > 2 * k + m
    parts = [
        exhaustive.search(exhaustive.make_space(plan, members))
        for plan, members, _ in exhaustive.patterns(n, k, ("retreat", "attack"), m)
        if GeneralId(0) not in members
    ]
    assert sum(part.ic2_violations for part in parts) == 0


def test_too_many_rounds_harm_even_against_one_traitor() -> None:
    """Lemma 1 is sharp in m: OM(3) with five generals fails against a single traitor, whom OM(1) survives.

    [LSP82 3, Lemma 1]
    """
    deep = exhaustive.verify(5, 3, random.Random(1), traitors=(1,), stop_at_first=True)
    assert not deep.holds
    assert deep.counterexample is not None
    assert len(deep.counterexample.traitors) == 1
    assert exhaustive.verify(5, 1, random.Random(1), traitors=(1,)).holds


def test_two_traitors_among_four_break_om_1() -> None:
    """At most m traitors is needed: with two among four, 48 of 297 runs violate IC1 and 15 IC2.

    [LSP82 3, Theorem 1]
    """
    found = exhaustive.verify(4, 1, random.Random(1), traitors=(2,))
    assert (found.runs, found.ic1_violations, found.ic2_violations) == (297, 48, 15)


def test_silent_commander_means_retreat() -> None:
    """A commander who sends no order is taken to order RETREAT, and all agree on it.

    [LSP82 3]
    """
    outcome = fight(ORAL, Plan(n=4, m=1), {G(0): silent()})
    assert all(outcome.decisions[lieutenant] == "retreat" for lieutenant in outcome.loyal_lieutenants)


def test_majority_is_the_default_without_a_majority() -> None:
    """majority(v1..vk) is the majority value if there is one, otherwise RETREAT.

    [LSP82 3, 1.]
    """
    plan = Plan(n=4, m=1)
    assert majority(["attack", "attack", "retreat"], plan) == "attack"
    assert majority(["attack", "retreat"], plan) == "retreat"
    assert majority([], plan) == "retreat"


@pytest.mark.parametrize("traitor", [0, 1, 4])
def test_median_serves_as_well_as_majority(traitor: int) -> None:
    """The median of an ordered set may stand for the majority.

    [LSP82 3, 2.]
    """
    plan = Plan(n=5, m=1, orders=("retreat", "wait", "attack"), order="attack")
    crimes = {G(traitor): flip()}
    dice = random.Random(1)
    army = make_army(ORAL, plan, crimes, SymbolicNotary(), dice)
    for me in plan.generals:
        if me not in crimes:
            army[me] = OralGeneral(me, plan, vote=median)
    assert fight_with(army, ORAL, plan, crimes).verdict.holds
    assert median(["retreat", "attack", "wait"], plan) == "wait"


def test_messages_carry_their_path() -> None:
    """Each lieutenant hears one value along every path of different generals that avoids him: the labels of
    OM(m).

    [LSP82 3]
    """
    plan = Plan(n=5, m=2)
    outcome = fight(ORAL, plan)
    for me in plan.lieutenants:
        expected = [path for length in (1, 2, 3) for path in paths(plan, me, length)]
        assert sorted(outcome.heard(me)) == sorted(expected)
