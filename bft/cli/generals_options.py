"""Hold what the commands of `bft generals` share: options, examples, errors, exit codes."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ParamSpec, TypeVar

import click

from bft.generals.ids import GeneralsError

P = ParamSpec("P")
R = TypeVar("R")

language_option = click.option(
    "--lang", "language", type=click.Choice(["en", "pt"]), default="en", show_default=True, help="Language."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of pictures.")
seed_option = click.option("--seed", type=int, default=1, show_default=True, help="Seed of the dice.")
svg_option = click.option(
    "--svg", type=click.Path(dir_okay=False, path_type=Path), help="Write a picture to this file."
)


def friendly(function: Callable[P, R]) -> Callable[P, R]:
    """Turn what a user did wrong into a message and exit code 2."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except GeneralsError as error:
            raise click.UsageError(str(error)) from error
        except OSError as error:
            raise click.UsageError(f"{error.filename}: {error.strerror}") from error

    return wrapper


def example(*lines: str) -> str:
    """Return an epilog with commands to copy."""
    return "\b\nExamples:\n" + "\n".join(f"  bft generals {text}" for text in lines)


def print_json(data: Mapping[str, object] | Sequence[object]) -> None:
    """Print plain data."""
    click.echo(json.dumps(data, ensure_ascii=False, indent=2))


def finish(*, holds: bool) -> None:
    """Leave with 0 when the conditions held, 1 when they were violated."""
    click.get_current_context().exit(0 if holds else 1)
