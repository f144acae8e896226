"""Strangers at the door: whatever they do, an honest client still gets in and is served."""

from __future__ import annotations

import os
import random
import socket
import ssl
from contextlib import suppress
from pathlib import Path

import anyio
import pytest
import trio

from bft.crypto.tls import dialer_context
from bft.errors import TransportError
from bft.ids import Peer
from bft.transport.channel import Channel, ChannelClosed
from bft.transport.frames import ReceiveBudget
from bft.transport.handshake import Host, welcome
from bft.transport.listener import listen
from tests.unit.transport import rig


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return rig.make_host(tmp_path)


async def test_listener_serves_after_random_bytes(host: Host) -> None:
    """Bytes that are no TLS end the connection that sent them, and nothing else."""
    dice = random.Random(7)
    async with rig.open_rig(host) as it:
        for _ in range(200):
            with it.plain() as sock:
                sock.sendall(dice.randbytes(dice.randrange(1, 3000)))
            await trio.lowlevel.checkpoint()
        await it.assert_serves()
        await rig.until(lambda: it.listener.strangers == 0)
        assert it.listener.refused["handshake"] + it.listener.refused["evicted"] == 200


async def test_listener_refuses_plain_protocols(host: Host) -> None:
    """A browser without TLS gets no answer in plain text that looks like service."""
    async with rig.open_rig(host) as it:
        sock = it.plain()
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        await rig.until(lambda: it.listener.refused["handshake"] == 1)
        sock.close()
        await it.assert_serves()


async def test_listener_refuses_tls_below_1_3(host: Host) -> None:
    """TLS 1.2 is not spoken."""
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname = False
    old.verify_mode = ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    async with rig.open_rig(host) as it:

        def shake() -> None:
            with it.plain() as sock, old.wrap_socket(sock):
                pass

        with pytest.raises((ssl.SSLError, ConnectionError)):
            await trio.to_thread.run_sync(shake)
        await it.assert_serves()


async def test_listener_drops_half_open_connections_after_the_deadline(host: Host) -> None:
    """A connection that says nothing, or drips the bytes of an honest handshake, is gone after the deadline."""
    greeting = ssl.MemoryBIO()
    shaking = dialer_context().wrap_bio(ssl.MemoryBIO(), greeting)
    with pytest.raises(ssl.SSLWantReadError):
        shaking.do_handshake()
    async with rig.open_rig(host, handshake_seconds=0.2) as it:
        silent, dripping = it.plain(), it.plain()
        for byte in greeting.read():
            if it.listener.refused["too-slow"] == 2:
                break
            with suppress(OSError):
                dripping.send(bytes([byte]))
            await anyio.sleep(0.02)
        assert dict(it.listener.refused) == {"too-slow": 2}
        assert it.listener.strangers == 0
        await it.assert_serves()
        silent.close()
        dripping.close()


async def test_listener_lets_honest_clients_in_past_a_thousand_junk_connections(host: Host) -> None:
    """Strangers are bounded, the oldest goes first, and honest handshakes are faster than junk arrives."""
    junk: list[socket.socket] = []
    async with rig.open_rig(host, strangers_max=64) as it:
        for index in range(1000):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", it.port))
            junk.append(sock)
            if len(junk) > 400:
                junk.pop(0).close()
            if index % 20 == 0:
                await anyio.sleep(0.001)
                assert it.listener.strangers <= 64
            if index % 250 == 0:
                await it.assert_serves()
        await it.assert_serves()
        assert it.listener.refused["evicted"] > 500
        for sock in junk:
            sock.close()


async def test_listener_bounds_frames_of_strangers(host: Host) -> None:
    """Inside TLS, but before it has said who it is, a peer may send a few hundred bytes only."""
    async with rig.open_rig(host) as it:
        sock = it.plain()
        sock.setblocking(False)
        channel = Channel(sock, dialer_context(), server_side=False, frame_bytes_max=512)
        await channel.handshake()
        await channel.receive()
        channel.send([bytes(513)])
        with pytest.raises(ChannelClosed):
            await channel.receive()
        await it.assert_serves()


async def test_listener_refuses_junk_instead_of_a_hello(host: Host) -> None:
    """Inside TLS, bytes that are no hello end the connection."""
    async with rig.open_rig(host) as it:
        for junk in (b"\x93\x3d\x01", b"\xc1", os.urandom(100), b"\x91\x3f"):
            sock = it.plain()
            sock.setblocking(False)
            channel = Channel(sock, dialer_context(), server_side=False, frame_bytes_max=512)
            await channel.handshake()
            await channel.receive()
            channel.send([junk])
            with pytest.raises(ChannelClosed):
                await channel.receive()
        assert it.listener.refused["handshake"] == 4
        await it.assert_serves()


async def test_slow_large_frames_share_one_budget(host: Host) -> None:
    """Half-sent frames of many clients cannot fill the memory: the client that exceeds the budget is dropped."""
    async with rig.open_rig(host, budget=ReceiveBudget(1_000_000)) as it:
        channels = [await it.dial_alice() for _ in range(3)]
        for channel in channels:
            channel.send([bytes(400_000)])
            assert len(await channel.receive()) == 1
        for channel in channels:  # a length of 400 000 and all of the content but the last byte
            channel._queue.append((400_000).to_bytes(4, "big") + bytes(399_999))
            channel._flush()
        await rig.until(lambda: any(channel.closed for _, channel in it.channels))
        reasons = [channel.closed for _, channel in it.channels if channel.closed]
        assert reasons == ["incomplete frames of all connections exceed 1000000 bytes"]
        await it.assert_serves()


def test_listening_on_a_port_in_use_fails() -> None:
    """The error names address and cause."""
    sockets = listen("127.0.0.1", 0)
    port = sockets[0].getsockname()[1]
    with pytest.raises(TransportError, match=f"127.0.0.1:{port}: cannot listen: the port is in use"):
        listen("127.0.0.1", port)
    sockets[0].close()


async def test_what_is_dropped_leaves_nothing_behind(host: Host) -> None:
    """A replica that reads nothing is never disconnected: what does not fit into its buffer may cost no memory."""

    async def never_reads(channel: Channel, peer: Peer) -> None:
        welcome(channel, 1 << 20)
        await anyio.sleep_forever()

    async with rig.open_rig(host, never_reads) as it:
        channel = await it.dial_alice(buffer_bytes_max=1 << 20)
        while not channel.dropped:
            channel.send([bytes(1 << 16)])
        kept, waiting = len(channel._queue), channel.buffered_bytes
        for _ in range(1000):
            channel.send([bytes(1 << 16)])
        assert channel.dropped > 1000
        assert (len(channel._queue), channel.buffered_bytes) == (kept, waiting)
