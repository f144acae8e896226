"""Whom a replica keeps a connection to while the membership changes."""

from __future__ import annotations

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

        async def read(channel: object, peer: ReplicaId) -> None:
            await trio.sleep_forever()

        async def ask(member: Member) -> None:
            raise AssertionError("nobody is a stranger here")

        self.dialer = Dialer(ReplicaId(0), self.links, nursery, read, lambda: identity, ask, (0.01, 0.01))

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
