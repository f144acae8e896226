"""Whole simulated clusters in which a state is not what it should be: by rot in memory, and by a service that dices."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bft.ports import ExecutionContext
from bft.sim.checkers import check
from bft.sim.scenario import Fault, Scenario, Workload
from bft.sim.service import Registers
from bft.sim.world import World

ROTTEN = 2
NEUTRAL = "silent() & during(view=999999)"
"""A crime that is never committed: the replica is honest, but its rot makes it one of the f faulty ones."""


class Rotting(Registers):
    """Registers of which one changes by itself, every so many operations."""

    def __init__(self, every: int) -> None:
        super().__init__()
        self._every = every
        self._count = 0

    def execute(self, operation: bytes, context: ExecutionContext, /) -> tuple[int, bytes]:
        """As it should be, but for what happens to the memory meanwhile."""
        outcome = super().execute(operation, context)
        self._count += 1
        if self._count % self._every == 0:
            self._values["k0"] = f"rot {self._count}"
        return outcome


class Dicing(Registers):
    """A service whose every instance, hence every replica, computes something else."""

    made = 0

    def __init__(self) -> None:
        super().__init__()
        Dicing.made += 1
        self._mine = Dicing.made

    def execute(self, operation: bytes, context: ExecutionContext, /) -> tuple[int, bytes]:
        """Answers alike, keeps what differs."""
        outcome = super().execute(operation, context)
        self._values["drawn"] = f"{self._mine}"
        return outcome


def _services(rotten: Callable[[], Registers]) -> Callable[[], Registers]:
    """Services in the order in which the world starts its replicas: one of them rots."""
    made = 0

    def make() -> Registers:
        nonlocal made
        made += 1
        return rotten() if made == ROTTEN + 1 else Registers()

    return make


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("every", [5, 17])
def test_rotten_replica_is_found_repaired_and_serves_again(seed, every):
    """It says so, installs the certified state, and ends where the others are; clients never notice."""
    scenario = Scenario(
        seed=seed, corrupted={str(ROTTEN): NEUTRAL}, workload=Workload(clients=3, operations=200, outstanding=3)
    )
    world = World(scenario, _services(lambda: Rotting(every)))
    history = world.run()
    assert check(history) == []
    summary = world.replicas[ROTTEN].summary()
    assert summary["divergences"] >= 1, "the rot is found"
    assert any("service pages" in line for line in summary["differs"]), summary
    assert summary["stable"] >= 8


def test_rotten_replica_carries_the_quorum_with_its_votes():
    """With another replica silent, the three left order on while one of them is repaired again and again."""
    scenario = Scenario(
        seed=3,
        n=7,
        corrupted={str(ROTTEN): NEUTRAL, "5": "silent()"},
        workload=Workload(clients=3, operations=80, outstanding=3),
    )
    world = World(scenario, _services(lambda: Rotting(9)))
    assert check(world.run()) == []
    assert world.replicas[ROTTEN].summary()["divergences"] >= 1


def test_service_that_dices_stops_ordering_safely_and_is_named():
    """No two states agree: no checkpoint gets stable, the window fills, and every replica says why."""
    scenario = Scenario(
        seed=1, gst_ms=500, patience_ms=3000, workload=Workload(clients=3, operations=80, outstanding=8)
    )
    world = World(scenario, Dicing)
    assert {violation.checker for violation in check(world.run())} == {
        "checkpoint-consistency",
        "liveness",
        "no-groundless-suspicion",  # ordering has stopped, and each blames the primary
    }
    for host in world.replicas:
        summary = host.summary()
        assert summary["stable"] == 0 and summary["split"] in (8, 16), "the window holds two checkpoints"


def test_repair_survives_crashes():
    """Killed while it is being repaired, it finds the same again and goes on."""
    faults = tuple(
        Fault(at_ms=at, kind=kind, replica=ROTTEN)
        for at in (150, 400, 800)
        for kind, at in (("crash", at), ("restart", at + 60))
    )
    scenario = Scenario(
        seed=5,
        corrupted={str(ROTTEN): NEUTRAL},
        faults=faults,
        workload=Workload(clients=3, operations=60, outstanding=3),
    )
    world = World(scenario, _services(lambda: Rotting(4)))
    assert check(world.run()) == []
