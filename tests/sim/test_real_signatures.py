"""The simulator with real Ed25519: the very bytes of production."""

from __future__ import annotations

from bft.sim.checkers import check
from bft.sim.scenario import Scenario, Workload
from bft.sim.service import Registers
from bft.sim.world import World


def test_a_run_with_real_signatures_passes_every_checker():
    """An equivocating primary, real keys, all checkers."""
    scenario = Scenario(
        seed=5, corrupted={"0": "equivocate()"}, real_signatures=True, gst_ms=200, workload=Workload(operations=10)
    )
    history = World(scenario, Registers).run()
    assert check(history) == []
    assert {evidence.accused for _, evidence in history.accusations} == {0}
