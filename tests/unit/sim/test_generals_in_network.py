"""The generals in virtual time: the same machines, with rounds that end by the clock."""

from __future__ import annotations

import pytest

from bft.generals.algorithms import KING, ORAL, SIGNED
from bft.generals.crimes import flip, split
from bft.generals.ids import GeneralId
from bft.generals.plan import Plan
from bft.sim.generals import fight_in_network
from bft.sim.scenario import Network


@pytest.mark.parametrize("algorithm", [ORAL, SIGNED, KING])
@pytest.mark.parametrize("traitor", [0, 3])
def test_four_generals_bear_one_traitor_in_a_timely_network(algorithm, traitor):
    """With every message within its round, IC1 and IC2 hold. [LSP82 3, 4]"""
    crime = split((GeneralId(1),)) if traitor == 0 else flip()
    for seed in range(20):
        battle = fight_in_network(algorithm, Plan(n=4, m=1), {GeneralId(traitor): crime}, seed=seed)
        assert battle.late == 0
        assert battle.verdict.ic1
        assert battle.verdict.ic2


def test_a_slow_network_makes_traitors_of_the_loyal():
    """A3 is an assumption: where rounds are shorter than delays, loyal generals fail to agree. [LSP82 1]"""
    slow = Network(delay_us=(100, 40_000))
    verdicts = [
        fight_in_network(ORAL, Plan(n=4, m=1), {GeneralId(3): flip()}, seed=seed, network=slow, round_ms=20).verdict
        for seed in range(50)
    ]
    assert not all(verdict.ic1 and verdict.ic2 for verdict in verdicts)


def test_one_seed_is_one_battle():
    """Virtual time, seeded chance."""
    lossy = Network(loss_permille=200)
    first, again = (fight_in_network(ORAL, Plan(n=7, m=2), seed=5, network=lossy) for _ in range(2))
    assert (first.decisions, first.late) == (again.decisions, again.late)
    assert first.late > 0
