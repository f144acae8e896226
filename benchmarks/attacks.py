"""Performance attacks on real clusters: throughput under attack as a ratio to the fault-free cluster of the same run.

Every attack gets a fault-free cluster just before it, with the same load: machines are noisy, and only neighbours are
comparable. The liar is a replica process under `bft replica run --adversary`; all others are correct.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import trio

from benchmarks.cluster import NULL, BenchmarkCluster, running_cluster
from benchmarks.load import ClosedLoop
from benchmarks.measures import connected_clients
from benchmarks.results import spread
from bft.cli.probe import probe_all, probe_identity
from bft.client.client import Client
from bft.config import Durability, Protocol
from bft.errors import BFTError
from bft.services.null import operation

CLIENTS = 4
"""Keys and connections of their own, so that one can be starved, and batches hold more than one envelope."""
READY_SECONDS = 90.0
"""Four processes start at once; on a busy machine that takes a while."""
SAMPLE_SECONDS = 0.25
BASELINE_SHARE = 2
BASELINE_SECONDS_MIN = 3.0
BASELINE_SECONDS_MAX = 20.0
REQUIRED = 0.7
Sample = tuple[float, int]
"""(time in seconds, completions until then)"""


@dataclass(frozen=True)
class Attack:
    """One liar.

    Attributes:
        what: for people; with the ids in the heads of `bft.adversary.crimes`.
        within_bounds: the protocol tolerates it: no verdict, only its price.
    """

    replica: int
    expression: str
    what: str
    within_bounds: bool = False


ATTACKS = {
    "delay": Attack(0, "delay_requests(850)", "primary delays to just under the timeout (P06)"),
    "delay-patience": Attack(0, "delay_requests(230)", "primary delays to just under the clients' patience (P06)"),
    "delay-floor": Attack(0, "delay_requests(100)", "primary delays within slow_floor_ms (P06)", within_bounds=True),
    "creep": Attack(0, "creep(60, 900)", "primary delays more and more (P06)"),
    "starve": Attack(0, "starve(800)", "primary starves one client of four (P07)"),
    "waste": Attack(0, "pad_batches(1000, 2048)", "primary fills batches with old requests (P10, P16)"),
    "tiny": Attack(0, "one_at_a_time()", "primary orders one envelope at a time (P16)"),
    "equivocate": Attack(0, "equivocate()", "primary proposes different batches (P01)"),
    "silent-primary": Attack(0, "silent_after(50)", "primary falls silent (P03)"),
    "dark": Attack(0, "in_the_dark(2)", "primary keeps one backup in the dark (P05)"),
    "silent-backup": Attack(3, "silent()", "backup says nothing (B01)"),
    "slow-votes": Attack(3, "slow(200)", "backup says everything late (N04)"),
    "slow-replies": Attack(3, 'slow(200) & to("clients")', "backup answers clients late (B16)"),
    "corrupt-votes": Attack(3, "double_vote() & flip()", "backup votes twice, with flipped bits (B02, N09)"),
    "flood": Attack(3, "future_spam() & status_storm() & forge()", "backup floods the others (B04, B14, B19)"),
    "complain": Attack(3, 'suspect_storm("slow-primary") & depose()', "backup complains without cause (B21, X05)"),
}


@dataclass
class Run:
    """What one cluster did under load.

    Attributes:
        operations_s: over the whole time.
        settled_s: over the last third of it, when whoever is deposed has been.
        views: the highest view of a correct replica at the end: as many view changes.
        reasons: complaints about performance, by the correct replicas' own account.
    """

    operations_s: float
    settled_s: float
    failures: int
    stall_ms: float
    views: int
    reasons: list[str] = field(default_factory=list)


async def measure_attacks(
    names: list[str],
    *,
    seconds: float,
    sessions: int,
    durability: Durability,
    protocol: Protocol,
    advance: Callable[[str], None],
    keep: Callable[[list[dict[str, Any]]], object],
) -> list[dict[str, Any]]:
    """One row per attack; a cluster that cannot be measured is a row that says so. `keep` gets the rows so far."""
    baseline_seconds = min(max(seconds / BASELINE_SHARE, BASELINE_SECONDS_MIN), BASELINE_SECONDS_MAX)
    rows = []
    for name in names:
        attack = ATTACKS[name]
        advance(name)
        liar = f"r{attack.replica} {attack.expression}"
        row: dict[str, Any] = {"attack": name, "description": attack.what, "liar": liar, "seconds": seconds}
        try:
            calm = await measure_run({}, None, baseline_seconds, sessions, durability, protocol, warm_up=1.0)
            liars = {attack.replica: attack.expression}
            run = await measure_run(liars, attack.replica, seconds, sessions, durability, protocol, warm_up=0.0)
        except (BFTError, TimeoutError, ExceptionGroup) as error:
            rows.append({**row, "verdict": f"failed: {error}"})
        else:
            rows.append(row | _figures(attack, calm, run))
        keep(rows)
    return rows


def _figures(attack: Attack, calm: Run, run: Run) -> dict[str, Any]:
    ratio = run.operations_s / calm.operations_s if calm.operations_s else 0.0
    settled = run.settled_s / calm.operations_s if calm.operations_s else 0.0
    measured = {
        "fault_free_op_s": calm.operations_s,
        "attacked_op_s": run.operations_s,
        "ratio": ratio,
        "settled_ratio": settled,
        "stall_ms": run.stall_ms,
        "view_changes": float(run.views),
        "fault_free_view_changes": float(calm.views),
        "failures": float(run.failures),
    }
    return {
        **{name: spread([value]) for name, value in measured.items()},
        "complaints": ", ".join(run.reasons) or "-",
        "verdict": verdict(attack, ratio, settled),
    }


def verdict(attack: Attack, ratio: float, settled: float) -> str:
    """`holds` over the whole time, `recovers` at its end, or `below`."""
    if ratio >= REQUIRED:
        return "holds"
    if settled >= REQUIRED:
        return "recovers"
    return "within bounds" if attack.within_bounds else "below"


async def measure_run(
    liars: dict[int, str],
    liar: int | None,
    seconds: float,
    sessions: int,
    durability: Durability,
    protocol: Protocol,
    *,
    warm_up: float,
) -> Run:
    """Load one cluster from `CLIENTS` clients for so long.

    Raises:
        BFTError: no client gets through.
        TimeoutError: likewise.
    """
    with running_cluster(durability=durability, service=NULL, protocol=protocol, adversaries=liars) as cluster:
        async with connected_clients(cluster.config, CLIENTS, ready_seconds=READY_SECONDS) as clients:
            return await _load(cluster, clients, liar, seconds, max(sessions // CLIENTS, 1), warm_up)


async def _load(
    cluster: BenchmarkCluster,
    clients: list[Client],
    liar: int | None,
    seconds: float,
    callers: int,
    warm_up: float,
) -> Run:
    loads = [ClosedLoop(client, operation(), callers) for client in clients]
    measured = []
    samples: list[Sample] = []

    async def one(load: ClosedLoop) -> None:
        measured.append(await load.run(warm_up=warm_up, seconds=seconds))

    async def sample() -> None:
        await trio.sleep(warm_up)
        end = trio.current_time() + seconds
        while (now := trio.current_time()) < end:
            samples.append((now, sum(load.completed for load in loads)))
            await trio.sleep(SAMPLE_SECONDS)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(sample)
        for load in loads:
            nursery.start_soon(one, load)
    views, reasons = await _accounts(cluster, liar)
    return Run(
        operations_s=sum(item.throughput for item in measured),
        settled_s=settled_rate(samples),
        failures=sum(item.failures for item in measured),
        stall_ms=longest_stall_ms(samples),
        views=views,
        reasons=reasons,
    )


def settled_rate(samples: Sequence[Sample]) -> float:
    """Operations a second in the last third; by the clock, for a busy process samples later than it meant to."""
    third = max(len(samples) // 3, 1)
    if len(samples) <= third:
        return 0.0
    (began, before), (ended, after) = samples[-1 - third], samples[-1]
    return (after - before) / (ended - began)


def longest_stall_ms(samples: Sequence[Sample]) -> float:
    """Longest time without any completion, to the precision of the samples."""
    longest = 0.0
    since = None
    for (began, before), (ended, after) in pairwise(samples):
        if before != after:
            since = None
        else:
            since = began if since is None else since
            longest = max(longest, ended - since)
    return longest * 1000


async def _accounts(cluster: BenchmarkCluster, liar: int | None) -> tuple[int, list[str]]:
    """(highest view, reasons of complaints about performance) among the correct replicas."""
    identity = probe_identity(cluster.config, Path("none"), required=False)
    accounts = [item for item in await probe_all(cluster.config, identity) if item.replica != liar and item.answered]
    reasons = []
    for item in accounts:
        figures = item.report.get("monitor")
        reason = figures.get("reason") if isinstance(figures, dict) else None
        if isinstance(reason, str) and reason and reason not in reasons:
            reasons.append(reason)
    return max((item.number("view") for item in accounts), default=0), sorted(reasons)
