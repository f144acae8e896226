"""What is measured, one function per question; each starts a cluster of its own."""

from __future__ import annotations

from typing import Any

import trio

from benchmarks.cluster import BenchmarkCluster, running_cluster
from benchmarks.load import ClosedLoop
from bft.cli.probe import Account, probe_all
from bft.client.client import Client, connect
from bft.config import Durability
from bft.crypto.keys import KeyPair
from bft.ids import ClientId
from bft.services.kv import KeyValue
from bft.services.null import operation
from bft.transport.handshake import Identity

NULL = "bft.services.null:Null"
KV = "bft.services.kv:KeyValue"
VALUE_BYTES = 4000
REJOINING = 3
CALM_SECONDS = 3.0
REJOIN_SECONDS_MAX = 600.0
READY_SECONDS = 20.0


async def _ready(client: Client) -> None:
    await client.wait_connected(READY_SECONDS)
    await client.call(operation(), timeout=READY_SECONDS)


async def measure_throughput(
    n: int, durability: Durability, sessions: int, request_bytes: int, reply_bytes: int, seconds: float
) -> dict[str, float]:
    """Operations per second and latencies of `sessions` closed-loop callers on one client process."""
    with running_cluster(n=n, durability=durability, service=NULL) as cluster:
        async with connect(cluster.config, key=KeyPair.generate()) as client:
            await _ready(client)
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
            await _ready(client)
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
            await _ready(client)
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


async def measure_rejoin(durability: Durability, megabytes: int, limit: int = 0) -> dict[str, float]:
    """One replica is down while the state grows by `megabytes`, then comes back under load: how long, at what cost.

    It has caught up when its stable checkpoint and state digest are those of another replica, beyond where they stood
    at its start.
    """
    values = max(1, megabytes * 1_000_000 // VALUE_BYTES)
    with running_cluster(durability=durability, service=KV) as cluster:
        keys = KeyPair.generate()
        async with connect(cluster.config, key=keys) as client:
            service = client.service(KeyValue)
            await client.wait_connected(READY_SECONDS)
            await service.put("first", "value")
            if limit:
                with (cluster.folder / f"r{REJOINING}.toml").open("a") as file:
                    file.write(f"transfer_bytes_per_second = {limit}\n")
            cluster.kill(REJOINING)
            await _fill(service, values)
            before = BusyLoop(client)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(before.run)
                await trio.sleep(CALM_SECONDS)
                before.stop()
            async with trio.open_nursery() as nursery:
                began = trio.current_time()
                accounts = await _accounts(cluster, keys)
                front = max(account.number("executed") for account in accounts)
                cluster.start(REJOINING)
                busy = BusyLoop(client)
                nursery.start_soon(busy.run)
                caught = await _until_caught_up(cluster, keys, front)
                seconds = trio.current_time() - began
                busy.stop()
            transfer = caught.report.get("last_transfer")
            told = transfer if isinstance(transfer, dict) else {}
            return {
                "rejoin_s": seconds,
                "transfer_ms": float(told.get("milliseconds", 0)),
                "pages_fetched": float(told.get("fetched", 0)),
                "megabytes_moved": float(told.get("bytes", 0)) / 1e6,
                "op_s_before": before.completed / CALM_SECONDS,
                "op_s_meanwhile": busy.completed / seconds,
            }


class BusyLoop:
    """A closed loop of 20 callers that runs until it is told to stop."""

    def __init__(self, client: Client) -> None:
        self._service = client.service(KeyValue)
        self._running = True
        self.completed = 0

    async def run(self) -> None:
        """Run all callers."""
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(self._call, number)

    async def _call(self, number: int) -> None:
        while self._running:
            await self._service.put(f"load-{number}", "x" * 100)
            self.completed += 1

    def stop(self) -> None:
        """Let every caller end after its present call."""
        self._running = False


async def _fill(service: KeyValue, values: int) -> None:
    """Store `values` distinct values, some at a time."""
    numbers = iter(range(values))

    async def store() -> None:
        for number in numbers:
            await service.put(f"key-{number:08}", f"{number:08}" * (VALUE_BYTES // 8))

    async with trio.open_nursery() as nursery:
        for _ in range(16):
            nursery.start_soon(store)


async def _accounts(cluster: BenchmarkCluster, keys: KeyPair) -> list[Account]:
    return await probe_all(cluster.config, Identity(cluster.config.id, ClientId(keys.public), keys), seconds=2.0)


async def _until_caught_up(cluster: BenchmarkCluster, keys: KeyPair, front: int) -> Account:
    """Wait until the replica has executed what the others had, and agrees with one of them on a stable checkpoint."""
    seen: dict[object, object] = {}
    with trio.fail_after(REJOIN_SECONDS_MAX):
        while True:
            accounts = await _accounts(cluster, keys)
            for account in accounts:
                if account.answered and account.replica != REJOINING:
                    seen[account.number("stable")] = account.report.get("state_digest")
            mine = accounts[REJOINING]
            if mine.answered and mine.number("executed") >= front:
                digest = seen.get(mine.number("stable"))
                if digest is not None:
                    assert digest == mine.report.get("state_digest"), "equal checkpoints have equal digests"
                    return mine
            await trio.sleep(0.05)
