"""Who is read when: quotas, and what waits in the pool, hold a client's connection back."""

from __future__ import annotations

from collections import Counter
from typing import cast

import pytest
import trio

from bft.config import ClientLimits
from bft.runtime.client_reader import ClientReader
from bft.runtime.driver import Driver
from bft.runtime.stats import Stats
from bft.transport.channel import Channel, ChannelClosed

CLIENT = bytes(32)


class _Driver:
    """Counts what it is given."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def receive(self, peer: object, frames: list[bytes]) -> int:
        self.frames += frames
        return 0

    def now(self) -> int:
        return 7

    def flush_soon(self) -> None:
        pass


class _Accounts:
    """Has some clients wait, and counts what is read."""

    def __init__(self, must_wait: set[bytes]) -> None:
        self.must_wait = must_wait
        self.read: Counter[bytes] = Counter()

    def hold_back(self, client: bytes, now: int) -> tuple[int, str]:
        assert now == 7
        return (5_000_000, "backlog") if client in self.must_wait else (0, "")

    def note_read(self, client: bytes, frames: int) -> None:
        self.read[client] += frames


class _Channel:
    """A connection that brings frames once, and then ends when it is told to."""

    def __init__(self, frames: list[bytes]) -> None:
        self.closed: str | None = None
        self._frames = frames
        self.end = trio.Event()

    async def run_writer(self) -> None:
        await trio.sleep_forever()

    async def receive(self) -> list[bytes]:
        frames, self._frames = self._frames, []
        if not frames:
            await self.end.wait()
            raise ChannelClosed("over")
        return frames


@pytest.mark.interpreted("it drives the reader with doubles")
async def test_client_with_a_backlog_is_left_unread_until_it_has_none(autojump_clock: trio.abc.Clock) -> None:
    """Its frames stay where they are, in order; no other client waits for it."""
    stats, accounts = Stats(), _Accounts({CLIENT})
    reader = ClientReader(ClientLimits(), stats, lambda: accounts)
    held, other = _Driver(), _Driver()
    frames = [b"\x93\x02%d" % number for number in range(20)]
    channels = [_Channel(list(frames)), _Channel(list(frames))]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.run)
        for driver, channel, client in ((held, channels[0], CLIENT), (other, channels[1], b"\1" * 32)):
            nursery.start_soon(reader.serve, cast(Driver, driver), cast(Channel, channel), client)
        await trio.sleep(1)
        assert held.frames == [] and other.frames == frames
        assert 50 <= stats.delayed["backlog"] <= 250
        accounts.must_wait.clear()
        await trio.sleep(1)
        assert held.frames == frames
        assert accounts.read == {CLIENT: 20, b"\1" * 32: 20}
        nursery.cancel_scope.cancel()
