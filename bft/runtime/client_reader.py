"""Reading what clients send: each as its quota and its turn allow, the rest stays in its socket."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import trio

from bft.config import ClientLimits
from bft.ids import Nanos
from bft.runtime.driver import Driver
from bft.runtime.lane import ClientLane, turn_of
from bft.runtime.quota import Quota, Quotas
from bft.runtime.stats import NANOS_PER_SECOND, Stats
from bft.transport.channel import Channel, ChannelClosed

PAUSE_SECONDS_MAX = 0.25
"""A held-back client's connection is looked at this often, so that one that has ended does not linger."""


class Accounts(Protocol):
    """Keeps account of what each client costs: `bft.core.replica.Replica`."""

    def hold_back(self, client: bytes, now: Nanos) -> tuple[Nanos, str]:
        """(how long the client is better left unread, why); 0 if it may go on."""
        ...

    def note_read(self, client: bytes, frames: int) -> None:
        """So many of its frames, or what costs as much, were read."""
        ...


class ClientReader:
    """Reads all clients of one replica."""

    def __init__(self, limits: ClientLimits, stats: Stats, accounts: Callable[[], Accounts]) -> None:
        """Read as `limits` allow, and as the `accounts` of the present node do."""
        self._accounts = accounts
        self._quotas = Quotas(limits)
        self._lane = ClientLane()
        self._stats = stats

    async def run(self) -> None:
        """Give turns, until cancelled."""
        await self._lane.run()

    async def serve(self, driver: Driver, channel: Channel, client: bytes) -> None:
        """Hand what a client sends to the driver, until its connection ends."""
        quota = self._quotas.of(client, time.monotonic_ns())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.run_writer)
            try:
                while True:
                    await self._take_turns(driver, channel, client, quota, await channel.receive())
            except ChannelClosed:
                nursery.cancel_scope.cancel()

    async def _take_turns(
        self, driver: Driver, channel: Channel, client: bytes, quota: Quota, frames: list[bytes]
    ) -> None:
        start = 0
        while start < len(frames) and channel.closed is None:
            pause, why = self._pause(driver, client, quota)
            if pause:
                self._stats.delayed[why] += 1
                await trio.sleep(min(pause / NANOS_PER_SECOND, PAUSE_SECONDS_MAX))
                continue
            stop, work = turn_of(frames, start)
            await self._lane.turn(work)
            part = frames[start:stop]
            quota.spend(part, time.monotonic_ns())
            self._accounts().note_read(client, work)
            bad = driver.receive(client, part)
            driver.flush_soon()
            if bad:
                quota.blame(bad, time.monotonic_ns())
            start = stop

    def _pause(self, driver: Driver, client: bytes, quota: Quota) -> tuple[Nanos, str]:
        pause, why = quota.pause_ns(time.monotonic_ns())
        return (pause, why) if pause else self._accounts().hold_back(client, driver.now())
