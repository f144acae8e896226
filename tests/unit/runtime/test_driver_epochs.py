"""The driver at a change of epoch: keys at once, connections in the order of effects, another node without a gap."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio

from bft.config import Durability
from bft.epochs import Configuration
from bft.events import Broadcast, Epoch, EpochEntered, Persist, Retired, Send, Start
from bft.ids import ReplicaId
from bft.messages import EpochLink
from bft.runtime.driver import Driver
from bft.runtime.stats import Reporter
from bft.wire.codec import encode
from tests.unit.runtime.test_driver import ALICE, Bench, Script, note, record, settle, until
from tests.unit.test_epochs import Town

pytestmark = pytest.mark.interpreted("its links are a subclass of the real ones")
TOWN = Town()
LINK = TOWN.link(TOWN.genesis, TOWN.change(0, 1, 2, 4), 24)


def next_epoch() -> Configuration:
    from bft.epochs import follow

    return follow(TOWN.genesis, LINK)


class Told:
    """Notes what it is told, and what had been sent by then."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.learnt: list[tuple[int, int]] = []
        self.moved: list[int] = []
        self.retired: list[str] = []
        self.sent_when_moved: list[object] = []

    def learn(self, configuration: Configuration, links: Sequence[EpochLink]) -> None:
        self.learnt.append((configuration.epoch, len(links)))

    def move(self, configuration: Configuration) -> None:
        self.moved.append(configuration.epoch)
        self.sent_when_moved = list(self._bench.links.calls)

    def retire(self, reason: str) -> None:
        self.retired.append(reason)
        self.sent_when_moved = list(self._bench.links.calls)


def bench_with_epochs(durability: Durability = "power") -> tuple[Bench, Told]:
    bench = Bench(durability)
    told = Told(bench)
    bench.driver = Driver(
        ReplicaId(0),
        range(4),
        bench.script,
        bench.script,
        bench.store,
        bench.links,
        Reporter(ReplicaId(0), bench.stats),
        bench.stats,
        describe=lambda: b"{}",
        durability=durability,
        epochs=told,
    )
    return bench, told


async def test_epoch_changes_who_gets_a_broadcast_in_the_order_of_effects(nursery: trio.Nursery) -> None:
    """What was said in the old epoch goes to its members, after the disk has it; the rest to the new ones."""
    bench, told = bench_with_epochs()
    nursery.start_soon(bench.driver.run)
    entered = EpochEntered(next_epoch(), (LINK,))
    bench.give(1, Broadcast(note(1)), record(b"x"), Broadcast(note(2)), entered, Broadcast(note(3)))
    await settle()
    assert [peer for peer, _ in bench.links.calls] == [1, 2, 3]
    assert told.moved == [], "not before the write"
    bench.store.gate.set()
    await until(lambda: bool(told.moved))
    assert bench.links.calls[3:] == [(1, [2]), (2, [2]), (3, [2]), (1, [3]), (2, [3]), (4, [3])]
    assert told.sent_when_moved == bench.links.calls[:6]


async def test_keys_of_an_epoch_are_learnt_at_once_with_its_links(nursery: trio.Nursery) -> None:
    """The next frame is checked by them, though the disk is still busy."""
    bench, told = bench_with_epochs()
    nursery.start_soon(bench.driver.run)
    bench.give(1, Persist(Epoch(LINK)), EpochEntered(next_epoch(), (LINK,)))
    assert (told.learnt, told.moved) == ([(1, 1)], [])
    bench.store.gate.set()
    await until(lambda: told.moved == [1])


async def test_node_that_retires_has_its_last_words_sent(nursery: trio.Nursery) -> None:
    """Whoever asked it for a proof gets it."""
    bench, told = bench_with_epochs("memory")
    nursery.start_soon(bench.driver.run)
    await settle()
    bench.give(1, Send(ALICE, note(7)), Retired("not needed"))
    assert (told.retired, told.sent_when_moved) == (["not needed"], [(ALICE, [7])])


async def test_node_is_replaced_when_everything_it_said_is_durable(nursery: trio.Nursery) -> None:
    """The store is read by its successor: nothing may be in flight; frames meanwhile are dropped and counted."""
    bench, _ = bench_with_epochs()
    nursery.start_soon(bench.driver.run)
    bench.give(1, record(b"a"), Send(ALICE, note(1)))
    await settle()
    successor = Script()
    successor.started = [Broadcast(note(9))]
    made: list[list[list[bytes]]] = []

    def make() -> tuple[ReplicaId, Script, Script, list[int]]:
        made.append(list(bench.store.written))
        return ReplicaId(3), successor, successor, [1, 3]

    nursery.start_soon(bench.driver.replace, make)
    await trio.sleep(0.01)
    assert made == []
    bench.give(2, Send(ALICE, note(2)))
    assert bench.stats.dropped["overloaded"] == 1
    bench.store.gate.set()
    await until(lambda: bool(successor.seen))
    assert made == [[[b"a"]]]
    assert successor.seen == [Start()]
    assert bench.links.calls == [(ALICE, [1]), (1, [9])]
    bench.driver.receive(ReplicaId(1), [encode(note(3))])
    assert len(successor.seen) == 2 and bench.stats.dropped["overloaded"] == 1, "it is served from now on"


async def test_cluster_without_administrators_has_no_epochs() -> None:
    """An epoch that nobody prepared for is a bug, not something to overlook."""
    bench = Bench("memory")
    with pytest.raises(AssertionError, match="only a cluster with administrators"):
        bench.give(1, EpochEntered(next_epoch(), (LINK,)))
