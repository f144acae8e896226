"""Crash points: replicas stop at every boundary between two effects; a sample of them in every test run."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from click.testing import CliRunner

from bft.cli.campaign import campaign
from bft.errors import ConfigError
from bft.sim.campaign import judge
from bft.sim.checkers import check
from bft.sim.crashpoints import WAYS, Point, base, boundaries, chosen, families, losers, points, scenario_of
from bft.sim.scenario import CrashPoint
from bft.sim.service import Registers
from bft.sim.world import World
from bft.storage.memory import MemoryStore

SAMPLE = 3


@pytest.mark.parametrize("family", families())
def test_families_keep_every_property_without_any_stop(family: str) -> None:
    """What the enumeration finds is the stop's doing."""
    assert check(World(base(family), Registers).run()) == []


@pytest.mark.parametrize("family", families())
def test_stops_at_a_sample_of_boundaries_break_nothing(family: str) -> None:
    """A few points per way to stop, single and double; `bft campaign crashpoints` does all of them."""
    for point in chosen((family,), tuple(WAYS), sample=SAMPLE, pairs=1):
        result = judge(scenario_of(point))
        assert result.outcome == "pass", f"{point}: {result.violations}"
        assert result.counters["struck"] >= 1, f"{point} was never reached"


def test_boundaries_cover_every_kind_of_record_and_message() -> None:
    """The families together persist and say everything that there is; else some boundary is never tried."""
    seen = Counter(text for family in families() for texts in boundaries(family).values() for text in texts)
    for record in ("Accepted", "Prepared", "ViewRecord", "Snapshot", "Stable", "Pages"):
        for where in ("before {} is handed over", "before {} is synced", "after {} is synced"):
            assert seen[where.format(record)] > 0, where.format(record)
    for message in ("PrePrepare", "Prepare", "Commit", "Checkpoint", "ViewChange", "NewView", "Suspect", "Reply"):
        assert seen[f"after {message} is sent"] > 0, message


def test_run_is_the_same_up_to_the_stop() -> None:
    """The boundary that is struck is the one that was counted."""
    counted = boundaries("ordering")[1]
    for number in (1, len(counted) // 2, len(counted)):
        point = Point(family="ordering", way="power", replica=1, boundary=number)
        history = World(scenario_of(point), Registers).run()
        assert history.struck[0] == (1, number, counted[number - 1])


def test_power_loss_takes_what_was_not_synced_and_a_kill_does_not() -> None:
    """The two ways differ exactly at the boundary between handing over and syncing."""
    number = boundaries("ordering")[1].index("before Accepted is synced") + 1
    for way, kept in (("kill", 1), ("power", 0)):
        world = World(scenario_of(Point(family="ordering", way=way, replica=1, boundary=number)), Registers)
        seen: list[int] = []
        strike = world.strike_at

        def look(point: CrashPoint, world: World = world, seen: list[int] = seen, strike=strike) -> None:  # type: ignore[no-untyped-def]
            strike(point)
            store = world.replicas[1]._disk.durable
            assert isinstance(store, MemoryStore)
            seen.append(len(store.load().accepted))

        world.strike_at = look  # type: ignore[method-assign]
        world.run()
        assert seen == [kept]


def test_forgetful_replicas_are_as_many_as_may_be_faulty() -> None:
    """f of them, less those that lie already."""
    assert losers("ordering", 2) == (2,)
    assert losers("seven-honest", 6) == (6, 0)
    assert losers("seven", 3) == ()
    assert list(points("seven", "amnesia")) == []


@pytest.mark.parametrize(
    "text", ["", "ordering/kill/1/0", "ordering/kill/x/0/1", "nowhere/kill/1/0/1", "ordering/axe/1/0/1"]
)
def test_points_that_do_not_exist_are_usage_errors(text: str) -> None:
    """In the library and on the command line."""
    with pytest.raises(ConfigError):
        scenario_of(Point.parse(text))
    assert CliRunner().invoke(campaign, ["crashpoints", "--point", text]).exit_code == 2


def test_command_reports_points_and_stops_as_json() -> None:
    """One object for scripts, exit code 0 when nothing broke."""
    done = CliRunner().invoke(
        campaign,
        [
            "crashpoints",
            "--family",
            "ordering",
            "--way",
            "torn",
            "--sample",
            "2",
            "--pairs",
            "0",
            "--jobs",
            "1",
            "--json",
        ],
    )
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["points"] == said["struck"] == 2
    assert said["broken"] == {}


def test_command_repeats_a_point_that_it_printed() -> None:
    """A point is a name: with it anybody repeats the run."""
    point = Point(family="transfer", way="kill", replica=3, boundary=23, second=42)
    assert Point.parse(str(point)) == point
    done = CliRunner().invoke(campaign, ["crashpoints", "--point", str(point), "--jobs", "1"])
    assert done.exit_code == 0, done.output
