"""`bft check`: run a service twice, in two processes that differ on purpose, and report the first difference."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import click
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from bft.cli.terminal import (
    Exit,
    Seconds,
    console,
    example,
    fail,
    find_services_here,
    friendly,
    json_option,
    print_json,
)
from bft.determinism.check import Check, Tally
from bft.determinism.operations import from_file, interface_at, made_up
from bft.determinism.pair import ServiceStopped
from bft.errors import ConfigError, NonDeterminism
from bft.services.interface import Kind

PROGRESS_SECONDS = 0.2


@click.command(
    "check",
    epilog=example(
        "check bft.services.kv:KeyValue",
        "check my_module:Bank --seconds 60 --seed 7",
        "check my_module:Bank --operations operations.jsonl --json",
    ),
)
@click.argument("service", metavar="MODULE:SERVICE")
@click.option(
    "--operations",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    help='Operations to run, per line a JSON array: ["deposit", "alice", 5].  [default: made up from the annotations]',
)
@click.option(
    "--seconds", type=Seconds(min=0.1), default=10.0, show_default=True, help="How long to make up operations."
)
@click.option("--count", type=click.IntRange(min=1), help="How many operations to make up, instead of --seconds.")
@click.option("--seed", type=click.IntRange(0, 2**30), default=1, show_default=True, help="Repeats a run.")
@json_option
@friendly
def check(service: str, file: Path | None, seconds: float, count: int | None, seed: int, as_json: bool) -> None:
    """Find out whether the replicas of MODULE:SERVICE would agree.

    Every operation runs twice, in two processes with other hash seeds, clocks, time zones, dice and memory. Results,
    events and the whole state are compared after each; the second process is replaced now and then by one that has the
    state only. Exit code 0: no difference was found; 1: the runs differ, or the service would stop its replicas.
    """
    find_services_here()
    run = Check(service, seed=seed)
    interface = interface_at(service)
    operations: Iterator[tuple[Kind, bytes]]
    deadline: float | None = None
    if file is not None:
        operations = from_file(file, interface)
    elif interface is None:
        raise ConfigError(
            f"{service} takes bytes, so nothing can be made up: give --operations with a line of hex each"
        )
    else:
        operations = islice(made_up(interface, random.Random(seed)), count)
        deadline = None if count is not None else time.monotonic() + seconds
    try:
        tally = run.run(
            operations,
            goes_on=lambda: deadline is None or time.monotonic() < deadline,
            progress=_Progress().show,
        )
    except NonDeterminism as error:
        _report(service, seed, error, as_json)
        sys.exit(Exit.FAILED)
    except ServiceStopped as error:
        fail(str(error))
    _tell(service, tally, as_json)


def _report(service: str, seed: int, error: NonDeterminism, as_json: bool) -> None:
    rows = {
        "service": service,
        "operation": f"{error.operation}({error.arguments})",
        "number": error.number,
        "where": f"{error.path} ({error.page})" if error.page else error.path,
        "first run": error.first,
        "second run": error.second,
        "cause": error.cause,
        "seed": seed,
    }
    if as_json:
        print_json({"deterministic": False, **{name.replace(" ", "_"): value for name, value in rows.items()}})
        return
    table = Table.grid(padding=(0, 2))
    for name, value in rows.items():
        table.add_row(f"[bold]{name}[/]", escape(str(value)))
    console().print(Panel(table, title="[bold red]not deterministic[/]", title_align="left", expand=False))


def _tell(service: str, tally: Tally, as_json: bool) -> None:
    if as_json:
        outcomes = {name: dict(counts) for name, counts in sorted(tally.outcomes.items())}
        print_json(
            {
                "deterministic": True,
                "service": service,
                "operations": tally.operations,
                "checkpoints": tally.checkpoints,
                "restarts": tally.restarts,
                "outcomes": outcomes,
            }
        )
        return
    click.echo(f"{service}: no difference in {tally.operations} operations")
    table = Table()
    for name in ("method", "ok", "error", "failed"):
        table.add_column(name, justify="left" if name == "method" else "right")
    for name, counts in sorted(tally.outcomes.items()):
        table.add_row(escape(name), *(str(counts[kind]) for kind in ("ok", "error", "failed")))
    console().print(table)
    click.echo(f"compared after each; {tally.checkpoints} checkpoints, {tally.restarts} restarts of one side")


class _Progress:
    """A line on stderr that is written over, if that is a terminal."""

    def __init__(self) -> None:
        self._next = time.monotonic() + PROGRESS_SECONDS
        self._shows = sys.stderr.isatty()

    def show(self, tally: Tally) -> None:
        """Say how far the check is, a few times a second."""
        if self._shows and time.monotonic() >= self._next:
            self._next = time.monotonic() + PROGRESS_SECONDS
            click.echo(f"\r{tally.operations} operations, no difference\r", err=True, nl=False)
