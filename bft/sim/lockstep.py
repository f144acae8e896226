"""A cluster without time or chance: whoever holds it decides which message arrives next.

For exploration, Twins and state machines of tests. Everything between the caller's moves is production code: frames
go through `Admission` into an `Engine` around a `Replica`; records go to a store at once. Several *instances* may
share one identity, each with a store of its own: that is a twin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import msgspec

from bft.config import MILLISECOND
from bft.core.recovery import rules_of
from bft.core.replica import Replica
from bft.engine import Engine
from bft.events import (
    Broadcast,
    Committed,
    Deliver,
    Effect,
    Evidence,
    Execute,
    Executed,
    Input,
    Persist,
    Progress,
    Rejected,
    Send,
    Start,
    Tick,
)
from bft.ids import Nanos, Peer
from bft.messages import Message, Packet, Request, Signed, SignedRequest
from bft.ports import Node
from bft.sim.history import Execution, History
from bft.sim.keys import KeyVault
from bft.sim.scenario import Scenario
from bft.sim.service import Registers
from bft.sim.world import EPOCH_NS, simulated_cluster
from bft.storage.memory import MemoryStore
from bft.wire.admission import Admission, Limits
from bft.wire.codec import encode

CLIENT = blake2b(b"lockstep client", digest_size=32).digest()


@dataclass(frozen=True, slots=True)
class Flight:
    """A frame under way from one identity to one instance.

    Attributes:
        origin: the instance that sent it, -1 for a client: twins share an identity, not a place.
    """

    source: Peer
    target: int
    frame: bytes
    origin: int = -1


class _Watched:
    """A node whose executions are kept for whoever asks next."""

    def __init__(self, node: Replica, me: int) -> None:
        self.node = node
        self.me = me
        self.digest = b""
        self.executions: list[tuple[Execute, bytes]] = []
        self.results: list[list[tuple[int, bytes]]] = []

    def wants(self, peer: Peer, packet: Packet, message: Message | None, /) -> bool:
        if isinstance(packet, Signed) and packet.sender == self.me:
            return False  # twins do not remind each other, or both would fall silent (`bft.core.amnesia`)
        return self.node.wants(peer, packet, message)

    def step(self, event: Input, now: Nanos, /) -> Sequence[Effect]:
        if isinstance(event, Executed):
            self.results.append(event.results)
        effects = self.node.step(event, now)
        for effect in effects:
            if isinstance(effect, Committed):
                self.digest = effect.certificate.digest
            elif isinstance(effect, Execute):
                self.executions.append((effect, self.digest))
        return effects


class Instance:
    """One process under an identity."""

    def __init__(self, cluster: Lockstep, index: int, identity: int) -> None:
        self._cluster = cluster
        self.index = index
        self.identity = identity
        self.store = MemoryStore()
        self.life = 0
        self.up = False

    def start(self) -> list[Effect]:
        """A process begins from its store."""
        cluster = self._cluster
        replica = Replica(cluster.config, self.identity, cluster.vault.replica_signer(self.identity), self.store.load())
        self.watched = _Watched(replica, self.identity)
        node: Node = self.watched
        self.engine = Engine(node, Registers(), self.store)
        self.admission = cluster.admission()
        self.life += 1
        self.up = True
        return self.engine.step(Start(), cluster.now)

    def admit(self, source: Peer, frame: bytes) -> Deliver | Rejected | None:
        """What a frame amounts to at this moment."""
        return self.admission.admit(frame, source, self.engine.wants)

    def summary(self) -> dict[str, object]:
        """The replica's own account."""
        return self.watched.node.summary()


