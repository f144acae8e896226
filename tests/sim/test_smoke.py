"""A hundred scenarios in every test run: cheap insurance that the protocol, the adversary and the simulator agree."""

from __future__ import annotations

from collections import Counter

import pytest

from bft.sim.campaign import Job, jobs, run_jobs
from bft.sim.results import Result

SEEDS = {4: 70, 7: 30}
"""Replicas -> seeds: together a hundred, in seconds."""


@pytest.fixture(scope="module")
def results() -> list[Result]:
    """All of them, in this process."""
    work: list[Job] = []
    for n, seeds in SEEDS.items():
        work += jobs(("uniform",), first=0, seeds=seeds, sizes=(n,))
    return run_jobs(work, "")


def test_smoke_campaign_breaks_nothing(results: list[Result]) -> None:
    """A hundred random scenarios keep every property, and each of them decides something."""
    broken = [
        (result.scenario.seed, result.scenario.n, result.violations[0]) for result in results if result.violations
    ]
    assert broken == []
    assert Counter(result.outcome for result in results) == {"pass": 100}


def test_smoke_campaign_is_not_vacuous(results: list[Result]) -> None:
    """Views change, checkpoints become stable, state is transferred, crimes happen, in a good part of the runs."""
    reached: Counter[str] = Counter()
    for result in results:
        reached.update(name for name, value in result.counters.items() if value)
    for name, least in {
        "new_views": 10,
        "checkpoints": 40,
        "transfers": 3,
        "crimes": 30,
        "accusations": 3,
        "fast_reads": 40,
        "nulls": 3,
    }.items():
        assert reached[name] >= least, f"{name} in {reached[name]} of 100 runs only"
