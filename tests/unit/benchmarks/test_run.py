"""The suite: rounds, failures, absent systems, targets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import results
from benchmarks.__main__ import main
from benchmarks.case import Case
from benchmarks.peers import Absent, RunFailed
from benchmarks.run import Suite
from benchmarks.suites import SUITES, TARGET_CASES, load_targets, verdicts

CASES = {"a": Case(callers=1), "b": Case(callers=2)}


def test_suite_interleaves_its_cases() -> None:
    order = []

    def one(case: Case, seconds: float) -> dict[str, float]:
        order.append(case.callers)
        return {"op_s": float(len(order))}

    suite = Suite(CASES, 1.0, one)
    for _ in range(3):
        suite.run_round()
    assert order == [1, 2, 1, 2, 1, 2]
    assert [row["op_s"]["values"] for row in suite.rows()] == [[1.0, 3.0, 5.0], [2.0, 4.0, 6.0]]


def test_suite_looks_at_the_machine_before_every_run() -> None:
    """Figures of a shared machine say little without what a signature check took on it meanwhile."""
    suite = Suite(CASES, 1.0, lambda case, seconds: {"op_s": 1.0})
    for _ in range(2):
        suite.run_round()
    assert len(suite.checks) == 4 and all(1 < check < 100_000 for check in suite.checks)


def test_suite_tries_a_failed_run_once_more_and_goes_on() -> None:
    tries = {1: 0, 2: 0}

    def one(case: Case, seconds: float) -> dict[str, float]:
        tries[case.callers] += 1
        if case.callers == 1 or tries[2] == 1:
            raise RunFailed("port taken")
        return {"op_s": 1.0}

    suite = Suite(CASES, 1.0, one)
    suite.run_round()
    assert tries == {1: 2, 2: 2}
    assert suite.incomplete == ["a"]
    (row,) = suite.rows()
    assert (row["case"], row["failed_runs"]) == ("b", 1)


def test_suite_skips_an_absent_system_and_says_why() -> None:
    def one(case: Case, seconds: float) -> dict[str, float]:
        raise Absent("install it")

    suite = Suite({"a": Case(system="etcd"), "b": Case(system="etcd")}, 1.0, one)
    suite.run_round()
    assert suite.absent == {"etcd": "install it"}
    assert suite.incomplete == []


def test_case_refuses_reads_in_an_open_loop() -> None:
    with pytest.raises(ValueError, match="cannot be combined"):
        Case(rate=100, reads_percent=50)


def test_every_case_of_a_suite_has_a_row_of_its_own() -> None:
    for cases in SUITES.values():
        assert len({json.dumps(case.columns()) for case in cases.values()}) == len(cases)


def test_targets_name_cases_and_metrics_that_are_measured() -> None:
    assert load_targets().keys() <= TARGET_CASES.keys()


def test_targets_of_unknown_cases_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "targets.toml"
    file.write_text("[sessions_2000_memory]\nop_s = 1\n")
    with pytest.raises(ValueError, match="sessions_2000_memory"):
        load_targets(file)


@pytest.mark.parametrize(
    ("metric", "value", "target", "met"),
    [("op_s", 99.0, 100, False), ("op_s", 100.0, 100, True), ("p50_ms", 1.3, 1.2, False), ("p50_ms", 1.2, 1.2, True)],
)
def test_verdict_knows_which_way_is_better(metric: str, value: float, target: float, met: bool) -> None:
    row = {"case": "sessions_200_memory", metric: results.spread([value])}
    (line,) = verdicts([row], {"sessions_200_memory": {metric: target}})
    assert line["met"] is met


def test_verdict_of_a_metric_that_was_not_measured_is_no() -> None:
    (line,) = verdicts([{"case": "sessions_200_memory"}], {"sessions_200_memory": {"op_s": 1.0}})
    assert line["met"] is False


def test_run_lists_its_cases_without_measuring() -> None:
    outcome = CliRunner().invoke(main, ["run", "--suite", "targets", "--list"])
    assert outcome.exit_code == 0
    assert set(TARGET_CASES) <= set(outcome.output.split())


def test_run_refuses_a_text_that_no_case_has() -> None:
    outcome = CliRunner().invoke(main, ["run", "--suite", "quick", "--only", "no such case"])
    assert outcome.exit_code == 2
    assert "no case" in outcome.output


def test_files_that_are_no_results_are_refused_by_name(tmp_path: Path) -> None:
    wrong = tmp_path / "x.json"
    for text in ("{", "[]", '{"figures": 3}'):
        wrong.write_text(text)
        with pytest.raises(results.NotResults, match=r"x\.json"):
            results.read(wrong)
    with pytest.raises(results.NotResults):
        results.read(tmp_path / "absent.json")


@pytest.mark.parametrize(
    "words", ["throughput -s 0", "throughput --n 3", "growth --operations 0", "hostile -s 0", "attacks -s 0"]
)
def test_nothing_is_measured_of_what_makes_no_sense(tmp_path: Path, words: str) -> None:
    """Nobody calls, nobody answers: zeros in a file would look like a result."""
    outcome = CliRunner().invoke(main, [*words.split(), "--output", str(tmp_path)])
    assert outcome.exit_code == 2, outcome.output
    assert "is not in the range" in outcome.output
    assert list(tmp_path.iterdir()) == []
