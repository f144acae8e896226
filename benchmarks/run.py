"""`python -m benchmarks run`: a suite of cases, interleaved, with everything recorded as it comes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
import trio
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks import results
from benchmarks.case import Case
from benchmarks.measures import measure_case
from benchmarks.options import file_options, repeat_option, seconds_option, table_console
from benchmarks.peers import Absent, RunFailed, adapter
from benchmarks.statistics import show_spread
from benchmarks.suites import SUITES, load_targets, verdicts
from benchmarks.yardstick import check_us
from bft.errors import BFTError

RUN_SECONDS_MAX = 90.0
"""A single run that takes longer has hung: it is given up and counted as failed."""
FAILURES = (BFTError, OSError, trio.TooSlowError, trio.BrokenResourceError, RunFailed)
"""What a run may end with on a machine where something else is wrong; anything else is a bug, and is raised."""
Measure = Callable[[Case, float], dict[str, float]]


def measure(case: Case, seconds: float) -> dict[str, float]:
    """One run of one case.

    Raises:
        RunFailed: it gave no figures.
        Absent: the system is not installed here.
    """
    try:
        return adapter(case.system).measure(case, seconds) if case.system != "bft" else trio.run(_bft, case, seconds)
    except FAILURES as error:
        raise RunFailed(f"{type(error).__name__}: {error}") from error
    except BaseExceptionGroup as group:
        rest = group.split(FAILURES)[1]
        if rest is not None:
            raise  # a bug
        raise RunFailed(f"{group}: {_first(group)}") from group


async def _bft(case: Case, seconds: float) -> dict[str, float]:
    with trio.fail_after(RUN_SECONDS_MAX + seconds):
        return await measure_case(case, seconds)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class Suite:
    """Measures cases in rounds: every case once, then every case again. Drift of the machine then hits all alike.

    Attributes:
        runs: figures of the runs so far, by case.
        checks: what a signature check took before each of them, microseconds.
        failures: texts of runs that gave none, by case.
        absent: why a system was skipped, by system.
    """

    def __init__(self, cases: dict[str, Case], seconds: float, one: Measure = measure) -> None:
        self._cases = cases
        self._seconds = seconds
        self._measure = one
        self.runs: dict[str, list[dict[str, float]]] = {name: [] for name in cases}
        self.checks: list[float] = []
        self.failures: dict[str, list[str]] = {}
        self.absent: dict[str, str] = {}

    def run_round(self, on_case: Callable[[str, Case], None] = lambda name, case: None) -> None:
        """Measure every case once; a run that fails is tried once more."""
        for name, case in self._cases.items():
            on_case(name, case)
            if case.system in self.absent:
                continue
            self.checks.append(check_us())
            for _ in range(2):
                try:
                    self.runs[name].append(self._measure(case, self._seconds))
                    break
                except Absent as absent:
                    self.absent[case.system] = str(absent)
                    break
                except RunFailed as error:
                    self.failures.setdefault(name, []).append(str(error))

    def rows(self) -> list[dict[str, Any]]:
        """A row per case that was measured."""
        return [
            {
                "case": name,
                **case.columns(),
                "failed_runs": len(self.failures.get(name, ())),
                **results.spreads(runs),
            }
            for name, case in self._cases.items()
            if (runs := self.runs[name])
        ]

    @property
    def incomplete(self) -> list[str]:
        """Cases of present systems that gave no figures at all."""
        return [name for name, case in self._cases.items() if not self.runs[name] and case.system not in self.absent]


def chosen(suite: str, only: Iterable[str]) -> dict[str, Case]:
    """The cases of a suite whose name or description contains one of the texts; all when there is none.

    Raises:
        UsageError: none does.
    """
    wanted = tuple(only)
    cases = {
        name: case
        for name, case in SUITES[suite].items()
        if not wanted or any(text in name or text in case.label for text in wanted)
    }
    if not cases:
        raise click.UsageError(f"no case of suite {suite} matches {', '.join(wanted)}")
    return cases


@click.command("run", epilog="Example: python -m benchmarks run --suite targets")
@click.option("--suite", type=click.Choice(sorted(SUITES)), default="quick", show_default=True)
@click.option("--only", multiple=True, metavar="TEXT", help="Cases whose name or description contains TEXT.")
@seconds_option(5.0)
@repeat_option(5)
@file_options(None, text="Name of the result file; that of the suite by default.")
@click.option("--list", "list_only", is_flag=True, help="Print the cases and measure nothing.")
def run(
    suite: str,
    only: tuple[str, ...],
    seconds: float,
    repeat: int,
    name: str | None,
    output: Path,
    as_json: bool,
    list_only: bool,
) -> None:
    """Measure a suite: `repeat` rounds, each case once per round, medians with the smallest and the largest.

    The result file is written after every round. Exit code 1: a case gave no figures, or (suite targets) a target was
    not met.
    """
    cases = chosen(suite, only)
    if list_only:
        for key, case in cases.items():
            click.echo(f"{key:28} {case.label}")
        return
    console = table_console(stderr=as_json)
    work = Suite(cases, seconds)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(suite, total=len(cases) * repeat)

        def on_case(key: str, case: Case) -> None:
            progress.update(task, advance=1, description=key)

        for number in range(1, repeat + 1):
            work.run_round(on_case)
            if not console.is_terminal:
                console.print(f"round {number} of {repeat} done")
            path = _write(name or suite, suite, work, seconds, output)
    ok = _show(suite, work, console, as_json)
    console.print(f"written to {path}")
    click.get_current_context().exit(0 if ok else 1)


def _write(name: str, suite: str, work: Suite, seconds: float, output: Path) -> Path:
    more: dict[str, object] = {"suite": suite, "seconds": seconds, "failed": work.failures, "absent": work.absent}
    if work.checks:
        more["check_us"] = results.spread(work.checks)
    return results.write(name, work.rows(), output, **more)


def _show(suite: str, work: Suite, console: Console, as_json: bool) -> bool:
    """Print the outcome; True when nothing is missing and no target was missed."""
    for system, reason in work.absent.items():
        console.print(f"[yellow]{system} skipped[/]: {reason}", highlight=False)
    for name in work.incomplete:
        console.print(f"[red]{name} gave no figures[/]: {work.failures[name][-1]}", highlight=False)
    rows = work.rows()
    lines = verdicts(rows, load_targets()) if suite == "targets" else []
    if as_json:
        click.echo(json.dumps({"figures": rows, "targets": lines} if lines else rows))
    elif lines:
        console.print(_targets_table(lines))
    else:
        console.print(_rows_table(rows))
    return not work.incomplete and not any(line["met"] is False for line in lines)


def _targets_table(lines: list[dict[str, object]]) -> Table:
    table = Table(title="targets", box=None)
    for column in ("case", "metric", "target", "measured (min .. max)", "met"):
        table.add_column(column, justify="left" if column in ("case", "metric") else "right")
    words = {True: "[green]yes[/]", False: "[red]no[/]", None: "-"}
    for line in lines:
        target, met = line["target"], line["met"]
        assert met is None or isinstance(met, bool)
        table.add_row(
            str(line["case"]),
            str(line["metric"]),
            "-" if not isinstance(target, int | float) else f"{target:,.6g}",
            show_spread(line["measured"]),
            words[met],
        )
    return table


def _rows_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=None)
    for column in ("case", "op_s", "p50_ms", "p99_ms", "replica_cpu_us_per_op", "failures"):
        table.add_column(column, justify="left" if column == "case" else "right")
    for row in rows:
        cells = [show_spread(row.get(key)) for key in ("op_s", "p50_ms", "p99_ms", "replica_cpu_us_per_op", "failures")]
        table.add_row(str(row["case"]), *cells)
    return table
