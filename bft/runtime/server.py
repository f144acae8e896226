"""A replica process: listens, dials the members of the present epoch, serves clients, until told to stop.

Epochs (`bft.epochs`). The node says when it enters one. At once, frames are checked by its keys and rules; in the
order of effects, newcomers are dialed, those who left are not dialed again, and connections that a replica opened with
a key that it has no longer are closed. All others stay. A dialer that finds another key than it expects, or is refused,
asks the stranger for links: so a replica that was away finds today's members at yesterday's addresses.

A replica whose key no epoch names *listens*: under its own id if that is new, else as nobody (`assembly.NOBODY`), and
once an epoch names its key it goes on as that member. One that was removed stops when it is needed no longer.
"""

from __future__ import annotations

import logging
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from ssl import SSLContext
from typing import cast

import trio

from bft.config import Cluster, Local
from bft.core.recovery import rules_of
from bft.crypto.signatures import Ed25519Verifier
from bft.epochs import Configuration, genesis
from bft.errors import BFTError, ConfigError, KeyFileError, TransportError
from bft.events import Report
from bft.headers import Member
from bft.ids import Peer, ReplicaId, peer_name
from bft.messages import EpochLink, EpochProof, Signed
from bft.ports import StateMachine, Store
from bft.runtime.archive import Archive
from bft.runtime.assembly import NOBODY, Assembly, Keys, NodeWrapper, assemble, keys_of, open_store
from bft.runtime.causes import cause_of
from bft.runtime.client_reader import ClientReader
from bft.runtime.dialer import Dialer
from bft.runtime.driver import Admitter, Driver, Machine
from bft.runtime.evidence import EvidenceKeeper
from bft.runtime.joining import ready_hex, ready_words, require_key, voucher_for
from bft.runtime.limits import ServerLimits, fitted
from bft.runtime.links import Links
from bft.runtime.roster import Roster
from bft.runtime.scrub import scrub_forever
from bft.runtime.stats import Collector, Reporter, Stats, account, start_metrics
from bft.services.loading import load_service
from bft.transport.channel import Channel, SendBudget
from bft.transport.dial import ask_for_links
from bft.transport.discovery import chain_file, load_links
from bft.transport.frames import ReceiveBudget
from bft.transport.handshake import Host, Identity, WrongIdentity, refuse, welcome
from bft.transport.listener import Listener, listen
from bft.transport.poller import Poller
from bft.wire.codec import encode

DISMISS_SECONDS = 2.0


