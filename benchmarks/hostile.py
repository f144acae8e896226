"""What one hostile client process at full speed costs the honest ones, kind by kind, on one running cluster.

Every case is measured between two fault-free stretches of the same run, and compared with their mean: the machine's own
ups and downs then show in both. The hostile process needs processor time of its own, which on a small machine is taken
from replicas and honest clients whatever the protocol does; so each kind runs at two priorities. `niceness` 10 shows
what its *messages* cost, `niceness` 0 what it costs as an equal neighbour on the same cores.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trio

from benchmarks.cluster import NULL, BenchmarkCluster, running_cluster
from benchmarks.load import ClosedLoop, Measurement
from benchmarks.measures import connected_clients
from benchmarks.results import spread
from bft.client.client import Client
from bft.config import ClientLimits, Durability
from bft.errors import TransportError
from bft.services.null import operation

HONEST_CLIENTS = 4
"""Clients with keys and connections of their own: a fair share is four parts of five even for what costs as much."""
RAMP_SECONDS = 1.0
BURST_SECONDS = ClientLimits().burst_seconds + 0.5
"""How long a hostile client runs before anything is measured beside it: its quota lets so many seconds' worth of it
come at once, which is over then."""
SETTLE_SECONDS = 1.5
"""What a hostile client has left behind is ordered or dropped meanwhile."""
READY_SECONDS = 20.0
STOP_SECONDS = 20.0
COUNTERS = ("rejected", "delayed", "dropped")


async def measure_hostile(
    durability: Durability, sessions: int, kinds: Sequence[str], niceness: Sequence[int], seconds: float
) -> list[dict[str, Any]]:
    """One row per kind and priority, of one run; see the module's head.

    Args:
        sessions: closed-loop callers of all honest clients together.
        seconds: length of every measured stretch.
    """
    with running_cluster(durability=durability, service=NULL) as cluster:
        async with connected_clients(cluster.config, HONEST_CLIENTS) as clients:
            loads = [ClosedLoop(client, operation(), max(1, sessions // HONEST_CLIENTS)) for client in clients]
            for load in loads:
                load.start()
            await trio.sleep(RAMP_SECONDS)
            rows = [
                await _case(cluster, clients[0], loads, kind, level, seconds) for kind in kinds for level in niceness
            ]
            last = await _throughput(loads, seconds)
            for load in loads:
                load.stop()
        return _with_ratios(rows, last.throughput)


async def _case(
    cluster: BenchmarkCluster, client: Client, loads: Sequence[ClosedLoop], kind: str, niceness: int, seconds: float
) -> dict[str, Any]:
    """A fault-free stretch, then one beside a hostile client."""
    spent = [sum(cluster.cpu_seconds())]
    before = await _throughput(loads, seconds)
    spent.append(sum(cluster.cpu_seconds()))
    counted = await _counters(client, cluster.config.quorums.n)
    with _attacking(cluster.folder, kind, niceness) as attacker:
        with trio.move_on_after(READY_SECONDS):  # one that does not get going has cost nothing, which `sent` shows
            await trio.to_thread.run_sync(attacker.stdout.readline, abandon_on_cancel=True)  # type: ignore[union-attr]
        await trio.sleep(BURST_SECONDS)
        spent.append(sum(cluster.cpu_seconds()))
        beside = await _throughput(loads, seconds)
        spent.append(sum(cluster.cpu_seconds()))
        counted_after = await _counters(client, cluster.config.quorums.n)
        report = await trio.to_thread.run_sync(_stop, attacker)
    await trio.sleep(SETTLE_SECONDS)
    return {
        "kind": kind,
        "niceness": niceness,
        "before_op_s": before.throughput,
        "beside_op_s": beside.throughput,
        "before_cpu_us_per_op": (spent[1] - spent[0]) / max(1, before.operations) * 1e6,
        "beside_cpu_us_per_op": (spent[3] - spent[2]) / max(1, beside.operations) * 1e6,
        "before_p99_ms": before.percentile_ms(0.99),
        "beside_p99_ms": beside.percentile_ms(0.99),
        "stall_ms": beside.stall_ms,
        "failures": beside.failures,
        "hostile_frames_s": report.get("sent", 0) / report.get("seconds", 1.0),
        "hostile_cpu_share": report.get("cpu_seconds", 0.0) / report.get("seconds", 1.0),
        "hostile_connections": report.get("connections", 0),
        "counted": ", ".join(f"{name} {count}" for name, count in sorted((counted_after - counted).items())),
    }


def combined(runs: Sequence[list[dict[str, Any]]], **case: object) -> list[dict[str, Any]]:
    """The rows of several runs as one list, every figure with its spread; `case` is what all of them measured."""
    rows = []
    for same in zip(*runs, strict=True):
        first = same[0]
        names = [name for name in first if name not in ("kind", "niceness", "counted")]
        row: dict[str, Any] = {"kind": first["kind"], "niceness": first["niceness"], **case}
        row.update((name, spread([float(run[name]) for run in same])) for name in names)
        rows.append(row)
    return rows


def idle(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Kinds whose process sent nothing in some run: what it did not do cost nothing, and says nothing."""
    return list(dict.fromkeys(row["kind"] for row in rows if not row["hostile_frames_s"]["min"]))


