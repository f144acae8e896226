"""The report of a campaign: one HTML page that needs nothing but a browser.

Tables are written here; diagrams are data that the page's script (`templates/report.js`) draws. The page's size is
bounded by the number of diagrams, of messages in each, and of rows in the table of failures.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files

import msgspec

from bft.adversary.clients import HOSTILE
from bft.adversary.crimes import CRIMES
from bft.adversary.parse import GUARDS
from bft.errors import ConfigError
from bft.sim.checkers import CHECKERS
from bft.sim.diagram import diagram
from bft.sim.results import OUTCOMES, Result, sparse_json
from bft.sim.trace import record

DIAGRAMS_MAX = 12
ROWS_MAX = 200
NAMES = re.compile(r"([a-z_][a-z_0-9]*)\s*\(")
NO_CRIMES = {*GUARDS, "only", "use"}


@dataclass(slots=True)
class _Row:
    """One line of the coverage matrix."""

    outcomes: Counter[str] = field(default_factory=Counter)
    fired: Counter[str] = field(default_factory=Counter)

    @property
    def runs(self) -> int:
        return sum(self.outcomes.values())


def crimes_of(result: Result) -> set[str]:
    """Names of the crimes in a run's strategies."""
    return {
        name for text in result.scenario.corrupted.values() for name in NAMES.findall(text) if name not in NO_CRIMES
    }


def troubles_of(result: Result) -> set[str]:
    """What the environment did in a run."""
    scenario = result.scenario
    network = scenario.network
    found = {str(fault.kind) for fault in scenario.faults} - {"heal", "restart"}
    for name in ("loss_permille", "duplicate_permille", "slow_permille", "regions", "bandwidth_mbit"):
        if getattr(network, name):
            found.add(name.removesuffix("_permille").removesuffix("_mbit"))
    if scenario.rules:
        found.add("delivery matrix")
    return found or {"calm"}


def page(results: Sequence[Result], *, include: Iterable[Result] = (), diagrams_max: int = DIAGRAMS_MAX) -> str:
    """The whole page.

    Args:
        results: what the tables count.
        include: runs to draw whether or not they failed.
        diagrams_max: failures drawn at most; one of every set of checkers first. Runs in which the simulator itself
            raised have nothing to draw.

    Raises:
        ConfigError: there is nothing to report.
    """
    if not results:
        raise ConfigError("there are no runs to report")
    failures = [result for result in results if result.outcome == "violation"]
    drawn = [*include, *_varied(failures)[:diagrams_max]]
    drawn = [result for result in {result.id: result for result in drawn}.values() if result.digest]
    data = [diagram(record(result.scenario), title=_title(result), run=result.id) for result in drawn]
    body = "\n".join(
        (
            _header(results),
            _tiles(results),
            _failures(failures, {result.id for result in drawn}),
            '<section id="diagrams"></section>',
            _matrix(results),
            _counters(results),
            _versions(results),
        )
    )
    template = _template("report.html")
    for name, text in (
        ("/*STYLE*/", _template("report.css")),
        ("<!--BODY-->", body),
        ("/*DATA*/", _script_safe(data)),
        ("/*SCRIPT*/", _template("report.js")),
    ):
        template = template.replace(name, text)
    return template


def _template(name: str) -> str:
    return (files("bft.sim") / "templates" / name).read_text(encoding="utf-8")


def _script_safe(data: object) -> str:
    """JSON that cannot end the script element it stands in."""
    return msgspec.json.encode(data).decode().replace("<", "\\u003c")


def _varied(failures: Sequence[Result]) -> list[Result]:
    """Failures with the first of every set of checkers in front, small scenarios before large ones."""
    ordered = sorted(failures, key=lambda result: (result.counters.get("delivered", 0), result.id))
    first = {tuple(result.checkers): result for result in reversed(ordered)}
    chosen = {result.id for result in first.values()}
    return [result for result in ordered if result.id in chosen] + [item for item in ordered if item.id not in chosen]


def _title(result: Result) -> str:
    name = result.label or f"seed {result.scenario.seed}"
    what = ", ".join(result.checkers) or result.outcome
    return f"run {result.id}: {result.generator}, {name}, n={result.scenario.n}: {what}"


# --- parts of the page --------------------------------------------------------------------------------------------


def _header(results: Sequence[Result]) -> str:
    outcomes = Counter(result.outcome for result in results)
    if outcomes["violation"]:
        verdict, text = "bad", f"{outcomes['violation']} of {len(results)} runs broke a property"
    elif outcomes["inconclusive"]:
        verdict, text = "unsure", f"no property broke, but {outcomes['inconclusive']} of {len(results)} decided nothing"
    else:
        verdict, text = "good", f"all {len(results)} runs kept every property"
    return f'<header><h1>bft campaign</h1><p class="verdict {verdict}">{text}</p></header>'


def _tiles(results: Sequence[Result]) -> str:
    outcomes = Counter(result.outcome for result in results)
    delivered = sum(result.counters.get("delivered", 0) for result in results)
    seconds = sum(result.milliseconds for result in results) / 1000
    sizes = Counter(result.scenario.n for result in results)
    tiles = [
        (str(outcomes["pass"]), "passed", "good"),
        (str(outcomes["violation"]), "violations", "bad" if outcomes["violation"] else ""),
        (str(outcomes["inconclusive"]), "inconclusive", "unsure" if outcomes["inconclusive"] else ""),
        (f"{delivered:,}".replace(",", " "), "messages delivered", ""),
        (f"{delivered / max(seconds, 1e-9):,.0f}".replace(",", " "), "messages / s / core", ""),
        (" · ".join(f"{count}×{n}" for n, count in sorted(sizes.items())), "runs × replicas", ""),
    ]
    cells = "".join(f'<div class="tile {kind}"><b>{value}</b><span>{name}</span></div>' for value, name, kind in tiles)
    return f'<section class="tiles">{cells}</section>'


