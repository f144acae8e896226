"""`python -m benchmarks`: run, and write what was measured to `benchmarks/results/`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
import trio
from rich.progress import Progress
from rich.table import Table

from benchmarks import results
from benchmarks.attacks import ATTACKS, measure_attacks
from benchmarks.case import Case
from benchmarks.compare import compare_command
from benchmarks.counts import counts
from benchmarks.cpu import cpu
from benchmarks.hostile import combined, counted, idle, measure_hostile
from benchmarks.hostile_client import KINDS
from benchmarks.measures import measure_case, measure_growth, measure_outage, measure_rejoin
from benchmarks.options import (
    DURABILITIES,
    SESSIONS,
    durability_option,
    file_options,
    repeat_option,
    seconds_option,
    sessions_option,
    table_console,
)
from benchmarks.plot import plot
from benchmarks.readme import write as write_readme
from benchmarks.reconfigure import measure_reconfigure
from benchmarks.report import report
from benchmarks.run import run
from benchmarks.statistics import show_spread
from benchmarks.virtual.calibrate import calibrate_command
from benchmarks.virtual.command import virtual
from benchmarks.ycsb import ycsb
from bft.config import Durability, Protocol
from bft.membership import REPLICAS_MAX

console = table_console()


@click.group()
def main() -> None:
    """Benchmarks: live clusters on this machine, other systems beside them, and clusters in virtual time.

    Every figure goes to benchmarks/results/NAME.json; benchmarks/README.md says how each is measured.

    Example: python -m benchmarks run --suite targets
    """


def _finish(
    name: str, rows: list[dict[str, Any]], as_json: bool, output: Path, shown: Sequence[str] = (), **more: object
) -> None:
    path = results.write(name, rows, output, **more)
    if as_json:
        click.echo(json.dumps(rows))
        return
    columns = [column for column in rows[0] if not shown or column in shown]
    table = Table(*columns, title=name)
    for row in rows:
        table.add_row(*(_text(row[column]) for column in columns))
    console.print(table)
    console.print(f"written to {path}")


def _text(value: object) -> str:
    return f"{value:,.2f}" if isinstance(value, float) else show_spread(value)


@main.command()
@click.option("--sessions", "-s", type=SESSIONS, multiple=True, default=(1, 10, 50, 200, 1000), show_default=True)
@click.option("--durability", "-d", type=DURABILITIES, multiple=True, default=("memory", "power"), show_default=True)
@click.option("--request-bytes", type=click.IntRange(0, 1 << 20), default=0, show_default=True)
@click.option("--reply-bytes", type=click.IntRange(0, 1 << 20), default=0, show_default=True)
@click.option("--n", type=click.IntRange(4, REPLICAS_MAX), default=4, show_default=True)
@seconds_option(5.0)
@repeat_option(5)
@file_options("throughput")
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
    name: str,
) -> None:
    """Closed-loop sessions in one client process against a cluster of n replica processes.

    Example: python -m benchmarks throughput -s 200 -d power --repeat 3
    """
    cases = [
        Case(n=n, durability=level, callers=count, request_bytes=request_bytes, reply_bytes=reply_bytes)
        for level in durability
        for count in sessions
    ]
    rows = []
    with Progress(console=console, transient=True, disable=as_json) as progress:
        task = progress.add_task("throughput", total=len(cases) * repeat)
        for case in cases:
            runs = []
            for _ in range(repeat):
                runs.append(trio.run(measure_case, case, seconds))
                progress.advance(task)
            rows.append({**case.columns(), **results.spreads(runs)})
    _finish(name, rows, as_json, output, ("durability", "load", "bytes", "op_s", "p50_ms", "p99_ms", "failures"))


@main.command()
@durability_option("process")
@repeat_option(5)
@file_options("outage")
def outage(durability: Durability, repeat: int, as_json: bool, output: Path, name: str) -> None:
    """How long nothing completes after kill -9 of the primary under load.

    Example: python -m benchmarks outage --repeat 3
    """
    runs = [trio.run(measure_outage, durability) for _ in range(repeat)]
    rows = [{"durability": durability, **results.spreads(runs)}]
    _finish(name, rows, as_json, output)


@main.command()
@durability_option("process")
@sessions_option(50)
@seconds_option(5.0, text="Length of a steady phase.")
@repeat_option(3)
@file_options("reconfigure")
def reconfigure(
    durability: Durability,
    sessions: int,
    seconds: float,
    repeat: int,
    as_json: bool,
    output: Path,
    name: str,
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
    _finish(name, rows, as_json, output)


@main.command()
@click.option("--operations", type=click.IntRange(1), default=1_000_000, show_default=True)
@file_options("growth")
def growth(operations: int, as_json: bool, output: Path, name: str) -> None:
    """Memory of the largest replica while many operations pass, checkpoints on.

    Example: python -m benchmarks growth --operations 200000
    """
    rows = trio.run(measure_growth, operations)
    _finish(name, rows, as_json, output)


@main.command()
@click.option("--attack", "-a", "chosen", type=click.Choice(list(ATTACKS)), multiple=True, help="Only these.")
@seconds_option(10.0, minimum=2.0, text="Per attack.")
@click.option("--quick", is_flag=True, help="5 seconds per attack: shows that it runs, not what it costs.")
@sessions_option(48, text="Callers of all four clients together.")
@durability_option("memory")
@click.option("--without-monitor", is_flag=True, help="With slow_floor_ms = 0, for comparison.")
@file_options("attacks")
def attacks(
    chosen: tuple[str, ...],
    seconds: float,
    quick: bool,
    sessions: int,
    durability: Durability,
    without_monitor: bool,
    as_json: bool,
    output: Path,
    name: str,
) -> None:
    """Throughput under performance attacks, as a ratio to the fault-free cluster measured just before.

    Verdict: `holds` for 70 % over the whole time, `recovers` for 70 % in its last third, `below`, or `within bounds`
    where the protocol tolerates what the liar does. Exit code 1 if any is `below` or failed.

    Example: python -m benchmarks attacks --seconds 60 -a delay -a starve
    """
    names = list(chosen or ATTACKS)
    protocol = Protocol(slow_floor_ms=0) if without_monitor else Protocol()
    length = 5.0 if quick else seconds
    with Progress(console=console, transient=True, disable=as_json) as progress:
        task = progress.add_task("attacks", total=len(names) + 1)

        def advance(attack: str) -> None:
            progress.update(task, advance=1, description=attack)

        rows = trio.run(
            partial(
                measure_attacks,
                names,
                seconds=length,
                sessions=sessions,
                durability=durability,
                protocol=protocol,
                advance=advance,
                keep=lambda found: results.write(name, found, output),
            )
        )
    path = results.write(name, rows, output)
    if as_json:
        click.echo(json.dumps(rows))
    else:
        _show_attacks(rows)
        console.print(f"written to {path}")
    if any(row["verdict"].startswith(("below", "failed")) for row in rows):
        click.get_current_context().exit(1)


def _show_attacks(rows: list[dict[str, Any]]) -> None:
    columns = ("attack", "fault_free_op_s", "attacked_op_s", "ratio", "settled_ratio", "view_changes", "complaints")
    table = Table(title="throughput under attack")
    for column in (*columns, "verdict"):
        table.add_column(column)
    for row in rows:
        verdict = row["verdict"].partition(":")[0]
        table.add_row(*(_text(row.get(column, "-")) for column in columns), verdict)
    console.print(table)


@main.command()
@durability_option("process")
@click.option("--megabytes", type=click.IntRange(1), default=100, show_default=True, help="Growth while it is down.")
@click.option("--limit", type=click.IntRange(0), default=0, show_default=True, help="Bytes a second; 0 for no cap.")
@repeat_option(3)
@file_options("rejoin")
def rejoin(
    durability: Durability, megabytes: int, limit: int, repeat: int, as_json: bool, output: Path, name: str
) -> None:
    """How long a replica that was down while the state grew needs to catch up, and what the others do meanwhile.

    Example: python -m benchmarks rejoin --megabytes 100 --repeat 3
    """
    runs = [trio.run(measure_rejoin, durability, megabytes, limit) for _ in range(repeat)]
    row = {"durability": durability, "megabytes": megabytes, "limit": limit}
    rows = [{**row, **results.spreads(runs)}]
    _finish(name, rows, as_json, output)


@main.command()
@click.option("--kind", "-k", type=click.Choice(KINDS), multiple=True, default=KINDS, help="All by default.")
@click.option("--nice", "niceness", type=click.IntRange(0, 19), multiple=True, default=(10, 0), show_default=True)
@durability_option("memory")
@sessions_option(200, text="Callers of the four honest clients together.")
@seconds_option(5.0, text="Length of every measured stretch.")
@click.option("--quick", is_flag=True, help="One run of one second each, at the first niceness only.")
@repeat_option(3)
@click.option("--require", type=float, default=0.0, help="Exit with 1 if a ratio at the first niceness is below this.")
@file_options("hostile")
def hostile(
    kind: tuple[str, ...],
    niceness: tuple[int, ...],
    durability: Durability,
    sessions: int,
    seconds: float,
    quick: bool,
    repeat: int,
    require: float,
    as_json: bool,
    output: Path,
    name: str,
) -> None:
    """Honest throughput with and without one hostile client at full speed, kind by kind in one run.

    Exit code 1: a ratio is below what is required, or a hostile process sent nothing.

    Example: python -m benchmarks hostile --quick --require 0.7
    """
    if quick:
        niceness, seconds, repeat = niceness[:1], 1.0, 1
    runs = [trio.run(measure_hostile, durability, sessions, kind, niceness, seconds) for _ in range(repeat)]
    rows = combined(runs, durability=durability, sessions=sessions)
    shown = ("kind", "niceness", "before_op_s", "beside_op_s", "ratio", "stall_ms", "hostile_frames_s")
    _finish(name, rows, as_json, output, shown, counted=counted(runs))
    poor = [row["kind"] for row in rows if row["niceness"] == niceness[0] and row["ratio"]["median"] < require]
    silent = idle(rows)
    if silent:
        click.echo(f"nothing was measured, the hostile process sent nothing: {', '.join(silent)}", err=True)
    if poor:
        click.echo(f"below {require:g} of the honest throughput: {', '.join(poor)}", err=True)
    if poor or silent:
        raise SystemExit(1)


@main.command()
def readme() -> None:
    """Write the README's performance section from the result files.

    Example: python -m benchmarks readme
    """
    write_readme()


for command in (run, compare_command, plot, report, virtual, calibrate_command, counts, cpu, ycsb):
    main.add_command(command)

if __name__ == "__main__":
    main()
