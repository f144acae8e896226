"""Options that commands of `python -m benchmarks` share, each said once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click
from rich.console import Console

from benchmarks.results import RESULTS
from bft.config import Durability

F = TypeVar("F", bound=Callable[..., Any])
REPEAT_MAX = 100
PLAIN_WIDTH = 140
"""Columns of a table that goes to a file or a pipe."""
SESSIONS = click.IntRange(1, 4096)
DURABILITIES = click.Choice(get_args(Durability))

json_option = click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")


def table_console(*, stderr: bool = False) -> Console:
    """Where tables go: as wide as the terminal, or wide enough to be read in a file."""
    console = Console(stderr=stderr)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    return console


def durability_option(default: Durability) -> Callable[[F], F]:
    """What replicas keep on disk, for a command that measures one level at a time."""
    return click.option("--durability", "-d", type=DURABILITIES, default=default, show_default=True)


def sessions_option(default: int, *, text: str = "Callers.") -> Callable[[F], F]:
    """How many callers a closed loop has."""
    return click.option("--sessions", "-s", type=SESSIONS, default=default, show_default=True, help=text)


def seconds_option(default: float, *, minimum: float = 0.1, text: str = "Measured per run.") -> Callable[[F], F]:
    """How long to measure."""
    kind = click.FloatRange(min=minimum)
    return click.option("--seconds", type=kind, default=default, show_default=True, help=text)


def repeat_option(default: int) -> Callable[[F], F]:
    """How many runs a figure's spread is made of."""
    kind = click.IntRange(1, REPEAT_MAX)
    return click.option("--repeat", type=kind, default=default, show_default=True, help="Runs per figure.")


def file_options(name: str | None, *, text: str = "Name of the result file.") -> Callable[[F], F]:
    """Where the figures go: `--name`, `--output`, `--json`; `text` says what a missing name means."""

    def decorate(command: F) -> F:
        command = json_option(command)
        command = click.option(
            "--output", type=click.Path(path_type=Path), default=RESULTS, show_default=True, help="Folder to write to."
        )(command)
        return click.option("--name", default=name, show_default=name is not None, help=text)(command)

    return decorate
