"""What is measured, one function per question; each starts a cluster of its own."""

from __future__ import annotations

from typing import Any

import trio

from benchmarks.cluster import BenchmarkCluster, running_cluster
from benchmarks.load import ClosedLoop
from bft.client.client import Client, connect
from bft.config import Durability
from bft.crypto.keys import KeyPair
from bft.services.null import operation

NULL = "bft.services.null:Null"
READY_SECONDS = 20.0


async def ready(client: Client) -> None:
    """Wait until the cluster orders operations of this client."""
    await client.wait_connected(READY_SECONDS)
    await client.call(operation(), timeout=READY_SECONDS)


async def measure_throughput(
    n: int, durability: Durability, sessions: int, request_bytes: int, reply_bytes: int, seconds: float
) -> dict[str, float]:
    """Operations per second and latencies of `sessions` closed-loop callers on one client process."""
    with running_cluster(n=n, durability=durability, service=NULL) as cluster:
        async with connect(cluster.config, key=KeyPair.generate()) as client:
            await ready(client)
            load = ClosedLoop(client, operation(reply_bytes=reply_bytes, padding_bytes=request_bytes), sessions)
            before = cluster.cpu_seconds()
            measured = await load.run(warm_up=1.0, seconds=seconds)
            used = sum(cluster.cpu_seconds()) - sum(before)
            return {
                "op_s": measured.throughput,
                "p50_ms": measured.percentile_ms(0.5),
                "p99_ms": measured.percentile_ms(0.99),
                "replica_cpu_us_per_op": used / (seconds + 1.0) / measured.throughput * 1e6,
                "failures": float(measured.failures),
            }


async def measure_outage(durability: Durability) -> dict[str, float]:
    """Longest pause between two completions when the primary is killed in the middle of the load."""
    with running_cluster(durability=durability, service=NULL) as cluster:
        async with connect(cluster.config, key=KeyPair.generate()) as client:
            await ready(client)
            load = ClosedLoop(client, operation(), 50)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_kill_later, cluster, 0, 3.0)
                measured = await load.run(warm_up=1.0, seconds=8.0)
            return {"outage_ms": measured.stall_ms, "failures": float(measured.failures)}


async def _kill_later(cluster: BenchmarkCluster, replica: int, seconds: float) -> None:
    await trio.sleep(seconds)
    cluster.kill(replica)


async def measure_growth(operations: int) -> list[dict[str, Any]]:
    """Resident memory of the replicas after every tenth of the operations."""
    rows: list[dict[str, Any]] = []
    with running_cluster(durability="memory", service=NULL) as cluster:
        async with connect(cluster.config, key=KeyPair.generate()) as client:
            await ready(client)
            load = ClosedLoop(client, operation(), 200)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: load.run(warm_up=0.0, seconds=3600.0))
                for tenth in range(11):
                    while load.completed < operations * tenth // 10:
                        await trio.sleep(0.02)
                    memory = cluster.memory_mb()
                    rows.append({"operations": load.completed, "largest_mb": max(memory), "all_mb": str(memory)})
                nursery.cancel_scope.cancel()
    return rows
