"""A client's connections while the membership changes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
import pytest
import trio
import trio.testing

from bft.client.client import Client
from bft.client.links import Links
from bft.epochs import Configuration, follow
from bft.errors import TransportError
from bft.headers import Member
from bft.messages import Query
from bft.transport.discovery import load_links
from bft.wire.codec import encode
from tests.unit.test_epochs import Town

pytestmark = pytest.mark.interpreted("it replaces a method of the links")


class Line:
    """A connection that nobody ends but this side."""

    closed: str | None = None

    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def send(self, frames: list[bytes]) -> None:
        self.frames += frames

    async def run_writer(self) -> None:
        await anyio.sleep_forever()

    def close(self, reason: str = "") -> None:
        self.closed = reason or "closed here"


class Bench:
    """Links whose dialing is the test's: replicas in `away` cannot be reached."""

    def __init__(self, town: Town, away: set[int]) -> None:
        def ignore(*_: object) -> None:
            pass

        self.away = away
        self.links = Links(
            town.cluster.id,
            town.pair("client"),
            town.genesis,
            on_frames=ignore,
            on_change=ignore,
            on_links=ignore,
            after_round=lambda: None,
        )
        self.links._dial = self._dial  # type: ignore[method-assign,assignment]
        self.links._poller.serve = self._serve  # type: ignore[method-assign,assignment]

    async def _dial(self, member: Member) -> Line:
        await anyio.sleep(0)
        if member.id in self.away:
            raise TransportError("nobody is there")
        return Line()

    async def _serve(self, channel: Line, take: Callable[[list[bytes]], None]) -> None:
        await anyio.sleep_forever()


@pytest.fixture
async def links() -> AsyncIterator[Links]:
    """A client of replicas 0 to 3, of which 3 is away."""
    async with trio.open_nursery() as nursery:
        bench = Bench(Town(), {3})
        nursery.start_soon(bench.links.run)
        await trio.testing.wait_all_tasks_blocked()
        yield bench.links
        nursery.cancel_scope.cancel()


def _after(*members: int) -> Configuration:
    town = Town()
    return follow(town.genesis, town.link(town.genesis, town.change(*members), 24))


async def test_who_is_no_member_any_more_has_no_failure(links: Links) -> None:
    """Neither one that was connected, nor one that could not be reached; a member that is away still has its own."""
    assert (sorted(links.channels), links.failures) == ([0, 1, 2], {3: "nobody is there"})
    links.follow(_after(1, 2, 3, 4))
    await trio.testing.wait_all_tasks_blocked()
    assert (sorted(links.channels), links.failures) == ([1, 2, 4], {3: "nobody is there"})
    links.follow(_after(1, 2, 4, 5))
    await trio.testing.wait_all_tasks_blocked()
    assert (sorted(links.channels), links.failures) == ([1, 2, 4, 5], {})


async def test_what_is_posted_is_sent_once_or_lost(links: Links) -> None:
    """`flush` says who was not there; nothing is kept for him, and nothing goes out twice."""
    query = Query(1, 0, True, (b"read",))
    for replica in range(4):
        links.post(replica, query)
    assert links.flush() == [3]
    assert links.flush() == []
    assert [links.channels[replica].frames for replica in range(3)] == [[encode(query)]] * 3  # type: ignore[attr-defined]


async def test_what_a_client_learns_of_later_members_outlives_it(tmp_path: Path) -> None:
    """Its next process knows them at once, though none of the first members may be left to ask."""
    town = Town()
    file = tmp_path / "client.epochs"
    client = Client(town.cluster, town.pair("client"), file)
    link = town.link(town.genesis, town.change(1, 2, 3, 4), 24)
    client._on_links(0, (link,))
    assert client.configuration.epoch == 1
    assert load_links(file) == [link]
    assert Client(town.cluster, town.pair("client"), file).configuration == client.configuration
