"""Clusters whose membership changes under load: fixed schedules, crashes at every moment, random worlds."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from bft.sim import changes, shrink
from bft.sim.campaign import jobs, judge, run_jobs
from bft.sim.checkers import check
from bft.sim.service import Registers
from bft.sim.world import World

DIRECTED = changes.directed()
CRASHES = changes.timed_crashes(35, 135, 20)


@pytest.mark.parametrize("name", sorted(DIRECTED))
def test_fixed_schedule_keeps_every_property(name):
    """Growing, shrinking, replacing anybody, overlapping changes, view changes, absence, and a liar in each place."""
    result = judge(DIRECTED[name])
    assert (result.outcome, result.violations) == ("pass", ())
    assert result.counters["epochs"] >= 1


@pytest.mark.parametrize("name", sorted(CRASHES))
def test_any_process_may_die_at_any_moment_around_the_change(name):
    """Killed or without power, for a while, members and newcomer alike."""
    result = judge(CRASHES[name])
    assert (result.outcome, result.violations) == ("pass", ())
    assert result.counters["epochs"] == 1


def test_from_four_to_seven_and_back_nothing_is_lost():
    """Under load, by way of two epochs: every call of every client completes, in one history."""
    world = World(DIRECTED["R-4-to-7-to-4"], Registers)
    history = world.run()
    assert check(history) == []
    assert history.newest is not None
    assert (history.newest.epoch, history.newest.quorums.members) == (2, (0, 1, 2, 3))
    assert all(operation.completed is not None for operation in history.operations)
    sizes = {len(configuration.members) for _, configuration in history.epochs}
    assert sizes == {4, 7}
    assert set(history.retired) <= {4, 5, 6}


def test_removed_replicas_stop_and_say_why():
    """All four first members are gone, and clients that know nothing but them have found the new ones."""
    world = World(DIRECTED["R-replace-all"], Registers)
    history = world.run()
    assert check(history) == []
    assert sorted(history.retired) == [0, 1, 2, 3]
    assert all("goes on without it" in reason for reason in history.retired.values())
    assert history.members == (4, 5, 6, 7)


def test_change_of_one_administrator_is_never_made():
    """Two of three must sign; the lawful change beside it is made."""
    scenario = DIRECTED["R-one-administrator"]
    history = World(scenario, Registers).run()
    assert check(history) == []
    assert history.transitions["change-refused"] >= 1
    assert history.newest is not None
    assert history.newest.quorums.members == (0, 1, 2, 4)


def test_change_with_real_signatures():
    """Ed25519 throughout: votes, approvals, the word of newcomers, and the links that clients follow."""
    scenario = msgspec.structs.replace(DIRECTED["R-replace-primary"], real_signatures=True)
    result = judge(scenario)
    assert (result.outcome, result.violations, result.counters["epochs"]) == ("pass", (), 1)


@pytest.fixture(scope="module")
def results():
    """Random worlds."""
    work = [*jobs(("reconfigured",), first=0, seeds=40, sizes=(4,))]
    work += jobs(("reconfigured",), first=0, seeds=8, sizes=(7,))
    return run_jobs(work, "")


def test_random_worlds_break_nothing(results):
    """Changes beside crimes, crashes, partitions and losses."""
    assert [(result.scenario.seed, result.violations[0]) for result in results if result.violations] == []


def test_random_worlds_are_not_vacuous(results):
    """Epochs pass in all of them, several in many; state is fetched, views change, crimes happen."""
    reached = Counter(name for result in results for name, value in result.counters.items() if value)
    assert reached["epochs"] == len(results)
    assert sum(result.counters["epochs"] > 1 for result in results) >= 15
    assert reached["transfers"] >= 30
    assert reached["new_views"] >= 10
    assert reached["crimes"] >= 15


def test_shrinking_drops_changes_and_then_those_who_would_have_joined():
    """A failure that needs no change of membership is shown without one."""
    scenario = DIRECTED["R-two-overlapping"]
    fewer = [candidate for _, candidate in shrink.candidates(scenario) if candidate.changes != scenario.changes]
    assert () in [candidate.changes for candidate in fewer]
    calm = msgspec.structs.replace(scenario, changes=())
    assert any(not candidate.spares for _, candidate in shrink.candidates(calm))
    assert all(shrink.size(candidate) < shrink.size(scenario) for candidate in fewer)
