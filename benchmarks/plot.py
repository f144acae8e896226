"""`python -m benchmarks plot`: result files as PNG and SVG.

The form follows from the rows alone: where they differ in one number (replicas, operations, rate) it is a curve over
that number, otherwise bars; medians, with the smallest and the largest run as error bars. A file's entry
`plot`, if it has one, says which rows to draw: column -> value.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks import results
from benchmarks.compare import load

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLOTS = results.RESULTS / "plots"
CURVE_POINTS_MIN = 3
METRICS_SHOWN = 2
LOGARITHMIC_FROM = 50
"""Largest value over smallest."""
PREFERRED = (
    *("op_s", "p50_ms", "p99_ms", "outage_ms", "rejoin_s", "largest_mb"),
    *("per_slot", "formula_per_slot", "ratio", "settled_ratio"),
)
ALSO_SHOWN = ("cpu_us_per_op",)
UNITS = {
    "op_s": "operations a second",
    "p50_ms": "latency, median [ms]",
    "p99_ms": "latency, 99th percentile [ms]",
    "outage_ms": "pause [ms]",
    "rejoin_s": "from its start until it agrees with the others [s]",
    "largest_mb": "memory of the largest replica [MiB]",
    "n": "replicas n",
    "cpu_us_per_op": "CPU of all replicas per operation [us]",
    "per_slot": "messages or signatures per slot",
    "formula_per_slot": "the same, by formula",
    "ratio": "throughput, over that of an undisturbed cluster",
    "settled_ratio": "the same, in the last third",
}
COLOURS = ("#31688e", "#d1495b", "#5a9367", "#8f6bb3", "#e08e45", "#666666")
LINES = ("-", "--", ":")
"""Curves beyond the colours have them again, drawn otherwise."""
LEGEND_INSIDE_MAX = 4
"""Entries of a legend that is laid over the curves; a longer one would hide some."""
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "svg.hashsalt": "bft",  # equal figures give equal bytes
    "svg.fonttype": "none",
}


def shown_metrics(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The metrics worth a picture: the well-known ones, else the first that the rows have."""
    names = list(dict.fromkeys(name for row in rows for name in results.metrics(row)))
    shown = ([name for name in PREFERRED if name in names] or names)[:METRICS_SHOWN]
    return shown + [name for name in ALSO_SHOWN if name in names and name not in shown]


