"""Runs that once failed on our own code, as the scenarios that they were."""

from __future__ import annotations

import pytest

from bft.sim.checkers import check
from bft.sim.scenario import Fault, Network, Scenario, Workload, pause
from bft.sim.service import Registers
from bft.sim.world import World

OVERTAKEN_FETCH = Scenario(
    seed=33,
    network=Network(delay_us=(100, 5000), loss_permille=20),
    corrupted={"1": "wrong_reply() & during(view=1)"},
    faults=(
        Fault(at_ms=346, kind="one-way", groups=((2,), (3,))),
        Fault(at_ms=1246, kind="heal"),
    ),
    gst_ms=500,
    workload=Workload(clients=3, operations=20, outstanding=1, keys=8),
)
"""A replica fetched a checkpoint that the others replaced meanwhile, and did not move on to the newer one."""

LOST_POWER_BEFORE_SYNC = Scenario(
    seed=361,
    network=Network(delay_us=(100, 5000)),
    faults=tuple(
        Fault(at_ms=at_ms, kind=kind, replica=replica)
        for at_ms, kind in ((12, "power-loss"), (300, "restart"), (315, "power-loss"), (700, "restart"))
        for replica in range(4)
    ),
    gst_ms=1000,
    workload=Workload(clients=2, operations=10, outstanding=4),
)
"""All replicas lose power between signing and syncing, twice: nothing that left may be contradicted afterwards."""


def _one_bad_disk(kind: str) -> Scenario:
    return Scenario(
        seed=4,
        faults=(Fault(at_ms=300, kind=kind, replica=2), *pause(2, 400, 500)),
        gst_ms=1000,
        workload=Workload(clients=2, operations=60, outstanding=2),
    )


@pytest.mark.parametrize("kind", ["rot", "disk-full", "fsync-fails"])
def test_replica_with_a_bad_disk_stops_and_says_so_and_the_others_go_on(kind: str) -> None:
    """A disk that refuses or lies stops its replica at once; it counts as one of the f."""
    history = World(_one_bad_disk(kind), Registers).run()
    assert check(history) == []
    assert list(history.halted) == [2]
    assert all(operation.completed is not None for operation in history.operations)


@pytest.mark.parametrize("scenario", [OVERTAKEN_FETCH, LOST_POWER_BEFORE_SYNC], ids=["overtaken", "lost-power"])
def test_run_that_once_failed_passes(scenario: Scenario) -> None:
    """Every checker is content."""
    assert check(World(scenario, Registers).run()) == []
