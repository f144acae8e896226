"""A tiny run of the benchmark runner on real clusters: not for its figures, but that it has them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.__main__ import main
from benchmarks.case import Case
from benchmarks.cpu import measure_split
from benchmarks.measures import measure_growth
from benchmarks.run import measure
from benchmarks.ycsb import measure_ycsb


@pytest.mark.parametrize(
    "case",
    [
        Case(callers=4),
        Case(load="clients", callers=3, durability="power"),
        Case(rate=200),
        Case(callers=4, reads_percent=50),
        Case(system="single-server", callers=4, durability="power"),
        Case(system="single-server", load="clients", callers=2, reads_percent=50),
    ],
    ids=lambda case: case.label,
)
def test_run_measures_a_live_cluster(case: Case) -> None:
    figures = measure(case, 0.3)
    assert figures["op_s"] > 0
    assert figures["failures"] == 0
    assert 0 < figures["p50_ms"] <= figures["p99_ms"] <= figures["max_ms"]


def test_run_measures_a_peer_that_is_installed() -> None:
    pytest.importorskip("pysyncobj")
    figures = measure(Case(system="pysyncobj", callers=4, request_bytes=100), 1.0)
    assert figures["op_s"] > 0
    assert figures["failures"] == 0


async def test_ycsb_runs_its_heaviest_mix_without_failures() -> None:
    """E scans up to a hundred records at a time while others are inserted."""
    figures = await measure_ycsb("E", records=200, callers=4, durability="memory", seconds=0.5)
    assert figures["op_s"] > 0
    assert figures["failures"] == 0


@pytest.mark.interpreted("compiled modules have no frames")
async def test_cpu_split_adds_up() -> None:
    """Every sample belongs to a part, and the parts are the whole."""
    figures = await measure_split(Case(callers=2), 1.5)
    parts = sum(value for name, value in figures.items() if name != "all")
    assert parts == pytest.approx(figures["all"])
    assert figures["crypto"] > 0
    assert figures["protocol"] > 0
    assert figures["other"] < figures["all"] / 4


async def test_growth_is_told_at_the_same_places_every_time() -> None:
    """Else no row of one file has its counterpart in another."""
    rows = await measure_growth(1000)
    assert [row["operations"] for row in rows] == list(range(0, 1001, 100))
    assert all(row["largest_mb"]["median"] > 0 for row in rows)


def test_run_writes_what_it_measured(tmp_path: Path) -> None:
    arguments = ["run", "--suite", "quick", "--only", "sessions_1_memory", "--repeat", "2", "--seconds", "0.2"]
    outcome = CliRunner().invoke(main, [*arguments, "--output", str(tmp_path), "--json"])
    assert outcome.exit_code == 0, outcome.output
    found = json.loads((tmp_path / "quick.json").read_text())
    (row,) = found["figures"]
    assert row["op_s"]["runs"] == 2
    assert found["environment"]["commit"]
