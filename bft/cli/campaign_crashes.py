"""`bft campaign crashpoints`: stop replicas at every boundary between two effects, restart them, check everything."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from bft.cli.terminal import console, example
from bft.errors import ConfigError
from bft.sim.campaign import crash_jobs, run_campaign
from bft.sim.crashpoints import WAYS, Point, boundaries, chosen, families, losers
from bft.sim.results import Result, to_json

LARGE = ("seven", "seven-honest")
"""Families that are sampled unless they are asked for whole."""
SAMPLE_OF_LARGE = 60
PAIRS = 40
SHOWN_MAX = 10


@click.command(
    epilog=example(
        "campaign crashpoints",
        "campaign crashpoints --family ordering --way power --way torn",
        "campaign crashpoints --point transfer/kill/1/3/23+42 --json",
    )
)
@click.option("--family", "names", multiple=True, help="Scenario; repeatable.  [default: all]")
@click.option("--way", "ways", multiple=True, help=f"How to stop: {', '.join(WAYS)}; repeatable.  [default: all]")
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help="Seeds per family.")
@click.option("--sample", type=click.IntRange(0), default=0, show_default=True, help="Points per family, 0 for all.")
@click.option("--pairs", type=click.IntRange(0), default=PAIRS, show_default=True, help="Double stops per family.")
@click.option(
    "--point", "named", multiple=True, metavar="POINT", help="Only this point, as it was printed; repeatable."
)
@click.option("--jobs", "workers", type=click.IntRange(1, 256), default=2, show_default=True, help="Processes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def crashpoints(
    names: tuple[str, ...],
    ways: tuple[str, ...],
    seeds: int,
    sample: int,
    pairs: int,
    named: tuple[str, ...],
    workers: int,
    as_json: bool,
) -> None:
    """Stop a replica (or all) at every boundary between two effects, restart, and run every checker.

    Boundaries are: before a record is handed to the disk, before and after it is synced, after a message has left.
    Small families are enumerated whole; of large ones, and of double stops, a sample is drawn by seed. Exit code 1 if
    a property was broken, 2 for a family, way or point that does not exist, or that no run reaches.
    """
    if named:
        points = [_reached(Point.parse(text)) for text in named]
    else:
        points = _points(names or tuple(families()), ways or tuple(WAYS), seeds, sample, pairs)
    began = time.perf_counter()
    done = _run(points, workers, as_json)
    seconds = time.perf_counter() - began
    if as_json:
        click.echo(to_json(_summary(points, done, seconds)))
    else:
        _show(points, done, seconds)
    sys.exit(1 if any(result.outcome != "pass" for result in done) else 0)


def _reached(point: Point) -> Point:
    """A point at which its replica stops. The second stop of a pair comes if the run is long enough after the first.

    Raises:
        ConfigError: no such family or way; or the run without stops does not get there.
    """
    if point.way not in WAYS:
        raise ConfigError(f"no way to stop {point.way!r}; there are {', '.join(WAYS)}")
    forgetful = losers(point.family, point.replica) if WAYS[point.way][2] == "forget" else ()
    counted = boundaries(point.family, point.seed, forgetful)
    if point.replica not in counted:
        raise ConfigError(f"{point}: there is no replica {point.replica} that could stop, only {_listed(counted)}")
    last = len(counted[point.replica])
    if not 1 <= point.boundary <= last:
        raise ConfigError(f"{point} is never reached: replica {point.replica} has boundaries 1 to {last}")
    return point


def _listed(replicas: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(replicas)))


def _points(names: tuple[str, ...], ways: tuple[str, ...], seeds: int, sample: int, pairs: int) -> list[Point]:
    small = tuple(name for name in names if name not in LARGE)
    large = tuple(name for name in names if name in LARGE)
    return [
        *chosen(small, ways, seeds=seeds, sample=sample, pairs=pairs),
        *chosen(large, ways, seeds=seeds, sample=sample or SAMPLE_OF_LARGE, pairs=pairs),
    ]


def _run(points: Sequence[Point], workers: int, as_json: bool) -> list[Result]:
    """Run all points under a progress bar; what breaks is told at once."""
    done: list[Result] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), disable=as_json) as progress:
        task = progress.add_task("0 broken", total=len(points))
        broken = 0
        for chunk in run_campaign(crash_jobs(points), workers=workers):
            done += chunk
            for result in chunk:
                if result.outcome != "pass":
                    broken += 1
                    if broken <= SHOWN_MAX:
                        progress.console.print(f"[red]{escape(_said(result))}[/]")
            progress.update(task, advance=len(chunk), description=f"{broken} broken")
    return done


def _said(result: Result) -> str:
    found = result.violations[0] if result.violations else None
    return f"{result.label}: {f'{found.checker}: {found.detail}' if found else result.outcome}"


def _summary(points: Sequence[Point], done: Sequence[Result], seconds: float) -> dict[str, object]:
    """What the enumeration came to, as plain values."""
    totals: Counter[str] = Counter()
    for result in done:
        totals.update(result.counters)
    return {
        "points": len(points),
        "struck": totals["struck"],
        "broken": {result.label: _said(result) for result in done if result.outcome != "pass"},
        "families": {f"{family}/{way}": count for (family, way), count in _counted(points).items()},
        "seconds": round(seconds, 2),
        "totals": dict(totals),
    }


def _counted(points: Sequence[Point]) -> Counter[tuple[str, str]]:
    return Counter((point.family, point.way) for point in points)


def _show(points: Sequence[Point], done: Sequence[Result], seconds: float) -> None:
    counted = _counted(points)
    table = Table("family", *WAYS, title="crash points")
    for family in dict.fromkeys(point.family for point in points):
        table.add_row(family, *(str(counted[family, way] or "-") for way in WAYS))
    out = console()
    out.print(table)
    broken = sum(result.outcome != "pass" for result in done)
    struck = sum(result.counters.get("struck", 0) for result in done)
    colour = "red" if broken else "green"
    out.print(f"{len(done)} runs, {struck} stops, in {seconds:.1f} s: [{colour}]{broken} broken[/]")