def _failures(failures: Sequence[Result], drawn: set[int]) -> str:
    if not failures:
        return ""
    rows = []
    for result in failures[:ROWS_MAX]:
        link = f'<a href="#run-{result.id}">draw</a>' if result.id in drawn else ""
        found = "<br>".join(
            f"<b>{escape(found.checker)}</b> {escape(found.detail[:300])}" for found in result.violations[:4]
        )
        scenario = escape(sparse_json(result.scenario))
        rows.append(
            f"<tr><td>{result.id}</td><td>{escape(result.label or result.generator)}</td>"
            f"<td>{result.scenario.seed}</td><td>{result.scenario.n}</td>"
            f'<td class="left">{found}<details><summary>scenario</summary><code>{scenario}</code>'
            f"<p><code>bft campaign replay {result.id}</code> <code>bft campaign shrink {result.id}</code></p>"
            "</details>"
            f"</td><td>{link}</td></tr>"
        )
    more = f"<p>and {len(failures) - ROWS_MAX} more</p>" if len(failures) > ROWS_MAX else ""
    head = "<tr><th>run</th><th>from</th><th>seed</th><th>n</th><th class=left>broken</th><th></th></tr>"
    return f"<section><h2>Violations</h2><table>{head}{''.join(rows)}</table>{more}</section>"


def _matrix(results: Sequence[Result]) -> str:
    crimes: dict[str, _Row] = {name: _Row() for name in [*sorted(CRIMES), "no crime"]}
    clients: dict[str, _Row] = {name: _Row() for name in sorted(HOSTILE)}
    troubles: dict[str, _Row] = {}
    for result in results:
        _count(crimes, crimes_of(result) or {"no crime"}, result)
        _count(clients, set(result.scenario.hostile_clients.values()), result)
        _count(troubles, troubles_of(result), result)
    head = "".join(f'<th class="turned"><span>{name}</span></th>' for name in [*CHECKERS, "simulator"])
    lines = [f"<tr><th></th><th>runs</th>{''.join(f'<th>{outcome}</th>' for outcome in OUTCOMES)}{head}</tr>"]
    groups = (
        ("replicas' crimes", crimes),
        ("hostile clients", clients),
        ("environment", dict(sorted(troubles.items()))),
    )
    for title, rows in groups:
        lines.append(f'<tr class="group"><th colspan="{6 + len(CHECKERS)}">{title}</th></tr>')
        lines += [_matrix_row(name, row) for name, row in rows.items()]
    note = (
        "Rows: what a run contained (a run counts in every row that applies). Columns: how runs ended, and in how many "
        "of them a checker fired; every checker judged every run."
    )
    return (
        f'<section><h2>Coverage</h2><p>{note}</p><div class="wide"><table class="matrix">{"".join(lines)}'
        "</table></div></section>"
    )


def _count(rows: dict[str, _Row], names: set[str], result: Result) -> None:
    for name in sorted(names):
        row = rows.setdefault(name, _Row())
        row.outcomes[result.outcome] += 1
        row.fired.update(result.checkers)


def _matrix_row(name: str, row: _Row) -> str:
    outcomes = "".join(
        f'<td class="{outcome if row.outcomes[outcome] else "zero"}">{row.outcomes[outcome] or "·"}</td>'
        for outcome in OUTCOMES
    )
    cells = "".join(
        f'<td class="{"violation" if row.fired[checker] else "zero"}">{row.fired[checker] or "·"}</td>'
        for checker in [*CHECKERS, "simulator"]
    )
    untried = ' class="untried" title="never tried"' if not row.runs else ""
    return f"<tr{untried}><th>{escape(name)}</th><td>{row.runs}</td>{outcomes}{cells}</tr>"


def _counters(results: Sequence[Result]) -> str:
    totals: Counter[str] = Counter()
    sometimes: Counter[str] = Counter()
    most: dict[str, int] = {}
    for result in results:
        for name, value in result.counters.items():
            totals[name] += value
            sometimes[name] += value > 0
            most[name] = max(most.get(name, 0), value)
    rows = "".join(
        f"<tr{'' if sometimes[name] else ' class=untried'}><th>{name}</th><td>{sometimes[name]}</td>"
        f'<td class="left"><meter max="{len(results)}" value="{sometimes[name]}"></meter></td>'
        f"<td>{totals[name]}</td><td>{most[name]}</td></tr>"
        for name in totals
    )
    return (
        "<section><h2>Not vacuous?</h2><p>What happened at least once, in how many runs. A row of zero means that "
        "nothing of that kind was tested.</p><table><tr><th></th><th>in runs</th><th></th><th>in all</th><th>most in "
        f"one run</th></tr>{rows}</table></section>"
    )


def _versions(results: Sequence[Result]) -> str:
    counts = Counter((result.code, result.generator, result.scenario.n) for result in results)
    rows = "".join(
        f"<tr><td class=left><code>{escape(code)}</code></td><td>{escape(generator)}</td>"
        f"<td>{n}</td><td>{count}</td></tr>"
        for (code, generator, n), count in sorted(counts.items())
    )
    head = "<tr><th class=left>code</th><th>generator</th><th>n</th><th>runs</th></tr>"
    return f"<section><h2>What ran</h2><table>{head}{rows}</table></section>"
