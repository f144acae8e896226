"""The README's performance section, rendered from the result files: no figure in it is typed by hand.

The rows are those of `targets.json`; peers, virtual time and the plot appear as soon as their files do.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.results import RESULTS

README = Path(__file__).parent.parent / "README.md"
BEGIN = "<!-- performance: written by `python -m benchmarks readme` from benchmarks/results -->"
END = "<!-- end of performance -->"


def section(folder: Path = RESULTS) -> str:
    """The section's text between the markers."""
    targets = _load(folder, "targets")
    environment = targets["environment"]
    lines = [
        BEGIN,
        "",
        f"Four replica processes and one client process on one machine with {environment['cores']} cores, TLS 1.3,"
        " every envelope and vote",
        f"signed (Python {environment['python']}, commit {environment['commit']}; medians of"
        f" {targets['figures'][0]['op_s']['runs']} runs, smallest and largest in brackets):",
        "",
        *_suite_table(targets),
    ]
    (outage,) = _load(folder, "outage")["figures"]
    growth = _load(folder, "growth")["figures"]
    lines += [
        "",
        f"After kill -9 of the primary under load nothing completes for {outage['outage_ms']['median']:,.0f} ms"
        f" ({outage['outage_ms']['min']:,.0f} .. {outage['outage_ms']['max']:,.0f}; request timeout",
        f"1 s). The largest replica holds {growth[-1]['largest_mb']['median']:,.0f} MiB of memory after"
        f" {growth[-1]['operations']:,} operations. How to repeat each",
        "figure: [benchmarks/README.md](benchmarks/README.md).",
        *_peers(folder),
        *_virtual(folder),
        "",
        END,
    ]
    return "\n".join(lines)


def _suite_table(document: dict[str, Any]) -> list[str]:
    return [
        "| durability | load | request/reply bytes | operations/s | p50 ms | p99 ms |",
        "|---|---|---|---|---|---|",
        *(
            f"| {row['durability']} | {row['load']}{_reads(row)} | {row['bytes']} | {_spread(row['op_s'])} |"
            f" {row['p50_ms']['median']:.2f} | {row['p99_ms']['median']:.2f} |"
            for row in document["figures"]
        ),
    ]


def _reads(row: dict[str, Any]) -> str:
    return f", {row['reads_percent']} % reads" if row["reads_percent"] else ""


def _peers(folder: Path) -> list[str]:
    """The table of peers, if they were measured."""
    if not (folder / "peers.json").exists():
        return []
    document = _load(folder, "peers")
    return [
        "",
        "Other systems beside it, measured in one run with 100-byte values (those that tolerate crashes only run with"
        " three",
        "replicas; what each is driven by: [benchmarks/README.md](benchmarks/README.md)):",
        "",
        "| system | replicas | durability | callers | operations/s | p50 ms |",
        "|---|---|---|---|---|---|",
        *(
            f"| {row['system']} | {row['n']} | {row['durability']} | {row['load'].split()[0]} |"
            f" {_spread(row['op_s'])} | {_median_ms(row)} |"
            for row in document["figures"]
        ),
    ]


def _median_ms(row: dict[str, Any]) -> str:
    return f"{row['p50_ms']['median']:.2f}" if "p50_ms" in row else "-"


def _virtual(folder: Path) -> list[str]:
    """The curve over n, if it was drawn."""
    picture = folder / "plots" / "virtual_lan.svg"
    if not picture.exists() or not (folder / "virtual_lan.json").exists():
        return []
    return [
        "",
        "In virtual time (the same code under a cost model of this processor, every node on a machine of its own;"
        " reproducible to",
        "the digit), over the number of replicas:",
        "",
        "![throughput and latency over n, in virtual time](benchmarks/results/plots/virtual_lan.svg)",
    ]


def _load(folder: Path, name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return loaded


def _spread(value: dict[str, Any]) -> str:
    return f"{value['median']:,.0f} ({value['min']:,.0f} .. {value['max']:,.0f})"


def write(readme: Path = README, folder: Path = RESULTS) -> None:
    """Replace the section in the README."""
    text = readme.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    readme.write_text(before + section(folder) + after)
