"""The driver keeps the order of effects: nothing that follows a record leaves before the record is durable."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from bft.config import Durability
from bft.errors import StorageError
from bft.events import (
    Broadcast,
    Deliver,
    Effect,
    Input,
    Pages,
    Persist,
    Record,
    Recovered,
    Rejected,
    Send,
    SetTimer,
    Snapshot,
    Start,
    Tick,
)
from bft.ids import ClientId, Peer, ReplicaId
from bft.messages import Message, Packet, Probe, ProbeReply
from bft.runtime.driver import ACCOUNT_NS, QUEUE_EFFECTS_MAX, Driver
from bft.runtime.links import LinkLimits, Links
from bft.runtime.stats import Reporter, Stats
from bft.wire.codec import decode_packet, encode

pytestmark = pytest.mark.interpreted("its links are a subclass of the real ones")
ALICE = ClientId(b"a" * 32)


def note(nonce: int) -> ProbeReply:
    """A packet that is told apart by its nonce."""
    return ProbeReply(nonce, b"")


def record(name: bytes) -> Persist:
    return Persist(Pages({name: b""}))


class Script:
    """A machine that answers each frame with the effects prepared for it."""

    def __init__(self) -> None:
        self.effects: dict[int, list[Effect]] = {}
        self.started: list[Effect] = []
        self.seen: list[Input] = []

    def step(self, event: Input, now: int) -> list[Effect]:
        self.seen.append(event)
        if isinstance(event, Start):
            return self.started
        return self.effects.get(event.packet.nonce, []) if isinstance(event, Deliver) else []  # type: ignore[union-attr]

    def wants(self, peer: Peer, packet: Packet, message: Message | None, /) -> bool:
        return True

    def admit(
        self, frame: bytes, peer: Peer, wants: Callable[[Peer, Packet, Message | None], bool]
    ) -> Deliver | Rejected | None:
        packet = decode_packet(frame)
        return Deliver(peer, packet) if wants(peer, packet, None) else None


class GatedStore:
    """A store whose writes wait for the test."""

    store_id = "0" * 32

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.written: list[list[bytes]] = []
        self.error: StorageError | None = None
        self.delay = 0.0

    def write(self, records: Sequence[Record], /) -> None:
        assert self.gate.wait(5)
        time.sleep(self.delay)
        if self.error is not None:
            raise self.error
        self.written.append([name for item in records if isinstance(item, Pages) for name in item.pages])

    def load(self) -> Recovered:
        return Recovered()

    def read_pages(self, digests: Sequence[bytes], /) -> list[bytes]:
        return []

    def read_manifest(self, digest: bytes, /) -> bytes | None:
        return None

    def close(self) -> None:
        pass


class RecordingLinks(Links):
    def __init__(self, stats: Stats) -> None:
        super().__init__(stats, LinkLimits())
        self.calls: list[tuple[Peer, list[int]]] = []

    def send(self, peer: Peer, frames: list[bytes]) -> None:
        packets = [decode_packet(frame) for frame in frames]
        self.calls.append((peer, [packet.nonce for packet in packets if isinstance(packet, ProbeReply)]))


class Bench:
    def __init__(self, durability: Durability = "power") -> None:
        self.script, self.store, self.stats = Script(), GatedStore(), Stats()
        self.links = RecordingLinks(self.stats)
        self.driver = Driver(
            ReplicaId(0),
            range(4),
            self.script,
            self.script,
            self.store,
            self.links,
            Reporter(ReplicaId(0), self.stats),
            self.stats,
            describe=lambda: b"{}",
            durability=durability,
        )

    def give(self, nonce: int, *effects: Effect) -> None:
        """A read that is alone in its round."""
        self.read(nonce, *effects)
        self.driver.flush()

    def read(self, nonce: int, *effects: Effect) -> None:
        self.script.effects[nonce] = list(effects)
        self.driver.receive(ReplicaId(1), [encode(note(nonce))])


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(5):
        while not condition():
            await trio.sleep(0.001)


async def test_packets_after_a_record_wait_for_it_and_earlier_ones_do_not(nursery: trio.Nursery) -> None:
    """Persist is a barrier for what follows it: no vote leaves before it is durable."""
    bench = Bench()
    nursery.start_soon(bench.driver.run)
    bench.give(1, Send(ALICE, note(10)), record(b"x"), Send(ALICE, note(11)))
    await settle()
    assert bench.links.calls == [(ALICE, [10])]
    bench.store.gate.set()
    await until(lambda: len(bench.links.calls) == 2)
    assert bench.links.calls[1] == (ALICE, [11])


async def test_input_during_a_write_is_committed_as_one_group_after_it(nursery: trio.Nursery) -> None:
    """Group commit: the second transaction holds everything that came while the first was written."""
    bench = Bench()
    nursery.start_soon(bench.driver.run)
    bench.give(1, record(b"a"), Send(ALICE, note(1)))
    await settle()
    bench.give(2, record(b"b"), Send(ALICE, note(2)))
    bench.give(3, record(b"c"), Send(ALICE, note(3)))
    await settle()
    assert bench.links.calls == []
    bench.store.gate.set()
    await until(lambda: len(bench.links.calls) == 2)
    assert bench.store.written == [[b"a"], [b"b", b"c"]]
    assert bench.links.calls == [(ALICE, [1]), (ALICE, [2, 3])]


async def _written_quickly(bench: Bench) -> None:
    """Let the driver find out that the disk is quick."""
    bench.store.gate.set()
    for nonce in range(1, 60):
        bench.give(nonce, record(b"x"), Send(ALICE, note(nonce)))
        await until(lambda nonce=nonce: len(bench.links.calls) == nonce)  # type: ignore[misc]


async def test_quick_disk_is_waited_for_and_a_slow_one_gets_a_thread_again(nursery: trio.Nursery) -> None:
    """A change of threads costs more than a short write; nobody waits long in the event loop a second time."""
    bench = Bench()
    nursery.start_soon(bench.driver.run)
    await _written_quickly(bench)
    bench.give(60, record(b"y"), Send(ALICE, note(60)))
    assert bench.links.calls[-1] == (ALICE, [60]), "written and sent at once"
    bench.store.delay = 0.1
    bench.give(61, record(b"z"), Send(ALICE, note(61)))
    assert bench.links.calls[-1] == (ALICE, [61])
    bench.store.gate.clear()
    bench.give(62, record(b"z"), Send(ALICE, note(62)))
    assert bench.links.calls[-1] == (ALICE, [61]), "the thread waits for the disk, and this vote for the thread"
    bench.store.gate.set()
    await until(lambda: bench.links.calls[-1] == (ALICE, [62]))


async def test_checkpoint_is_written_in_a_thread_on_a_quick_disk_too(nursery: trio.Nursery) -> None:
    """It is long, and garbage is collected with it."""
    bench = Bench()
    nursery.start_soon(bench.driver.run)
    await _written_quickly(bench)
    bench.store.gate.clear()
    bench.give(60, Persist(Snapshot(1, b"", b"", {}, None)), Send(ALICE, note(60)))
    assert bench.links.calls[-1] == (ALICE, [59])
    bench.store.gate.set()
    await until(lambda: bench.links.calls[-1] == (ALICE, [60]))


@asynccontextmanager
async def _filled(bench: Bench) -> AsyncIterator[Bench]:
    """A driver whose quick disk is full from now on: the block ends with its error, and nothing has left."""
    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.driver.run)
            await _written_quickly(bench)
            bench.store.error = StorageError("disk full")
            yield bench
            nursery.cancel_scope.cancel()  # else a driver that goes on would have the test wait for ever
    assert caught.group_contains(StorageError, match="disk full"), "the writer does not go on without it"
    assert bench.links.calls[-1] == (ALICE, [59])


async def test_nothing_leaves_after_a_failed_write_on_a_quick_disk() -> None:
    """The event loop itself finds it, and stops."""
    async with _filled(Bench()) as bench:
        bench.give(60, record(b"a"), Send(ALICE, note(60)))


async def test_tasks_that_still_run_after_a_failed_write_on_a_quick_disk_send_nothing() -> None:
    """The loop ends no task in the middle of a pass: what others step meanwhile may rest on the lost record."""
    async with _filled(Bench()) as bench:
        with pytest.raises(StorageError, match="disk full"):
            bench.give(60, record(b"a"), Send(ALICE, note(60)))
        bench.give(61, Send(ALICE, note(61)))
        bench.driver.flush_soon()
        await settle()


async def test_outputs_of_several_readers_leave_together(nursery: trio.Nursery) -> None:
    """What the reads of one round bring goes out in one send per peer, in order."""
    bench = Bench("memory")
    nursery.start_soon(bench.driver.run)
    await settle()
    bench.read(1, Broadcast(note(1)), Send(ReplicaId(2), note(2)))
    bench.read(2, Broadcast(note(3)))
    assert bench.links.calls == []
    bench.driver.flush()
    assert bench.links.calls == [(1, [1, 3]), (2, [1, 2, 3]), (3, [1, 3])]


async def test_nothing_leaves_after_a_failed_write() -> None:
    """A replica whose disk refuses stops without another word."""
    bench = Bench()
    bench.store.error = StorageError("disk full")
    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.driver.run)
            bench.give(1, record(b"a"), Send(ALICE, note(1)))
            await settle()
            bench.give(2, Send(ALICE, note(2)))
            bench.store.gate.set()
    assert caught.group_contains(StorageError, match="disk full")
    assert bench.links.calls == []


async def test_packet_to_itself_comes_back_as_input(nursery: trio.Nursery) -> None:
    """A node may write to itself; nothing goes through a socket."""
    bench = Bench("memory")
    nursery.start_soon(bench.driver.run)
    await settle()
    bench.give(1, Send(ReplicaId(0), note(5)))
    await settle()
    assert bench.script.seen[-1] == Deliver(ReplicaId(0), note(5))
    assert bench.links.calls == []


async def test_probe_is_answered_by_the_driver(nursery: trio.Nursery) -> None:
    """A probe never reaches the protocol."""
    bench = Bench("memory")
    nursery.start_soon(bench.driver.run)
    await settle()
    bench.driver.receive(ALICE, [encode(Probe(9))])
    bench.driver.flush()
    assert bench.links.calls == [(ALICE, [9])]
    assert bench.script.seen == [Start()]


async def test_account_is_made_once_for_many_probes(nursery: trio.Nursery) -> None:
    """Asking costs a few bytes, an account most of a millisecond: all who ask at about the same time get the same."""
    bench = Bench("memory")
    made: list[int] = []

    def describe() -> bytes:
        made.append(0)
        return b"{}"

    bench.driver._describe = describe
    nursery.start_soon(bench.driver.run)
    await settle()
    bench.driver.receive(ReplicaId(1), [encode(Probe(nonce)) for nonce in range(100)])
    assert len(made) == 1
    await trio.sleep(ACCOUNT_NS / 1e9)
    bench.driver.receive(ALICE, [encode(Probe(100))])
    bench.driver.flush()
    assert len(made) == 2
    assert bench.links.calls[-1] == (ALICE, [100])


async def test_frames_are_dropped_while_the_queue_is_full(nursery: trio.Nursery) -> None:
    """A stalled disk does not fill the memory: input is dropped and counted, the protocol repeats it."""
    bench = Bench()
    nursery.start_soon(bench.driver.run)
    bench.give(1, record(b"a"))
    await settle()
    bench.give(2, *[Send(ALICE, note(0))] * QUEUE_EFFECTS_MAX)
    bench.give(3)
    assert bench.stats.dropped["overloaded"] == 1
    bench.store.gate.set()


async def test_timer_fires_at_its_time_and_the_last_one_set_counts(nursery: trio.Nursery) -> None:
    """A node has one timer; an earlier one replaces a later one."""
    bench = Bench("memory")
    now = bench.driver._clock.now()
    bench.script.started = [SetTimer(now + 3_600 * 10**9)]
    nursery.start_soon(bench.driver.run)
    await settle()
    assert bench.script.seen == [Start()]
    bench.give(1, SetTimer(now))
    await until(lambda: Tick() in bench.script.seen)
    assert bench.script.seen.count(Tick()) == 1


async def test_effect_of_the_inside_is_a_bug() -> None:
    """What the engine should have carried out must not be lost in silence."""
    from bft.events import LoadPages

    bench = Bench("memory")
    with pytest.raises(AssertionError, match="LoadPages"):
        bench.give(1, LoadPages(()))
