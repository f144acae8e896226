"""Test the commands: what they print, their exit codes, and that users' errors end without a traceback."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bft.cli.generals import generals


def invoke(*arguments: str) -> Result:
    """Run a command."""
    return CliRunner().invoke(generals, list(arguments), catch_exceptions=False)


@pytest.mark.parametrize("command", ["run", "exhaust", "table", "cost", "two"])
def test_every_command_explains_itself_with_an_example(command: str) -> None:
    """`--help` ends with commands to copy.

    [issue 4]
    """
    found = invoke(command, "--help")
    assert found.exit_code == 0
    assert f"bft generals {command}" in found.output


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("run", "-n", "4", "-m", "1", "--traitor", "3=flip"), 0),
        (("run", "-n", "3", "-m", "1", "--traitor", "2=flip"), 1),
        (("run", "-a", "sm", "-n", "3", "--traitor", "0=two-orders"), 0),
        (("run", "-a", "sm", "-n", "3", "--traitor", "0=two-orders", "--symbolic"), 0),
        (("run", "-a", "om-graph", "-n", "6", "--graph", "prism", "-t", "4=silent"), 0),
        (("run", "-a", "king", "-n", "4", "-t", "0=random"), 0),
        (("run", "-n", "4", "--lie", "3>1@2/0=retreat", "--chart"), 0),
        (("run", "-n", "4", "--orders", "hold,left,right", "--order", "left", "--lang", "pt", "--story"), 0),
        (("exhaust", "-n", "3", "-m", "1"), 1),
        (("exhaust", "-n", "4", "-m", "1", "--unreduced"), 0),
        (("exhaust", "-n", "5", "-m", "2", "-t", "2", "--budget", "10", "--samples", "3"), 1),
        (("exhaust", "-a", "sm", "-n", "4", "-m", "1"), 0),
        (("exhaust", "-a", "sm", "-n", "4", "-m", "1", "-t", "2"), 1),
        (("exhaust", "-a", "king", "-n", "4", "-m", "1"), 0),
        (("table", "--n-max", "4", "--m-max", "2"), 0),
        (("table", "-a", "sm", "--n-max", "4", "--m-max", "2", "--lang", "pt"), 0),
        (("cost", "--sizes", "4/1,7/2", "--time"), 0),
        (("two", "--all-rules", "--trials", "50"), 0),
        (
            (
                "two",
                "--schedule",
                "AAB",
                "--needs-a",
                "0",
                "--needs-b",
                "0",
                "--lang",
                "pt",
                "--trials",
                "50",
            ),
            0,
        ),
    ],
)
def test_exit_code_says_whether_the_conditions_held(arguments: tuple[str, ...], code: int) -> None:
    """0: held or proven; 1: violated.

    [issue 4]
    """
    assert invoke(*arguments).exit_code == code


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "-n", "0"),
        ("run", "--traitor", "9=flip"),
        ("run", "--traitor", "2=sing"),
        ("run", "--traitor", "x"),
        ("run", "--lie", "nonsense"),
        ("run", "--lie", "2=attack", "--traitor", "2=flip"),
        ("run", "--order", "sing"),
        ("run", "--graph", "ring"),
        ("run", "-a", "om-graph", "--graph", "ring"),
        ("run", "-n", "4", "--tree", "9"),
        ("run", "-n", "30", "-m", "9"),
        ("run", "--script", "/no/such/file"),
        ("run", "--svg", "/no/such/folder/x.svg"),
        ("exhaust", "-n", "7", "-m", "2", "--unreduced"),
        ("exhaust", "-n", "4", "-t", "5"),
        ("exhaust", "-a", "king", "-n", "3", "-m", "1"),
        ("exhaust", "-n", "4", "--svg", "x.svg"),
        ("cost", "--sizes", "four"),
        ("two", "--loss", "many"),
        ("two", "--loss", "2"),
        ("two", "--schedule", "ABC"),
        ("nonsense",),
    ],
)
def test_user_errors_end_with_code_2(arguments: tuple[str, ...]) -> None:
    """Wrong usage prints one line and no traceback.

    [issue 4]
    """
    found = invoke(*arguments)
    assert found.exit_code == 2
    assert "Traceback" not in found.output
    assert "Error" in found.output


def test_json_of_a_battle_holds_the_chronicle() -> None:
    """`--json` prints the neutral trace and nothing else."""
    data = json.loads(invoke("run", "-n", "4", "-t", "3=flip", "--json").stdout)
    assert data["ic1"] is data["ic2"] is True
    assert data["messages"] == len(data["chronicle"]) == 9
    assert [entry["value"] for entry in data["chronicle"] if not entry["truthful"]] == ["retreat", "retreat"]


def test_json_of_searches_and_numbers_can_be_read() -> None:
    """Every other command prints JSON too.

    [issue 4]
    """
    assert json.loads(invoke("exhaust", "-n", "3", "--json").stdout)["ic2_violations"] == 4
    assert json.loads(invoke("table", "--n-max", "4", "--m-max", "1", "--json").stdout)["as_proven"] is True
    assert json.loads(invoke("cost", "--sizes", "7/2", "--json").stdout)["rows"][0]["om"] == 156
    assert json.loads(invoke("two", "--trials", "10", "--json", "--all-rules").stdout)["flaw"] == "lone"


def test_three_generals_are_shown_as_the_paper_draws_them() -> None:
    """`exhaust -n 3 -m 1` draws both scenarios and counts the protocols.

    [LSP82 2]
    """
    output = invoke("exhaust", "-n", "3", "-m", "1").output
    assert "he said “retreat!”" in output
    assert "4096 protocols of this shape tried, 0 survive" in output


def test_files_are_written(tmp_path: Path) -> None:
    """Pictures and pages are written where asked.

    [issue 4]
    """
    page, picture = tmp_path / "battle.html", tmp_path / "battle.svg"
    assert (
        invoke("run", "-n", "4", "-t", "0=split:1", "--html", str(page), "--svg", str(picture)).exit_code == 0
    )
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    ET.parse(picture)
    for arguments in (
        ("exhaust", "-n", "3"),
        ("cost", "--sizes", "4/1"),
        ("two",),
        ("table", "--n-max", "4"),
    ):
        target = tmp_path / f"{arguments[0]}.svg"
        invoke(*arguments, "--svg", str(target))
        ET.parse(target)


def test_scripts_are_read_from_files(tmp_path: Path) -> None:
    """Lies of a TOML file are told.

    [issue 4]
    """
    script = tmp_path / "lies.toml"
    script.write_text('[[lie]]\nfrom = 0\nto = 1\nsay = "retreat"\n', encoding="utf-8")
    data = json.loads(invoke("run", "-n", "4", "--script", str(script), "--json").stdout)
    assert data["traitors"] == {"0": "script"}
    script.write_text("lie = 3", encoding="utf-8")
    assert invoke("run", "-n", "4", "--script", str(script)).exit_code == 2
