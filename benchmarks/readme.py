"""The README's performance section, rendered from the result files: no figure in it is typed by hand.

The rows are those of `targets.json`; everything else appears as soon as its file does, with its commit where that is
another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

from benchmarks.attacks import REQUIRED
from benchmarks.results import RESULTS, read
from benchmarks.statistics import show_spread

README = Path(__file__).parent.parent / "README.md"
BEGIN = "<!-- performance: written by `python -m benchmarks readme` from benchmarks/results -->"
END = "<!-- end of performance -->"
WIDTH = 120
Document = dict[str, Any]


def section(folder: Path = RESULTS) -> str:
    """The section's text between the markers.

    Raises:
        NotResults: there is no `targets.json`, or a file is no result file.
    """
    targets = read(folder / "targets.json")
    lines = [BEGIN, "", *_intro(targets), "", *_suite_table(targets)]
    for name, text in SECTIONS.items():
        path = folder / f"{name}.json"
        if path.exists():
            document = read(path)
            lines += ["", *text(document, _origin(document, targets))]
    lines += ["", "How to repeat each figure: [benchmarks/README.md](benchmarks/README.md).", "", END]
    return "\n".join(lines)


def _origin(document: Document, targets: Document) -> str:
    """How many runs, and the commit if it is another than that of the targets: in brackets."""
    count = next(value["runs"] for value in document["figures"][0].values() if isinstance(value, dict))
    parts = [] if document.get("exact") else ["one run" if count == 1 else f"{count} runs"]
    commit = document["environment"]["commit"]
    parts += [f"commit {commit}"] if commit != targets["environment"]["commit"] else []
    return f" ({', '.join(parts)})" if parts else ""


def _paragraph(text: str) -> list[str]:
    return wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    head, *body = (f"| {' | '.join(map(str, cells))} |" for cells in (columns, *rows))
    return [head, "|---" * len(columns) + "|", *body]


# --- the parts ----------------------------------------------------------------------------------------------------


def _intro(targets: Document) -> list[str]:
    environment = targets["environment"]
    compiled = f", {environment['compiled']} modules compiled" if environment.get("compiled") else ""
    check = f"; a signature check took {show_spread(targets['check_us'])} us" if "check_us" in targets else ""
    return _paragraph(
        f"Four replica processes and one client process on one machine with {environment['cores']} cores, TLS 1.3,"
        f" every envelope and vote signed (Python {environment['python']}{compiled}, commit {environment['commit']};"
        f" medians of {targets['figures'][0]['op_s']['runs']} runs, smallest and largest in brackets{check}):"
    )


def _suite_table(document: Document) -> list[str]:
    return _table(
        ("durability", "load", "request/reply bytes", "operations/s", "p50 ms", "p99 ms"),
        [
            (
                row["durability"],
                row["load"] + (f", {row['reads_percent']} % reads" if row["reads_percent"] else ""),
                row["bytes"],
                show_spread(row["op_s"]),
                _median(row["p50_ms"], 2),
                _median(row["p99_ms"], 2),
            )
            for row in document["figures"]
        ],
    )


def _outage(document: Document, origin: str) -> list[str]:
    (row,) = document["figures"]
    return _paragraph(
        f"With a request timeout of 1 s nothing completes for {show_spread(row['outage_ms'])} ms after kill -9 of the"
        f" primary under load{origin}."
    )


def _growth(document: Document, origin: str) -> list[str]:
    last = document["figures"][-1]
    return _paragraph(
        f"The largest replica holds {_median(last['largest_mb'])} MiB of memory after {last['operations']:,}"
        f" operations{origin}."
    )


def _rejoin(document: Document, origin: str) -> list[str]:
    (row,) = document["figures"]
    return _paragraph(
        f"A replica that was down while the state grew by {row['megabytes']} MB agrees with the others again"
        f" {show_spread(row['rejoin_s'])} s after its start; meanwhile they complete"
        f" {show_spread(row['op_s_meanwhile'])} operations/s, before it {show_spread(row['op_s_before'])}{origin}."
    )


def _reconfigure(document: Document, origin: str) -> list[str]:
    """Phase by phase."""
    sessions = document["figures"][0]["sessions"]
    return [
        *_paragraph(f"While the membership changes under the load of {sessions} sessions{origin}:"),
        "",
        *_table(
            ("phase", "operations/s", "longest pause ms"),
            [(row["phase"], show_spread(row["op_s"]), _median(row["stall_ms"])) for row in document["figures"]],
        ),
    ]


def _attacks(document: Document, origin: str) -> list[str]:
    """How many attacks are held, and what each of the others costs."""
    rows = document["figures"]
    poor = [row for row in rows if row["verdict"] != "holds"]
    return _paragraph(
        f"Throughput over {rows[0]['seconds']:.0f} s with a liar among the four, over that of a cluster without one"
        f" just before{origin}: {REQUIRED:g} or more under {len(rows) - len(poor)} of {len(rows)} attacks"
        f"{'; under the others: ' if poor else ''}{_ratios(poor)}."
    )


def _attacks_minute(document: Document, origin: str) -> list[str]:
    """Whoever is slow needs some seconds to be found."""
    rows = document["figures"]
    return _paragraph(f"The same over {rows[0]['seconds']:.0f} s{origin}: {_ratios(rows)}.")


def _ratios(rows: Sequence[Document]) -> str:
    return "; ".join(
        f"{row['description']}: {_median(row['ratio'], 2)}, in the last third {_median(row['settled_ratio'], 2)}"
        if "ratio" in row
        else f"{row['description']}: {row['verdict']}"
        for row in rows
    )


def _hostile(document: Document, origin: str) -> list[str]:
    rows = document["figures"]
    levels = list(dict.fromkeys(row["niceness"] for row in rows))
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    ratios = {(row["kind"], row["niceness"]): show_spread(row["ratio"]) for row in rows}
    return [
        *_paragraph(
            f"Throughput of four honest clients ({rows[0]['sessions']} sessions) beside one hostile client process at"
            f" full speed, over that without it{origin}; at niceness 10 it gives way to them where cores are short:"
        ),
        "",
        *_table(
            ("hostile client", *(f"at niceness {level}" for level in levels)),
            [(f"`{kind}`", *(ratios.get((kind, level), "-") for level in levels)) for kind in kinds],
        ),
    ]


def _peers(document: Document, origin: str) -> list[str]:
    return [
        *_paragraph(
            f"Other systems beside it, measured in one go with 100-byte values{origin}; those that tolerate crashes"
            " only run with three replicas; what each is driven by: [benchmarks/README.md](benchmarks/README.md):"
        ),
        "",
        *_table(
            ("system", "replicas", "durability", "callers", "operations/s", "p50 ms"),
            [
                (
                    *(row["system"], row["n"], row["durability"], row["load"].split()[0], show_spread(row["op_s"])),
                    _median(row["p50_ms"], 2) if "p50_ms" in row else "-",
                )
                for row in document["figures"]
                if "op_s" in row
            ],
        ),
    ]


def _virtual(document: Document, origin: str) -> list[str]:
    """The curve over n."""
    return [
        *_paragraph(
            "In virtual time (the same code under a cost model of this processor, every node on a machine of its own;"
            f" reproducible to the digit), over the number of replicas{origin}:"
        ),
        "",
        "![throughput and latency over n, in virtual time](benchmarks/results/plots/virtual_lan.svg)",
    ]


SECTIONS = {
    "outage": _outage,
    "growth": _growth,
    "rejoin": _rejoin,
    "reconfigure": _reconfigure,
    "attacks": _attacks,
    "attacks_minute": _attacks_minute,
    "hostile": _hostile,
    "peers": _peers,
    "virtual_lan": _virtual,
}
"""Result file -> what is said of it, in this order."""


def _median(value: Document, digits: int = 0) -> str:
    return f"{value['median']:,.{digits}f}"


def write(readme: Path = README, folder: Path = RESULTS) -> None:
    """Replace the section in the README."""
    text = readme.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    readme.write_text(before + section(folder) + after)
