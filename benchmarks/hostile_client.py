"""One hostile client process: `python -m benchmarks.hostile_client KIND cluster.toml`, until it is terminated.

It does over real connections, as fast as it can, what the hostile clients of the simulator do
(`bft.adversary.clients`), and prints a line of JSON once it has begun and another at the end.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from random import Random

import trio

from bft.adversary.clients import Hostile, hostile_behaviour
from bft.config import Cluster, load_cluster
from bft.crypto.keys import KeyPair
from bft.crypto.signatures import Ed25519Signer
from bft.errors import TransportError
from bft.ids import ClientId, ReplicaId
from bft.messages import Packet, SignedRequest
from bft.ports import Signer
from bft.services.null import operation
from bft.transport.channel import Channel
from bft.transport.dial import dial
from bft.transport.handshake import Identity
from bft.wire.codec import encode

KINDS = (
    "flood",
    "torrent",
    "two_faces",
    "reuse_numbers",
    "garbage_signatures",
    "never_reads",
    "query_flood",
    "future_sessions",
    "many_keys",
)
BUFFERED_BYTES_MAX = 1 << 20
"""What it keeps for a connection that takes no more; it waits for one that does."""
REPLY_BYTES = 1000
"""What it has answered to each operation, so that not reading fills something."""
ROUNDS_AT_ONCE = 8
PAUSE_SECONDS = 0.001
REDIAL_SECONDS = 0.05
BEHAVIOURS = {"many_keys": "future_sessions"}
"""What a kind does, if it is not called so itself."""
SYBIL_KEYS = 16
"""Keys of a client that makes keys (`many_keys`): each needs connections of its own, since what comes over a
connection counts for the key that it has proven only. Shares are kept by key: to the replicas these are 16 clients."""


class Attacker(Hostile):
    """A hostile client whose operations the benchmark's service executes."""

    __slots__ = ()

    def operation(self) -> bytes:
        """A call with an answer of some size."""
        return operation(reply_bytes=REPLY_BYTES)


class Attack:
    """The process: its connections, and what it has sent."""

    def __init__(self, kind: str, cluster: Cluster) -> None:
        self._cluster = cluster
        self._behaviour = hostile_behaviour(BEHAVIOURS.get(kind, kind))
        self._reads = kind != "never_reads"
        self._keys = {pair.public: pair for pair in (KeyPair.generate() for _ in range(_keys_of(kind)))}
        self._minted = cycle(self._keys.values())
        first = next(self._minted)
        self._first = first.public
        now = time.time_ns()
        self._hostile = Attacker(
            first.public,
            self._signer(first),
            cluster.quorums.n,
            Random(),
            now,
            now,
            window=cluster.protocol.session_window,
            mint=self._mint,
        )
        self._channels: dict[tuple[bytes, int], Channel] = {}
        self.sent = 0
        self.connections = 0

    def _signer(self, keys: KeyPair) -> Signer:
        return Ed25519Signer(self._cluster.id, ClientId(keys.public), keys.seed)

    def _mint(self) -> tuple[bytes, Signer]:
        keys = next(self._minted)
        return keys.public, self._signer(keys)

    async def run(self) -> None:
        """Attack until cancelled."""
        async with trio.open_nursery() as nursery:
            for keys in self._keys.values():
                for replica in range(self._cluster.quorums.n):
                    nursery.start_soon(self._keep_connected, keys, replica)
            while len(self._channels) < len(self._keys) * self._cluster.quorums.n:
                await trio.sleep(PAUSE_SECONDS)
            print(json.dumps({"ready": True}), flush=True)
            while True:
                taken = sum(self._send_all(self._behaviour(self._hostile)) for _ in range(ROUNDS_AT_ONCE))
                self.sent += taken
                await trio.sleep(0 if taken else PAUSE_SECONDS)

    def _send_all(self, sends: Iterator[tuple[int, Packet]]) -> int:
        """Send to every replica whose connection still takes something; how many frames that were."""
        self._hostile.now = time.time_ns()
        frames: dict[tuple[bytes, int], list[bytes]] = {}
        packet, frame = None, b""
        for replica, item in sends:
            if item is not packet:
                packet, frame = item, encode(item)
            name = item.client if isinstance(item, SignedRequest) and item.client in self._keys else self._first
            frames.setdefault((name, replica), []).append(frame)
        taken = 0
        for way, batch in frames.items():
            channel = self._channels.get(way)
            if channel is not None and channel.buffered_bytes < BUFFERED_BYTES_MAX:
                channel.send(batch)
                taken += len(batch)
        return taken

    async def _keep_connected(self, keys: KeyPair, replica: int) -> None:
        entry = self._cluster.replica[replica]
        identity = Identity(self._cluster.id, ClientId(keys.public), keys)
        while True:
            try:
                channel = await dial(
                    entry.host,
                    entry.port,
                    server=ReplicaId(replica),
                    server_key=self._cluster.replica_keys[replica],
                    identity=identity,
                )
            except TransportError:
                await trio.sleep(REDIAL_SECONDS)
                continue
            self.connections += 1
            self._channels[keys.public, replica] = channel
            await self._use(channel)
            del self._channels[keys.public, replica]

    async def _use(self, channel: Channel) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.run_writer)
            while channel.closed is None:
                if not self._reads:
                    await trio.sleep(REDIAL_SECONDS)
                    continue
                try:
                    await channel.receive()
                except TransportError:
                    break
            nursery.cancel_scope.cancel()
        channel.close()


def _keys_of(kind: str) -> int:
    return SYBIL_KEYS if kind == "many_keys" else 1


async def _main(kind: str, cluster: Cluster) -> None:
    attack = Attack(kind, cluster)
    began = time.monotonic()
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(attack.run)
            async for _ in signals:
                break
            nursery.cancel_scope.cancel()
    report = {
        "sent": attack.sent,
        "seconds": time.monotonic() - began,
        "cpu_seconds": sum(os.times()[:2]),
        "connections": attack.connections,
    }
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    trio.run(_main, sys.argv[1], load_cluster(Path(sys.argv[2])))
