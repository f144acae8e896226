"""Connections from a client to all members of an epoch, kept up for ever; nothing here knows what travels over them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random

import anyio
from anyio.abc import TaskGroup

from bft.crypto.keys import KeyPair
from bft.epochs import Configuration
from bft.errors import TransportError
from bft.headers import Member
from bft.ids import ClientId, ReplicaId
from bft.messages import EpochLink, Packet
from bft.transport.channel import Channel
from bft.transport.dial import ask_for_links, dial
from bft.transport.handshake import Identity, WrongIdentity
from bft.transport.poller import Poller
from bft.wire.codec import encode

PAUSE_SECONDS = 0.05
PAUSE_SECONDS_MAX = 2.0


class Links:
    """One connection per replica, redialled with jittered, growing pauses.

    Attributes:
        channels: live connections, by replica.
        failures: why a replica cannot be reached, by replica; no entry for one that is.
    """

    def __init__(
        self,
        cluster_id: bytes,
        keys: KeyPair,
        configuration: Configuration,
        *,
        on_frames: Callable[[int, list[bytes]], None],
        on_change: Callable[[int], None],
        on_links: Callable[[int, tuple[EpochLink, ...]], None],
        after_round: Callable[[], None],
    ) -> None:
        """Connect to the members of `configuration`, from `run` on.

        Args:
            on_frames: gets what a replica sent.
            on_change: called when a connection begins or ends.
            on_links: gets what a stranger at a member's address says about later epochs, unproven.
            after_round: called when everything that has come from all replicas has been handed over.
        """
        self._configuration = configuration
        self._keeping: dict[int, tuple[Member, anyio.CancelScope]] = {}
        self._tasks: TaskGroup | None = None
        self._identity = Identity(cluster_id, ClientId(keys.public), keys)
        self._on_frames = on_frames
        self._on_change = on_change
        self._on_links = on_links
        self._poller = Poller(after_round)
        self._jitter = Random()
        self._outbox: dict[int, list[bytes]] = {}
        self._encoded: tuple[Packet | None, bytes] = (None, b"")
        self.channels: dict[int, Channel] = {}
        self.failures: dict[int, str] = {}

    def post(self, replica: int, packet: Packet) -> None:
        """Have a packet sent with the next `flush`; lost if the replica is not connected then."""
        if self._encoded[0] is not packet:  # the same packet often goes to all replicas in turn
            self._encoded = (packet, encode(packet))
        self._outbox.setdefault(replica, []).append(self._encoded[1])

    def flush(self) -> list[int]:
        """Send what was posted, one system call per replica; returns to whom it could not be sent."""
        lost = []
        for replica, frames in self._outbox.items():
            channel = self.channels.get(replica)
            if channel is not None:
                channel.send(frames)
            else:
                lost.append(replica)
        self._outbox.clear()
        return lost

    async def run(self) -> None:
        """Keep a connection to every member, and read them, until cancelled."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            tasks.start_soon(self._poller.run)
            self.follow(self._configuration)

    def follow(self, configuration: Configuration) -> None:
        """Another epoch: connect to its members; connections to those with the same key and address stay."""
        self._configuration = configuration
        if self._tasks is None:
            return
        for replica, (member, scope) in list(self._keeping.items()):
            if configuration.member(replica) != member:
                scope.cancel()
                del self._keeping[replica]
                self.failures.pop(replica, None)
        for member in configuration.members:
            if member.id not in self._keeping:
                scope = anyio.CancelScope()
                self._keeping[member.id] = (member, scope)
                self._tasks.start_soon(self._keep, member, scope)

    async def _keep(self, member: Member, scope: anyio.CancelScope) -> None:
        pause = PAUSE_SECONDS
        with scope:
            while True:
                try:
                    channel = await self._dial(member)
                except TransportError as error:
                    self._note_failure(member, str(error))
                    if isinstance(error, WrongIdentity):
                        await self._ask_stranger(member)
                else:
                    pause = PAUSE_SECONDS
                    await self._use(member, channel)
                await anyio.sleep(pause * (0.5 + self._jitter.random()))
                pause = min(pause * 2, PAUSE_SECONDS_MAX)

    async def _dial(self, member: Member) -> Channel:
        server = ReplicaId(member.id)
        return await dial(member.host, member.port, server=server, server_key=member.key, identity=self._identity)

    async def _ask_stranger(self, member: Member) -> None:
        """Whoever is at a member's address is not the member expected: perhaps the epoch is over."""
        epoch = self._configuration.epoch
        try:
            links = await ask_for_links(member.host, member.port, self._identity.cluster_id, epoch)
        except TransportError:
            return
        if links:
            self._on_links(member.id, links)

    def _note_failure(self, member: Member, why: str) -> None:
        """Nobody waits for who is no member any more, or has another key or address."""
        if self._configuration.member(member.id) == member:
            self.failures[member.id] = why

    async def _use(self, member: Member, channel: Channel) -> None:
        replica = member.id
        self.channels[replica] = channel
        self.failures.pop(replica, None)
        self._on_change(replica)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(channel.run_writer)
                await self._poller.serve(channel, partial(self._on_frames, replica))
                tasks.cancel_scope.cancel()
        finally:
            if self.channels.get(replica) is channel:
                del self.channels[replica]
                self._note_failure(member, channel.closed or "closed here")
            channel.close()
        self._on_change(replica)
