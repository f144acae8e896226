"""The database of results and the scenario files."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bft.errors import ConfigError
from bft.sim.campaign import directed_scenarios, generators
from bft.sim.generate import scenario
from bft.sim.results import Found, Result, Results, code_version, read_scenario, sparse_json, write_scenario
from bft.sim.scenario import Scenario


def _result(**changes: object) -> Result:
    fields: dict[str, object] = {
        "generator": "uniform",
        "scenario": Scenario(seed=1),
        "outcome": "violation",
        "violations": (Found("agreement", "slot 1"), Found("agreement", "slot 2"), Found("results", "x")),
        "counters": {"delivered": 3},
        "digest": "ab",
        "milliseconds": 1.5,
        "code": "c",
    }
    return Result(**{**fields, **changes})  # type: ignore[arg-type]


def test_results_come_back_as_they_were_stored(tmp_path: Path) -> None:
    """Every field survives the database; ids count up; outcomes filter; limits keep the newest."""
    with Results(tmp_path / "a" / "runs.db") as results:
        numbers = results.add([_result(), _result(outcome="pass", violations=())])
        assert numbers == [1, 2]
        assert results.get(1) == _result(id=1)
        assert results.get(1).checkers == ["agreement", "results"]
        assert [result.id for result in results.all("pass")] == [2]
        assert [result.id for result in results.all(limit=1)] == [2]
    with Results(tmp_path / "a" / "runs.db") as results:
        assert len(list(results.all())) == 2
        with pytest.raises(ConfigError, match="no run 9"):
            results.get(9)


def test_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    """A text file under the database's name is a user's mistake."""
    path = tmp_path / "runs.db"
    path.write_text("no database " * 100)
    with pytest.raises(ConfigError, match="no database"):
        Results(path)


@given(st.integers(0, 100_000), st.sampled_from((4, 7, 10)))
def test_scenario_files_round_trip(seed: int, n: int) -> None:
    """The sparse form leaves out defaults only."""
    chosen = scenario(seed, n)
    assert read(sparse_json(chosen)) == chosen


def read(text: str) -> Scenario:
    """Decode as `read_scenario` does."""
    return msgspec.json.decode(text, type=Scenario)


def test_scenario_file_is_readable_and_wrong_ones_are_refused(tmp_path: Path) -> None:
    """What is written can be read; what is no scenario names its file."""
    path = tmp_path / "scenario.json"
    write_scenario(path, scenario(5, 7))
    assert read_scenario(path) == scenario(5, 7)
    path.write_text('{"seed": 1, "colour": "red"}')
    with pytest.raises(ConfigError, match="colour"):
        read_scenario(path)


def test_every_generator_gives_valid_scenarios() -> None:
    """What the generators make survives its own file form, and directed scenarios have distinct names."""
    assert "uniform" in generators()
    for chosen in directed_scenarios().values():
        assert read(sparse_json(chosen)) == chosen


def test_code_version_is_stable() -> None:
    """Asked twice, the same tree has the same name."""
    assert code_version() == code_version()
