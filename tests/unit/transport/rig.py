"""A listening replica and its dialers on the loopback interface, for tests of the transport."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
from anyio.abc import TaskGroup

from bft.crypto.keys import KeyPair, save_key
from bft.crypto.signatures import Ed25519Verifier
from bft.crypto.tls import server_context
from bft.ids import ClientId, Peer, ReplicaId
from bft.transport.channel import Channel, ChannelClosed
from bft.transport.dial import dial
from bft.transport.frames import ReceiveBudget
from bft.transport.handshake import Host, Identity, welcome
from bft.transport.listener import Handler, Listener, listen

CLUSTER = b"c" * 32


def key(name: str) -> KeyPair:
    return KeyPair.of_seed(hashlib.sha256(name.encode()).digest())


KEYS = [key(f"replica {index}") for index in range(4)]
ALICE = key("alice")


@dataclass
class Rig:
    """Replica 0 listens; everything that arrives is kept and echoed."""

    port: int
    listener: Listener
    group: TaskGroup
    channels: list[tuple[Peer, Channel]] = field(default_factory=list)

    async def dial(self, who: Peer, keys: KeyPair, **options: object) -> Channel:
        identity = Identity(options.pop("cluster", CLUSTER), who, keys)  # type: ignore[arg-type]
        server_key = options.pop("server_key", KEYS[0].public)
        channel = await dial(
            "127.0.0.1",
            self.port,
            server=ReplicaId(0),
            server_key=server_key,  # type: ignore[arg-type]
            identity=identity,
            **options,  # type: ignore[arg-type]
        )
        self.group.start_soon(channel.run_writer)
        return channel

    async def dial_alice(self, **options: object) -> Channel:
        return await self.dial(ClientId(ALICE.public), ALICE, **options)

    def plain(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port))

    async def assert_serves(self) -> None:
        """An honest client is let in and answered."""
        channel = await self.dial_alice()
        channel.send([b"are you there"])
        assert await channel.receive() == [b"are you there"]
        channel.close()

    async def echo(self, channel: Channel, peer: Peer) -> None:
        self.channels.append((peer, channel))
        welcome(channel, 1 << 20)
        async with anyio.create_task_group() as group:
            group.start_soon(channel.run_writer)
            try:
                while True:
                    channel.send(await channel.receive())
            except ChannelClosed:
                channel.close()


def make_host(folder: Path, known: frozenset[bytes] | None = None) -> Host:
    path = folder / "r0.pem"
    if not path.exists():
        save_key(path, KEYS[0])
    verifier = Ed25519Verifier(CLUSTER, [keys.public for keys in KEYS], known)
    return Host(CLUSTER, ReplicaId(0), server_context(KEYS[0], path, "r0"), verifier)


@asynccontextmanager
async def open_rig(host: Host, handler: Handler | None = None, **options: object) -> AsyncIterator[Rig]:
    """Listen with `host`'s identity; options go to `Listener`."""
    sockets = listen("127.0.0.1", 0)
    budget = options.pop("budget", ReceiveBudget(1 << 26))
    listener = Listener(sockets, host, budget=budget, **options)  # type: ignore[arg-type]
    async with anyio.create_task_group() as group:
        rig = Rig(sockets[0].getsockname()[1], listener, group)
        group.start_soon(listener.run, handler or rig.echo)
        yield rig
        group.cancel_scope.cancel()


async def until(condition: Callable[[], bool], seconds: float = 5) -> None:
    """Give other tasks turns until `condition` holds."""
    with anyio.fail_after(seconds):
        while not condition():
            await anyio.sleep(0.002)


Scenario = Callable[[Host], Awaitable[None]]
