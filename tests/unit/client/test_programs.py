"""The programs in `clients/`, as far as they need no cluster."""

from __future__ import annotations

import pytest

from clients import kv_shell


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
