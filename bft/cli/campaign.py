"""`bft campaign`: attack the real code by seed, keep what was found, repeat it, draw it, shrink it.

Exit codes: 0 every run passed, 1 a property was broken, 2 usage, 3 nothing was decided in some run and nothing broken,
4 a repetition differed although the code is the same (the simulator is broken).
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict, TypeVar, Unpack

import click
import msgspec
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from bft.cli.campaign_broken import mutants, sweep
from bft.cli.campaign_crashes import crashpoints
from bft.cli.terminal import console, example
from bft.errors import ConfigError
from bft.sim.campaign import Job, generators, jobs, judge, run_campaign
from bft.sim.diagram import chart
from bft.sim.explore import Explorer
from bft.sim.report import page
from bft.sim.results import OUTCOMES, Result, Results, code_version, read_scenario, to_json
from bft.sim.shrink import RUNS_MAX, shrink, write_out
from bft.sim.trace import record
from bft.sim.twins_search import search

EXIT_VIOLATION = 1
EXIT_INCONCLUSIVE = 3
EXIT_UNFAITHFUL = 4
COLOURS = {"pass": "green", "violation": "red", "inconclusive": "yellow"}
SHOWN_MAX = 10

F = TypeVar("F", bound=Callable[..., object])


def database_option(command: F) -> F:
    """Add `--db`."""
    return click.option(
        "--db",
        "database",
        type=click.Path(dir_okay=False, path_type=Path),
        default=Path("reports/campaign.db"),
        show_default=True,
        help="SQLite file of results.",
    )(command)


def json_option(command: F) -> F:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")(command)


class FriendlyGroup(click.Group):
    """A group whose commands report a `ConfigError` as a usage error (exit code 2)."""

    def invoke(self, context: click.Context) -> object:
        """Run the command."""
        try:
            return super().invoke(context)
        except ConfigError as error:
            raise click.UsageError(str(error)) from error


@click.group(
    cls=FriendlyGroup,
    epilog=example("campaign run --seeds 200", "campaign crashpoints --family ordering", "campaign mutants"),
)
def campaign() -> None:
    """Attack the protocol by seed; repeat, draw and shrink what breaks."""


class RunOptions(TypedDict):
    """Options of `run`, as click names them."""

    seeds: int
    first: int
    sizes: tuple[int, ...]
    workers: int
    stop_on_first: bool
    crimes: tuple[str, ...]
    names: tuple[str, ...]
    database: Path
    as_json: bool


@campaign.command()
@click.option("--seeds", type=click.IntRange(0), default=1000, show_default=True, help="Seeds per generator and size.")
@click.option("--first", type=click.IntRange(0), default=0, show_default=True, help="First seed.")
@click.option("--n", "sizes", type=click.IntRange(4, 100), multiple=True, default=(4, 7), show_default=True)
@click.option("--jobs", "workers", type=click.IntRange(1, 256), default=2, show_default=True, help="Processes.")
@click.option("--stop-on-first", is_flag=True, help="Stop at the first violation.")
@click.option("--crime", "crimes", multiple=True, help="Strategy expression for the corrupted replicas; repeatable.")
@click.option("--generator", "names", multiple=True, help="uniform, reconfigured, structured, directed; default: all.")
@database_option
@json_option
def run(**options: Unpack[RunOptions]) -> None:
    """Run a campaign and store its results."""
    names = options["names"] or (("uniform",) if options["crimes"] else tuple(generators()))
    work = jobs(
        names,
        first=options["first"],
        seeds=options["seeds"],
        sizes=options["sizes"],
        crimes=options["crimes"],
    )
    began = time.perf_counter()
    with Results(options["database"]) as results:
        done = _collect(work, results, options)
    seconds = time.perf_counter() - began
    if options["as_json"]:
        click.echo(to_json(_summary(done, seconds)))
    else:
        _print_summary(done, seconds, options["database"])
    sys.exit(exit_code(done))


def _collect(work: list[Job], results: Results, options: RunOptions) -> list[Result]:
    """Run the jobs under a progress bar and store what comes in; violations are told at once."""
    console = Console(stderr=True)
    done: list[Result] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    stream = run_campaign(work, workers=options["workers"], code=code_version())
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=options["as_json"]) as progress:
        task = progress.add_task("0 broken", total=len(work))
        broken = 0
        for chunk in stream:
            identities = results.add(chunk)
            done += chunk
            for identity, result in zip(identities, chunk, strict=True):
                if result.outcome == "violation":
                    broken += 1
                    if broken <= SHOWN_MAX:
                        text = escape(f"{_title(result)}: {result.violations[0].detail}")
                        progress.console.print(f"[red]run {identity}[/]: {text}")
            progress.update(task, advance=len(chunk), description=f"{broken} broken")
            if broken and options["stop_on_first"]:
                stream.close()
                break
    return done


def _title(result: Result) -> str:
    scenario = result.scenario
    name = result.label or f"seed {scenario.seed}"
    return f"{result.generator} {name}, n={scenario.n}" + "".join(f", {checker}" for checker in result.checkers)


def exit_code(done: list[Result]) -> int:
    """The process's exit code for these results."""
    outcomes = {result.outcome for result in done}
    if "violation" in outcomes:
        return EXIT_VIOLATION
    return EXIT_INCONCLUSIVE if "inconclusive" in outcomes or not done else 0