class Lockstep:
    """Instances and the messages between them.

    Args:
        identities: the replica id of every instance; ids from 0 to n - 1, more than once for twins.
        correct: replicas that checkers hold to their word; all by default.
        protocol: parameters beside those of `SIMULATED`.
    """

    def __init__(
        self,
        identities: Sequence[int],
        *,
        correct: tuple[int, ...] | None = None,
        protocol: dict[str, int] | None = None,
    ) -> None:
        n = len(set(identities))
        self.config = simulated_cluster(Scenario(seed=0, n=n, protocol=protocol or {}))
        self.n = n
        self.vault = KeyVault(0)
        self.now: Nanos = EPOCH_NS
        self.flights: list[Flight] = []
        self.history = History(n=n, correct=tuple(range(n)) if correct is None else correct)
        self.instances = [Instance(self, index, identity) for index, identity in enumerate(identities)]

    def admission(self) -> Admission:
        """What stands between the wire and one instance."""
        protocol = self.config.protocol
        limits = Limits(protocol.session_window, protocol.batch_operations_max, protocol.batch_bytes_max)
        return Admission(self.vault.verifier(self.n), rules_of(self.config), limits, 8192)

    def start(self) -> None:
        """Start every instance."""
        for instance in self.instances:
            self._carry_out(instance, instance.start())

    # --- moves ----------------------------------------------------------------------------------------------------

    def request(self, number: int, operation: Sequence[object]) -> bytes:
        """The frame of a client's signed request of one operation."""
        request = Request(EPOCH_NS, number, 1, (msgspec.msgpack.encode(operation),), ())
        payload = encode(request)
        self.history.issued[CLIENT, request.session, number] = payload
        return encode(SignedRequest(CLIENT, payload, self.vault.client_signer(CLIENT).sign(payload)))

    def submit(self, frame: bytes, targets: Sequence[int] | None = None) -> None:
        """A client's request gets under way to some instances, to all by default."""
        chosen = range(len(self.instances)) if targets is None else targets
        self.flights += [Flight(CLIENT, target, frame) for target in chosen]

    def deliver(self, flight: Flight) -> None:
        """One frame arrives; it is lost if the instance is down. The caller removes it from `flights`."""
        instance = self.instances[flight.target]
        if not instance.up:
            return
        self.history.delivered += 1
        admitted = instance.admit(flight.source, flight.frame)
        if isinstance(admitted, Rejected):
            self._note_rejected(instance, admitted)
        elif admitted is not None:
            self.step(instance, admitted)

    def step(self, instance: Instance, event: Input) -> None:
        """One input for one instance."""
        self._carry_out(instance, instance.engine.step(event, self.now))

    def tick(self, instance: Instance, milliseconds: int = 0) -> None:
        """Time passes for all, and the instance's timer fires."""
        self.now += milliseconds * MILLISECOND
        if instance.up:
            self.step(instance, Tick())

    def crash(self, instance: Instance) -> None:
        """The process ends; its store stays."""
        instance.up = False

    def restart(self, instance: Instance) -> None:
        """A process begins again from the store."""
        assert not instance.up, "only what is down can start"
        self._carry_out(instance, instance.start())

    def settle(self, milliseconds: int, step_ms: int = 20) -> None:
        """A calm network for a while: everything arrives in order, timers fire."""
        for _ in range(0, milliseconds, step_ms):
            self.drain()
            self.now += step_ms * MILLISECOND
            for instance in self.instances:
                self.tick(instance)
        self.drain()

    def drain(self, deliveries_max: int = 20_000) -> None:
        """Deliver, first in first out, until nothing is under way."""
        for _ in range(deliveries_max):
            if not self.flights:
                return
            self.deliver(self.flights.pop(0))
        raise AssertionError(f"{deliveries_max} deliveries did not quieten the cluster")

    # --- what comes out -------------------------------------------------------------------------------------------

    def _carry_out(self, instance: Instance, effects: Sequence[Effect]) -> None:
        self._note(instance, effects)
        for effect in effects:
            match effect:
                case Persist():
                    instance.store.write([effect.record])
                case Send():
                    self._send(instance, effect.to, encode(effect.packet))
                case Broadcast():
                    frame = encode(effect.packet)
                    for target in range(self.n):
                        self._send(instance, target, frame)
                case _:
                    pass

    def _send(self, instance: Instance, target: Peer, frame: bytes) -> None:
        if not isinstance(target, int) or target == instance.identity:
            return
        self.flights += [
            Flight(instance.identity, other.index, frame, instance.index)
            for other in self.instances
            if other.identity == target
        ]

    def _note(self, instance: Instance, effects: Sequence[Effect]) -> None:
        history = self.history
        watched = instance.watched
        correct = instance.identity in history.correct
        for (effect, digest), results in zip(watched.executions, watched.results, strict=False):
            if correct:
                history.executions.append(
                    Execution(instance.identity, instance.life, self.now, effect, digest, results)
                )
        watched.executions.clear()
        watched.results.clear()
        for report in effects:
            match report:
                case Progress():
                    history.transitions[report.what] = history.transitions.get(report.what, 0) + 1
                case Committed() if correct:
                    history.committed.append((instance.identity, report))
                case Evidence() if correct:
                    history.accusations.append((instance.identity, report))
                case Rejected():
                    self._note_rejected(instance, report)
                case _:
                    pass

    def _note_rejected(self, instance: Instance, rejected: Rejected) -> None:
        if instance.identity in self.history.correct and rejected.evidence is not None:
            self.history.accusations.append((instance.identity, rejected.evidence))
        if instance.identity in self.history.correct and rejected.peer in self.history.correct:
            self.history.rejected_honest.append((instance.identity, rejected))
