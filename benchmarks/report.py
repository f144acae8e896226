"""`python -m benchmarks report`: all result files as one page of HTML that needs nothing else."""

from __future__ import annotations

import time
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import click

from benchmarks import results
from benchmarks.plot import has_plot, result_files, svg
from benchmarks.statistics import show_spread
from benchmarks.suites import load_targets, verdicts

REPORT = results.RESULTS / "report.html"
STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
th, td { padding: .2rem .6rem; text-align: right; border-bottom: 1px solid #8884; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
figure { margin: 1rem 0; background: #fff; padding: .5rem; }
figure svg { width: 100%; height: auto; }
.yes { color: #2a8a43; } .no { color: #c0392b; font-weight: bold; } .note { color: #888; font-size: 13px; }
nav a { margin-right: 1rem; }
"""


def render(documents: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """The page. Nothing that stands in a file is trusted to be HTML."""
    links = "".join(f'<a href="#{escape(name)}">{escape(name)}</a>' for name, _ in documents)
    sections = "".join(_section(name, document) for name, document in documents)
    made = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>bft benchmarks</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head><body><h1>bft benchmarks</h1>"
        f'<p class="note">Written {made} by <code>python -m benchmarks report</code>. Medians; smallest and largest'
        f" run in brackets.</p><nav>{links}</nav>{sections}</body></html>\n"
    )


def _section(name: str, document: dict[str, Any]) -> str:
    about = document.get("about")
    parts = [f'<section id="{escape(name)}"><h2>{escape(name)}</h2>']
    parts += [f"<p>{escape(str(about))}</p>"] if about else []
    if document.get("suite") == "targets":
        parts.append(_table(_target_cells(document)))
    if has_plot(document):
        parts.append(f"<figure>{svg(document, name)}</figure>")
    parts.append(_table(_cells(document["figures"])))
    for system, reason in (document.get("absent") or {}).items():
        parts.append(f'<p class="note">{escape(system)} skipped: {escape(str(reason))}</p>')
    environment = ", ".join(f"{key} {value}" for key, value in document["environment"].items())
    parts.append(f'<p class="note">{escape(environment)}</p></section>')
    return "".join(parts)


def _cells(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    body = [[escape(_text(row[name])) if name in row else "" for name in columns] for row in rows]
    return [[escape(name) for name in columns], *body]


def _target_cells(document: dict[str, Any]) -> list[list[str]]:
    words = {True: '<span class="yes">yes</span>', False: '<span class="no">no</span>', None: "-"}
    cells = [["case", "metric", "target", "measured", "met"]]
    for line in verdicts(document["figures"], load_targets()):
        target, met = line["target"], line["met"]
        assert met is None or isinstance(met, bool)
        measured = escape(show_spread(line["measured"]))
        name, metric = escape(str(line["case"])), escape(str(line["metric"]))
        cells.append([name, metric, "-" if target is None else f"{target:,}", measured, words[met]])
    return cells


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.3f}"
    return show_spread(value)


def _table(cells: list[list[str]]) -> str:
    head = "".join(f"<th>{cell}</th>" for cell in cells[0])
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in cells[1:])
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


@click.command("report", epilog="Example: python -m benchmarks report")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), default=REPORT, show_default=True)
def report(files: tuple[Path, ...], output: Path) -> None:
    """Write one self-contained HTML page of result files; of all under benchmarks/results when none is named."""
    documents = result_files(files)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(render(documents))
    click.echo(output)
