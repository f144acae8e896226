"""`python -m benchmarks`: run, and write what was measured to `benchmarks/results/`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import trio
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks import results
from benchmarks.measures import measure_growth, measure_outage, measure_throughput
from benchmarks.readme import write as write_readme
from benchmarks.reconfigure import measure_reconfigure
from bft.config import Durability

DURABILITIES = click.Choice(["power", "process", "memory"])
console = Console()


@click.group()
def main() -> None:
    """Benchmarks of real clusters on this machine: processes, TLS, signatures, disks.

    Example: python -m benchmarks throughput --sessions 200 --repeat 5
    """


def _finish(name: str, rows: list[dict[str, Any]], as_json: bool, output: Path) -> None:
    path = results.write(name, rows, output)
    if as_json:
        click.echo(json.dumps(rows))
        return
    table = Table(title=name)
    for column in rows[0]:
        table.add_column(column)
    for row in rows:
        table.add_row(*(_text(value) for value in row.values()))
    console.print(table)
    console.print(f"written to {path}")


def _text(value: object) -> str:
    if isinstance(value, dict):
        return f"{value['median']:,.2f} ({value['min']:,.2f} .. {value['max']:,.2f})"
    return f"{value:,.2f}" if isinstance(value, float) else str(value)


def _common(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON."),
        click.option("--output", type=click.Path(path_type=Path), default=results.RESULTS, show_default=True),
        click.option("--name", default=None, help="Name of the result file; that of the command by default."),
    ):
        command = option(command)
    return command


@main.command()
@click.option("--sessions", "-s", type=int, multiple=True, default=(1, 10, 50, 200, 1000), show_default=True)
@click.option("--durability", "-d", type=DURABILITIES, multiple=True, default=("memory", "power"), show_default=True)
@click.option("--request-bytes", type=int, default=0, show_default=True)
@click.option("--reply-bytes", type=int, default=0, show_default=True)
@click.option("--n", default=4, show_default=True)
@click.option("--seconds", default=5.0, show_default=True)
@click.option("--repeat", default=5, show_default=True)
@_common
def throughput(
    sessions: tuple[int, ...],
    durability: tuple[Durability, ...],
    request_bytes: int,
    reply_bytes: int,
    n: int,
    seconds: float,
    repeat: int,
    as_json: bool,
    output: Path,
    name: str | None,
) -> None:
    """Closed-loop sessions in one client process against a cluster of n replica processes.

    Example: python -m benchmarks throughput -s 200 -d power --repeat 3
    """
    cases = [(level, count) for level in durability for count in sessions]
    rows = []
    with Progress(console=console, transient=True, disable=as_json) as progress:
        task = progress.add_task("throughput", total=len(cases) * repeat)
        for level, count in cases:
            runs = []
            for _ in range(repeat):
                runs.append(trio.run(measure_throughput, n, level, count, request_bytes, reply_bytes, seconds))
                progress.advance(task)
            row: dict[str, Any] = {
                "n": n,
                "durability": level,
                "sessions": count,
                "bytes": f"{request_bytes}/{reply_bytes}",
            }
            for key in runs[0]:
                row[key] = results.spread([run[key] for run in runs])
            rows.append(row)
    _finish(name or "throughput", rows, as_json, output)


@main.command()
@click.option("--durability", "-d", type=DURABILITIES, default="process", show_default=True)
@click.option("--repeat", default=5, show_default=True)
@_common
def outage(durability: Durability, repeat: int, as_json: bool, output: Path, name: str | None) -> None:
    """How long nothing completes after kill -9 of the primary under load.

    Example: python -m benchmarks outage --repeat 3
    """
    runs = [trio.run(measure_outage, durability) for _ in range(repeat)]
    rows = [{"durability": durability, **{key: results.spread([run[key] for run in runs]) for key in runs[0]}}]
    _finish(name or "outage", rows, as_json, output)


@main.command()
@click.option("--durability", "-d", type=DURABILITIES, default="process", show_default=True)
@click.option("--sessions", "-s", default=50, show_default=True)
@click.option("--seconds", default=5.0, show_default=True, help="Length of a steady phase.")
@click.option("--repeat", default=3, show_default=True)
@_common
def reconfigure(
    durability: Durability,
    sessions: int,
    seconds: float,
    repeat: int,
    as_json: bool,
    output: Path,
    name: str | None,
) -> None:
    """Throughput and the longest pause while the membership goes from 4 to 7 and back, and while keys are rotated.

    Example: python -m benchmarks reconfigure --sessions 200 --repeat 5
    """
    runs = [trio.run(measure_reconfigure, durability, sessions, seconds) for _ in range(repeat)]
    rows: list[dict[str, Any]] = [
        {
            "durability": durability,
            "sessions": sessions,
            "phase": phases[0]["phase"],
            **{key: results.spread([phase[key] for phase in phases]) for key in phases[0] if key != "phase"},
        }
        for phases in zip(*runs, strict=True)
    ]
    _finish(name or "reconfigure", rows, as_json, output)


@main.command()
@click.option("--operations", default=1_000_000, show_default=True)
@_common
def growth(operations: int, as_json: bool, output: Path, name: str | None) -> None:
    """Memory of every replica while many operations pass, checkpoints on.

    Example: python -m benchmarks growth --operations 200000
    """
    rows = trio.run(measure_growth, operations)
    _finish(name or "growth", rows, as_json, output)


@main.command()
def readme() -> None:
    """Write the README's performance section from the result files.

    Example: python -m benchmarks readme
    """
    write_readme()


if __name__ == "__main__":
    main()
