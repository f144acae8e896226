"""One task that reads many channels: every wake-up takes what *all* of them have.

A task per connection costs a change of tasks and a registration per message. Here the sockets stay registered with one
selector, whose own descriptor is what the event loop waits for; a round reads each ready channel once, hands its frames
over, and ends with one call for what the round as a whole calls for (writing and sending in one go). No channel gets
more than one read per round, so none can starve the others. Works under trio and asyncio.
"""

from __future__ import annotations

import selectors
from collections.abc import Callable

import anyio

from bft.transport.channel import Channel, ChannelClosed

ROUNDS_PER_TURN = 8
"""Rounds in a row before the other tasks get their turn."""

Take = Callable[[list[bytes]], None]


class Poller:
    """Reads channels for one event loop, which alone may use it."""

    def __init__(self, after_round: Callable[[], None]) -> None:
        """Read for nobody yet; `after_round` is called when every ready channel has been read."""
        self._after_round = after_round
        self._selector = selectors.DefaultSelector()

    async def serve(self, channel: Channel, take: Take) -> None:
        """Hand every frame that comes over `channel` to `take`, in order, until the channel is closed.

        What came with the handshake is handed over first. `take` is called by `run`, and may close any channel.
        """
        ended = anyio.Event()
        early = channel.take_early()
        if early:
            take(early)
            self._after_round()
        if channel.closed is not None:
            return
        key = channel.fileno()
        self._selector.register(key, selectors.EVENT_READ, (channel, take))
        channel.on_close = lambda: self._forget(key, ended)
        await ended.wait()

    async def run(self) -> None:
        """Read until cancelled."""
        try:
            while True:
                await anyio.wait_readable(self._selector.fileno())
                for _ in range(ROUNDS_PER_TURN):
                    if not self._round():
                        break
        finally:
            self._selector.close()

    def _round(self) -> bool:
        """Read every ready channel once; False if none was ready."""
        ready = self._selector.select(0)
        for key, _ in ready:
            channel, take = key.data
            try:
                frames = channel.read_ready()
            except ChannelClosed:
                continue  # perhaps by what an earlier channel brought; `on_close` has told `serve`
            if frames:
                take(frames)
        if ready:
            self._after_round()
        return bool(ready)

    def _forget(self, key: int, ended: anyio.Event) -> None:
        """Before the descriptor is closed: its number may be another socket's a moment later."""
        if self._selector.get_map() is not None:
            self._selector.unregister(key)
        ended.set()
