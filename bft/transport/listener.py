"""The listening side: strangers are few, small and short-lived; whoever proves a name is handed over.

At most `strangers_max` connections are unauthenticated at a time; one more evicts the oldest. Evicting instead of
refusing is what lets an honest peer in while junk keeps arriving: its handshake takes milliseconds, and junk would have
to cycle through all places within that time to push it out.
"""

from __future__ import annotations

import errno
import socket
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Sequence

import anyio
from anyio.abc import TaskGroup

from bft.errors import TransportError
from bft.ids import Peer
from bft.transport.channel import SEND_BUFFER_BYTES_MAX, Channel, SendBudget
from bft.transport.dial import tune
from bft.transport.frames import ReceiveBudget
from bft.transport.handshake import GREETING_BYTES_MAX, HANDSHAKE_SECONDS, Host, Visited, interview

BACKLOG = 256
STRANGERS_MAX = 128
ACCEPTS_AT_ONCE = 16
PAUSE_SECONDS = 0.05
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

Handler = Callable[[Channel, Peer], Awaitable[None]]
"""Serves one authenticated connection to its end. `Welcome` (or a refusal) has not been sent yet."""


def listen(host: str, port: int) -> list[socket.socket]:
    """Listening, non-blocking sockets on every address of `host`; port 0 takes a free one (single address only).

    Raises:
        TransportError: the port is in use, not allowed, or the host has no such address.
    """
    sockets: list[socket.socket] = []
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in dict.fromkeys(addresses):
            sock = socket.create_server(address[:2], family=family, backlog=BACKLOG)
            sock.setblocking(False)
            sockets.append(sock)
    except OSError as error:
        for sock in sockets:
            sock.close()
        why = "the port is in use" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
        raise TransportError(f"{host}:{port}: cannot listen: {why}") from error
    return sockets


class Listener:
    """Accepts connections for one replica.

    Attributes:
        refused: connections that did not get in, by reason.
        strangers: connections that are being authenticated now.
        visits: connections that wanted links, and got them.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        host: Host,
        *,
        budget: ReceiveBudget,
        strangers_max: int = STRANGERS_MAX,
        handshake_seconds: float = HANDSHAKE_SECONDS,
        buffer_bytes_max: int = SEND_BUFFER_BYTES_MAX,
        send_budget: SendBudget | None = None,
    ) -> None:
        """Serve on listening sockets, which are closed at the end of `run`."""
        self._sockets = sockets
        self._host = host
        self._budget = budget
        self._strangers_max = strangers_max
        self._handshake_seconds = handshake_seconds
        self._buffer_bytes_max = buffer_bytes_max
        self._send_budget = send_budget
        self._scopes: OrderedDict[int, anyio.CancelScope] = OrderedDict()
        self._serial = 0
        self.refused: Counter[str] = Counter()
        self.visits = 0

    @property
    def strangers(self) -> int:
        """Connections that are being authenticated now."""
        return len(self._scopes)

    async def run(self, handler: Handler) -> None:
        """Accept until cancelled; `handler` runs in a task of its own per authenticated connection."""
        try:
            async with anyio.create_task_group() as group:
                for sock in self._sockets:
                    group.start_soon(self._accept, sock, group, handler)
        finally:
            for sock in self._sockets:
                anyio.notify_closing(sock)
                sock.close()

    async def _accept(self, listening: socket.socket, group: TaskGroup, handler: Handler) -> None:
        while True:
            await anyio.wait_readable(listening)
            for _ in range(ACCEPTS_AT_ONCE):
                try:
                    sock, _ = listening.accept()
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno in _EXHAUSTED:
                        self.refused["out-of-files"] += 1
                        await anyio.sleep(PAUSE_SECONDS)
                    break
                sock.setblocking(False)
                self._make_room()
                self._serial += 1
                group.start_soon(self._meet, self._serial, sock, handler)
                self._scopes[self._serial] = anyio.CancelScope()

    def _make_room(self) -> None:
        while len(self._scopes) >= self._strangers_max:
            _, scope = self._scopes.popitem(last=False)
            scope.cancel()
            self.refused["evicted"] += 1

    async def _meet(self, serial: int, sock: socket.socket, handler: Handler) -> None:
        """Authenticate one connection, and hand it over."""
        try:
            tune(sock)
        except OSError:  # gone already
            self._scopes.pop(serial, None)
            sock.close()
            return
        channel = Channel(
            sock,
            self._host.context,
            server_side=True,
            frame_bytes_max=GREETING_BYTES_MAX,
            buffer_bytes_max=self._buffer_bytes_max,
            budget=self._budget,
            send_budget=self._send_budget,
        )
        try:
            peer = await self._identify(serial, channel)
            if peer is not None:
                await handler(channel, peer)
        finally:
            channel.close()

    async def _identify(self, serial: int, channel: Channel) -> Peer | None:
        scope = self._scopes.get(serial)
        if scope is None:  # evicted before this task ran
            return None
        try:
            with scope, anyio.fail_after(self._handshake_seconds):
                return await interview(channel, self._host)
        except TimeoutError:
            self.refused["too-slow"] += 1
        except Visited:
            self.visits += 1
        except TransportError:
            self.refused["handshake"] += 1
        finally:
            self._scopes.pop(serial, None)
        return None
