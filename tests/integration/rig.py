"""A cluster of real processes for tests: made in a temporary folder, killed at the end whatever happens."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from bft.cli.layout import Plan, replica_configs, write_cluster
from bft.cli.ports import reserve_ports
from bft.cli.probe import Account, probe_all
from bft.cli.processes import ReplicaProcess
from bft.client.client import Client, connect
from bft.config import Cluster, Durability
from bft.crypto.keys import KeyPair
from bft.ids import ClientId
from bft.services.kv import KeyValue
from bft.transport.handshake import Identity

ROOT = Path(__file__).parent.parent.parent
PROTOCOL = {
    "checkpoint_interval": 32,
    "window": 64,
    "request_timeout_ms": 400,
    "view_change_timeout_ms": 400,
    "status_interval_ms": 50,
}
START_SECONDS = 15.0
PORTS = 12
"""Reserved for a cluster whose membership changes."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


@dataclass(slots=True)
class Rig:
    """A cluster's folder and its processes."""

    folder: Path
    cluster: Cluster
    processes: list[ReplicaProcess]

    @property
    def cluster_file(self) -> Path:
        """The shared configuration."""
        return self.folder / "cluster.toml"

    @property
    def key(self) -> Path:
        """The client's key file."""
        return self.folder / "keys" / "client.pem"

    def start(self, *replicas: int, adversary: str | None = None) -> None:
        """Start some replicas, or all."""
        for replica in replicas or range(len(self.processes)):
            self.processes[replica].start(adversary)

    def kill(self, *replicas: int) -> None:
        """SIGKILL some replicas, or all, and wait for their ends."""
        for replica in replicas or range(len(self.processes)):
            self.processes[replica].kill()

    def config(self, replica: int) -> Path:
        """A replica's own configuration, also of one that joined later."""
        return self.folder / f"r{replica}" / "replica.toml"

    async def change(self, *arguments: str) -> Ended:
        """Run a command that changes this cluster, while the test goes on; it must succeed."""
        ended = await trio.to_thread.run_sync(partial(bft, *arguments, "--dir", str(self.folder), seconds=120.0))
        assert ended.code == 0, ended
        return ended

    async def accounts(self) -> list[Account]:
        """What all replicas of the cluster file say about themselves."""
        keys = KeyPair.generate()
        return await probe_all(self.cluster, Identity(self.cluster.id, ClientId(keys.public), keys), seconds=1.0)

    async def until(self, holds: Callable[[list[Account]], bool], seconds: float = START_SECONDS) -> list[Account]:
        """Ask until the answers are as wanted; fails with the last ones."""
        accounts: list[Account] = []
        with trio.move_on_after(seconds):
            while True:
                accounts = await self.accounts()
                if holds(accounts):
                    return accounts
                await trio.sleep(0.05)
        logs = [f"r{index}: {process.last_words()}" for index, process in enumerate(self.processes)]
        raise AssertionError(f"in vain for {seconds} s; last answers: {accounts}; last words: {logs}")

    async def until_all_answer(self) -> None:
        """Wait until every replica serves."""
        await self.until(lambda accounts: all(account.answered for account in accounts))

    async def until_equal(self) -> None:
        """Wait until all replicas have executed the same batches."""
        await self.until(
            lambda accounts: (
                all(account.answered for account in accounts)
                and len({(account.report["executed"], account.report["chain"]) for account in accounts}) == 1
            )
        )

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """A connected client."""
        async with connect(self.cluster, key=self.key) as client:
            await client.wait_connected(START_SECONDS)
            yield client

    def bft(self, *arguments: str) -> Ended:
        """Run a client command against this cluster."""
        return bft(*arguments, "--cluster", str(self.cluster_file), "--key", str(self.key))


async def count(client: Client, key: str, acknowledged: dict[str, int], stop: trio.Event | None = None) -> None:
    """Increment one key until told to stop, or for ever; every answer must be the next integer."""
    service = client.service(KeyValue)
    while stop is None or not stop.is_set():
        total = await service.increment(key)
        assert total == acknowledged[key] + 1, f"{key}: executed {total} times, asked {acknowledged[key] + 1} times"
        acknowledged[key] = total


@contextmanager
def make_rig(
    folder: Path,
    *,
    n: int = 4,
    durability: Durability = "process",
    enrolment: str = "open",
    service: str | None = None,
    signed_replies: bool = False,
    admins: int = 0,
    admin_threshold: int = 1,
) -> Iterator[Rig]:
    """Write a cluster's files; nothing runs yet. All processes are dead at the end, those that joined later, too."""
    plan = Plan(
        name="test",
        signed_replies=signed_replies,
        n=n,
        base_port=reserve_ports(PORTS if admins else n),
        admins=admins,
        admin_threshold=admin_threshold,
        durability=durability,
        enrolment=enrolment,
        protocol=PROTOCOL,
        **({} if service is None else {"service": service}),
    )
    cluster = write_cluster(folder, plan)
    rig = Rig(folder, cluster, [ReplicaProcess(config) for config in replica_configs(folder)])
    try:
        yield rig
    finally:
        for config in folder.glob("r*/replica.toml"):
            ReplicaProcess(config).kill()  # whoever has started it
        rig.kill()


def bft(*arguments: str, seconds: float = 30.0, cwd: Path | None = None) -> Ended:
    """Run the `bft` command as a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "bft.cli.main", *arguments],
        capture_output=True,
        text=True,
        timeout=seconds,
        stdin=subprocess.DEVNULL,
        cwd=cwd or ROOT,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)
