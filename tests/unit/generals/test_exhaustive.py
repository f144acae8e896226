"""Test the searches: that reductions lose nothing, and that counterexamples are real."""

from __future__ import annotations

import random
from itertools import combinations, product

import pytest

from bft.generals import boundary, exhaustive, exhaustive_signed
from bft.generals.algorithms import SIGNED
from bft.generals.certificates import Method
from bft.generals.crimes import silent_to
from bft.generals.ids import GeneralId, GeneralsError
from bft.generals.plan import Plan
from bft.generals.run import fight

G = GeneralId


@pytest.mark.parametrize(("n", "m", "t"), [(3, 1, 1), (3, 0, 1), (4, 1, 1), (4, 1, 2), (5, 1, 1), (4, 0, 2)])
def test_reduced_search_counts_what_the_unreduced_runs_count(n: int, m: int, t: int) -> None:
    """Factoring and symmetry are harmless: same runs, same violations as the real generals without reduction.

    [LSP82 3]
    """
    reduced = exhaustive.verify(n, m, random.Random(1), traitors=(t,))
    naive = exhaustive.brute_force(n, m, t)
    assert (reduced.runs, reduced.ic1_violations, reduced.ic2_violations) == (
        naive.runs,
        naive.ic1_violations,
        naive.ic2_violations,
    )


@pytest.mark.parametrize(("n", "m", "t"), [(6, 1, 2), (5, 2, 1), (6, 2, 1)])
def test_symmetry_counts_what_factoring_alone_counts(n: int, m: int, t: int) -> None:
    """Multisets of what lieutenants are told count the same as all assignments.

    [LSP82 3]
    """
    for plan, members, weight in exhaustive.patterns(n, t, ("retreat", "attack"), m):
        space = exhaustive.make_space(plan, members)
        one = exhaustive.search(space, weight=weight)
        other = exhaustive.search(space, weight=weight, reduced=False)
        assert (one.runs, one.ic1_violations, one.ic2_violations) == (
            other.runs,
            other.ic1_violations,
            other.ic2_violations,
        )
        assert one.evaluated <= other.evaluated


@pytest.mark.parametrize(("n", "m", "t"), [(3, 1, 1), (4, 1, 1), (3, 2, 2), (3, 1, 2), (3, 0, 1)])
def test_first_arrival_counts_what_the_unreduced_runs_count(n: int, m: int, t: int) -> None:
    """For signed messages only first arrivals matter: same runs, same violations.

    [LSP82 4]
    """
    weight = len(Plan(n=n, m=m).lieutenants) if t == 2 else 1
    reduced = exhaustive_signed.search(Plan(n=n, m=m), t, weight=weight)
    naive = exhaustive_signed.brute_force(n, m, t)
    assert (reduced.runs, reduced.ic1_violations) == (naive.runs, naive.ic1_violations)


@pytest.mark.parametrize(("n", "m", "t"), [(3, 1, 1), (4, 2, 1), (4, 2, 2), (5, 2, 2)])
def test_no_silence_turns_anybody_from_a_loyal_commander(n: int, m: int, t: int) -> None:
    """Every pattern of passing on or withholding keeps IC2: what the search of SM tries with two runs, tried
    in full.

    [LSP82 4, Theorem 2]
    """
    runs = 0
    plan = Plan(n=n, m=m)
    for members in combinations(plan.lieutenants, t):
        victims = [general for general in plan.lieutenants if general not in members]
        for pattern in product((False, True), repeat=t * len(victims)):
            rows = [pattern[place * len(victims) : (place + 1) * len(victims)] for place in range(t)]
            crimes = {
                member: silent_to(
                    [victim for victim, is_left_out in zip(victims, row, strict=True) if is_left_out]
                )
                for member, row in zip(members, rows, strict=True)
            }
            runs += 1
            assert fight(SIGNED, plan, crimes).verdict.holds
    assert runs == exhaustive_signed.search_loyal_commander(plan, t).runs


def test_counterexamples_are_fought_again_with_the_real_generals() -> None:
    """What the search calls a violation is one, condition by condition.

    [LSP82 2]
    """
    for n, m in ((3, 1), (5, 2), (6, 2), (7, 3)):
        found = exhaustive.verify(n, m, random.Random(1), stop_at_first=True).counterexample
        assert found is not None
        outcome = exhaustive.refight(found)
        assert (found.condition == "IC2") == (not outcome.verdict.ic2)
        for general, order in found.decisions:
            assert outcome.decisions[general] == order


@pytest.mark.parametrize("seed", range(20))
def test_decide_is_what_the_real_generals_decide(seed: int) -> None:
    """The search's shortcut and the state machines agree on random lies.

    [LSP82 3]
    """
    dice = random.Random(seed)
    n, m, t = dice.choice(((4, 1, 1), (5, 2, 2), (7, 2, 2), (6, 3, 2)))
    patterns = list(exhaustive.patterns(n, t, ("retreat", "attack"), m))
    plan, members, _ = patterns[dice.randrange(len(patterns))]
    space = exhaustive.make_space(plan, members)
    lies = next(exhaustive.random_lies(space, dice, 1))
    found = exhaustive.make_counterexample(space, lies)
    outcome = exhaustive.refight(found)
    assert all(outcome.decisions[general] == order for general, order in found.decisions)


def test_boundary_is_as_the_paper_proves() -> None:
    """For n and m up to 6 and 7 every cell of OM and SM is as Theorems 1 and 2 and the impossibility say.

    [LSP82 2, 3, 4]
    """
    dice = random.Random(1)
    for algorithm, m, n in ((a, m, n) for a in ("om", "sm") for m in range(1, 8) for n in range(1, 7)):
        found = boundary.cell(algorithm, n, m, dice, budget=30_000, samples=10)
        assert found.holds == boundary.expected(algorithm, n, m), (algorithm, n, m)
        assert found.method is not Method.SAMPLED
    with pytest.raises(GeneralsError):
        boundary.cell("king", 4, 1, dice, budget=1, samples=1)


def test_search_beyond_the_budget_samples_and_says_so() -> None:
    """What was only sampled is labelled so.

    [LSP82 3]
    """
    found = exhaustive.verify(7, 2, random.Random(1), budget=1_000, samples=5)
    assert found.method is Method.SAMPLED
    assert found.holds
