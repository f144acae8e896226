"""The driver: feeds a node with frames and ticks, and carries its effects out in order.

Readers hand over all frames of a read; the node steps through them at once, and its effects queue up. When every
connection that was ready has been read (`flush` after a round of the poller, `flush_soon` for clients, each of which
is read by a task of its own), the whole queue is taken: the records of *all* queued effects are written in one
transaction, then everything queued before is sent, each peer's packets in one go. A write that takes long runs in a
thread; meanwhile further input is stepped and queues behind it: group commit. One that is done sooner than threads have
changed twice runs at once, and what comes meanwhile waits in the sockets: a group as well.

Safety: nothing that stands after a `Persist` leaves before the record is durable; a failed write stops everything, and
nothing further is sent [CL02 4.6].
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import trio

from bft.config import Durability
from bft.epochs import Configuration
from bft.events import (
    Broadcast,
    Committed,
    Deliver,
    Effect,
    EpochEntered,
    Evidence,
    Input,
    Persist,
    Progress,
    Record,
    Rejected,
    Retired,
    Send,
    SetTimer,
    Snapshot,
    Stable,
    Start,
    Tick,
    ViewEntered,
)
from bft.ids import Nanos, Peer, ReplicaId
from bft.messages import EpochLink, Message, Packet, Probe, ProbeReply
from bft.ports import Store
from bft.runtime.clock import Clock
from bft.runtime.links import Links
from bft.runtime.stats import NANOS_PER_SECOND, Reporter, Stats
from bft.wire.codec import encode

QUEUE_EFFECTS_MAX = 100_000
CLIENT_EFFECTS_MAX = QUEUE_EFFECTS_MAX // 2
"""Beyond it only replicas are listened to: what clients cause may not fill the queue that agreement needs."""
BLAMED = frozenset(("malformed", "bad-signature", "bad-client-signature", "another-clients", "digest-mismatch"))
"""Reasons of rejection that no correct sender gives."""
ACCOUNT_NS = 50_000_000
"""An account of itself is as good as new for so long: making one takes most of a millisecond, asking for it no time."""
PAUSE_SECONDS = 0.001
QUICK_WRITE_NS = 2_000_000
"""A disk that usually syncs in so much time is waited for. A change of threads and back costs 0.8 ms of processor time
beside a busy event loop; where replicas share a disk, transactions take 0.6 to 0.8 ms."""
Wants = Callable[[Peer, Packet, Message | None], bool]
Outgoing = Persist | Send | Broadcast | EpochEntered | Retired


class Machine(Protocol):
    """What is driven: `bft.engine.Engine`."""

    def step(self, event: Input, now: Nanos) -> list[Effect]:
        """Take one input; the effects that come out are for the driver."""
        ...

    def wants(self, peer: Peer, packet: Packet, message: Message | None, /) -> bool:
        """The node's cheap filter."""
        ...


class Admitter(Protocol):
    """The way in: `bft.wire.admission.Admission`."""

    def admit(self, frame: bytes, peer: Peer, wants: Wants) -> Deliver | Rejected | None:
        """Check one frame."""
        ...


class Epochs(Protocol):
    """What changes around a node when its epoch does: `bft.runtime.server`."""

    def learn(self, configuration: Configuration, links: Sequence[EpochLink]) -> None:
        """At once: what the next frame is checked by must be of the epoch that the node is in."""
        ...

    def move(self, configuration: Configuration) -> None:
        """In the order of effects: whatever was to be sent before has been, and the epoch is durable."""
        ...

    def retire(self, reason: str) -> None:
        """In the order of effects: the node was removed from the cluster and is needed no longer."""
        ...


