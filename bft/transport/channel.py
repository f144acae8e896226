"""A TLS connection that carries frames, written to from anywhere without a task switch.

TLS runs in memory (`ssl.SSLObject`) beside a non-blocking socket: one `recv` takes whatever has come, one `send` passes
whatever is queued. `send` never blocks and never raises: it writes what the socket takes, keeps a bounded rest for the
writer task, and drops frames beyond the bound (the protocol repairs losses). Works under trio and asyncio.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import anyio

from bft.errors import TransportError
from bft.transport.frames import HEADER_BYTES, FrameReader, FrameViolation, ReceiveBudget, pack

READ_BYTES = 64 * 1024
"""Taken from the socket at once; a longer buffer is mapped and unmapped for every read, at ten times the price."""
RECORD_BYTES = 16 * 1024
"""The longest record of TLS, and so what one read can bring."""
WRITE_BYTES = 256 * 1024
SEND_BUFFER_BYTES_MAX = 64 * 1024 * 1024


@dataclass(slots=True)
class SendBudget:
    """Bytes that may wait for the sockets of many connections together.

    Attributes:
        bytes_max: the bound.
        used: what waits now.
    """

    bytes_max: int
    used: int = 0


class ChannelClosed(TransportError):
    """The connection has ended; the text says who ended it and why."""


class Channel:
    """Frames both ways over one TLS connection.

    One task may be in `receive`, one in `run_writer`; `send` may be called by any, from the event loop's thread.

    Attributes:
        dropped: frames that `send` did not take, since the buffer was full or the channel closed.
        closed: why the channel is closed; None while it is open.
        progressed_at: when the socket last took something while more waited (`time.monotonic`).
        on_close: called once, just before the socket is closed.
        address: the peer's address, for people.
        proven: the public key that the other side has proven to hold, once it has.
    """

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        frame_bytes_max: int,
        buffer_bytes_max: int = SEND_BUFFER_BYTES_MAX,
        budget: ReceiveBudget | None = None,
        send_budget: SendBudget | None = None,
    ) -> None:
        """Take over a connected, non-blocking socket; `handshake` must be awaited before anything else."""
        self._socket = sock
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side)
        self._reader = FrameReader(frame_bytes_max, budget)
        self._ready: list[bytes] = []
        self._sealed = b""
        self._queue: deque[bytes | memoryview] = deque()
        self._queued_bytes = 0
        self._buffer_bytes_max = buffer_bytes_max
        self._stalled: anyio.Event | None = None
        self._is_stalled = False
        self._send_budget = send_budget
        self._counted = 0
        self.progressed_at = 0.0
        self.dropped = 0
        self.closed: str | None = None
        self.on_close: Callable[[], None] | None = None
        self.address = _address(sock)
        self.proven: bytes | None = None

    @property
    def buffered_bytes(self) -> int:
        """Bytes that wait for the socket."""
        return self._queued_bytes + len(self._sealed)

    @property
    def certificate(self) -> bytes | None:
        """DER bytes of the certificate that the other side has shown, after `handshake`; None if it showed none."""
        return self._tls.getpeercert(binary_form=True)

    def allow_frames(self, frame_bytes_max: int) -> None:
        """Change the limit on incoming frames, once the peer is known."""
        self._reader.frame_bytes_max = frame_bytes_max

    async def handshake(self) -> None:
        """Agree on keys with the other side. The caller sets the deadline.

        Raises:
            ChannelClosed: the other side does not speak TLS 1.3, or went away.
        """
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._push()
                await self._pull()
            except ssl.SSLError as error:
                raise self._closing(f"TLS handshake failed: {error.reason or error}") from error
            else:
                await self._push()
                self._decrypt()  # whatever the other side sent behind its last flight
                return

    async def receive(self) -> list[bytes]:
        """All whole frames that have come, at least one; waits for the first.

        Raises:
            ChannelClosed: the connection has ended, or the peer broke the framing.
        """
        while not self._ready:
            await self._pull()
            self._decrypt()
        return self.take_early()

    def read_ready(self) -> list[bytes]:
        """All whole frames that one read brings, perhaps none; never waits. Not while a task is in `receive`.

        Raises:
            ChannelClosed: as `receive`.
        """
        if self._take_in():
            self._decrypt()
        return self.take_early()

    def take_early(self) -> list[bytes]:
        """Frames that have been read and not handed over."""
        frames, self._ready = self._ready, []
        return frames

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    async def receive_one(self) -> bytes:
        """The next frame alone; what came with it is kept. Raises as `receive` does."""
        frames = await self.receive()
        self._ready = frames[1:]
        return frames[0]

    def send(self, frames: Sequence[bytes]) -> None:
        """Send frames in order, at once as far as the socket takes them; drops those beyond the bound."""
        if self.closed is not None:
            self.dropped += len(frames)
            return
        if self._is_stalled:
            frames = self._within_bound(frames)
        if not frames:  # a peer that reads nothing for hours must not fill the queue with nothing
            return
        self._queue.append(data := pack(frames))
        self._queued_bytes += len(data)
        if not self._is_stalled and not self._flush():
            self._stall()
        if self._is_stalled:
            self._count()

    async def run_writer(self) -> None:
        """Write what `send` could not, until the channel closes."""
        while self.closed is None:
            if not self._is_stalled:
                self._stalled = anyio.Event()
                await self._stalled.wait()
                self._stalled = None
                continue
            if not await self._writable():
                return
            self._is_stalled = not self._flush()
            self.progressed_at = time.monotonic()
            self._count()

    def close(self, reason: str = "closed here") -> None:
        """End the connection at once; unsent frames are lost. The second call does nothing."""
        if self.closed is not None:
            return
        self.closed = reason
        self._reader.close()
        self._queue.clear()
        self._queued_bytes = 0
        self._sealed = b""
        self._count()
        if self._stalled is not None:
            self._stalled.set()
        if self.on_close is not None:
            self.on_close()
        anyio.notify_closing(self._socket)
        self._socket.close()

    # --- writing ---

    def _within_bound(self, frames: Sequence[bytes]) -> list[bytes]:
        """The frames that still fit into the buffer; the others are dropped and counted."""
        room = self._buffer_bytes_max - self.buffered_bytes
        if self._send_budget is not None:
            room = min(room, self._send_budget.bytes_max - self._send_budget.used)
        taken = []
        for frame in frames:
            room -= HEADER_BYTES + len(frame)
            if room < 0:
                break
            taken.append(frame)
        self.dropped += len(frames) - len(taken)
        return taken

    def _count(self) -> None:
        """Tell the shared budget what waits here."""
        if self._send_budget is not None:
            self._send_budget.used += self.buffered_bytes - self._counted
            self._counted = self.buffered_bytes

    def _stall(self) -> None:
        self._is_stalled = True
        self.progressed_at = time.monotonic()
        if self._stalled is not None:
            self._stalled.set()

    def _flush(self) -> bool:
        """Encrypt and write until the queue is empty (True) or the socket takes no more (False)."""
        while self.closed is None:
            if not self._sealed:
                if not self._queue and not self._outgoing.pending:
                    return True
                self._seal()
            try:
                sent = self._socket.send(self._sealed)
            except (BlockingIOError, InterruptedError):
                return False
            except OSError as error:
                self.close(f"connection lost: {error.strerror or error}")
                return True
            self._sealed = self._sealed[sent:]
        return True

    def _seal(self) -> None:
        """Encrypt the next stretch of the queue, beside whatever TLS itself has to say."""
        room = WRITE_BYTES
        while self._queue and room > 0:
            data = self._queue.popleft()
            wrote = self._tls.write(data)  # one record at most
            room -= wrote
            self._queued_bytes -= wrote
            if wrote < len(data):
                self._queue.appendleft(memoryview(data)[wrote:])
        self._sealed = self._outgoing.read()

    async def _push(self) -> None:
        """Write TLS's own bytes while shaking hands."""
        while not self._flush():
            await self._writable()
        if self.closed is not None:
            raise ChannelClosed(self.closed)

    async def _writable(self) -> bool:
        try:
            await anyio.wait_writable(self._socket)
        except (anyio.ClosedResourceError, OSError):
            self.close("connection lost")
        return self.closed is None

    # --- reading ---

    async def _pull(self) -> None:
        """Take what the socket has; waits until it has something."""
        try:
            while self.closed is None:
                await anyio.wait_readable(self._socket)
                if self._take_in():
                    return
        except anyio.ClosedResourceError:
            raise ChannelClosed(self.closed or "closed here") from None
        except OSError as error:
            raise self._closing(f"connection lost: {error.strerror or error}") from error
        raise ChannelClosed(self.closed)

    def _take_in(self) -> bool:
        """Take what the socket has; False if it has nothing."""
        if self.closed is not None:
            raise ChannelClosed(self.closed)
        try:
            data = self._socket.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            raise self._closing(f"connection lost: {error.strerror or error}") from error
        if not data:
            raise self._closing("the other side closed the connection")
        self._incoming.write(data)
        return True

    def _decrypt(self) -> None:
        """Turn received bytes into frames.

        Asking TLS for more than it has costs an exception, more than the reading itself: so it is asked whether it has.
        """
        parts: list[bytes] = []
        try:
            while self._incoming.pending or self._tls.pending():
                parts.append(self._tls.read(RECORD_BYTES))
                if not parts[-1]:
                    raise ssl.SSLZeroReturnError
        except ssl.SSLWantReadError:
            pass  # half a record, or one of TLS's own
        except ssl.SSLZeroReturnError:
            if len(parts) < 2:
                raise self._closing("the other side closed the connection") from None
        except ssl.SSLError as error:
            raise self._closing(f"TLS failed: {error.reason or error}") from error
        try:
            if parts:
                self._ready = self._reader.feed(parts[0] if len(parts) == 1 else b"".join(parts))
        except FrameViolation as error:
            raise self._closing(str(error)) from error
        if self._outgoing.pending and not self._is_stalled and not self._flush():
            self._stall()  # TLS answered by itself (a key update)

    def _closing(self, reason: str) -> ChannelClosed:
        self.close(reason)
        return ChannelClosed(reason if self.closed is None else self.closed)


def _address(sock: socket.socket) -> str:
    try:
        host, port = sock.getpeername()[:2]
    except OSError:
        return "unknown address"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