def _summary(done: list[Result], seconds: float) -> dict[str, object]:
    """What a campaign came to, as plain values."""
    outcomes = Counter(result.outcome for result in done)
    sometimes: Counter[str] = Counter()
    totals: Counter[str] = Counter()
    for result in done:
        totals.update(result.counters)
        sometimes.update(name for name, value in result.counters.items() if value)
    return {
        "runs": len(done),
        "outcomes": {outcome: outcomes[outcome] for outcome in OUTCOMES},
        "checkers": dict(Counter(name for result in done for name in result.checkers)),
        "seconds": round(seconds, 2),
        "runs_per_second": round(len(done) / max(seconds, 1e-9), 1),
        "messages_per_second": round(totals["delivered"] / max(seconds, 1e-9)),
        "totals": dict(totals),
        "sometimes": {name: sometimes[name] for name in totals},
    }


def _print_summary(done: list[Result], seconds: float, database: Path) -> None:
    summary = _summary(done, seconds)
    out = console()
    outcomes = Counter(result.outcome for result in done)
    parts = [f"[{COLOURS[outcome]}]{outcomes[outcome]} {outcome}[/]" for outcome in OUTCOMES]
    out.print(f"{len(done)} runs in {seconds:.1f} s: {', '.join(parts)}")
    out.print(f"{summary['runs_per_second']} runs/s, {summary['messages_per_second']} messages/s; in {database}")
    table = Table("what happened", "in runs", "in all", title="not vacuous?")
    sometimes, totals = summary["sometimes"], summary["totals"]
    assert isinstance(sometimes, dict), "a table of counts"
    assert isinstance(totals, dict), "a table of counts"
    for name, total in totals.items():
        table.add_row(name, str(sometimes[name]), str(total), style="" if sometimes[name] else "yellow")
    out.print(table)
    if outcomes["violation"]:
        out.print(f"look: bft campaign report --db {database}; repeat: bft campaign replay ID; shrink ID")


@campaign.command()
@click.argument("run_id", metavar="ID", type=int, required=False)
@click.option("--scenario", "file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Scenario file.")
@click.option("--chart", "with_chart", is_flag=True, help="Print the run message by message.")
@database_option
@json_option
def replay(run_id: int | None, file: Path | None, with_chart: bool, database: Path, as_json: bool) -> None:
    """Repeat a run and compare every message, by its trace digest.

    A scenario file has no digest to compare with: it is run twice.
    """
    if (run_id is None) == (file is None):
        raise click.UsageError("give either the ID of a stored run or --scenario FILE")
    if file is not None:
        before = judge(read_scenario(file), code=code_version())
    else:
        assert run_id is not None, "one of the two was given"
        with Results(database, create=False) as results:
            before = results.get(run_id)
    again = judge(before.scenario, generator=before.generator, label=before.label, code=code_version())
    same_code = before.code == again.code
    if as_json:
        click.echo(to_json({"result": again, "same_digest": again.digest == before.digest, "same_code": same_code}))
    else:
        _print_replay(before, again, same_code)
    if with_chart:
        click.echo(chart(record(again.scenario)))
    if again.digest != before.digest and same_code:
        sys.exit(EXIT_UNFAITHFUL)
    sys.exit(exit_code([again]))


