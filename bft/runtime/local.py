"""A whole cluster inside one trio program, for tests and examples: the real thing (TLS, sockets, stores), on loopback.

async with local_cluster("bft.services.kv:KeyValue", replicas=4) as cluster:
    await cluster.stop(0)                      # as a crash, but with files closed
    await cluster.start(0)
    await cluster.corrupt(1, some_wrapper)     # restart it with something wrapped around its honest node
"""

from __future__ import annotations

import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from bft.config import Cluster, Durability, Local, Protocol, ReplicaEntry
from bft.crypto.keys import KeyPair, save_key
from bft.determinism.pair import CheckedMachine
from bft.errors import ConfigError, NonDeterminism
from bft.ports import StateMachine
from bft.runtime.assembly import NodeWrapper
from bft.runtime.limits import ServerLimits
from bft.runtime.server import ReplicaServer
from bft.transport.listener import listen

HOST = "127.0.0.1"


@dataclass(slots=True)
class LocalCluster:
    """A running cluster.

    Attributes:
        cluster: its configuration, as a cluster file would hold it.
        folder: where keys and stores are.
        servers: by replica id; stopped ones stay until they are started again.
        client: a client's key pair; enrolment is open, any other does as well.
        client_key: the file that holds it.
    """

    cluster: Cluster
    folder: Path
    client: KeyPair
    client_key: Path
    servers: dict[int, ReplicaServer] = field(default_factory=dict)
    _durability: Durability = "process"
    _make_service: Callable[[], StateMachine] | None = None
    _limits: ServerLimits | None = None
    _checks_determinism: bool = False
    _sockets: dict[int, list[socket.socket]] = field(default_factory=dict)
    _nursery: trio.Nursery | None = None
    _ended: dict[int, trio.Event] = field(default_factory=dict)

    async def start(self, replica: int, wrapper: NodeWrapper | None = None) -> None:
        """Start a stopped replica from its store; returns when it serves."""
        assert self._nursery is not None, "the cluster is not open"
        assert replica not in self._ended, f"replica {replica} runs already"
        checked = CheckedMachine(self.cluster.service) if self._checks_determinism else None
        server = ReplicaServer(
            self.cluster,
            self.local(replica),
            wrapper,
            service=self._make_service() if self._make_service else checked,
            sockets=self._sockets.pop(replica, None),
            limits=self._limits,
        )
        self.servers[replica] = server
        self._ended[replica] = trio.Event()
        await self._nursery.start(self._run, replica, server, checked)

    async def stop(self, replica: int) -> None:
        """Stop a replica; returns when its files are closed."""
        assert replica in self._ended, f"replica {replica} does not run"
        ended = self._ended[replica]
        self.servers[replica].stop()
        await ended.wait()
        del self._ended[replica]

    async def corrupt(self, replica: int, wrapper: NodeWrapper) -> None:
        """Restart a replica with `wrapper` around its honest node.

        `bft.adversary.live` makes wrappers of what a replica is to do wrong; `bft.adversary` has a whole example:

            await cluster.corrupt(1, Corruption("wrong_reply()", me=1, n=4, random=Random(7)))

        Args:
            replica: a running one.
            wrapper: takes the honest node and its signer, returns the node that runs instead.
        """
        await self.stop(replica)
        await self.start(replica, wrapper)

    async def heal(self, replica: int) -> None:
        """Restart a replica as an honest one."""
        await self.stop(replica)
        await self.start(replica)

    def local(self, replica: int) -> Local:
        """A replica's own configuration."""
        return Local(
            id=replica,
            cluster=str(self.folder / "cluster.toml"),
            key=str(self.folder / f"r{replica}.pem"),
            data=str(self.folder / f"r{replica}"),
            durability=self._durability,
        )

    async def _run(
        self,
        replica: int,
        server: ReplicaServer,
        checked: CheckedMachine | None,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        ended = self._ended[replica]
        try:
            await server.run(task_status=task_status)
        finally:
            if checked is not None:
                checked.close()
            ended.set()


@asynccontextmanager
async def local_cluster(
    service: str | type = "bft.services.kv:KeyValue",
    replicas: int = 4,
    *,
    durability: Durability = "process",
    protocol: Protocol | None = None,
    make_service: Callable[[], StateMachine] | None = None,
    limits: ServerLimits | None = None,
    check_determinism: bool = False,
    signed_replies: bool = False,
) -> AsyncIterator[LocalCluster]:
    """Run a cluster on ephemeral ports of 127.0.0.1 while the block runs, under trio; its files are temporary.

    What the block raises comes out as it is. When a replica fails, the block is cancelled, and what the replica raised
    comes out in an exception group of trio's.

    Args:
        service: import path, or a class at the top level of a module.
        replicas: how many.
        durability: of every replica; "memory" makes a restarted replica one of the f faulty ones.
        protocol: parameters of the protocol.
        make_service: makes each replica's state machine, instead of loading it by `service`.
        limits: bounds on peers, for all replicas.
        check_determinism: every replica executes in two processes that differ in hash seed, clock, dice and memory. The
            first difference ends the block with a `NonDeterminism` that names operation, place and both values.
        signed_replies: as in the cluster file.

    Raises:
        ConfigError: the service cannot be loaded; `check_determinism` needs one that other processes can import, not
            `make_service`.
        ValueError: there are too few or too many replicas.
        RuntimeError: no trio program runs here.
    """
    if not trio.lowlevel.in_trio_run():
        raise RuntimeError("local_cluster runs under trio; a client under asyncio can be in another thread or process")
    failure: BaseException | None = None
    with tempfile.TemporaryDirectory(prefix="bft-") as name, ExitStack() as stack:
        sockets = {replica: listen(HOST, 0) for replica in range(replicas)}
        for sock in (each for several in sockets.values() for each in several):
            stack.callback(sock.close)  # one that a replica used is closed already
        cluster = _prepare(Path(name), service, sockets, protocol or Protocol(), durability, signed_replies)
        cluster._make_service = make_service
        cluster._limits = limits
        cluster._checks_determinism = check_determinism
        if check_determinism and make_service is not None:
            raise ConfigError("check_determinism runs the service in other processes: name its class by `service`")
        try:
            async with trio.open_nursery() as nursery:
                cluster._nursery = nursery
                try:
                    for replica in range(replicas):
                        await cluster.start(replica)
                    yield cluster
                except (Exception, KeyboardInterrupt, SystemExit) as error:
                    failure = error
                    raise
                finally:
                    nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            found = group.subgroup(NonDeterminism)
            if found is not None:
                raise _first(found) from None  # every replica that got so far says the same
            if group.exceptions != (failure,):
                raise
        if failure is not None:
            raise failure


def _first(group: BaseExceptionGroup[NonDeterminism]) -> NonDeterminism:
    first = group.exceptions[0]
    return first if isinstance(first, NonDeterminism) else _first(first)


def _prepare(
    folder: Path,
    service: str | type,
    sockets: dict[int, list[socket.socket]],
    protocol: Protocol,
    durability: Durability,
    signed_replies: bool,
) -> LocalCluster:
    """Keys and configuration of a new cluster."""
    entries = []
    for replica in sockets:
        keys = KeyPair.generate()
        save_key(folder / f"r{replica}.pem", keys)
        port = sockets[replica][0].getsockname()[1]
        entries.append(ReplicaEntry(replica, HOST, port, keys.public_hex))
    path = service if isinstance(service, str) else f"{service.__module__}:{service.__qualname__}"
    cluster = Cluster(
        name="local", service=path, protocol=protocol, replica=tuple(entries), signed_replies=signed_replies
    )
    client, client_key = KeyPair.generate(), folder / "client.pem"
    save_key(client_key, client)
    return LocalCluster(cluster, folder, client, client_key, _durability=durability, _sockets=sockets)
