"""What is measured of this library's clusters, one function per question; each starts a cluster of its own."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import trio

from benchmarks.case import Case
from benchmarks.cluster import KEY_VALUE, NULL, BenchmarkCluster, running_cluster
from benchmarks.load import ClosedLoop, Measurement, MixedLoop, OpenLoop, TaskLoop
from benchmarks.results import spread
from bft.cli.probe import Account, probe_all
from bft.client.client import Client, connect
from bft.client.proxy import ServiceProxy
from bft.config import Cluster, Durability
from bft.crypto.keys import KeyPair
from bft.ids import ClientId
from bft.services.kv import KeyValue
from bft.services.null import operation
from bft.transport.handshake import Identity

VALUE_BYTES = 4000
REJOINING = 3
PUTTING = 20
CALM_SECONDS = 3.0
REJOIN_SECONDS_MAX = 600.0
READY_SECONDS = 20.0
CONNECTING_AT_ONCE = 16
"""Clients that shake hands at a time: a replica admits a bounded number of strangers."""
WARM_UP_SECONDS = 1.0


async def ready(client: Client, seconds: float = READY_SECONDS) -> None:
    """Wait until the cluster orders operations of this client."""
    await client.wait_connected(seconds)
    await client.call(operation(), timeout=seconds)


@asynccontextmanager
async def connected_clients(
    cluster: Cluster, count: int, *, ready_seconds: float = READY_SECONDS
) -> AsyncIterator[list[Client]]:
    """`count` clients, each with a key and connections of its own, all of them served."""
    async with AsyncExitStack() as stack:
        clients: list[Client] = []
        while len(clients) < count:
            batch = [
                await stack.enter_async_context(connect(cluster, key=KeyPair.generate()))
                for _ in range(min(CONNECTING_AT_ONCE, count - len(clients)))
            ]
            async with trio.open_nursery() as nursery:
                for client in batch:
                    nursery.start_soon(ready, client, ready_seconds)
            clients += batch
        yield clients


async def measure_case(case: Case, seconds: float) -> dict[str, float]:
    """Operations per second, latencies and costs of one workload on a new cluster.

    Raises:
        BFTError: the cluster could not be reached or did not answer.
    """
    with running_cluster(n=case.n, durability=case.durability, service=NULL) as cluster:
        async with connected_clients(cluster.config, case.callers if case.load == "clients" else 1) as clients:
            load = make_load(case, clients)
            before, client_before = sum(cluster.cpu_seconds()), time.process_time()
            measured = await load.run(warm_up=WARM_UP_SECONDS, seconds=seconds)
            used, client_used = sum(cluster.cpu_seconds()) - before, time.process_time() - client_before
            return {
                **metrics_of(measured),
                **_cpu_per_operation(load.completed, used, client_used),
                "largest_replica_mb": float(max(cluster.memory_mb())),
            }


def make_load(case: Case, clients: list[Client]) -> ClosedLoop | OpenLoop:
    """The load that a case describes, ready to `run`."""
    ordered = operation(reply_bytes=case.reply_bytes, padding_bytes=case.request_bytes)
    if case.rate:
        return OpenLoop(clients, ordered, case.rate)
    if case.reads_percent:
        read = operation(reply_bytes=case.reply_bytes)
        return MixedLoop(clients, ordered, case.callers, read, case.reads_percent)
    return ClosedLoop(clients, ordered, case.callers)


def metrics_of(measured: Measurement) -> dict[str, float]:
    """The metrics that every load has."""
    return {
        "op_s": measured.throughput,
        **measured.latencies.summary(),
        "failures": float(measured.failures),
        "unanswered": float(measured.unanswered),
    }


def _cpu_per_operation(operations: int, used: float, client_used: float) -> dict[str, float]:
    """CPU time in microseconds per operation, of all that completed while it was used: warm-up and stragglers too."""
    if not operations:
        return {"replica_cpu_us_per_op": 0.0, "client_cpu_us_per_op": 0.0}
    return {
        "replica_cpu_us_per_op": used / operations * 1e6,
        "client_cpu_us_per_op": client_used / operations * 1e6,
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
    """Resident memory of the largest replica when every tenth of the operations was reached.

    A row names what was to be reached, not the some hundred more that had completed then: so two files have rows alike.
    """
    rows: list[dict[str, Any]] = []
    with running_cluster(durability="memory", service=NULL) as cluster:
        async with connect(cluster.config, key=KeyPair.generate()) as client:
            await ready(client)
            load = ClosedLoop(client, operation(), 200)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(load.run, warm_up=0.0, seconds=3600.0))
                for tenth in range(11):
                    reached = operations * tenth // 10
                    while load.completed < reached:
                        await trio.sleep(0.02)
                    rows.append({"operations": reached, "largest_mb": spread([float(max(cluster.memory_mb()))])})
                nursery.cancel_scope.cancel()
    return rows


async def measure_rejoin(durability: Durability, megabytes: int, limit: int = 0) -> dict[str, float]:
    """One replica is down while the state grows by `megabytes`, then comes back under load: how long, at what cost.

    It has caught up when its stable checkpoint and state digest are those of another replica, beyond where they stood
    at its start.
    """
    values = max(1, megabytes * 1_000_000 // VALUE_BYTES)
    with running_cluster(durability=durability, service=KEY_VALUE) as cluster:
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
            before = await _puts(service).run(warm_up=0.0, seconds=CALM_SECONDS)
            async with trio.open_nursery() as nursery:
                front = max(account.number("executed") for account in await _accounts(cluster, keys))
                began = trio.current_time()
                cluster.start(REJOINING)
                busy = _puts(service)
                nursery.start_soon(partial(busy.run, warm_up=0.0, seconds=REJOIN_SECONDS_MAX))
                caught = await _until_caught_up(cluster, keys, front)
                seconds = trio.current_time() - began
                completed = busy.completed
                nursery.cancel_scope.cancel()
            transferred = caught.report.get("transferred")
            told = transferred if isinstance(transferred, dict) else {}
            return {
                "rejoin_s": seconds,
                "transfers": float(told.get("count", 0)),
                "transfer_ms": float(told.get("milliseconds", 0)),
                "pages_fetched": float(told.get("fetched", 0)),
                "megabytes_moved": float(told.get("bytes", 0)) / 1e6,
                "op_s_before": before.throughput,
                "op_s_meanwhile": completed / seconds,
            }


def _puts(service: ServiceProxy[KeyValue]) -> TaskLoop:
    """A closed loop of callers that each overwrite a value of their own."""

    async def put(number: int) -> None:
        await service.put(f"load-{number}", "x" * 100)

    return TaskLoop([partial(put, number) for number in range(PUTTING)], ())


async def _fill(service: ServiceProxy[KeyValue], values: int) -> None:
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
