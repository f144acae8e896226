"""Open a connection to a replica whose key is known, and prove who we are."""

from __future__ import annotations

import errno
import os
import socket
from functools import lru_cache
from ssl import SSLContext

import anyio

from bft.crypto.tls import dialer_context
from bft.errors import TransportError
from bft.ids import ReplicaId
from bft.messages import EpochLink
from bft.transport.channel import SEND_BUFFER_BYTES_MAX, Channel
from bft.transport.handshake import GREETING_BYTES_MAX, HANDSHAKE_SECONDS, Identity, inquire, introduce

FRAME_BYTES_MAX = 32 * 1024 * 1024
LINKS_BYTES_MAX = 2 * 1024 * 1024
KEEPALIVE_SECONDS = 10
DEAD_AFTER_SECONDS = 15


async def dial(
    host: str,
    port: int,
    *,
    server: ReplicaId,
    server_key: bytes,
    identity: Identity,
    frame_bytes_max: int = FRAME_BYTES_MAX,
    buffer_bytes_max: int = SEND_BUFFER_BYTES_MAX,
    seconds: float = HANDSHAKE_SECONDS,
) -> Channel:
    """Connect to replica `server`, check that it holds the 32-byte `server_key`, and introduce ourselves.

    Args:
        host: name or address.
        port: TCP port.
        server: which replica should be there.
        server_key: its key in the present epoch.
        identity: who we are.
        frame_bytes_max: longest frame that the server may send.
        buffer_bytes_max: bytes that `Channel.send` keeps when the socket is full.
        seconds: deadline for all of it.

    Raises:
        WrongIdentity: the server is not who it should be, or refuses us; `ask_for_links` may tell why.
        TransportError: nobody listens, or the deadline passed.
    """
    channel: Channel | None = None
    try:
        with anyio.fail_after(seconds):
            sock = await connect(host, port)
            channel = Channel(
                sock,
                _context(),
                server_side=False,
                frame_bytes_max=GREETING_BYTES_MAX,
                buffer_bytes_max=buffer_bytes_max,
            )
            await introduce(channel, identity, server, server_key, frame_bytes_max)
    except TimeoutError:
        _close(channel)
        raise TransportError(f"replica {server} at {host}:{port} did not answer within {seconds:g} s") from None
    except BaseException:  # also a cancellation must not leave the socket open
        _close(channel)
        raise
    return channel


async def ask_for_links(
    host: str, port: int, cluster_id: bytes, epoch: int, seconds: float = HANDSHAKE_SECONDS
) -> tuple[EpochLink, ...]:
    """Ask whoever listens for the links from `epoch` on. It is not authenticated, and neither are we: verify them.

    Raises:
        TransportError: nobody listens, or what does is no replica of this cluster.
    """
    channel: Channel | None = None
    try:
        with anyio.fail_after(seconds):
            sock = await connect(host, port)
            channel = Channel(sock, _context(), server_side=False, frame_bytes_max=GREETING_BYTES_MAX)
            return await inquire(channel, cluster_id, epoch, LINKS_BYTES_MAX)
    except TimeoutError:
        raise TransportError(f"{host}:{port} did not answer within {seconds:g} s") from None
    finally:
        _close(channel)


async def connect(host: str, port: int) -> socket.socket:
    """A connected, non-blocking, tuned TCP socket; tries the addresses of `host` in turn.

    Raises:
        TransportError: the name is unknown, or no address answers.
    """
    try:
        found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise TransportError(f"{host}:{port}: the name cannot be resolved: {error}") from error
    failure = "no address"
    for family, kind, protocol, _, address in found:
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as error:  # no descriptor left, or no such family here
            failure = error.strerror or str(error)
            continue
        try:
            await _connect(sock, address)
            tune(sock)
        except OSError as error:
            sock.close()
            failure = error.strerror or str(error)
        except BaseException:  # also a cancellation must not leave the socket open
            sock.close()
            raise
        else:
            return sock
    raise TransportError(f"{host}:{port}: cannot connect: {failure}")


def tune(sock: socket.socket) -> None:
    """Send small frames at once, and notice a dead peer in seconds instead of a quarter of an hour."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_SECONDS),
        ("TCP_KEEPINTVL", KEEPALIVE_SECONDS // 2),
        ("TCP_KEEPCNT", 2),
        ("TCP_USER_TIMEOUT", DEAD_AFTER_SECONDS * 1000),
    ):
        if hasattr(socket, name):  # Linux has all of them, other systems some
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


async def _connect(sock: socket.socket, address: tuple[str | int, ...]) -> None:
    sock.setblocking(False)
    code = sock.connect_ex(address)
    if code == errno.EINPROGRESS:
        await anyio.wait_writable(sock)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))


@lru_cache(maxsize=1)
def _context() -> SSLContext:
    return dialer_context()


def _close(channel: Channel | None) -> None:
    if channel is not None:
        channel.close("the handshake did not succeed")
