"""Every crime of the library is committed in some run, and masked: correct replicas and clients see nothing wrong."""

from __future__ import annotations

import pytest

from bft.adversary.clients import HOSTILE
from bft.adversary.crimes import CRIMES
from bft.sim import changes, generate
from bft.sim.checkers import check, decided
from bft.sim.directed import catalogue
from bft.sim.scenario import Fault, Network, Rule, Scenario, Workload, pause
from bft.sim.service import Registers
from bft.sim.sweep import sweep, table
from bft.sim.world import World

DIRECTED = catalogue()
QUICK = {"request_timeout_ms": 100, "view_change_timeout_ms": 100, "status_interval_ms": 30}


def test_catalogue_has_at_least_forty_crimes_and_the_generator_uses_each() -> None:
    """What is registered is drawn by random search; nothing is left aside."""
    assert len(CRIMES) >= 40
    used = " ".join((*generate.CRIMES, *generate.SERVICE_CRIMES, *changes.CRIMES.values()))
    assert [name for name in CRIMES if f"{name}(" not in used] == []


@pytest.mark.parametrize("name", [name for name in DIRECTED if not name.startswith("R-")])
def test_directed_scenario_is_masked(name: str) -> None:
    """No checker fires, and something was decided. For changes of membership see `test_reconfiguration`."""
    history = World(DIRECTED[name], Registers).run()
    assert check(history) == []
    assert decided(history)

RARE = ("bad_batch_body", "bad_quorum", "bad_manifest", "bad_pages", "least_new_view", "outside_window")
RARE += ("partial_new_view", "two_new_views", "wrong_proposals")
"""Committed only when somebody asks, or by who becomes primary: `test_directed_scenario_is_masked` sees to those."""


def _committing(crime: str, seed: int) -> Scenario:
    """A run with all that crimes wait for: views that change, replicas that lag, checkpoints."""
    return Scenario(
        seed=seed,
        network=Network(delay_us=(100, 2000)),
        corrupted={str(seed % 2 * 3): crime},
        rules=(Rule(kinds=("Commit", "CommitCertificate"), view=0, seqs=(3, 8), late_ms=150),),
        faults=(
            Fault(at_ms=20, kind="partition", groups=((2,), (0, 1, 3))),
            Fault(at_ms=60, kind="heal"),
            *pause(1, 200, 350),
        ),
        gst_ms=500,
        workload=Workload(clients=2, operations=30, outstanding=3, keys=2),
        protocol=QUICK,
    )


@pytest.mark.parametrize("crime", (*generate.CRIMES, *generate.SERVICE_CRIMES))
def test_crime_is_committed_and_masked(crime: str) -> None:
    """As primary and as backup, in a run of several views."""
    crimes = 0
    for seed in (1, 2, 3, 4):
        history = World(_committing(crime, seed), Registers).run()
        assert check(history) == []
        crimes += history.crimes
    assert crimes or crime == "far_sequence(-9)" or crime.partition("(")[0] in RARE


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_hostile_client_does_not_hurt_the_others(name: str) -> None:
    """Beside a silent primary, too."""
    for corrupted in ({}, {"0": "silent_after(5)"}):
        scenario = Scenario(seed=5, corrupted=corrupted, hostile_clients={"mallory": name}, gst_ms=300, protocol=QUICK)
        history = World(scenario, Registers).run()
        assert check(history) == []
        assert decided(history)


@pytest.mark.parametrize("n", [4, 7])
def test_structured_scenarios_are_masked(n: int) -> None:
    """Rounds with delivery matrices and a coalition of f."""
    for seed in range(25):
        assert check(World(generate.structured(seed, n), Registers).run()) == [], f"structured seed {seed}, n {n}"


def test_run_is_the_same_again() -> None:
    """Strategies, hostile clients and rules draw from the scenario's seed alone."""
    for seed in (3, 8, 9):
        scenario = generate.structured(seed, 7)
        assert World(scenario, Registers).run().trace_digest == World(scenario, Registers).run().trace_digest


def test_properties_hold_up_to_f_and_fall_beyond() -> None:
    """At f + 1 traitors agreement and durability break, and the checkers see it."""
    rows = list(sweep(4, 12))
    assert rows[0].fallen == rows[1].fallen == {}
    assert {"agreement", "durability"} <= set(rows[2].fallen), table(rows)
