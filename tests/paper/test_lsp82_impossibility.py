"""Hold the claims of [LSP82 1] and [LSP82 2]: the conditions, and three generals with one traitor."""

from __future__ import annotations

import random

import pytest

from bft.generals import exhaustive
from bft.generals.algorithms import ORAL
from bft.generals.crimes import collude, flip
from bft.generals.ids import GeneralId
from bft.generals.impossibility import every_relay_protocol, find_counterexample, twin_scenarios
from bft.generals.plan import Plan
from bft.generals.run import fight


def test_three_generals_fail_with_one_traitor() -> None:
    """No solution with fewer than 3m + 1 generals: of the 21 runs of OM(1) with n = 3, 4 violate IC2, none
    IC1.

    [LSP82 2]
    """
    found = exhaustive.verify(3, 1, random.Random(1), traitors=(1,))
    assert (found.runs, found.ic1_violations, found.ic2_violations) == (21, 0, 4)


def test_counterexample_of_three_is_the_picture_of_the_paper() -> None:
    """The traitorous lieutenant says `he said retreat`, and the loyal one disobeys.

    [LSP82 2, Figure 1]
    """
    found = find_counterexample()
    assert found is not None
    outcome = exhaustive.refight(found)
    assert outcome.plan.order == "attack"
    assert not outcome.verdict.ic2
    assert [f.message.value for f in outcome.inbox(outcome.loyal_lieutenants[0])] == ["attack", "retreat"]


def test_lieutenant_cannot_tell_the_two_scenarios_apart() -> None:
    """Lieutenant 1 hears the same when lieutenant 2 lies and when the commander does.

    [LSP82 2, Figures 1 and 2]
    """
    twins = twin_scenarios()
    assert twins is not None
    inboxes = [
        [(f.sender, f.message.value) for f in outcome.inbox(twins.witness)] for outcome in (twins.first, twins.second)
    ]
    assert inboxes[0] == inboxes[1]
    assert GeneralId(0) in twins.second.traitor_ids
    assert GeneralId(0) not in twins.first.traitor_ids
    assert twins.first.decisions[twins.witness] == twins.second.decisions[twins.witness]


def test_no_protocol_of_one_relay_survives() -> None:
    """It is not the fault of majority: no way to relay and to decide satisfies both conditions.

    [LSP82 2]
    """
    found = every_relay_protocol()
    assert (found.tried, found.surviving) == (4096, 0)
    assert found.obeying == 16


@pytest.mark.parametrize(("n", "m"), [(3, 1), (4, 2), (5, 2), (6, 2), (7, 3), (9, 3)])
def test_fewer_than_3m_plus_1_generals_fail(n: int, m: int) -> None:
    """With n <= 3m the search finds traitors who break OM(m).

    [LSP82 2]
    """
    found = exhaustive.verify(n, m, random.Random(1), stop_at_first=True)
    assert not found.holds
    assert found.counterexample is not None
    assert not exhaustive.refight(found.counterexample).verdict.holds


def test_six_generals_fail_with_a_coordinated_pair() -> None:
    """Two colluding traitors among six defeat OM(2) by standing for one wrong order.

    [LSP82 2]
    """
    plan = Plan(n=6, m=2)
    outcome = fight(ORAL, plan, {GeneralId(1): collude(), GeneralId(2): collude()})
    assert not outcome.verdict.ic2


def test_loyal_commander_makes_ic2_imply_ic1() -> None:
    """If the commander is loyal, IC1 follows from IC2.

    [LSP82 1]
    """
    plan = Plan(n=4, m=1)
    outcome = fight(ORAL, plan, {GeneralId(3): flip()})
    assert outcome.verdict.ic2
    assert outcome.verdict.ic1


def test_traitorous_commander_makes_ic2_vacuous() -> None:
    """IC2 says nothing when the commander is a traitor; IC1 still binds.

    [LSP82 1]
    """
    outcome = fight(ORAL, Plan(n=4, m=1), {GeneralId(0): flip()})
    assert outcome.verdict.ic2
    assert {outcome.decisions[lieutenant] for lieutenant in outcome.loyal_lieutenants} == {"retreat"}