def _print_replay(before: Result, again: Result, same_code: bool) -> None:
    out = console()
    out.print(f"{escape(_title(again))}: [{COLOURS[again.outcome]}]{again.outcome}[/]")
    for found in again.violations:
        out.print(f"  [red]{found.checker}[/]: {escape(found.detail)}")
    out.print(f"{again.counters.get('delivered', 0)} messages, digest {again.digest}", soft_wrap=True)
    if not again.digest:
        text = "the run raised, so there is no digest to compare"
    elif again.digest == before.digest:
        text = "the same digest as before: every message alike"
    elif same_code:
        text = f"[red]the digest was {before.digest} with the same code: the simulator is broken[/]"
    else:
        text = f"[yellow]the digest was {before.digest} with code {before.code}; now {again.code}[/]"
    out.print(text, soft_wrap=True)


@campaign.command(name="list")
@click.option("--outcome", type=click.Choice(OUTCOMES), help="Only runs that ended so.")
@click.option("--limit", type=click.IntRange(1), default=30, show_default=True, help="At most the last so many.")
@database_option
@json_option
def list_runs(outcome: str | None, limit: int, database: Path, as_json: bool) -> None:
    """List stored runs."""
    chosen = next((known for known in OUTCOMES if known == outcome), None)
    with Results(database, create=False) as results:
        found = list(results.all(chosen, limit))
    if as_json:
        click.echo(to_json(found))
        return
    table = Table("id", "generator", "seed", "n", "outcome", "checkers", "messages", "ms")
    table.add_column("crimes", no_wrap=True, max_width=60)
    for result in found:
        scenario = result.scenario
        table.add_row(
            str(result.id),
            result.label or result.generator,
            str(scenario.seed),
            str(scenario.n),
            f"[{COLOURS[result.outcome]}]{result.outcome}[/]",
            ", ".join(result.checkers),
            str(result.counters.get("delivered", 0)),
            f"{result.milliseconds:.0f}",
            escape(" / ".join(scenario.corrupted.values())),
        )
    console().print(table)


@campaign.command()
@click.option("--seeds", type=click.IntRange(1), default=20, show_default=True, help="Scenarios per size.")
@json_option
def speed(seeds: int, as_json: bool) -> None:
    """Measure delivered messages per second of processor time: what one core does when it has nothing else to do."""
    rows = []
    for n in (4, 7):
        began = time.process_time()
        done = [result for chunk in run_campaign(_speed_jobs(seeds, n), workers=1) for result in chunk]
        seconds = time.process_time() - began
        rows.append({"n": n, **_summary(done, seconds)})
    if as_json:
        click.echo(to_json(rows))
        return
    for row in rows:
        rate, runs = row["messages_per_second"], row["runs_per_second"]
        click.echo(f"n={row['n']}: {rate} delivered messages/s, {runs} runs/s of processor time, checkers included")


def _speed_jobs(seeds: int, n: int) -> list[Job]:
    return jobs(("uniform",), first=0, seeds=seeds, sizes=(n,))


@campaign.command()
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=Path("reports/campaign.html"))
@click.option("--include", "included", type=int, multiple=True, help="Also draw this run; repeatable.")
@click.option("--diagrams", type=click.IntRange(0, 50), default=12, show_default=True, help="Failures drawn at most.")
@database_option
def report(out: Path, included: tuple[int, ...], diagrams: int, database: Path) -> None:
    """Write one HTML page: tables, coverage, and a space-time diagram of every kind of failure."""
    with Results(database, create=False) as results:
        html = page(list(results.all()), include=[results.get(run_id) for run_id in included], diagrams_max=diagrams)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(html, encoding="utf-8")
    click.echo(f"{out}: {len(html) // 1024} KiB")


