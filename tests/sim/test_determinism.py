"""One scenario is one run, bit for bit: in this process, in another, and under any hash seed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from bft.sim.campaign import run_scenario
from bft.sim.generate import scenario
from bft.sim.trace import record

SEEDS = ((0, 4), (3, 4), (5, 7), (9, 4), (12, 7))
PROGRAM = """
from bft.sim.campaign import run_scenario
from bft.sim.generate import scenario
for seed, n in {seeds}:
    result = run_scenario(scenario(seed, n))
    print(result.digest, result.counters["delivered"], result.outcome)
"""


def _digests(hash_seed: str) -> list[str]:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    program = [sys.executable, "-c", PROGRAM.format(seeds=SEEDS)]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.splitlines()


def test_runs_are_equal_across_processes_and_hash_seeds() -> None:
    """Two processes with different PYTHONHASHSEED deliver the same messages at the same times."""
    first, second = _digests("1"), _digests("4242")
    assert first == second
    assert len({line.split()[0] for line in first}) == len(SEEDS), "different seeds must give different runs"


@pytest.mark.parametrize(("seed", "n"), SEEDS[:3])
def test_run_is_equal_to_its_repetition(seed: int, n: int) -> None:
    """The same scenario twice in one process gives equal digests, outcomes and counters."""
    first, second = run_scenario(scenario(seed, n)), run_scenario(scenario(seed, n))
    assert (first.digest, first.outcome, first.counters) == (second.digest, second.outcome, second.counters)


@pytest.mark.parametrize(("seed", "n"), SEEDS)
def test_recording_for_a_diagram_does_not_change_the_run(seed: int, n: int) -> None:
    """Watching strategies and replicas draws no chance: the recorded run is the original one."""
    chosen = scenario(seed, n)
    assert record(chosen).history.trace_digest == run_scenario(chosen).digest
