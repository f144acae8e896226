"""The nodes of a virtual cluster: the production engine, admission and session, with a processor that takes its time.

A node takes turns as the production driver does: everything that has arrived is stepped at once, then one flush writes
all records in one transaction and sends each peer's packets in one go. What follows a record waits for the disk, and
the node with it if the disk is quick; else further turns queue behind the transaction (group commit). A turn lasts as
long as the cost model says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from benchmarks.virtual.costs import Costs
from bft.client.session import Completed, Flush, Lost, Session, SessionInput, Submit
from bft.core.recovery import rules_of
from bft.core.replica import Replica
from bft.engine import Engine
from bft.events import Broadcast, Deliver, Effect, Input, Persist, Recovered, Rejected, Send, SetTimer, Start, Tick
from bft.ids import Nanos, Peer, ReplicaId
from bft.messages import Packet
from bft.ports import ExecutionContext, Signer, Verifier
from bft.runtime.driver import QUICK_WRITE_NS
from bft.services.null import Null
from bft.storage.memory import MemoryStore
from bft.wire.admission import Admission, Limits
from bft.wire.codec import Malformed, decode_packet, encode

if TYPE_CHECKING:
    from benchmarks.virtual.world import VirtualWorld

MEMO_MAX = 65536


class Meter:
    """Counts what costs; wraps the ports of one node.

    Attributes:
        signed, verified, operations: so far.
    """

    def __init__(self) -> None:
        self.signed = self.verified = self.operations = 0


class MeteredSigner:
    """A `Signer` that counts."""

    def __init__(self, signer: Signer, meter: Meter) -> None:
        self._signer = signer
        self._meter = meter

    def sign(self, payload: bytes, /) -> bytes:
        """See `bft.ports.Signer`."""
        self._meter.signed += 1
        return self._signer.sign(payload)


class MeteredVerifier:
    """A `Verifier` that counts."""

    def __init__(self, verifier: Verifier, meter: Meter) -> None:
        self._verifier = verifier
        self._meter = meter

    def verify_replica(self, sender: int, payload: bytes, signature: bytes, /) -> bool:
        """See `bft.ports.Verifier`."""
        self._meter.verified += 1
        return self._verifier.verify_replica(sender, payload, signature)

    def verify_client(self, client: bytes, digest: bytes, signature: bytes, /) -> bool:
        """See `bft.ports.Verifier`."""
        self._meter.verified += 1
        return self._verifier.verify_client(client, digest, signature)


class MeteredNull(Null):
    """The null service, counting."""

    def __init__(self, meter: Meter) -> None:
        super().__init__()
        self._meter = meter

    def execute(self, operation: bytes, context: ExecutionContext, /) -> tuple[int, bytes]:
        """See `bft.ports.StateMachine`."""
        self._meter.operations += 1
        return super().execute(operation, context)


class VirtualNode:
    """What replicas and clients have in common: an inbox, turns, and a processor.

    Attributes:
        busy_ns: processor time used so far.
        meter: what has been counted so far.
    """

    def __init__(self, world: VirtualWorld, name: Peer) -> None:
        self.world = world
        self.name = name
        self.meter = Meter()
        self.busy_ns = 0
        self._inbox: list[tuple[Peer, bytes]] = []
        self._free_at: Nanos = 0
        self._turn_due = False
        self._timer_at: Nanos | None = None
        self._ticks = False

    @property
    def costs(self) -> Costs:
        """The world's cost model."""
        return self.world.costs

    def arrive(self, source: Peer, frame: bytes) -> None:
        """A frame has come; it waits until the processor is free."""
        self._inbox.append((source, frame))
        self._ask_for_turn()

    def set_timer(self, at: Nanos) -> None:
        """Tick at `at`, the latest wish counting."""
        self._timer_at = at
        self.world.at(max(at, self.world.now), lambda: self._fire(at))

    def _fire(self, at: Nanos) -> None:
        if self._timer_at == at:
            self._timer_at = None
            self._ticks = True
            self._ask_for_turn()

    def _ask_for_turn(self) -> None:
        if not self._turn_due:
            self._turn_due = True
            self.world.at(max(self.world.now, self._free_at), self._turn)

    def _turn(self) -> None:
        if self._free_at > self.world.now:  # a flush took the processor meanwhile
            self.world.at(self._free_at, self._turn)
            return
        self._turn_due = False
        inbox, self._inbox = self._inbox, []
        ticks, self._ticks = self._ticks, False
        sources = dict.fromkeys(source for source, _ in inbox)
        cost = len(sources) * self.costs.hop_ns + self.costs.bytes_ns(sum(len(frame) for _, frame in inbox))
        self.take(cost + self.step(inbox, ticks), self.flush)

    def take(self, cost: int, then: Callable[[], None]) -> None:
        """Occupy the processor for `cost`, then go on with `then`."""
        start = max(self.world.now, self._free_at)
        self._free_at = start + cost
        self.busy_ns += cost
        self.world.at(self._free_at, then)

    def send_cost(self, frames: dict[Peer, list[bytes]]) -> int:
        """What it takes to write these frames."""
        size = sum(len(frame) for several in frames.values() for frame in several)
        return len(frames) * self.costs.hop_ns + self.costs.bytes_ns(size)

    def transmit(self, frames: dict[Peer, list[bytes]]) -> None:
        """Hand frames to the network."""
        for peer, several in frames.items():
            for frame in several:
                self.world.transmit(self.name, peer, frame)

    def step(self, inbox: list[tuple[Peer, bytes]], ticks: bool) -> int:
        """Step through what has come; returns what it cost beside reading."""
        raise NotImplementedError

    def flush(self) -> None:
        """Send what the turn brought."""
        raise NotImplementedError

    def signatures_cost(self, signed: int, verified: int) -> int:
        """Cost of signatures since the meter stood at `signed` and `verified`."""
        costs, meter = self.costs, self.meter
        return (meter.signed - signed) * costs.sign_ns + (meter.verified - verified) * costs.verify_ns