@campaign.command(name="shrink")
@click.argument("run_id", metavar="ID", type=int)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("reports/shrunk"))
@click.option("--runs", type=click.IntRange(1), default=RUNS_MAX, show_default=True, help="Simulations at most.")
@database_option
def shrink_run(run_id: int, out: Path, runs: int, database: Path) -> None:
    """Minimise a failing run: a scenario file, a pytest file and a sequence chart."""
    with Results(database, create=False) as results:
        stored = results.get(run_id)
        original = judge(stored.scenario, generator=stored.generator, label=stored.label, code=code_version())
        if not original.violations:
            raise ConfigError(f"run {run_id} breaks nothing with this code")
        original = msgspec.structs.replace(original, id=run_id)
        shrunk = shrink(original, runs_max=runs, tell=lambda step: click.echo(f"  without harm to the bug: {step}"))
        (stored_as,) = results.add([shrunk.result])
    click.echo(f"{shrunk.checker} still fires after {len(shrunk.steps)} cuts ({shrunk.runs} runs); run {stored_as}")
    for path in write_out(shrunk, out):
        click.echo(str(path))


@campaign.command()
@click.option("--byzantine", is_flag=True, help="The first primary equivocates.")
@click.option("--timers", type=click.IntRange(0, 3), default=0, show_default=True, help="Timeouts per replica.")
@click.option("--view-changes", is_flag=True, help="Let complaints about the primary through.")
@click.option("--states", type=click.IntRange(1), default=2_000_000, show_default=True, help="States at most.")
@click.option("--depth", type=click.IntRange(1), help="Arrivals at most.")
@json_option
def explore(byzantine: bool, timers: int, view_changes: bool, states: int, depth: int | None, as_json: bool) -> None:
    """Try every order of arrivals of one request at four replicas."""
    began = time.perf_counter()
    explorer = Explorer(byzantine=byzantine, timers=timers, view_changes=view_changes)
    found = explorer.run(states_max=states, depth_max=depth)
    if as_json:
        click.echo(to_json(found))
    else:
        extent = "every order of arrivals" if found.complete else "as far as the bounds go"
        click.echo(f"{found.states} states of the cluster, {found.local_states} of single replicas, {extent}")
        click.echo(f"{found.transitions} steps, at most {found.depth} deep, {time.perf_counter() - began:.1f} s")
        for name, count in found.sometimes.items():
            click.echo(f"  {name}: {f'in {count} states' if count else 'never'}")
        for text in found.violations:
            click.echo(text)
    sys.exit(EXIT_VIOLATION if found.violations else 0)


@campaign.command()
@click.option("--rounds", type=click.IntRange(1, 6), default=3, show_default=True, help="Partitions in a row.")
@click.option("--twin", type=click.IntRange(0, 3), default=0, show_default=True, help="The replica that exists twice.")
@click.option("--limit", type=click.IntRange(1), help="Schedules at most.")
@click.option("--stride", type=click.IntRange(1), default=1, show_default=True, help="Only every so many-th schedule.")
@json_option
def twins(rounds: int, twin: int, limit: int | None, stride: int, as_json: bool) -> None:
    """Duplicate one identity of four and try every partition of every round."""
    began = time.perf_counter()
    found = search(rounds=rounds, twin=twin, limit=limit, stride=stride)
    if as_json:
        click.echo(to_json(found))
    else:
        click.echo(f"{found.schedules} schedules of {rounds} rounds in {time.perf_counter() - began:.1f} s")
        for name, count in found.sometimes.items():
            click.echo(f"  {name}: in {count} schedules")
        for schedule, violation in found.violations[:SHOWN_MAX]:
            click.echo(f"{violation.checker}: {violation.detail}; partitions {schedule}")
        for schedule in found.stuck[:SHOWN_MAX]:
            click.echo(f"no progress after healing; partitions {schedule}")
    sys.exit(EXIT_VIOLATION if found.violations or found.stuck else 0)


campaign.add_command(mutants)
campaign.add_command(sweep)
campaign.add_command(crashpoints)

if __name__ == "__main__":
    campaign()
