"""What the commands of `bft` share: exit codes, errors as one line, JSON or tables, common options.

Exit codes: 0 done; 1 the operation failed; 2 wrong usage or configuration; 3 the outcome is unknown or too few replicas
can be reached; 130 interrupted.
"""

from __future__ import annotations

import functools
import json
import math
import os
import sys
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import Any, NoReturn, ParamSpec, TypeVar

import click
from rich.console import Console
from rich.markup import escape

from bft.errors import BFTError, ConfigError, KeyFileError, OutcomeUnknown

P = ParamSpec("P")
R = TypeVar("R")
WIDTH_WITHOUT_TERMINAL = 160
DEFAULT_CLUSTER = Path("cluster") / "cluster.toml"


class Exit(IntEnum):
    """What a script can tell from a command's exit code."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNKNOWN = 3
    INTERRUPTED = 130


def exit_code(error: BFTError) -> Exit:
    """The exit code that an error deserves."""
    if isinstance(error, ConfigError | KeyFileError):
        return Exit.USAGE
    if isinstance(error, OutcomeUnknown):
        return Exit.UNKNOWN
    return Exit.FAILED


def friendly(function: Callable[P, R]) -> Callable[P, R]:
    """Turn errors that a user can meet into one line on stderr and an exit code."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except (BFTError, BrokenPipeError, KeyboardInterrupt) as error:
            _leave(error)
        except UnicodeEncodeError as error:
            fail(f"an argument is not UTF-8: {error.object[:60]!r}", Exit.USAGE)
        except BaseExceptionGroup as group:
            known = group.subgroup((BFTError, BrokenPipeError, KeyboardInterrupt))
            if known is None or group.subgroup(AssertionError) is not None:
                raise
            _leave(_first(known))

    return wrapper


def fail(text: str, code: Exit = Exit.FAILED) -> NoReturn:
    """Say what went wrong and leave."""
    Console(stderr=True, soft_wrap=True, highlight=False).print(f"[bold red]error:[/] {escape(text)}")
    sys.exit(code)


def warn(text: str) -> None:
    """Say something that is worth knowing, on stderr."""
    Console(stderr=True, soft_wrap=True, highlight=False).print(f"[yellow]note:[/] {escape(text)}")


def example(*lines: str) -> str:
    """An epilog with commands to copy."""
    return "\b\nExamples:\n" + "\n".join(f"  bft {line}" for line in lines)


def print_json(value: object) -> None:
    """Print plain data for a script."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def console() -> Console:
    """Where people look: colours and pictures only if it is a terminal."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL)


class Seconds(click.FloatRange):
    """Seconds to wait: a number, which `nan` is not."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number, if it is one in the range."""
        seconds = float(super().convert(value, param, ctx))
        if math.isnan(seconds):
            self.fail(f"{value!r} is no number of seconds", param, ctx)
        return seconds


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
cluster_option = click.option(
    "--cluster",
    "cluster_file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=DEFAULT_CLUSTER,
    envvar="BFT_CLUSTER",
    show_default=True,
    show_envvar=True,
    help="The cluster file.",
)
key_option = click.option(
    "--key",
    "key_file",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="BFT_KEY",
    show_envvar=True,
    help="Your private key.  [default: keys/client.pem beside the cluster file]",
)
timeout_option = click.option(
    "--timeout",
    "timeout_s",
    type=Seconds(min=0.01),
    default=10.0,
    show_default=True,
    help="Seconds after which an operation's outcome counts as unknown.",
)
directory_option = click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEFAULT_CLUSTER.parent,
    show_default=True,
    help="The cluster's folder.",
)


def default_key(cluster_file: Path, key_file: Path | None) -> Path:
    """The client's key file: the one that was asked for, or the one that `cluster init` made."""
    return key_file or cluster_file.parent / "keys" / "client.pem"


def find_services_here() -> None:
    """Let a cluster file name a service that lies in the current folder, as `python -m` does."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)


def passphrase_from_environment() -> bytes | None:
    """The passphrase of key files, from BFT_PASSPHRASE; None if it is not set."""
    value = os.environ.get("BFT_PASSPHRASE")
    return value.encode() if value else None


def _leave(error: BaseException) -> NoReturn:
    if isinstance(error, BFTError):
        fail(str(error) or type(error).__name__, exit_code(error))
    if isinstance(error, BrokenPipeError):  # the reader of a pipe went away: nothing may try to flush into it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(Exit.FAILED)
    sys.exit(Exit.INTERRUPTED)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    found = group.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found
