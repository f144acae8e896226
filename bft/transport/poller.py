"""One task that reads many channels: every wake-up takes what *all* of them have.

A task per connection costs a change of tasks and a registration per message. Here the sockets stay registered with one
selector, whose own descriptor is what the event loop waits for; a round reads each ready channel once, hands its frames
over, and ends with one call for what the round as a whole calls for (writing and sending in one go). Works under trio
and asyncio.

No channel gets more than one read per round, nor more than a slice of time: what a read brought beyond that waits, the
channel is not read meanwhile, and the other channels and tasks have their turns between two slices. A read can bring
hundreds of frames that take 100 us each to refuse; without slices one replica that sends nothing else would leave the
others a fraction of the processor (`test_flood_does_not_starve_the_other_channels`).
"""

from __future__ import annotations

import selectors
import time
from collections import deque
from collections.abc import Callable

import anyio
from anyio.lowlevel import checkpoint

from bft.transport.channel import Channel, ChannelClosed

ROUNDS_PER_TURN = 8
"""Rounds in a row before the other tasks get their turn."""
SLICE_NS = 1_000_000
"""So much time a channel gets per round, and what its last frame takes beyond that: a few signature checks."""

Take = Callable[[list[bytes]], object]


class Poller:
    """Reads channels for one event loop, which alone may use it."""

    def __init__(self, after_round: Callable[[], None]) -> None:
        """Read for nobody yet; `after_round` is called when every ready channel has been read."""
        self._after_round = after_round
        self._selector = selectors.DefaultSelector()
        self._left: dict[int, tuple[Channel, Take, deque[bytes]]] = {}

    async def serve(self, channel: Channel, take: Take) -> None:
        """Hand every frame that comes over `channel` to `take`, in order, until the channel is closed.

        What came with the handshake is handed over first. `take` is called by `run`, and may close any channel.
        """
        ended = anyio.Event()
        early = deque(channel.take_early())
        while early and channel.closed is None:
            take([early.popleft()])
            self._after_round()
            await checkpoint()
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
                if self._left:
                    await checkpoint()
                else:
                    await anyio.wait_readable(self._selector.fileno())
                for _ in range(ROUNDS_PER_TURN):
                    if not self._round() or self._left:
                        break
        finally:
            self._selector.close()

    def _round(self) -> bool:
        """Give every channel that has something its slice, once; False if none had."""
        ready = self._selector.select(0)
        left, self._left = self._left, {}
        for key, (channel, take, frames) in left.items():
            if channel.closed is None:
                self._hand_over(key, channel, take, frames)
        for entry, _ in ready:
            channel, take = entry.data
            if entry.fd in left:
                continue
            try:
                frames = channel.read_ready()
            except ChannelClosed:
                continue  # perhaps by what an earlier channel brought; `on_close` has told `serve`
            if frames:
                self._hand_over(entry.fd, channel, take, deque(frames))
        if ready or left:
            self._after_round()
        return bool(ready or left)

    def _hand_over(self, key: int, channel: Channel, take: Take, frames: deque[bytes]) -> None:
        """Hand frames over until the slice is used up; the rest has to wait."""
        until = time.perf_counter_ns() + SLICE_NS
        while frames and channel.closed is None:
            take([frames.popleft()])
            if time.perf_counter_ns() >= until:
                break
        if frames and channel.closed is None:
            self._left[key] = channel, take, frames

    def _forget(self, key: int, ended: anyio.Event) -> None:
        """Before the descriptor is closed: its number may be another socket's a moment later."""
        self._left.pop(key, None)
        if self._selector.get_map() is not None:
            self._selector.unregister(key)
        ended.set()
