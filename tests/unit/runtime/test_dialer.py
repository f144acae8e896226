"""Whom a replica keeps a connection to while the membership changes."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from bft.headers import Member
from bft.ids import ReplicaId
from bft.runtime import dialer
from bft.runtime.dialer import Dialer
from bft.runtime.links import LinkLimits, Links
from bft.runtime.roster import Roster
from bft.runtime.stats import Stats
from bft.transport.handshake import Identity
from tests.unit.test_epochs import Town

PAUSES = (0.01, 1.28)
pytestmark = pytest.mark.interpreted("its channels are the test's own")


class Line:
    """A connection that nobody ends but this side."""

    closed: str | None = None

    def close(self, reason: str = "") -> None:
        self.closed = reason or "closed here"


class Bench:
    """Replica 0 of a town, whose dialer connects at once and for ever."""

    def __init__(self, nursery: trio.Nursery, town: Town) -> None:
        self.lines: list[tuple[int, Line]] = []
        self.links = Links(Stats(), LinkLimits())
        identity = Identity(town.cluster.id, ReplicaId(0), town.pairs[0])

        self.lasts: float = math.inf

        async def read(channel: object, peer: ReplicaId) -> None:
            await trio.sleep(self.lasts)

        async def ask(member: Member) -> None:
            raise AssertionError("nobody is a stranger here")

        self.dialer = Dialer(ReplicaId(0), self.links, nursery, read, lambda: identity, ask, PAUSES)

    async def dial(self, host: str, port: int, *, server: int, **others: object) -> Line:
        self.lines.append((server, Line()))
        return self.lines[-1][1]

    def open(self) -> list[int]:
        return sorted(replica for replica, line in self.lines if line.closed is None)


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    async with trio.open_nursery() as nursery:
        bench = Bench(nursery, Town(5))
        monkeypatch.setattr(dialer, "dial", bench.dial)
        yield bench
        nursery.cancel_scope.cancel()


async def test_connection_to_a_removed_replica_ends_with_the_next_epoch(bench: Bench) -> None:
    """In the first epoch without it, it may still need what is on its way; afterwards it is not waited for."""
    town = Town(5)
    roster = Roster(town.cluster, [])
    bench.dialer.follow(roster.configuration)
    await trio.testing.wait_all_tasks_blocked()
    assert bench.open() == [1, 2, 3, 4]
    for members, epoch, expected in (((0, 1, 2, 3), 0, [1, 2, 3, 4]), ((0, 1, 2, 3, 5), 1, [1, 2, 3, 5])):
        link = town.link(roster.configuration, town.change(*members, epoch=epoch), 24 * (epoch + 1))
        later = Roster(town.cluster, [*roster.links_from(0), link])
        roster.enter(later.configuration, [link])
        bench.dialer.follow(roster.configuration, is_gone=roster.is_gone)
        await trio.testing.wait_all_tasks_blocked()
        assert bench.open() == expected
        assert bench.links.dialed == expected


async def test_replica_that_hangs_up_at_once_is_dialed_ever_more_rarely(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    """Each time costs a handshake and two lines of the log; who stayed for a while is dialed again at once."""
    bench.lasts = 0.001
    bench.dialer.follow(Roster(Town(5).cluster, []).configuration)
    await trio.sleep(100)
    often = len(bench.lines) / 4
    assert often < 100 / (PAUSES[1] / 2) + 16
    bench.lasts = 2 * PAUSES[1]
    await trio.sleep(100)
    assert len(bench.lines) / 4 - often > 100 / (2.5 * PAUSES[1])
