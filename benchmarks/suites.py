"""Which cases belong together: suites, and the targets that one of them is measured against."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from benchmarks.case import Case, System
from benchmarks.results import is_spread
from bft.config import Durability

TARGETS = Path(__file__).parent / "targets.toml"
AT_LEAST = ("op_s",)
"""Metrics whose target is a minimum; that of any other is a maximum."""
SIZES = ((0, 0), (1024, 0), (0, 1024), (4096, 0), (0, 4096))

TARGET_CASES = {
    "sessions_200_memory": Case(),
    "sessions_200_power": Case(durability="power"),
    "sessions_1000_memory": Case(callers=1000),
    "sessions_1000_power": Case(callers=1000, durability="power"),
    "sessions_200_memory_1k": Case(request_bytes=1024),
    "session_1_memory": Case(callers=1),
    "session_1_power": Case(callers=1, durability="power"),
    "clients_200_memory": Case(load="clients"),
    "reads_95_memory": Case(reads_percent=95),
}

QUICK_CASES = {
    "sessions_1_memory": Case(callers=1),
    "sessions_200_memory": Case(),
    "sessions_200_power": Case(durability="power"),
    "clients_10_memory": Case(load="clients", callers=10),
    "open_5000_memory": Case(rate=5000),
}


def _full() -> dict[str, Case]:
    cases: dict[str, Case] = {}
    for durability in ("memory", "process", "power"):
        for callers in (1, 10, 50, 200, 1000):
            cases[f"sessions_{callers}_{durability}"] = Case(callers=callers, durability=durability)
    for callers in (1, 10, 50, 200):
        cases[f"clients_{callers}_memory"] = Case(load="clients", callers=callers)
    for request, reply in SIZES[1:]:
        cases[f"sizes_{request}_{reply}"] = Case(request_bytes=request, reply_bytes=reply)
    for n in (7, 10, 13):
        cases[f"n_{n}"] = Case(n=n)
    for rate in (1000, 5000, 10_000, 20_000, 40_000):
        cases[f"open_{rate}_memory"] = Case(rate=rate)
    for reads in (50, 95, 100):
        cases[f"reads_{reads}_memory"] = Case(reads_percent=reads)
    return cases


def _peers() -> dict[str, Case]:
    """100-byte values, one caller and 200, on stable storage where the system has it and in memory where it has not."""
    systems: tuple[tuple[System, Durability], ...] = (
        ("bft", "power"),
        ("bft", "memory"),
        ("single-server", "power"),
        ("single-server", "memory"),
        ("etcd", "power"),
        ("zookeeper", "power"),
        ("pysyncobj", "memory"),
        ("bft-smart", "memory"),
    )
    cases: dict[str, Case] = {}
    for system, durability in systems:
        for callers in (1, 200):
            case = Case(system=system, durability=durability, callers=callers, request_bytes=100)
            cases[f"{system}_{callers}_{durability}"] = case
    return cases


SUITES: dict[str, dict[str, Case]] = {
    "quick": QUICK_CASES,
    "targets": TARGET_CASES,
    "full": _full(),
    "peers": _peers(),
}


def load_targets(path: Path = TARGETS) -> dict[str, dict[str, float]]:
    """Targets by case and metric.

    Raises:
        ValueError: the file names a case that the suite has not, or is no TOML.
    """
    targets: dict[str, dict[str, float]] = tomllib.loads(path.read_text())
    unknown = sorted(targets.keys() - TARGET_CASES.keys())
    if unknown:
        raise ValueError(f"{path}: no such case: {', '.join(unknown)}; there are {', '.join(sorted(TARGET_CASES))}")
    return targets


def verdicts(rows: list[dict[str, Any]], targets: dict[str, dict[str, float]]) -> list[dict[str, object]]:
    """One line per case and target: target, measured spread, and whether the median meets it (None: no target)."""
    found: list[dict[str, object]] = []
    for row in rows:
        name = str(row["case"])
        default = "p50_ms" if name.startswith("session_1_") else "op_s"
        wanted: dict[str, float | None] = {**targets.get(name, {})} or {default: None}
        for metric, target in wanted.items():
            measured = row.get(metric)
            if not is_spread(measured) or measured is None:
                found.append({"case": name, "metric": metric, "target": target, "measured": None, "met": False})
                continue
            median = measured["median"]
            met = None if target is None else (median >= target if metric in AT_LEAST else median <= target)
            found.append({"case": name, "metric": metric, "target": target, "measured": measured, "met": met})
    return found
