"""The programs in `clients/`, as far as they need no cluster."""

from __future__ import annotations

import sys

import pytest

from clients import bank, kv_shell


class Nobody:
    """A client whose service is never called."""

    def service(self, kind: type) -> None:
        return None


@pytest.mark.parametrize(
    ("line", "usage"),
    [
        ("get", "get KEY"),
        ("put a", "put KEY VALUE"),
        ("increment", "increment KEY [BY]"),
        ("scan a b", "scan [PREFIX]"),
        ("size a", "size"),
    ],
)
def test_shell_says_how_a_command_is_used(line: str, usage: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Not how it is written in Python."""
    commands = kv_shell._commands(Nobody())  # type: ignore[arg-type]
    assert not kv_shell._run(commands, line)
    assert capsys.readouterr().err == f"error: usage: {usage}\n"
    assert [*commands, "quit"] == list(kv_shell.USAGE)


@pytest.mark.parametrize(
    ("option", "value"),
    [("accounts", "1"), ("customers", "0"), ("transfers", "0"), ("coins", "-5"), ("coins", "9" * 5000), ("coins", "x")],
)
def test_bank_refuses_numbers_that_would_show_nothing(
    option: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without transfers money is conserved by nobody's merit."""
    monkeypatch.setattr(sys, "argv", ["bank.py", "--inside", f"--{option}", value])
    with pytest.raises(SystemExit) as ended:
        bank.main()
    assert ended.value.code == 2
    assert f"argument --{option}: found {value!r}, expected a whole number from" in capsys.readouterr().err
