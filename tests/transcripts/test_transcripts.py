"""Whole-cluster runs of the pure core, as text that a reviewer can read.

After a wanted change of behaviour: `python -m tests.transcripts.test_transcripts` writes them anew; review the diff.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from bft.sim.scenario import Network, Scenario, Workload, pause
from bft.sim.transcript import transcript

FOLDER = Path(__file__).parent
CALM = Network(delay_us=(1000, 1000))
ONE_CALL = Workload(clients=1, operations=1, outstanding=1, keys=1, query_permille=0)
SCENARIOS = {
    "one_operation": Scenario(seed=1, network=CALM, gst_ms=0, workload=ONE_CALL),
    "a_query": Scenario(
        seed=1, network=CALM, gst_ms=0, workload=Workload(clients=1, operations=1, outstanding=1, query_permille=1000)
    ),
    "silent_primary": Scenario(seed=1, network=CALM, gst_ms=0, corrupted={"0": "silent()"}, workload=ONE_CALL),
    "equivocating_primary": Scenario(
        seed=1,
        network=CALM,
        gst_ms=0,
        corrupted={"0": "equivocate()"},
        workload=Workload(clients=1, operations=2, outstanding=2, keys=1, query_permille=0),
    ),
    "a_checkpoint": Scenario(
        seed=2,
        network=CALM,
        gst_ms=0,
        protocol={"checkpoint_interval": 2, "window": 4},
        workload=Workload(clients=1, operations=2, outstanding=1, keys=1, query_permille=0),
    ),
    "a_backup_that_was_away": Scenario(
        seed=3,
        network=CALM,
        gst_ms=300,
        faults=pause(3, 0, 200),
        protocol={"checkpoint_interval": 2, "window": 4},
        workload=Workload(clients=1, operations=5, outstanding=1, keys=1, query_permille=0),
    ),
}


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_run_is_as_written(name):
    """The same messages, in the same order, at the same times."""
    assert transcript(SCENARIOS[name]) == (FOLDER / f"{name}.txt").read_text()


if __name__ == "__main__":
    for title, scenario in SCENARIOS.items():
        (FOLDER / f"{title}.txt").write_text(transcript(scenario))
