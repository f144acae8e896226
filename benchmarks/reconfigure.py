"""What a change of membership costs those who use the cluster: throughput and the longest pause, phase by phase."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import trio

from benchmarks.cluster import NULL
from benchmarks.load import ClosedLoop
from bft.cli.layout import Plan, replica_configs, write_cluster
from bft.cli.ports import reserve_ports
from bft.cli.processes import ReplicaProcess
from bft.client.client import connect
from bft.config import Durability
from bft.services.null import operation

PORTS = 8
READY_SECONDS = 30.0
SAMPLE_SECONDS = 0.001
CHANGE_SECONDS = 180.0


@dataclass(slots=True)
class _Phase:
    """A stretch of time under load.

    Attributes:
        stall_ms: the longest time without a completion, to about a millisecond.
    """

    name: str
    operations: int = 0
    seconds: float = 0.0
    stall_ms: float = 0.0

    def row(self) -> dict[str, Any]:
        """A line of the result."""
        return {
            "phase": self.name,
            "op_s": self.operations / self.seconds,
            "stall_ms": self.stall_ms,
            "seconds": self.seconds,
        }


async def measure_reconfigure(durability: Durability, sessions: int, seconds: float) -> list[dict[str, Any]]:
    """Grow from 4 to 7, shrink to 4, and rotate a key under a closed loop of callers; steady phases in between.

    Args:
        durability: of every replica.
        sessions: callers, each with one operation under way.
        seconds: length of a steady phase. A change takes as long as it takes, newcomers' start included.
    """
    with tempfile.TemporaryDirectory(prefix="bft-benchmark-") as name:
        folder = Path(name) / "cluster"
        plan = Plan(name="benchmark", base_port=reserve_ports(PORTS), service=NULL, durability=durability, admins=1)
        cluster = write_cluster(folder, plan)
        try:
            for config in replica_configs(folder):
                ReplicaProcess(config).start()
            async with connect(cluster, key=folder / "keys" / "client.pem") as client:
                await client.wait_connected(READY_SECONDS)
                await client.call(operation(), timeout=READY_SECONDS)
                load = ClosedLoop(client, operation(), sessions)
                return await _phases(load, folder, durability, seconds)
        finally:
            for config in folder.glob("r*/replica.toml"):
                ReplicaProcess(config).kill()


async def _phases(load: ClosedLoop, folder: Path, durability: Durability, seconds: float) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    add = ("cluster", "add", "--count", "3", "--durability", durability)
    steps: list[tuple[str, tuple[str, ...]]] = [
        ("n = 4", ()),
        ("4 to 7", add),
        ("n = 7", ()),
        ("7 to 4", ("cluster", "remove", "4", "5", "6")),
        ("n = 4 again", ()),
        ("rotate a backup's key", ("keys", "rotate", str(folder / "r2" / "replica.toml"))),
        ("rotate the primary's key", ("keys", "rotate", str(folder / "r0" / "replica.toml"))),
        ("n = 4 at last", ()),
    ]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(load.run, warm_up=0.0, seconds=3600.0))
        await trio.sleep(1.0)
        for name, command in steps:
            async with _watched(load, name) as phase:
                if command:
                    await trio.to_thread.run_sync(_bft, folder, command)
                else:
                    await trio.sleep(seconds)
            rows.append(phase.row())
        nursery.cancel_scope.cancel()
    return rows


@asynccontextmanager
async def _watched(load: ClosedLoop, name: str) -> AsyncIterator[_Phase]:
    """Measure while the block runs."""
    phase = _Phase(name)
    started, before = time.perf_counter(), load.completed

    async def sample() -> None:
        last, since = load.completed, time.perf_counter()
        while True:
            await trio.sleep(SAMPLE_SECONDS)
            now = time.perf_counter()
            phase.stall_ms = max(phase.stall_ms, (now - since) * 1e3)
            if load.completed != last:
                last, since = load.completed, now

    async with trio.open_nursery() as nursery:
        nursery.start_soon(sample)
        yield phase
        phase.operations = load.completed - before
        phase.seconds = time.perf_counter() - started
        nursery.cancel_scope.cancel()


def _bft(folder: Path, command: tuple[str, ...]) -> None:
    """Change the cluster by the command that an operator would use."""
    subprocess.run(
        [sys.executable, "-m", "bft.cli.main", *command, "--dir", str(folder), "--timeout", str(CHANGE_SECONDS)],
        check=True,
        capture_output=True,
        timeout=2 * CHANGE_SECONDS,
    )