class ReplicaServer:
    """One replica of a cluster.

    Attributes:
        stats: what it has counted so far.
        retired: why it stopped by itself: it was removed from the cluster; None if it did not.
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
            sockets: listening sockets to use instead of the address in the files.
            limits: bounds on peers; by default those that fit into the number of files that may be open.
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
        self._given_service = service
        self._sockets = sockets
        self._limits = limits or fitted(ServerLimits(), len(cluster.replica))
        self._on_report = on_report
        self._id = ReplicaId(local.id)
        self._log = logging.getLogger(f"bft.{peer_name(self._id)}")
        self._scope = trio.CancelScope()
        self._started = time.monotonic()
        self._parts: Assembly | None = None
        self._listener: Listener | None = None
        self._is_coming_back = False
        self.retired: str | None = None
        self.stats = Stats()
        self._links = Links(self.stats, self._limits.links)
        self._clients = ClientReader(local.client_limits, self.stats, lambda: cast(Assembly, self._parts).replica)
        # Set by `run`, in this order.
        self._keys: Keys
        self._service: StateMachine
        self._store: Store
        self._roster: Roster
        self._host: Host
        self._driver: Driver
        self._poller: Poller
        self._dialer: Dialer
        self._nursery: trio.Nursery

    def stop(self) -> None:
        """Make `run` return; may be called before it runs, and more than once."""
        self._scope.cancel()

    def account(self) -> dict[str, object]:
        """What a probe is told, beside the counters."""
        listener, parts = self._listener, self._parts
        return {
            **self._summary(),
            "cluster": self._cluster.id.hex(),
            "role": self._role(),
            "ready": ready_hex(self._ready_words()) if parts is not None else [],
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

    def _summary(self) -> dict[str, object]:
        if self._parts is None:
            return {}
        return {**self._parts.summary(), "replica": self._local.id}

    def _role(self) -> str:
        """member, learner (is to join or to come back), or leaver (was removed)."""
        configuration = self._roster.configuration
        if self._is_member_of(configuration):
            return "member"
        return "leaver" if self._roster.was_member(self._id) and configuration.member(self._id) is None else "learner"

    def _is_member_of(self, configuration: Configuration) -> bool:
        member = configuration.member(self._id)
        return member is not None and self._keys.find(member.key) is not None

    def _needs_voucher(self) -> bool:
        """True for who is to join or to come back: no epoch names its key yet."""
        configuration = self._roster.configuration
        is_removed = self._roster.was_member(self._id) and configuration.member(self._id) is None
        return not is_removed and not self._is_member_of(configuration)

    def _ready_words(self) -> list[Signed]:
        assert self._parts is not None, "a replica that runs has its parts"
        if not self._cluster.admin:
            return []
        return ready_words(self._cluster, self._local, self._keys, self._parts.replica, self._parts.me)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Open everything, serve until `stop`, close everything; `task_status` is told when it serves.

        Returns by itself when the replica was removed from its cluster and is needed no longer (`retired`).

        Raises:
            BFTError: configuration, key, store or port are not as they must be; or the store failed while serving, in
                which case nothing was sent after the failure.
            AssertionError: the replica found a bug in itself; it must not be restarted without thought.
        """
        self._keys = keys_of(self._local, self._passphrase)
        try:
            await self._run(task_status)
        finally:
            self._keys.close()

    async def _run(self, task_status: trio.TaskStatus[None]) -> None:
        """Open what `run` has not opened yet, serve, close it."""
        require_key(self._cluster, self._local, self._keys)
        self._context()  # fails now rather than later if the key file is not what it should be
        self._service = load_service(self._cluster.service) if self._given_service is None else self._given_service
        sockets = self._listen() if self._sockets is None else self._sockets
        try:
            store = self._store = open_store(self._cluster, self._local)
            try:
                parts = self._assemble()
                if self._needs_voucher():
                    voucher_for(self._cluster, self._local, self._keys)
                self._store = self._keys.follow(store)
                # Only now is it known which key the epoch names: the process may have died while it changed its key.
                context = self._context()
                self._host = Host(self._cluster.id, self._id, context, self._door(), self._cluster.admin_keys)
                self._host.former = self._roster.configuration.former
                self._host.links = lambda epoch: self._roster.links_from(epoch)
                await self._serve(parts, sockets, task_status)
            finally:
                store.close()
        finally:
            for sock in sockets:
                sock.close()

    def _assemble(self) -> Assembly:
        """Build the node from the store; note which epoch it stands in.

        Raises:
            StorageError: the store's content is corrupt.
        """
        parts, recovered = assemble(self._cluster, self._local, self._keys, self._store, self._service, self._wrapper)
        self._parts = parts
        self._roster = Roster(self._cluster, recovered.epochs)
        member = self._roster.configuration.member(self._id)
        if member is not None and self._is_member_of(self._roster.configuration):
            self._keys.settle(member.key)
        return parts

    def _context(self) -> SSLContext:
        return self._keys.context(peer_name(self._id))

    def _door(self) -> Ed25519Verifier:
        """Knows who is let in: members, members of the epoch before, clients."""
        return Ed25519Verifier(self._cluster.id, self._roster.door_keys(), self._cluster.client_keys)

    def _listen(self) -> list[socket.socket]:
        host, port = self._local.host, self._local.port
        if not port:
            entry = genesis(self._cluster).member(self._id)
            if entry is None:
                raise ConfigError(
                    f"id is {self._id}: the file of cluster {self._cluster.name} has replicas 0 to"
                    f" {len(self._cluster.replica) - 1}; one that joins must say where it listens (host, port)"
                )
            host, port = entry.host, entry.port
        return listen(host, port)

    async def _serve(
        self, parts: Assembly, sockets: Sequence[socket.socket], task_status: trio.TaskStatus[None]
    ) -> None:
        keeper = EvidenceKeeper(Path(self._local.data) / "evidence", self._cluster.id)
        archive = Archive(Path(self._local.data) / "archive", self._local.archive_slots)
        driver = self._driver = self._make_driver(parts, keeper, archive)
        poller = self._poller = Poller(driver.flush)
        self._listener = Listener(
            sockets,
            self._host,
            budget=ReceiveBudget(self._limits.receive_bytes_max),
            strangers_max=self._limits.strangers_max,
            handshake_seconds=self._limits.handshake_seconds,
            buffer_bytes_max=self._limits.client_buffer_bytes_max,
            send_budget=SendBudget(self._limits.client_buffers_bytes_max),
        )
        port = self._local.metrics_port
        stop_metrics = start_metrics(port, Collector(self._summary, self.stats)) if port else None
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    pauses = (self._limits.redial_seconds_min, self._limits.redial_seconds_max)
                    self._dialer = Dialer(
                        self._id, self._links, nursery, self._read, self._identity, self._ask_stranger, pauses
                    )
                    self._dialer.follow(self._roster.configuration)
                    nursery.start_soon(driver.run)
                    nursery.start_soon(self._clients.run)
                    nursery.start_soon(poller.run)
                    if self._local.scrub_pages_per_second and self._local.durability != "memory":
                        rate = self._local.scrub_pages_per_second
                        nursery.start_soon(scrub_forever, self._store, rate, driver.take_in, self.stats)
                    nursery.start_soon(keeper.run)
                    nursery.start_soon(archive.run)
                    nursery.start_soon(self._listener.run, self._answer)
                    nursery.start_soon(self._show_kept_links)
                    self._log.info("serves with durability %s as %s", self._local.durability, self._role())
                    task_status.started()
        except BaseExceptionGroup as group:
            raise cause_of(group) from group
        finally:
            if stop_metrics is not None:
                stop_metrics()
        self._log.info("stopped")

    def _make_driver(self, parts: Assembly, keeper: EvidenceKeeper, archive: Archive) -> Driver:
        reporter = Reporter(self._id, self.stats, self._on_report, keeper, archive)
        return Driver(
            parts.me,
            self._roster.configuration.quorums.members,
            parts.engine,
            parts.admission,
            self._store,
            self._links,
            reporter,
            self.stats,
            describe=lambda: account(self._summary(), self.stats, self.account()),
            durability=self._local.durability,
            epochs=self,
        )

    # --- epochs (`bft.runtime.driver.Epochs`) ---

    def learn(self, configuration: Configuration, links: Sequence[EpochLink]) -> None:
        """The node is in another epoch: its keys and rules admit from the next frame on."""
        assert self._parts is not None, "a node that runs has its parts"
        self._roster.enter(configuration, links)
        verifier = Ed25519Verifier(self._cluster.id, configuration.keys, self._cluster.client_keys)
        self._parts.admission.enter(verifier, rules_of(self._cluster, configuration), tuple(links))

    def move(self, configuration: Configuration) -> None:
        """Connect as the epoch says; take the key that it names."""
        member = configuration.member(self._id)
        self._log.info(
            "epoch %d of replicas %s begins after slot %d",
            configuration.epoch,
            ", ".join(map(str, configuration.quorums.members)),
            configuration.base,
        )
        renew = False
        if member is not None and self._is_member_of(configuration):
            renew = self._keys.settle(member.key)
            if renew:
                self._log.info("votes with the key %s from now on", member.key.hex())
                self._host.context = self._context()
            if self._parts is not None and self._parts.me == NOBODY and not self._is_coming_back:
                self._is_coming_back = True
                self._nursery.start_soon(self._come_back)
        self._host.verifier, self._host.former = self._door(), configuration.former
        for replica, key in self._roster.changed_keys().items():
            self._nursery.start_soon(self._dismiss, ReplicaId(replica), key)
        for replica in self._links.incoming:
            if self._roster.is_gone(replica):
                self._links.dismiss(ReplicaId(replica), b"", "the replica was removed long ago")
        self._dialer.follow(configuration, renew=renew, is_gone=self._roster.is_gone)
        self._call_in_newcomers()

    def _call_in_newcomers(self) -> None:
        """Those who listen would ask in a moment; the epoch that needs them begins now."""
        proof = [encode(EpochProof((self._roster.last_link,)))]
        for replica in self._roster.newcomers():
            if replica != self._id:
                self._links.send(ReplicaId(replica), proof)

    async def _dismiss(self, replica: ReplicaId, key: bytes) -> None:
        """End what a replica has opened with its former key, once it had time to connect with the new one.

        Safe: between replicas a connection is no vote, and carries nothing that is believed without proof.
        """
        await trio.sleep(DISMISS_SECONDS)
        if self._roster.door_keys().get(replica) == key:
            self._links.dismiss(replica, key, "the replica has another key now")

    def retire(self, reason: str) -> None:
        """Removed, and not needed any longer.

        Raises:
            KeyFileError: it was not removed at all, but its key was changed, and nobody gave it the new one.
        """
        member = self._roster.configuration.member(self._id)
        if member is not None:
            raise KeyFileError(
                f"{self._keys.path}: epoch {self._roster.configuration.epoch} names the key {member.key.hex()} for"
                f" replica {self._id}, which is in none of its key files"
            )
        self.retired = reason
        self._log.info("leaves the cluster: %s; its key is erased", reason)
        self._keys.erase(f"replica {self._id} was removed from cluster {self._cluster.name}: {reason}")
        self.stop()

    async def _come_back(self) -> None:
        """The epoch names the key of a node that listened as nobody: go on as that member, from the store."""

        def make() -> tuple[ReplicaId, Machine, Admitter, Sequence[int]]:
            parts = self._assemble()
            self._log.info("is a member again, from slot %s on", parts.summary()["executed"])
            return parts.me, parts.engine, parts.admission, self._roster.configuration.quorums.members

        await self._driver.replace(make)
        self._is_coming_back = False

    async def _show_kept_links(self) -> None:
        """Links that were kept beside the key lead to members that the cluster file does not know."""
        await trio.lowlevel.checkpoint()  # the node starts first
        for link in load_links(chain_file(self._keys.path, self._cluster)):
            self._driver.receive(self._id, [encode(EpochProof((link,)))])
            self._driver.flush()
            await trio.sleep(0)

    # --- connections ---

    async def _answer(self, channel: Channel, peer: Peer) -> None:
        """Serve a connection that somebody opened, to its end."""
        no_room = self._links.enter(peer, channel)
        if no_room is not None:
            refuse(channel, no_room)
            return
        limits = self._limits
        welcome(channel, limits.client_frame_bytes_max if isinstance(peer, bytes) else limits.replica_frame_bytes_max)
        try:
            if isinstance(peer, bytes):
                await self._clients.serve(self._driver, channel, peer)
            else:
                await self._read(channel, peer)
        finally:
            self._links.leave(peer, channel)

    def _identity(self) -> Identity:
        """Who this replica is to others now: a member (or one of the epoch before), or somebody who is vouched for.

        Raises:
            WrongIdentity: nobody vouches for it: it cannot dial now.
        """
        voucher = None
        if self._needs_voucher():
            try:
                voucher = voucher_for(self._cluster, self._local, self._keys)
            except BFTError as error:  # its file is gone, or the key was replaced by others: an epoch may mend that
                self.stats.no_voucher += 1
                raise WrongIdentity(str(error)) from error
        return Identity(self._cluster.id, self._id, self._keys.current, voucher)

    async def _ask_stranger(self, member: Member) -> None:
        """Whoever is at a member's address is not the member expected: perhaps the epoch is over."""
        epoch = self._roster.configuration.epoch
        try:
            links = await ask_for_links(member.host, member.port, self._cluster.id, epoch)
        except TransportError:
            return
        if links:
            self._driver.receive(ReplicaId(member.id), [encode(EpochProof(links))])
            self._driver.flush()

    async def _read(self, channel: Channel, peer: Peer) -> None:
        """Hand everything that comes over a channel to the driver, until it ends."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.run_writer)
            await self._poller.serve(channel, partial(self._driver.receive, peer))
            nursery.cancel_scope.cancel()


def serve(
    cluster: Cluster, local: Local, node_wrapper: NodeWrapper | None = None, *, passphrase: bytes | None = None
) -> str | None:
    """Run a replica as this process's main program, until SIGTERM or SIGINT, or until it is removed from the cluster.

    Returns:
        Why it stopped by itself; None if it was told to.

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
        raise cause_of(group) from group
    return server.retired


async def _stop_on(signals: AsyncIterator[int], server: ReplicaServer) -> None:
    async for _ in signals:
        server.stop()
