"""The README's performance section, rendered from the result files: no figure in it is typed by hand."""

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
    throughput = _load(folder, "throughput")
    environment = throughput["environment"]
    lines = [
        BEGIN,
        "",
        f"Four replica processes and one client process on one machine with {environment['cores']} cores, TLS 1.3,"
        " every envelope and vote",
        f"signed (Python {environment['python']}, commit {environment['commit']}; medians of"
        f" {throughput['figures'][0]['op_s']['runs']} runs, smallest and largest in brackets):",
        "",
        "| durability | sessions | request/reply bytes | operations/s | p50 ms | p99 ms |",
        "|---|---|---|---|---|---|",
    ]
    for name in ("throughput", "throughput_1k_requests"):
        lines += [_row(row) for row in _load(folder, name)["figures"]]
    (outage,) = _load(folder, "outage")["figures"]
    growth = _load(folder, "growth")["figures"]
    lines += [
        "",
        f"After kill -9 of the primary under load nothing completes for {outage['outage_ms']['median']:,.0f} ms"
        f" ({outage['outage_ms']['min']:,.0f} .. {outage['outage_ms']['max']:,.0f}; request timeout",
        f"1 s). The largest replica holds {growth[-1]['largest_mb']} MiB of memory after"
        f" {growth[-1]['operations']:,} operations. How to repeat each",
        "figure: [benchmarks/README.md](benchmarks/README.md).",
        "",
        END,
    ]
    return "\n".join(lines)


def _load(folder: Path, name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return loaded


def _row(row: dict[str, Any]) -> str:
    rate = row["op_s"]
    return (
        f"| {row['durability']} | {row['sessions']} | {row['bytes']} |"
        f" {rate['median']:,.0f} ({rate['min']:,.0f} .. {rate['max']:,.0f}) |"
        f" {row['p50_ms']['median']:.2f} | {row['p99_ms']['median']:.2f} |"
    )


def write(readme: Path = README, folder: Path = RESULTS) -> None:
    """Replace the section in the README."""
    text = readme.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    readme.write_text(before + section(folder) + after)