class VirtualReplica(VirtualNode):
    """A replica: admission, engine and a store that takes its time."""

    def __init__(self, world: VirtualWorld, index: int) -> None:
        super().__init__(world, index)
        cluster, vault = world.cluster, world.vault
        protocol = cluster.protocol
        self._store = MemoryStore()
        self._replica = Replica(cluster, index, MeteredSigner(vault.replica_signer(index), self.meter), Recovered())
        self._engine = Engine(self._replica, MeteredNull(self.meter), self._store)
        verifier = MeteredVerifier(vault.verifier(len(cluster.replica)), self.meter)
        limits = Limits(protocol.session_window, protocol.batch_operations_max, protocol.batch_bytes_max)
        self._admission = Admission(verifier, rules_of(cluster), limits, MEMO_MAX)
        self._others = [ReplicaId(other) for other in range(len(cluster.replica)) if other != index]
        self._queue: list[Effect] = []
        self._writing = False
        self.rejected = 0

    def start(self) -> None:
        """Begin."""
        self._take(self._engine.step(Start(), self.world.now))
        self.flush()

    @property
    def executed(self) -> int:
        """The last slot executed."""
        return int(str(self._replica.summary()["executed"]))

    @property
    def view(self) -> int:
        """The view it is in."""
        return int(str(self._replica.summary()["view"]))

    def step(self, inbox: list[tuple[Peer, bytes]], ticks: bool) -> int:
        """See `VirtualNode.step`."""
        now, meter = self.world.now, self.meter
        signed, verified, operations = meter.signed, meter.verified, meter.operations
        for source, frame in inbox:
            event = self._admission.admit(frame, source, self._engine.wants)
            if isinstance(event, Rejected):
                self.rejected += 1
            elif event is not None:
                self._step(event, now)
        if ticks:
            self._step(Tick(), now)
        return (
            len(inbox) * self.costs.frame_ns
            + (meter.operations - operations) * self.costs.operation_ns
            + self.signatures_cost(signed, verified)
        )

    def _step(self, event: Input, now: Nanos) -> None:
        self._take(self._engine.step(event, now))

    def _take(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send() | Broadcast() | Persist():
                    self._queue.append(effect)
                case SetTimer():
                    self.set_timer(effect.at_ns)
                case _:
                    pass

    def flush(self) -> None:
        """One transaction for all that is queued, as the production driver does."""
        if self._writing or not self._queue:
            return
        queue, self._queue = self._queue, []
        first = next((index for index, effect in enumerate(queue) if isinstance(effect, Persist)), None)
        if first is None:
            self._send(queue)
            return
        self._send(queue[:first])
        self._store.write([effect.record for effect in queue[first:] if isinstance(effect, Persist)])
        commit_ns = self.costs.commit_ns(self.world.case.durability)
        if not commit_ns:
            self._send(queue[first:])
            return
        self._writing = True
        if commit_ns <= QUICK_WRITE_NS:
            self.take(commit_ns, lambda: self._written(queue[first:]))
        else:
            self.world.at(self.world.now + commit_ns, lambda: self._written(queue[first:]))

    def _written(self, queue: list[Effect]) -> None:
        self._writing = False
        self._send(queue)
        self.flush()

    def _send(self, effects: list[Effect]) -> None:
        frames: dict[Peer, list[bytes]] = {}
        for effect in effects:
            match effect:
                case Send(to, packet):
                    frames.setdefault(to, []).append(encode(packet))
                case Broadcast(packet):
                    frame = encode(packet)
                    for other in self._others:
                        frames.setdefault(other, []).append(frame)
                case _:
                    pass
        for frame in frames.pop(self.name, ()):
            self.arrive(self.name, frame)
        if frames:
            self.take(self.send_cost(frames), lambda: self.transmit(frames))


class VirtualClient(VirtualNode):
    """A client process: one session, some closed-loop callers, until `operations` are made (0: no end).

    Attributes:
        latencies_ns: (completed at, latency) of every operation.
    """

    def __init__(self, world: VirtualWorld, index: int, callers: int, operation: bytes, operations: int) -> None:
        self.key = world.vault.client_key(index)
        super().__init__(world, self.key)
        signer = MeteredSigner(world.vault.client_signer(self.key), self.meter)
        cluster = world.cluster
        self._session = Session(cluster.protocol, cluster.quorums, self.key, signer, world.now + index)
        self._callers = callers
        self._limit = operations
        self._operation = operation
        self._ticket = 0
        self._since: dict[int, Nanos] = {}
        self._frames: dict[Peer, list[bytes]] = {}
        self.latencies_ns: list[tuple[Nanos, int]] = []

    def start(self) -> None:
        """Make the first calls."""
        signed = self.meter.signed
        for _ in range(self._callers):
            self._submit()
        self._do(Flush())
        self.take(self._callers * self.costs.client_operation_ns + self.signatures_cost(signed, 0), self.flush)

    def step(self, inbox: list[tuple[Peer, bytes]], ticks: bool) -> int:
        """See `VirtualNode.step`."""
        signed, before = self.meter.signed, self._ticket
        for source, frame in inbox:
            try:
                packet: Packet = decode_packet(frame)
            except Malformed:
                continue
            self._do(Deliver(source, packet))
        if ticks:
            self._do(Tick())
        self._do(Flush())
        return (
            len(inbox) * self.costs.client_frame_ns
            + (self._ticket - before) * self.costs.client_operation_ns
            + self.signatures_cost(signed, self.meter.verified)
        )

    def flush(self) -> None:
        """See `VirtualNode.flush`."""
        frames, self._frames = self._frames, {}
        if frames:
            self.take(self.send_cost(frames), lambda: self.transmit(frames))

    def _submit(self) -> None:
        if self._limit and self._ticket == self._limit:
            return
        self._ticket += 1
        self._since[self._ticket] = self.world.now
        self._do(Submit(self._ticket, self._operation, 0))

    def _do(self, event: SessionInput) -> None:
        for effect in self._session.step(event, self.world.now):
            match effect:
                case Send():
                    self._frames.setdefault(effect.to, []).append(encode(effect.packet))
                case SetTimer():
                    self.set_timer(effect.at_ns)
                case Completed():
                    self.latencies_ns.append((self.world.now, self.world.now - self._since.pop(effect.ticket)))
                    self._submit()
                case Lost():
                    raise AssertionError(f"a correct cluster lost operation {effect.ticket}: {effect.reason}")
                case _:
                    pass
