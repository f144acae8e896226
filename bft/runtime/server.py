"""A replica process: listens, dials the other replicas, serves clients, until told to stop."""

from __future__ import annotations

import logging
import random
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio

from bft.config import Cluster, Local
from bft.crypto.keys import KeyPair
from bft.crypto.tls import server_context
from bft.errors import BFTError, ConfigError, TransportError
from bft.events import Report
from bft.ids import Peer, ReplicaId, peer_name
from bft.messages import ENVELOPE_BYTES_MAX
from bft.ports import StateMachine, Store
from bft.runtime.assembly import Assembly, NodeWrapper, assemble, load_replica_key, open_store
from bft.runtime.driver import Driver
from bft.runtime.evidence import EvidenceKeeper
from bft.runtime.links import LinkLimits, Links
from bft.runtime.stats import Collector, Reporter, Stats, account, start_metrics
from bft.transport.channel import Channel
from bft.transport.dial import FRAME_BYTES_MAX, dial
from bft.transport.frames import ReceiveBudget
from bft.transport.handshake import HANDSHAKE_SECONDS, Host, Identity, refuse, welcome
from bft.transport.listener import STRANGERS_MAX, Listener, listen
from bft.transport.poller import Poller


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Bounds on what peers can make a replica hold.

    Attributes:
        links: bounds on authenticated connections.
        strangers_max: connections that have not yet said who they are.
        handshake_seconds: how long they may take.
        client_frame_bytes_max: longest frame of a client.
        replica_frame_bytes_max: longest frame of a replica.
        client_buffer_bytes_max: bytes that wait for a slow connection that somebody else opened.
        receive_bytes_max: incomplete frames of all connections together.
        redial_seconds_min: first pause before dialing a replica again.
        redial_seconds_max: cap of that pause, which doubles.
    """

    links: LinkLimits = field(default_factory=LinkLimits)
    strangers_max: int = STRANGERS_MAX
    handshake_seconds: float = HANDSHAKE_SECONDS
    client_frame_bytes_max: int = ENVELOPE_BYTES_MAX + 4096
    replica_frame_bytes_max: int = FRAME_BYTES_MAX
    client_buffer_bytes_max: int = 16 * 1024 * 1024
    receive_bytes_max: int = 256 * 1024 * 1024
    redial_seconds_min: float = 0.05
    redial_seconds_max: float = 2.0


class ReplicaServer:
    """One replica of a cluster.

    Attributes:
        stats: what it has counted so far.
    """

    def __init__(
        self,
        cluster: Cluster,
        local: Local,
        node_wrapper: NodeWrapper | None = None,
        *,
        passphrase: bytes | None = None,
        service: StateMachine | None = None,
        sockets: Sequence[socket.socket] | None = None,
        limits: ServerLimits | None = None,
        on_report: Callable[[Report], None] | None = None,
    ) -> None:
        """Prepare replica `local.id` of `cluster`; nothing is opened before `run`.

        Args:
            cluster: the shared configuration.
            local: the replica's own, with absolute paths.
            node_wrapper: makes the replica lie.
            passphrase: of the key file.
            service: the state machine; by default the one that the cluster file names.
            sockets: listening sockets to use instead of the cluster file's address.
            limits: bounds on peers.
            on_report: gets every report of the node, in the event loop's thread.

        Raises:
            ConfigError: Python runs with -O, which would remove the checks that stop a faulty replica.
        """
        if not __debug__:
            raise ConfigError("bft does not run under python -O: its assertions stop a replica before it does harm")
        self._cluster = cluster
        self._local = local
        self._wrapper = node_wrapper
        self._passphrase = passphrase
        self._service = service
        self._sockets = sockets
        self._limits = limits or ServerLimits()
        self._on_report = on_report
        self._me = ReplicaId(local.id)
        self._log = logging.getLogger(f"bft.{peer_name(self._me)}")
        self._scope = trio.CancelScope()
        self._started = time.monotonic()
        self._summary: Callable[[], dict[str, object]] = dict
        self._listener: Listener | None = None
        self.stats = Stats()
        self._links = Links(self.stats, self._limits.links)

    def stop(self) -> None:
        """Make `run` return; may be called before it runs, and more than once."""
        self._scope.cancel()

    def account(self) -> dict[str, object]:
        """What a probe is told, beside the counters."""
        listener = self._listener
        return {
            **self._summary(),
            "cluster": self._cluster.id.hex(),
            "connections": {
                "dialed": self._links.dialed,
                "incoming": self._links.incoming,
                "clients": self._links.clients,
                "strangers": listener.strangers if listener else 0,
            },
            "refused": dict(listener.refused) if listener else {},
            "uptime_s": round(time.monotonic() - self._started, 3),
            "durability": self._local.durability,
            "lies": None if self._wrapper is None else getattr(self._wrapper, "__name__", repr(self._wrapper)),
        }

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Open everything, serve until `stop`, close everything; `task_status` is told when it serves.

        Raises:
            BFTError: configuration, key, store or port are not as they must be; or the store failed while serving, in
                which case nothing was sent after the failure.
            AssertionError: the replica found a bug in itself; it must not be restarted without thought.
        """
        keys = load_replica_key(self._cluster, self._local, self._passphrase)
        context = server_context(keys, Path(self._local.key), peer_name(self._me), self._passphrase)
        service = _load_service(self._cluster.service) if self._service is None else self._service
        sockets = self._listen() if self._sockets is None else self._sockets
        try:
            store = open_store(self._cluster, self._local)
            try:
                parts, verifier = assemble(self._cluster, self._local, keys, store, service, self._wrapper)
                host = Host(self._cluster.id, self._me, context, verifier)
                await self._serve(parts, store, host, sockets, keys, task_status)
            finally:
                store.close()
        finally:
            for sock in sockets:
                sock.close()

    def _listen(self) -> list[socket.socket]:
        entry = self._cluster.replica[self._local.id]
        return listen(entry.host, entry.port)

    async def _serve(
        self,
        parts: Assembly,
        store: Store,
        host: Host,
        sockets: Sequence[socket.socket],
        keys: KeyPair,
        task_status: trio.TaskStatus[None],
    ) -> None:
        self._summary = parts.summary
        driver = self._make_driver(parts, store)
        poller = Poller(driver.flush)
        self._listener = Listener(
            sockets,
            host,
            budget=ReceiveBudget(self._limits.receive_bytes_max),
            strangers_max=self._limits.strangers_max,
            handshake_seconds=self._limits.handshake_seconds,
            buffer_bytes_max=self._limits.client_buffer_bytes_max,
        )
        port = self._local.metrics_port
        stop_metrics = start_metrics(port, Collector(parts.summary, self.stats)) if port else None
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(driver.run)
                    nursery.start_soon(poller.run)
                    nursery.start_soon(self._listener.run, partial(self._answer, driver, poller))
                    for peer in range(len(self._cluster.replica)):
                        if peer != self._me:
                            nursery.start_soon(self._keep_dialed, driver, poller, keys, ReplicaId(peer))
                    self._log.info("serves with durability %s", self._local.durability)
                    task_status.started()
        except BaseExceptionGroup as group:
            raise _cause(group) from group
        finally:
            if stop_metrics is not None:
                stop_metrics()
        self._log.info("stopped")

    def _make_driver(self, parts: Assembly, store: Store) -> Driver:
        keeper = EvidenceKeeper(Path(self._local.data) / "evidence", self._cluster.id)
        reporter = Reporter(self._me, self.stats, self._on_report, keeper)
        return Driver(
            self._me,
            len(self._cluster.replica),
            parts.engine,
            parts.admission,
            store,
            self._links,
            reporter,
            self.stats,
            describe=lambda: account(parts.summary(), self.stats, self.account()),
            durability=self._local.durability,
        )

    # --- connections ---

    async def _answer(self, driver: Driver, poller: Poller, channel: Channel, peer: Peer) -> None:
        """Serve a connection that somebody opened, to its end."""
        no_room = self._links.enter(peer, channel)
        if no_room is not None:
            refuse(channel, no_room)
            return
        limits = self._limits
        welcome(channel, limits.client_frame_bytes_max if isinstance(peer, bytes) else limits.replica_frame_bytes_max)
        try:
            await _read(driver, poller, channel, peer)
        finally:
            self._links.leave(peer, channel)

    async def _keep_dialed(self, driver: Driver, poller: Poller, keys: KeyPair, peer: ReplicaId) -> None:
        """Hold a connection to another replica, for as long as this one lives."""
        identity = Identity(self._cluster.id, self._me, keys)
        entry = self._cluster.replica[peer]
        pause, failure = self._limits.redial_seconds_min, ""
        while True:
            try:
                channel = await dial(
                    entry.host, entry.port, server=peer, server_key=bytes.fromhex(entry.key), identity=identity
                )
            except TransportError as error:
                if str(error) != failure:
                    failure = str(error)
                    self._log.info("no connection to r%d: %s", peer, failure)
            else:
                pause, failure = self._limits.redial_seconds_min, ""
                await self._use_dialed(driver, poller, channel, peer)
            await trio.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(2 * pause, self._limits.redial_seconds_max)

    async def _use_dialed(self, driver: Driver, poller: Poller, channel: Channel, peer: ReplicaId) -> None:
        self._log.info("connected to r%d", peer)
        self._links.attach(peer, channel)
        try:
            await _read(driver, poller, channel, peer)
        finally:
            self._links.detach(peer)
            channel.close()
        self._log.info("connection to r%d ended: %s", peer, channel.closed)


