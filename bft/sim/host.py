"""One simulated machine: a replica's process, its disk and its clock.

The host does what the production driver does: frames go through `Admission` into `Engine`; what comes out is held
back behind the records that precede it until the disk has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bft.adversary.parse import parse
from bft.adversary.strategy import Context, Corrupted
from bft.config import MILLISECOND
from bft.core.proofs import opened
from bft.core.recovery import rules_of
from bft.core.replica import Replica
from bft.engine import Engine
from bft.epochs import Configuration
from bft.errors import StorageError
from bft.events import (
    Broadcast,
    Committed,
    Effect,
    EpochEntered,
    Evidence,
    Execute,
    Executed,
    Input,
    Persist,
    Progress,
    Record,
    Recovered,
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
from bft.ids import Nanos, Peer
from bft.messages import Message, Packet, Proposal, ReplyStatement, Signed, SignedReply
from bft.ports import Node, Store
from bft.sim.disk import SimulatedDisk
from bft.sim.history import Execution
from bft.sim.scenario import CrashPoint, Fault
from bft.storage.memory import MemoryStore
from bft.wire.admission import Admission, Limits
from bft.wire.codec import encode

if TYPE_CHECKING:
    from bft.sim.world import World

DISK_US = (200, 3000)
MICROSECOND = 1000


def _kind(packet: Packet) -> str:
    """What a packet says, for people."""
    signed = packet.signed if isinstance(packet, Proposal) else packet
    message = opened(signed) if isinstance(signed, Signed) else None
    return type(message or packet).__name__


class _Observed:
    """A node whose executions are written down as they pass the seam."""

    def __init__(self, node: Node, host: ReplicaHost) -> None:
        self._node = node
        self._host = host

    def wants(self, peer: Peer, packet: Packet, message: Message | None, /) -> bool:
        return self._node.wants(peer, packet, message)

    def step(self, event: Input, now: Nanos, /) -> Sequence[Effect]:
        if isinstance(event, Executed):
            self._host.note_executed(event)
        effects = self._node.step(event, now)
        for effect in effects:
            if isinstance(effect, Execute):
                self._host.note_execute(effect)
            elif isinstance(effect, Committed):
                self._host.note_committed(effect)
        return effects


class ReplicaHost:
    """The machine of replica `index`."""

    def __init__(self, world: World, index: int) -> None:
        self._world = world
        self.index = index
        self.up = False
        self.halted = False
        self.retired = False
        self._rotates = any(index in change.rotate for change in world.scenario.changes)
        self.clock_shift: Nanos = 0
        self.life = 0
        self._timers = 0
        self._disk = SimulatedDisk()
        self._random = world.stream(f"disk/{index}")
        self._node: Replica | None = None
        self._context: Context | None = None
        self._last_now: Nanos = 0
        self._disk_free: Nanos = 0
        self._digest = b""
        self._execution: Execution | None = None
        spec = world.scenario.corrupted.get(str(index))
        self._strategy = parse(spec) if spec is not None else None
        self.crimes = 0
        self._boundary = 0
        self._points = {point.boundary: point for point in world.scenario.crash_points if point.replica == index}

    @property
    def is_correct(self) -> bool:
        """True if the adversary does not hold this replica's key."""
        return self._strategy is None

    @property
    def executed(self) -> int:
        """The last slot that the replica executed."""
        return self._node.summary()["executed"] if self._node is not None else -1  # type: ignore[return-value]

    def summary(self) -> dict[str, object]:
        """The replica's own account, as it is now."""
        return {**(self._node.summary() if self._node is not None else {}), "up": self.up, "halted": self.halted}

    # --- life -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """A process starts from what the disk holds."""
        world = self._world
        try:
            recovered = self._disk.load()
        except StorageError as error:
            self._halt(error)
            return
        signers = {
            world.vault.replica_key(self.index, generation): world.vault.replica_signer(self.index, generation)
            for generation in range(2 if self._rotates else 1)
        }
        self._node = Replica(world.cluster, self.index, signers, recovered, world.vault)
        self._quorums = self._node.configuration.quorums
        self._members = self._quorums.members
        node: Node = self._node
        if self._strategy is not None:
            if self._context is None:
                random = world.stream(f"adversary/{self.index}")
                self._context = Context(self.index, world.quorums, random, world.coalition, make_twin=self._make_twin)
            self._context.quorums = self._quorums
            self._context.epoch = self._node.configuration.epoch
            self._context.configuration = self._node.configuration
            node = Corrupted(node, self._strategy, self._context)
        protocol = world.cluster.protocol
        self._engine = Engine(_Observed(node, self), world.make_service(), self._disk.durable)
        limits = Limits(protocol.session_window, protocol.batch_operations_max, protocol.batch_bytes_max)
        configuration = self._node.configuration
        verifier = world.vault.verifier(configuration.keys)
        self._admission = Admission(verifier, rules_of(world.cluster, configuration), limits, 8192, self._node.links)
        self._note_epoch(configuration)
        self.up = True
        self.life += 1
        self._step(Start())

    def _make_twin(self) -> tuple[Engine, Store]:
        """A second replica of this identity, for a strategy that runs two."""
        world = self._world
        store = MemoryStore()
        signer = world.vault.replica_signer(self.index)
        node = Replica(world.cluster, self.index, signer, Recovered(), world.vault)
        return Engine(node, world.make_service(), store), store

    def stop(self, *, lose_unsynced: bool) -> None:
        """The process ends at once; what it had not handed to the operating system is gone."""
        if self.up:
            self.up = False
            self.life += 1
            self._disk.crash(lose_unsynced=lose_unsynced)

    def cut(self, point: CrashPoint) -> None:
        """Stop at a boundary between two effects, and come back (or not) as the crash point says."""
        world = self._world
        self.up = False
        self.life += 1
        self._note_reports([Persist(record) for record in self._disk.cut(point.loses)])
        if point.then == "refuse":
            self._halt(StorageError("the store is empty, but the key has voted"))
            return
        if point.then == "forget":
            assert not self.is_correct, f"r{self.index} forgets: it must be counted among the faulty"
            self._disk.wipe()
        life = self.life
        world.at(world.now + point.down_ms * MILLISECOND, lambda: self._come_back(life))

    def _come_back(self, life: int) -> None:
        if life == self.life and not self.up and not self.halted:
            self.start()

    def strike(self, fault: Fault) -> None:
        """Something happens to this machine."""
        match fault.kind:
            case "crash":
                self.stop(lose_unsynced=False)
            case "power-loss":
                self.stop(lose_unsynced=True)
            case "restart":
                if not self.up and not self.halted and not self.retired:
                    self.start()
            case "clock":
                self.clock_shift = fault.amount * MILLISECOND
            case "disk-full" | "fsync-fails":
                self._disk.fails = True
            case "rot":
                self._disk.rot()
            case _:
                pass

    # --- work -----------------------------------------------------------------------------------------------------

    def deliver(self, source: Peer, frame: bytes) -> None:
        """A frame has arrived."""
        admitted = self._admission.admit(frame, source, self._engine.wants)
        if admitted is None:
            return
        if isinstance(admitted, Rejected):
            self._note_rejected(admitted)
            return
        self._step(admitted)

    def _step(self, event: Input) -> None:
        """Step the engine; release what follows records when the disk has them, in order."""
        self._last_now = max(self._last_now, self._world.now + self.clock_shift)
        try:
            effects = self._engine.step(event, self._last_now)
        except AssertionError as error:
            self._crash_by_bug(error)
            return
        records: list[Record] = [effect.record for effect in effects if isinstance(effect, Persist)]
        if not self._world.scenario.one_by_one:
            self._note_reports(effects)
        ready = max(self._world.now, self._disk_free)
        if records:
            if self._disk.fails:
                self._halt(StorageError("the disk refused a write"))
                return
            ready += self._random.randint(*DISK_US) * MICROSECOND
        self._disk_free = ready
        life = self.life
        if self._world.scenario.one_by_one:
            self._world.at(ready, lambda: self._carry_out(life, effects))
            return
        if records:
            self._disk.hand_over(records)
        if records or ready > self._world.now:
            self._world.at(ready, lambda: self._release(life, effects, bool(records)))
        else:
            self._release(life, effects, False)

    def _release(self, life: int, effects: list[Effect], synced: bool) -> None:
        if life != self.life or not self.up:
            return
        if synced:
            self._disk.sync()
        for effect in effects:
            self._emit(effect)
            if not self.up:
                return  # retired

    def _emit(self, effect: Effect) -> None:
        """Let one effect out that needs no disk."""
        life = self.life
        match effect:
            case Send():
                self._note_said(effect.packet, effect.to)
                self._send(effect.to, effect.packet)
            case Broadcast():
                self._note_said(effect.packet)
                for replica in self._members:
                    if replica != self.index:
                        self._send(replica, effect.packet)
            case EpochEntered():
                self._members = effect.configuration.quorums.members
            case Retired():
                self._retire(effect.reason)
            case SetTimer():
                when = max(effect.at_ns - self.clock_shift, self._world.now + MILLISECOND)
                self._timers += 1
                timer = self._timers
                self._world.at(when, lambda: self._tick(life, timer))
            case _:
                pass

    # --- crash points ---------------------------------------------------------------------------------------------

    def _carry_out(self, life: int, effects: list[Effect]) -> None:
        """Carry out effects strictly one by one: the weakest disk and the most hasty wire that the seam allows.

        The driver writes the records of many steps in one transaction and sends afterwards, which can only lose less.
        """
        if life != self.life or not self.up:
            return
        for effect in effects:
            match effect:
                case Persist():
                    name = type(effect.record).__name__
                    if self._stops_at(f"before {name} is handed over"):
                        return
                    self._disk.hand_over([effect.record])
                    if self._stops_at(f"before {name} is synced"):
                        return
                    self._disk.sync()
                    self._note_reports([effect])
                    if self._stops_at(f"after {name} is synced"):
                        return
                case Send() | Broadcast():
                    self._emit(effect)
                    if self._stops_at(f"after {_kind(effect.packet)} is sent"):
                        return
                case _:
                    self._note_reports([effect])
                    self._emit(effect)
            if not self.up:
                return  # retired

    def _stops_at(self, what: str) -> bool:
        """Count a boundary; True if the machine stops here."""
        history = self._world.history
        history.boundaries.setdefault(self.index, []).append(what)
        self._boundary += 1
        point = self._points.get(self._boundary)
        if point is None:
            return False
        history.struck.append((self.index, self._boundary, what))
        self._world.strike_at(point)
        return True

    def _send(self, target: Peer, packet: Packet) -> None:
        self._world.send(self.index, target, packet)

    def _tick(self, life: int, timer: int) -> None:
        if life == self.life and self.up and timer == self._timers:
            self._step(Tick())

    def _enter(self, entered: EpochEntered) -> None:
        """The node is in another epoch: what comes in is held against its keys and rules from now on."""
        world, configuration = self._world, entered.configuration
        verifier = world.vault.verifier(configuration.keys)
        self._admission.enter(verifier, rules_of(world.cluster, configuration), entered.links)
        self._quorums = configuration.quorums
        self._note_epoch(configuration)

    def _note_epoch(self, configuration: Configuration) -> None:
        if self.is_correct:
            self._world.history.epochs.append((self.index, configuration))

    def ready(self, key: bytes) -> tuple[Signed, ...]:
        """The replica's word that it can vote with a key, as its operator reads it."""
        return self._node.ready(key) if self.up and self._node is not None else ()

    def _retire(self, reason: str) -> None:
        """The replica was removed: its process ends for good."""
        self.up = False
        self.retired = True
        self.life += 1
        self._world.history.retired[self.index] = reason

    def _halt(self, error: StorageError) -> None:
        """The disk refused: stop at once, say nothing more."""
        self.up = False
        self.halted = True
        self.life += 1
        self._world.history.halted[self.index] = str(error)

    def _crash_by_bug(self, error: AssertionError) -> None:
        self.up = False
        self.halted = True
        self.life += 1
        if self.is_correct:
            self._world.history.crashed_by_bug.append((self.index, str(error)))

    # --- what checkers see ----------------------------------------------------------------------------------------

    def _note_said(self, packet: Packet, target: Peer | None = None) -> None:
        """Write down what a correct replica signed and lets out, whether or not it arrives."""
        signed = packet.signed if isinstance(packet, Proposal) else packet
        if isinstance(packet, SignedReply) and isinstance(target, bytes):
            reply = packet.reply
            statement = ReplyStatement(reply.epoch, target, reply.session, reply.seq, reply.digest)
            signed = Signed(self.index, encode(statement), packet.signature)
        if self.is_correct and isinstance(signed, Signed) and signed.sender == self.index:
            self._world.history.signed.setdefault(self.index, []).append(signed)

    def note_committed(self, committed: Committed) -> None:
        """A slot is decided here."""
        self._digest = committed.certificate.digest
        if self.is_correct:
            self._world.history.committed.append((self.index, committed))

    def note_execute(self, effect: Execute) -> None:
        """The node has asked for the execution of a slot."""
        self._execution = Execution(self.index, self.life, self._world.now, effect, self._digest)
        if self.is_correct:
            self._world.history.executions.append(self._execution)

    def note_executed(self, event: Executed) -> None:
        """The service has answered."""
        if self._execution is not None:
            self._execution.results = event.results

    def _note_rejected(self, rejected: Rejected) -> None:
        history = self._world.history
        history.rejections[rejected.reason] = history.rejections.get(rejected.reason, 0) + 1
        if self.is_correct and rejected.evidence is not None:
            self._world.note_evidence(self.index, rejected.evidence)
        if self.is_correct and rejected.peer in history.correct:
            history.rejected_honest.append((self.index, rejected))

    def _note_reports(self, effects: list[Effect]) -> None:
        if not self.is_correct:
            if self._context is not None:
                self.crimes = self._context.crimes
            for effect in effects:
                if isinstance(effect, EpochEntered):
                    self._enter(effect)
            return
        history = self._world.history
        for effect in effects:
            match effect:
                case EpochEntered():
                    self._enter(effect)
                case Persist(record=Snapshot() as snapshot):
                    history.checkpoints.append((self.index, snapshot.seq, snapshot.digest))
                case Evidence():
                    self._world.note_evidence(self.index, effect)
                case ViewEntered():
                    history.new_views.append(effect.new_view)
                case Progress():
                    key = effect.what if effect.what != "transfer" else f"transfer-{effect.detail.split()[0]}"
                    history.transitions[key] = history.transitions.get(key, 0) + 1
                    if effect.what in ("suspect", "view-change", "new-view"):
                        history.timeline.append((self.index, self._world.now, effect))
                case Persist(record=Stable() as stable):
                    self._note_stable(stable)
                case Rejected():
                    self._note_rejected(effect)
                case _:
                    pass

    def _note_stable(self, stable: Stable) -> None:
        """A low watermark advances: sizes are largest now, and enough others must be able to serve the state.

        How many follows from the members that certified it, who need not be those of this replica's epoch.
        """
        history = self._world.history
        holders = {replica for replica, at, _ in history.checkpoints if at == stable.seq}
        epochs = {configuration.epoch: configuration.quorums for _, configuration in history.epochs}
        quorums = epochs[stable.certificate.epoch]
        corrupted = [replica for replica in quorums.members if replica not in history.correct]
        history.stable.append((self.index, stable.seq, len(holders), quorums.strong - len(corrupted)))
        self._note_sizes()

    def _note_sizes(self) -> None:
        sizes = self._world.history.sizes
        for name, value in self.summary().items():
            if isinstance(value, int) and not isinstance(value, bool):
                sizes[name] = max(sizes.get(name, 0), value)
