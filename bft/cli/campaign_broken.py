"""`bft campaign mutants` and `bft campaign sweep`: do the attacks find anything when there is something to find?"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import click
import msgspec
from rich.progress import Progress
from rich.table import Table

from bft.cli.terminal import console, example
from bft.membership import Quorums
from bft.sim.mutation import Kill, Mutant, hunt, load
from bft.sim.results import to_json
from bft.sim.sweep import sweep as sweep_rows
from bft.sim.sweep import table

MUTANTS = Path("tests/mutants/mutants.toml")


@click.command(epilog=example("campaign mutants --known", "campaign mutants --only M15 --only M16 --seconds 120"))
@click.option(
    "--file", "path", type=click.Path(exists=True, path_type=Path), default=MUTANTS, show_default=True, help="Mutants."
)
@click.option("--only", multiple=True, help="Ids of the mutants to hunt; all by default.")
@click.option("--known", is_flag=True, help="Only the run known to kill each, instead of the default campaign.")
@click.option("--seconds", type=click.FloatRange(1), default=60.0, show_default=True, help="Time per hunt.")
@click.option("--starts", type=click.IntRange(1), default=1, show_default=True, help="Hunts per mutant.")
@click.option("--jobs", type=click.IntRange(1), default=2, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Also write the table as JSON to this file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def mutants(
    path: Path,
    only: tuple[str, ...],
    known: bool,
    seconds: float,
    starts: int,
    jobs: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Break the protocol on purpose, in many ways, and see which checker of the default campaign notices.

    Each mutant is hunted in a scratch copy of the package. Exit code 1 if one survives that is known to be killable.
    """
    chosen = [mutant for mutant in load(path) if not only or mutant.id in only]
    if not chosen:
        raise click.UsageError(f"no mutant in {path} is called {', '.join(only)}")

    def hunt_all(mutant: Mutant) -> list[Kill]:
        firsts = range(1 if known else starts)
        return [hunt(mutant, seconds=seconds, first=1000 * start, job=mutant.job if known else "") for start in firsts]

    rows = []
    with ThreadPoolExecutor(jobs) as pool, Progress(transient=True, disable=as_json) as progress:
        task = progress.add_task("mutants", total=len(chosen))
        for mutant, kills in zip(chosen, pool.map(hunt_all, chosen), strict=True):
            progress.advance(task)
            rows.append(_row(mutant, kills))
    text = to_json(rows)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text + "\n")
    if as_json:
        click.echo(text)
    else:
        _show(rows)
    expected = {mutant.id for mutant in chosen if mutant.job}
    sys.exit(1 if any(row.hunts_won == 0 and row.id in expected for row in rows) else 0)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table."""

    id: str
    title: str
    killed_by: str
    run: str
    hunts: int
    hunts_won: int
    schedules_median: float
    seconds: float


def _row(mutant: Mutant, kills: list[Kill]) -> Row:
    won = [kill for kill in kills if kill.checkers]
    return Row(
        id=mutant.id,
        title=mutant.title,
        killed_by=won[0].checkers[0] if won else "",
        run=won[0].job if won else "",
        hunts=len(kills),
        hunts_won=len(won),
        schedules_median=median(kill.schedules for kill in won or kills),
        seconds=round(sum(kill.seconds for kill in kills) / len(kills), 1),
    )


def _show(rows: list[Row]) -> None:
    shown = Table("mutant", "killed by", "run", "hunts", "schedules", "seconds", "what is broken")
    for row in rows:
        killed = row.killed_by or "[red]survived[/red]"
        hunts = f"{row.hunts_won}/{row.hunts}"
        shown.add_row(row.id, killed, row.run, hunts, f"{row.schedules_median:g}", f"{row.seconds}", row.title)
    out = console()
    out.print(shown)
    out.print(f"{sum(row.hunts_won > 0 for row in rows)} of {len(rows)} killed")


@click.command(epilog=example("campaign sweep --n 4 --seeds 12"))
@click.option("--n", type=click.IntRange(4, 13), default=4, show_default=True, help="Replicas.")
@click.option("--seeds", type=click.IntRange(1), default=12, show_default=True, help="Runs per number of traitors.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def sweep(n: int, seeds: int, as_json: bool) -> None:
    """Try 0 to n - 1 traitors, and show which property falls where. Exit code 1 if one falls within f."""
    rows = list(sweep_rows(n, seeds))
    click.echo(to_json(rows) if as_json else table(rows))
    within = Quorums.of(n).f
    sys.exit(1 if any(row.fallen for row in rows if row.traitors <= within) else 0)