def serve(
    cluster: Cluster, local: Local, node_wrapper: NodeWrapper | None = None, *, passphrase: bytes | None = None
) -> None:
    """Run a replica as this process's main program, until SIGTERM or SIGINT.

    Raises:
        BFTError: as `ReplicaServer.run`; the process should exit with a code other than 0.
    """
    server = ReplicaServer(cluster, local, node_wrapper, passphrase=passphrase)

    async def main() -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_stop_on, signals, server)
                await server.run()
                nursery.cancel_scope.cancel()

    try:
        trio.run(main)
    except BaseExceptionGroup as group:
        raise _cause(group) from group


async def _stop_on(signals: AsyncIterator[int], server: ReplicaServer) -> None:
    async for _ in signals:
        server.stop()


async def _read(driver: Driver, poller: Poller, channel: Channel, peer: Peer) -> None:
    """Hand everything that comes over a channel to the driver, until it ends."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(channel.run_writer)
        await poller.serve(channel, partial(driver.receive, peer))
        nursery.cancel_scope.cancel()


def _load_service(path: str) -> StateMachine:
    from bft.services.loading import load_service

    return load_service(path)


def _cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one exception that people should see: a bug before a failure of the environment before anything else."""
    for kind in (AssertionError, BFTError):
        matching = group.subgroup(kind)
        while matching is not None:
            first = matching.exceptions[0]
            if not isinstance(first, BaseExceptionGroup):
                return first
            matching = first
    return group