def counted(runs: Sequence[list[dict[str, Any]]]) -> dict[str, list[str]]:
    """What the replicas refused, held back or dropped beside each hostile client, run by run."""
    return {
        f"{same[0]['kind']}/{same[0]['niceness']}": [run["counted"] for run in same] for same in zip(*runs, strict=True)
    }


def _with_ratios(rows: list[dict[str, Any]], last: float) -> list[dict[str, Any]]:
    """Compare each case with the mean of the fault-free stretches on either side of it."""
    free = [row["before_op_s"] for row in rows] + [last]
    for place, row in enumerate(rows):
        around = (free[place] + free[place + 1]) / 2
        row["ratio"] = row["beside_op_s"] / around if around else 0.0
    return rows


async def _throughput(loads: Sequence[ClosedLoop], seconds: float) -> Measurement:
    """What all honest clients complete together."""
    found: list[Measurement] = []

    async def one(load: ClosedLoop) -> None:
        found.append(await load.measure(seconds))

    async with trio.open_nursery() as nursery:
        for load in loads:
            nursery.start_soon(one, load)
    return Measurement(
        sum(item.operations for item in found),
        max(item.seconds for item in found),
        [latency for item in found for latency in item.latencies_ns],
        sum(item.failures for item in found),
        max(item.stall_ms for item in found),
    )


async def _counters(client: Client, n: int) -> Counter[str]:
    """What all replicas have counted of refusals and delays, and the views that they have gone through."""
    counted: Counter[str] = Counter()
    for replica in range(n):
        try:
            account = await client.probe(replica, timeout=READY_SECONDS)
        except TransportError:
            counted["no-answer"] += 1
            continue
        for name in COUNTERS:
            found = account.get(name)
            if isinstance(found, dict):
                counted.update({f"{name}/{reason}": count for reason, count in found.items()})
        view = account.get("view")
        counted["views"] += view if isinstance(view, int) else 0
    return counted


@contextmanager
def _attacking(folder: Path, kind: str, niceness: int) -> Iterator[subprocess.Popen[str]]:
    """A hostile process, which is dead at the end whatever happens."""
    command = ["nice", "-n", str(niceness), sys.executable, "-m", "benchmarks.hostile_client", kind]
    with (folder / "hostile.log").open("ab") as log:
        process = subprocess.Popen(
            [*command, str(folder / "cluster.toml")],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=Path(__file__).parent.parent,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _stop(process: subprocess.Popen[str]) -> dict[str, float]:
    """End it, and return what it says it has done; empty if it does not say."""
    process.terminate()
    try:
        out, _ = process.communicate(timeout=STOP_SECONDS)
        report: dict[str, float] = json.loads(out.splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError):
        return {}
    return report