def varying(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Columns in which the rows differ, but for the names of their cases."""
    columns = dict.fromkeys(name for row in rows for name in results.identity(row) if name != "case")
    return [name for name in columns if len({str(row.get(name)) for row in rows}) > 1]


def curve_column(rows: Sequence[dict[str, Any]]) -> str | None:
    """The number over which the rows form curves; None if they form none."""
    for name in varying(rows):
        values = {row.get(name) for row in rows}
        if len(values) < CURVE_POINTS_MIN or not all(isinstance(value, int | float) for value in values):
            continue
        if len(rows) >= CURVE_POINTS_MIN * len(groups(rows, name)):
            return name
    return None


def groups(rows: Sequence[dict[str, Any]], over: str) -> dict[str, list[dict[str, Any]]]:
    """Rows by what they differ in beside `over`: one curve each."""
    others = [name for name in varying(rows) if name != over]
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(", ".join(str(row.get(name)) for name in others), []).append(row)
    return found


def make_figure(document: dict[str, Any], title: str) -> Figure:
    """The picture of one result file.

    Raises:
        ClickException: matplotlib is missing, or the file has nothing to draw.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise click.ClickException("plots need matplotlib: pip install 'bft[benchmarks]'") from error
    only = document.get("plot", {})
    rows = [
        row
        for row in document["figures"]
        if results.metrics(row) and all(row.get(name) == value for name, value in only.items())
    ]
    names = shown_metrics(rows)
    if not names:
        raise click.ClickException(f"{title}: no metric to draw")
    over = curve_column(rows)
    with rc_context(STYLE):
        height = 3.2 if over else max(2.2, 0.8 + 0.26 * len(rows))
        figure = Figure(figsize=(9, height), layout="constrained")
        figure.suptitle(f"{title} ({document['environment'].get('commit', 'unknown commit')})", fontsize=10)
        for axes, metric in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
            _draw_curves(axes, rows, metric, over) if over else _draw_bars(axes, rows, metric)
            if not over and metric != names[0]:
                axes.tick_params(labelleft=False)
    return figure


def _draw_curves(axes: Axes, rows: Sequence[dict[str, Any]], metric: str, over: str) -> None:
    several = groups(rows, over)
    for index, (label, members) in enumerate(several.items()):
        points = sorted((row for row in members if metric in row), key=lambda row: float(row[over]))
        style: dict[str, Any] = {
            "color": COLOURS[index % len(COLOURS)],
            "linestyle": LINES[index // len(COLOURS) % len(LINES)],
        }
        middle, low, high = _spreads(points, metric)
        where = [float(row[over]) for row in points]
        axes.errorbar(where, middle, yerr=(low, high), label=label, **style, marker="o", markersize=3, capsize=2)
    axes.set_xlabel(UNITS.get(over, over))
    axes.set_ylabel(UNITS.get(metric, metric))
    if _spans_decades([row[metric]["median"] for row in rows if metric in row]):
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    if _spans_decades([float(row[over]) for row in rows]):
        axes.set_xscale("log")
    if len(several) > LEGEND_INSIDE_MAX:
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    elif len(several) > 1:
        axes.legend(frameon=False, fontsize=8)


def _spans_decades(values: Sequence[float]) -> bool:
    return min(values) > 0 and max(values) / min(values) > LOGARITHMIC_FROM


def _draw_bars(axes: Axes, rows: Sequence[dict[str, Any]], metric: str) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    members = [row for row in rows if metric in row]
    middle, low, high = _spreads(members, metric)
    labels = [_label(row, varying(rows)) for row in members]
    places = range(len(members))
    bars = axes.barh(
        places, middle, xerr=(low, high), color=COLOURS[0], error_kw={"elinewidth": 1, "capsize": 2}, height=0.7
    )
    # Where the longest bar is a thousand times the shortest, only the number tells how long that is.
    axes.bar_label(bars, [_short(value) for value in middle], padding=4, fontsize=7, color="#555555")
    axes.margins(x=0.15, y=0.01)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, place: _short(value)))
    axes.set_yticks(places, labels, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(UNITS.get(metric, metric))
    axes.grid(visible=False, axis="y")


def _short(value: float) -> str:
    """Three digits, thousands as "12.3k"."""
    if value >= 1000:
        return f"{value / 1000:.3g}k" if value < 1e6 else f"{value / 1e6:.3g}M"
    return f"{value:.3g}"


def _label(row: dict[str, Any], columns: Sequence[str]) -> str:
    parts = []
    for name in columns:
        value = row.get(name)
        if name == "bytes":
            parts.append(f"{value} B")
        elif name == "loop" and value == "closed":
            continue
        elif name == "reads_percent":
            parts += [f"{value} % reads"] if value else []
        elif isinstance(value, int | float):
            parts.append(f"{name} {value}")
        elif value is not None:
            parts.append(str(value))
    return ", ".join(parts) or str(row.get("case", "all"))


def _spreads(rows: Sequence[dict[str, Any]], metric: str) -> tuple[list[float], list[float], list[float]]:
    middle = [float(row[metric]["median"]) for row in rows]
    low = [value - float(row[metric]["min"]) for value, row in zip(middle, rows, strict=True)]
    high = [float(row[metric]["max"]) - value for value, row in zip(middle, rows, strict=True)]
    return middle, low, high


def svg(document: dict[str, Any], title: str) -> str:
    """The picture as SVG text without its XML head, to be put into a page."""
    text = StringIO()
    _save(make_figure(document, title), text, "svg")
    return text.getvalue()[text.getvalue().index("<svg") :]


def write_plot(document: dict[str, Any], name: str, folder: Path) -> list[Path]:
    """Write `name.png` and `name.svg`."""
    folder.mkdir(parents=True, exist_ok=True)
    figure = make_figure(document, name)
    paths = [folder / f"{name}.{kind}" for kind in ("png", "svg")]
    for path in paths:
        _save(figure, path, path.suffix[1:])
    return paths


def _save(figure: Figure, target: Path | StringIO, kind: str) -> None:
    from matplotlib import rc_context

    with rc_context(STYLE):
        figure.savefig(target, format=kind, dpi=144, metadata={"Software" if kind == "png" else "Date": None})


def has_plot(document: dict[str, Any]) -> bool:
    """True if there is anything to draw."""
    return any(results.metrics(row) for row in document["figures"])


def result_files(named: Sequence[Path]) -> list[tuple[str, dict[str, Any]]]:
    """(name, document) of the files named, or of all under `results/`."""
    paths = named or sorted(results.RESULTS.glob("*.json"))
    return [(path.stem, load(path)) for path in paths]


@click.command("plot", epilog="Example: python -m benchmarks plot targets virtual_lan")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), default=PLOTS, show_default=True)
def plot(files: tuple[Path, ...], output: Path) -> None:
    """Draw result files as PNG and SVG; all files under benchmarks/results when none is named."""
    for name, document in result_files(files):
        if has_plot(document):
            for path in write_plot(document, name, output):
                click.echo(path)
