"""`python -m benchmarks compare A B`: two result files, metric by metric, with a verdict on each difference."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from benchmarks import results
from benchmarks.options import table_console
from benchmarks.statistics import Comparison, called_by_noise, compare, show_spread

SAME_ENVIRONMENT = ("processor", "cores", "python", "compiled", "stores_on")
COLOURS = {"better": "green", "worse": "red", "noise": "dim", "too few runs": "yellow"}


@dataclass(frozen=True, slots=True)
class Line:
    """One metric of one row that both files have."""

    row: str
    metric: str
    first: dict[str, Any]
    second: dict[str, Any]
    comparison: Comparison


def compare_documents(first: dict[str, Any], second: dict[str, Any]) -> list[Line]:
    """All metrics that both documents have for equal rows, in the order of the first.

    Documents that say `exact` hold no noise: every difference counts there.
    """
    exact = is_exact(first, second)
    others = {row_key(row): row for row in second["figures"]}
    lines = []
    for row in first["figures"]:
        other = others.get(row_key(row))
        if other is None:
            continue
        for metric, spread in results.metrics(row).items():
            if metric in results.metrics(other):
                found = compare(metric, spread, other[metric], exact=exact)
                if found is not None:
                    lines.append(Line(row_label(row), metric, spread, other[metric], found))
    return lines


def is_exact(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """True if neither document holds any noise."""
    return bool(first.get("exact")) and bool(second.get("exact"))


def lonely_rows(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Measurements that only one of two documents has, with which: they are compared with nothing."""
    found = []
    for which, one, other in (("first", first, second), ("second", second, first)):
        known = {row_key(row) for row in other["figures"]}
        found += [f"{row_label(row)}: only in the {which}" for row in one["figures"] if row_key(row) not in known]
    return found


def row_key(row: dict[str, Any]) -> str:
    """What makes two rows the same measurement."""
    return json.dumps(results.identity(row), sort_keys=True)


def row_label(row: dict[str, Any]) -> str:
    """A row's name for people."""
    identity = results.identity(row)
    if "case" in identity:
        return str(identity["case"])
    return " ".join(f"{key}={value}" for key, value in identity.items())


def differences_of_environment(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Why two files may not be comparable at all."""
    a, b = first["environment"], second["environment"]
    found = [f"{key}: {a.get(key, '?')} and {b.get(key, '?')}" for key in SAME_ENVIRONMENT if a.get(key) != b.get(key)]
    checks = [document["check_us"] for document in (first, second) if "check_us" in document]
    if len(checks) == 2 and (checks[0]["max"] < checks[1]["min"] or checks[1]["max"] < checks[0]["min"]):
        found.append(f"us for a signature check: {show_spread(checks[0])} and {show_spread(checks[1])}")
    return found


def load(path: Path) -> dict[str, Any]:
    """A result file named on the command line, by path or by name under `results/`.

    Raises:
        ClickException: it is none.
    """
    named = results.RESULTS / f"{path}.json"
    try:
        return results.read(named if not path.exists() and named.exists() else path)
    except results.NotResults as error:
        raise click.ClickException(str(error)) from error


@click.command("compare", epilog="Example: python -m benchmarks compare before.json after.json --metric op_s")
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@click.option("--metric", multiple=True, help="Only these metrics.")
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON.")
def compare_command(first: Path, second: Path, metric: tuple[str, ...], as_json: bool) -> None:
    """Compare two result files: SECOND as seen from FIRST, ratio of medians with its range, and whether it is noise.

    The verdict is an exact rank test on the single runs (5 %); fewer than four runs a side prove nothing. Of many
    metrics noise alone calls some better or worse, of equal systems too: it says how many, so name with --metric what
    a script is to fail on. Exit code 1: something is worse, outside noise.
    """
    a, b = load(first), load(second)
    lines = [line for line in compare_documents(a, b) if not metric or line.metric in metric]
    if as_json:
        click.echo(json.dumps([{"row": x.row, "metric": x.metric, **asdict(x.comparison)} for x in lines]))
    else:
        _print(lines, differences_of_environment(a, b), lonely_rows(a, b), exact=is_exact(a, b))
    click.get_current_context().exit(1 if any(line.comparison.verdict == "worse" for line in lines) else 0)


def _print(lines: list[Line], differences: list[str], lonely: list[str], *, exact: bool) -> None:
    console = table_console()
    for text in differences:
        console.print(f"[yellow]measured under different conditions[/]: {text}", highlight=False)
    for text in lonely:
        console.print(f"[yellow]compared with nothing[/]: {text}", highlight=False)
    if not lines:
        console.print("the files have no measurement in common")
        return
    table = Table(box=None)
    for column in ("measurement", "metric", "first", "second", "ratio (range)", "chance", "verdict"):
        table.add_column(column, justify="left" if column in ("measurement", "metric", "verdict") else "right")
    for line in lines:
        found = line.comparison
        table.add_row(
            line.row,
            line.metric,
            f"{line.first['median']:,.2f}",
            f"{line.second['median']:,.2f}",
            "-" if found.ratio is None else f"{found.ratio:.2f} ({found.ratio_min:.2f} .. {found.ratio_max:.2f})",
            "-" if found.chance is None else f"{found.chance:.3f}",
            f"[{COLOURS[found.verdict]}]{found.verdict}[/]",
        )
    console.print(table)
    tests = sum(line.comparison.chance is not None for line in lines)
    if tests > 1 and not exact:
        by_noise = called_by_noise([line.comparison for line in lines])
        console.print(f"{tests} tests at 5 %: up to about {by_noise} of them call equal systems better or worse")
