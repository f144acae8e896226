"""Connections from a client to all replicas, kept up for ever; nothing here knows what travels over them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random

import anyio

from bft.config import Cluster
from bft.crypto.keys import KeyPair
from bft.errors import TransportError
from bft.ids import ClientId, ReplicaId
from bft.messages import Packet
from bft.transport.channel import Channel
from bft.transport.dial import dial
from bft.transport.handshake import Identity
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
        cluster: Cluster,
        keys: KeyPair,
        on_frames: Callable[[int, list[bytes]], None],
        on_change: Callable[[int], None],
        after_round: Callable[[], None],
    ) -> None:
        """`on_frames` gets what a replica sent; `on_change` is called when a connection begins or ends.

        `after_round` is called when everything that has come from all replicas has been handed over.
        """
        self._cluster = cluster
        self._identity = Identity(cluster.id, ClientId(keys.public), keys)
        self._on_frames = on_frames
        self._on_change = on_change
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

    def flush(self) -> None:
        """Send what was posted, one system call per replica."""
        for replica, frames in self._outbox.items():
            channel = self.channels.get(replica)
            if channel is not None:
                channel.send(frames)
        self._outbox.clear()

    async def run(self) -> None:
        """Keep a connection to every replica, and read them, until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._poller.run)
            for replica in range(len(self._cluster.replica)):
                tasks.start_soon(self._keep, replica)

    async def _keep(self, replica: int) -> None:
        pause = PAUSE_SECONDS
        while True:
            try:
                channel = await self._dial(replica)
            except TransportError as error:
                self.failures[replica] = str(error)
            else:
                pause = PAUSE_SECONDS
                await self._use(replica, channel)
            await anyio.sleep(pause * (0.5 + self._jitter.random()))
            pause = min(pause * 2, PAUSE_SECONDS_MAX)

    async def _dial(self, replica: int) -> Channel:
        entry = self._cluster.replica[replica]
        return await dial(
            entry.host,
            entry.port,
            server=ReplicaId(replica),
            server_key=self._cluster.replica_keys[replica],
            identity=self._identity,
        )

    async def _use(self, replica: int, channel: Channel) -> None:
        self.channels[replica] = channel
        self.failures.pop(replica, None)
        self._on_change(replica)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(channel.run_writer)
                await self._poller.serve(channel, partial(self._on_frames, replica))
                tasks.cancel_scope.cancel()
        finally:
            del self.channels[replica]
            self.failures[replica] = channel.closed or "closed here"
            channel.close()
        self._on_change(replica)
