"""The smallest state machine, and the smallest client that outvotes liars: for tests of the runtime."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import trio

from bft.crypto.keys import KeyPair
from bft.crypto.signatures import Ed25519Signer
from bft.digests import page_digest
from bft.ids import ClientId, ReplicaId
from bft.messages import STATUS_OK, Probe, ProbeReply, Reply, Request, SignedRequest
from bft.ports import ExecutionContext
from bft.runtime.local import LocalCluster
from bft.transport.channel import Channel, ChannelClosed
from bft.transport.dial import dial
from bft.transport.handshake import Identity
from bft.wire.codec import decode_bundle, decode_packet, encode


class Counter:
    """Adds one per operation and answers with the sum; its state is one page."""

    def __init__(self) -> None:
        self.total = 0

    def execute(self, operation: bytes, context: ExecutionContext, /) -> tuple[int, bytes]:
        self.total += 1
        return STATUS_OK, str(self.total).encode()

    def query(self, operation: bytes, /) -> tuple[int, bytes]:
        return STATUS_OK, str(self.total).encode()

    def checkpoint(self) -> tuple[tuple[bytes, ...], dict[bytes, bytes]]:
        page = str(self.total).encode()
        return (page_digest(page),), {page_digest(page): page}

    def restore(self, pages: Sequence[bytes], /) -> None:
        self.total = int(pages[0]) if pages else 0


class Caller:
    """One session; sends every operation to all replicas and believes f + 1 equal bundles."""

    def __init__(self, local: LocalCluster, nursery: trio.Nursery, keys: KeyPair | None = None) -> None:
        self._cluster = local.cluster
        self._nursery = nursery
        self._keys = keys or local.client
        self._signer = Ed25519Signer(self._cluster.id, ClientId(self._keys.public), self._keys.seed)
        self._channels: dict[int, Channel] = {}
        self._number = 0
        self._replies: dict[bytes, set[int]] = defaultdict(set)
        self._results: dict[int, bytes] = {}
        self._changed = trio.Event()
        self.accounts: dict[int, bytes] = {}

    async def connect(self, replica: int) -> Channel:
        entry = self._cluster.replica[replica]
        channel = await dial(
            entry.host,
            entry.port,
            server=ReplicaId(replica),
            server_key=bytes.fromhex(entry.key),
            identity=Identity(self._cluster.id, ClientId(self._keys.public), self._keys),
        )
        self._channels[replica] = channel
        self._nursery.start_soon(channel.run_writer)
        self._nursery.start_soon(self._listen, replica, channel)
        return channel

    async def connect_all(self) -> None:
        for replica in range(len(self._cluster.replica)):
            await self.connect(replica)

    async def call(self, seconds: float = 10) -> int:
        """Execute one operation; the counter's new value."""
        self._number += 1
        request = encode(Request(1, self._number, self._number, (b"add",), ()))
        frame = encode(SignedRequest(self._keys.public, request, self._signer.sign(request)))
        with trio.fail_after(seconds):
            while self._number not in self._results:
                for channel in self._channels.values():
                    channel.send([frame])
                with trio.move_on_after(0.5):
                    while self._number not in self._results:
                        self._changed = trio.Event()
                        await self._changed.wait()
        return int(self._results[self._number])

    async def probe(self, replica: int) -> bytes:
        """A replica's account of itself."""
        self.accounts.pop(replica, None)
        self._channels[replica].send([encode(Probe(7))])
        with trio.fail_after(5):
            while replica not in self.accounts:
                self._changed = trio.Event()
                await self._changed.wait()
        return self.accounts[replica]

    async def _listen(self, replica: int, channel: Channel) -> None:
        try:
            while True:
                for frame in await channel.receive():
                    self._take(replica, frame)
        except ChannelClosed:
            if self._channels.get(replica) is channel:
                del self._channels[replica]

    def _take(self, replica: int, frame: bytes) -> None:
        packet = decode_packet(frame)
        if isinstance(packet, ProbeReply):
            self.accounts[replica] = packet.report
        if isinstance(packet, Reply) and packet.bundle:
            voters = self._replies[packet.bundle]
            voters.add(replica)
            if len(voters) >= self._cluster.quorums.weak:
                for result in decode_bundle(packet.bundle).results:
                    self._results[result.number] = result.value
        self._changed.set()