class Driver:
    """Runs one node.

    Everything but `run` is called from the event loop's thread and never waits.
    """

    def __init__(
        self,
        me: ReplicaId,
        members: Iterable[int],
        machine: Machine,
        admission: Admitter,
        store: Store,
        links: Links,
        reporter: Reporter,
        stats: Stats,
        *,
        describe: Callable[[], bytes],
        durability: Durability,
        epochs: Epochs | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Drive `machine` for replica `me` among `members`.

        Args:
            epochs: told of changes of membership; None in a cluster that has none.
            describe: the JSON that answers a `Probe`.
            durability: the store's level. A write goes to a thread, and the event loop goes on meanwhile, if it
                collects garbage or waits for a disk that is slow, as it is taken to be until it has been measured.
        """
        self._me = me
        self._others = [ReplicaId(peer) for peer in members if peer != me]
        self._epochs = epochs
        self._machine = machine
        self._admission = admission
        self._store = store
        self._links = links
        self._reporter = reporter
        self._stats = stats
        self._describe = describe
        self._account = b""
        self._account_until: Nanos = 0
        self._durability = durability
        self._clock = clock or Clock()
        self._queue: list[Outgoing] = []
        self._writing: list[Outgoing] = []
        self._writer = trio.lowlevel.ParkingLot()
        self._usual_write_ns = 4 * QUICK_WRITE_NS
        self._timer_at: Nanos | None = None
        self._timer_moved = trio.Event()
        self._sleeping_until: Nanos = 0
        self._is_paused = False

    async def run(self) -> None:
        """Start the node and drive it until cancelled.

        Raises:
            StorageError: a write failed; nothing after it was sent.
            AssertionError: the node found a bug in itself.
        """
        async with trio.open_nursery() as nursery:
            self._step(Start())
            nursery.start_soon(self._write_forever)
            nursery.start_soon(self._tick_forever)

    def now(self) -> Nanos:
        """The node's clock."""
        return self._clock.now()

    def receive(self, peer: Peer, frames: Sequence[bytes]) -> int:
        """Take what a read from `peer` brought; returns how many frames no correct peer can have sent.

        `flush` must follow before the caller waits for anything, or `flush_soon`.
        """
        self._stats.frames_in += len(frames)
        if self._is_paused or len(self._queue) >= (QUEUE_EFFECTS_MAX if isinstance(peer, int) else CLIENT_EFFECTS_MAX):
            self._stats.dropped["overloaded"] += len(frames)
            return 0
        now = self._clock.now()
        admit, step, wants = self._admission.admit, self._machine.step, self._wants
        bad = 0
        for frame in frames:
            event = admit(frame, peer, wants)
            if event is None:
                continue
            if isinstance(event, Rejected):
                self._reporter.take(event, now)
                bad += event.reason in BLAMED
            elif isinstance(event.packet, Probe):
                self._queue.append(Send(peer, ProbeReply(event.packet.nonce, self._recent_account(now))))
            else:
                self._take(step(event, now), now)
        return bad

    def _recent_account(self, now: Nanos) -> bytes:
        if now >= self._account_until:
            self._account, self._account_until = self._describe(), now + ACCOUNT_NS
        return self._account

    # --- stepping ---

    def _wants(self, peer: Peer, packet: Packet, message: Message | None) -> bool:
        return isinstance(packet, Probe) or self._machine.wants(peer, packet, message)

    def take_in(self, event: Input) -> None:
        """Give the node an input that came neither from a peer nor from the clock."""
        self._step(event)

    def _step(self, event: Input) -> None:
        now = self._clock.now()
        self._take(self._machine.step(event, now), now)
        self.flush()

    def _take(self, effects: list[Effect], now: Nanos) -> None:
        """Queue what must keep its order; do the rest at once."""
        for effect in effects:
            match effect:
                case Send() | Broadcast() | Persist():
                    self._queue.append(effect)
                case SetTimer():
                    self._set_timer(effect.at_ns)
                case Rejected() | Committed() | Progress() | Evidence() | ViewEntered():
                    self._reporter.take(effect, now)
                case EpochEntered():
                    assert self._epochs is not None, "only a cluster with administrators changes"
                    self._epochs.learn(effect.configuration, effect.links)
                    self._queue.append(effect)
                case Retired():
                    self._queue.append(effect)
                case _:
                    raise AssertionError(f"the engine carries out {type(effect).__name__} itself")

    async def replace(self, make: Callable[[], tuple[ReplicaId, Machine, Admitter, Iterable[int]]]) -> None:
        """Go on with another node, made by `make` when everything that this one said is durable and sent.

        Frames that come meanwhile are dropped; the protocol repairs that. Connections stay.

        Raises:
            BFTError: whatever `make` raises.
        """
        self._is_paused = True
        while self._queue or self._writing:
            self.flush()
            await trio.sleep(PAUSE_SECONDS)
        self._me, self._machine, self._admission, members = make()
        self._others = [ReplicaId(peer) for peer in members if peer != self._me]
        self._is_paused = False
        self._step(Start())

    # --- carrying out ---

    def flush(self) -> None:
        """Carry out what is queued; what stands behind a slow write waits for it.

        Raises:
            StorageError: a write failed; nothing after it was sent.
        """
        while self._queue and not self._writing:
            queue, self._queue = self._queue, []
            first = next((index for index, effect in enumerate(queue) if isinstance(effect, Persist)), None)
            if first is None:
                self._send(queue)
                continue
            self._send(queue[:first])
            records = [effect.record for effect in queue[first:] if isinstance(effect, Persist)]
            self._writing = queue[first:]
            if self._is_slow(records):
                self._writer.unpark()
                return
            self._write(records)
            self._send_written()

    def flush_soon(self) -> None:
        """Flush when all tasks that are ready have run: once for all clients that are read in one pass of the loop."""
        if self._queue:
            self._writer.unpark()

    async def _write_forever(self) -> None:
        """Do the slow writes in a thread, one at a time, and flush when somebody wants it soon."""
        while True:
            if not self._writing:
                await self._writer.park()
            if self._writing:
                records = [effect.record for effect in self._writing if isinstance(effect, Persist)]
                await trio.to_thread.run_sync(self._write, records)
                self._send_written()
            self.flush()

    def _send_written(self) -> None:
        """The records of what is being written are durable.

        Never reached if they are not: then `_writing` stays, and holds back whatever tasks still step before the loop
        has ended them, since that may rest on a record that is lost.
        """
        written, self._writing = self._writing, []
        self._send(written)

    def _write(self, records: list[Record]) -> None:
        started = time.perf_counter_ns()
        self._store.write(records)
        took = time.perf_counter_ns() - started
        self._stats.write_ns += took
        self._stats.writes += 1
        self._stats.records += len(records)
        if not _is_bulky(records):
            self._usual_write_ns += (took - self._usual_write_ns) // 8

    def _is_slow(self, records: Sequence[Record]) -> bool:
        if self._durability == "memory":
            return False
        return _is_bulky(records) or (self._durability == "power" and self._usual_write_ns > QUICK_WRITE_NS)

    def _send(self, effects: Sequence[Outgoing]) -> None:
        """Send in order, all packets for one peer in one go; a broadcast is encoded once."""
        frames: dict[Peer, list[bytes]] = {}
        for effect in effects:
            match effect:
                case Send(to, packet):
                    frames.setdefault(to, []).append(encode(packet))
                case Broadcast(packet):
                    frame = encode(packet)
                    for other in self._others:
                        frames.setdefault(other, []).append(frame)
                case Persist():
                    continue
                case EpochEntered(configuration):
                    self._pass_on(frames)
                    frames = {}
                    self._move(configuration)
                    continue
                case Retired(reason):
                    self._pass_on(frames)
                    frames = {}
                    assert self._epochs is not None, "only a cluster with administrators changes"
                    self._epochs.retire(reason)
                    continue
            self._stats.packets_out += 1
        self._pass_on(frames)

    def _pass_on(self, frames: dict[Peer, list[bytes]]) -> None:
        to_me = frames.pop(self._me, None)
        for peer, batch in frames.items():
            self._links.send(peer, batch)
        if to_me is not None:
            self.receive(self._me, to_me)

    def _move(self, configuration: Configuration) -> None:
        """From here on a broadcast goes to the new members."""
        assert self._epochs is not None, "only a cluster with administrators changes"
        self._others = [ReplicaId(member.id) for member in configuration.members if member.id != self._me]
        self._epochs.move(configuration)

    # --- time ---

    def _set_timer(self, at_ns: Nanos) -> None:
        self._timer_at = at_ns
        if at_ns < self._sleeping_until:
            self._timer_moved.set()

    async def _tick_forever(self) -> None:
        while True:
            now = self._clock.now()
            if self._timer_at is not None and self._timer_at <= now:
                self._timer_at = None
                if not self._is_paused:
                    self._step(Tick())
                continue
            self._timer_moved = trio.Event()
            self._sleeping_until = now + NANOS_PER_SECOND if self._timer_at is None else self._timer_at
            with trio.move_on_after((self._sleeping_until - now) / NANOS_PER_SECOND):
                await self._timer_moved.wait()


def _is_bulky(records: Sequence[Record]) -> bool:
    """True if a checkpoint is written, or garbage collected after one."""
    return any(isinstance(record, Snapshot | Stable) for record in records)
