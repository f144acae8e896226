"""The demo's verdict: what was measured, what had to hold, and whether it did."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table

from bft.cli.demo_faults import LIAR, Director
from bft.cli.demo_load import SOURCE, Load, Record
from bft.cli.probe import Account


@dataclass(frozen=True, slots=True)
class Comparison:
    """What reading everything back has shown."""

    lost: int
    wrong: int
    extra: int


def compare(stored: Sequence[Record], found: Mapping[str, str]) -> Comparison:
    """Compare what was stored with what was read back."""
    lost = sum(key not in found for key, _ in stored)
    wrong = sum(key in found and found[key] != value for key, value in stored)
    return Comparison(lost, wrong, len(found) - (len(stored) - lost))


def equal_digests(accounts: Sequence[Account], n: int) -> bool:
    """True if all replicas report one state digest at one stable checkpoint, and one chain at one sequence number."""
    answering = [account for account in accounts if account.answered]
    claims = {
        tuple(account.report.get(name) for name in ("stable", "state_digest", "executed", "chain"))
        for account in answering
    }
    return len(answering) == n and len(claims) == 1


def figures(load: Load, director: Director, comparison: Comparison, seconds: float) -> dict[str, object]:
    """Everything that was measured, as plain data for `result.json`."""
    ordered = sorted(load.latencies)
    accounts = director.accounts
    lies = director.client.disagreements
    span = load.ended - load.started
    rejected: dict[str, int] = {}
    for counts in director.rejected.values():
        for reason, count in counts.items():
            rejected[reason] = rejected.get(reason, 0) + count
    return {
        "data": SOURCE,
        "replicas": director.cluster.quorums.n,
        "records": len(load.stored),
        "operations": load.done,
        "load_seconds": round(span, 3),
        "operations_per_second": round(load.done / span),
        "latency_ms": {
            name: round(1e3 * ordered[min(len(ordered) - 1, int(len(ordered) * part))], 2)
            for name, part in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0))
        },
        "longest_stall_ms": round(1e3 * load.longest_stall_s),
        "lies_outvoted": lies.get(LIAR, 0),
        "honest_replies_outvoted": sum(count for replica, count in lies.items() if replica != LIAR),
        "messages_rejected": rejected,
        "view_changes": min((account.number("view") for account in accounts), default=0),
        "killed": director.killed,
        "steps": [{"what": name, "records_stored": done} for name, done in director.steps],
        "records_lost": comparison.lost,
        "records_wrong": comparison.wrong,
        "records_extra": comparison.extra,
        "digests_equal": equal_digests(accounts, director.cluster.quorums.n),
        "state_digest": accounts[0].report.get("state_digest") if accounts else None,
        "stable_checkpoint": accounts[0].report.get("stable") if accounts else None,
        "seconds": round(seconds, 1),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
    }


def judge(result: Mapping[str, object]) -> dict[str, bool]:
    """What had to hold, and whether it did."""
    steps = result["steps"]
    return {
        "no record lost, changed or invented": not any(
            result[name] for name in ("records_lost", "records_wrong", "records_extra")
        ),
        "lies were told and outvoted": result["lies_outvoted"] != 0,
        "no honest reply was outvoted": result["honest_replies_outvoted"] == 0,
        "a new primary took over": result["view_changes"] != 0,
        "every fault met the load": isinstance(steps, list)
        and len(steps) == 4
        and all(step["records_stored"] < result["operations"] for step in steps),
        "all replicas have one state": result["digests_equal"] is True,
    }


def verdict_table(result: Mapping[str, object], verdict: Mapping[str, bool]) -> Table:
    """The verdict for people."""
    table = Table(title="verdict", show_header=False)
    table.add_column("what")
    table.add_column("value", overflow="fold")
    latency = result["latency_ms"]
    assert isinstance(latency, dict), "figures() makes a table of latencies"
    rejected = result["messages_rejected"]
    assert isinstance(rejected, dict), "figures() makes a table of rejected messages"
    for name, value in (
        ("records", f"{result['records']} stored, read back and compared"),
        ("operations", f"{result['operations']} in {result['load_seconds']} s"),
        ("throughput", f"{result['operations_per_second']} operations/s"),
        ("latency", ", ".join(f"{name} {value} ms" for name, value in latency.items())),
        ("longest stall", f"{result['longest_stall_ms']} ms"),
        ("lies outvoted", f"{result['lies_outvoted']} replies of replica {LIAR}"),
        ("messages rejected", ", ".join(f"{reason} {count}" for reason, count in sorted(rejected.items())) or "none"),
        ("view changes", result["view_changes"]),
        ("records lost", result["records_lost"]),
        ("state digest", f"{result['state_digest']} at {result['stable_checkpoint']}"),
    ):
        table.add_row(name, str(value))
    table.add_section()
    for claim, held in verdict.items():
        table.add_row(claim, "[green]yes[/]" if held else "[bold red]NO[/]")
    return table
