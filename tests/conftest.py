"""A bench for one replica: every other member of the cluster is played by the test, with its real keys."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import pytest

from bft.compiled import compiled_modules
from bft.config import Cluster
from bft.core.recovery import rules_of
from bft.core.replica import Replica
from bft.digests import batch_digest, page_digest
from bft.engine import Engine
from bft.events import Broadcast, Deliver, Effect, Input, Persist, Recovered, Rejected, Send, Start, Tick
from bft.ids import Peer
from bft.membership import Quorums
from bft.messages import (
    Batch,
    Checkpoint,
    CheckpointCertificate,
    Commit,
    CommitCertificate,
    Endorsement,
    Message,
    Packet,
    PageBodies,
    PagesServed,
    Prepare,
    PreparedCertificate,
    PrePrepare,
    Proposal,
    ReplicaMessage,
    Request,
    Signed,
    SignedRequest,
)
from bft.sim.keys import KeyVault
from bft.sim.scenario import Scenario
from bft.sim.service import Registers
from bft.sim.world import EPOCH_NS, simulated_cluster
from bft.storage.memory import MemoryStore
from bft.wire.admission import Admission, Limits
from bft.wire.codec import decode_replica_message, encode

CLIENT = bytes(range(32))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what reaches into code that is compiled here (`make compiled`), and say why."""
    for item in items if compiled_modules() else ():
        for marker in item.iter_markers("interpreted"):
            item.add_marker(pytest.mark.skip(reason=f"needs interpreted code: {marker.args[0]}"))


@dataclass
class Bench:
    """One real replica with its real admission, engine and store; the test is everybody else."""

    me: int = 1
    n: int = 4
    protocol: dict[str, int] = field(default_factory=dict)
    now: int = EPOCH_NS

    def __post_init__(self) -> None:
        self.cluster: Cluster = simulated_cluster(self.scenario())
        self.quorums = Quorums.of(self.n)
        self.vault = KeyVault(0)
        self.store = MemoryStore()
        self.out: list[Effect] = []
        self.restart()

    def scenario(self) -> Scenario:
        """What the cluster is made for."""
        return Scenario(seed=0, n=self.n, protocol=self.protocol)

    def restart(self) -> None:
        """A new process on what the store holds."""
        self._boot(self.store.load())

    def _boot(self, recovered: Recovered) -> None:
        protocol = self.cluster.protocol
        outside = self.vault if self.cluster.admin else None
        self.replica = Replica(self.cluster, self.me, self.vault.replica_signer(self.me), recovered, outside)
        self.engine = Engine(self.replica, Registers(), self.store)
        limits = Limits(protocol.session_window, protocol.batch_operations_max, protocol.batch_bytes_max)
        here = self.replica.configuration
        rules = rules_of(self.cluster, here)
        self.admission = Admission(self.vault.verifier(here.keys), rules, limits, links=self.replica.links)
        self.step(Start())

    # --- driving ---------------------------------------------------------------------------------------------------

    def step(self, event: Input) -> list[Effect]:
        """Step the engine; records reach the store at once."""
        self.out = self.engine.step(event, self.now)
        self.store.write([effect.record for effect in self.out if isinstance(effect, Persist)])
        return self.out

    def deliver(self, peer: Peer, packet: Packet) -> list[Effect]:
        """Deliver a packet as bytes, through admission."""
        admitted = self.admission.admit(encode(packet), peer, self.engine.wants)
        if admitted is None:
            self.out = []
        elif isinstance(admitted, Deliver):
            self.step(admitted)
        else:
            self.out = [admitted]
        return self.out

    def wait(self, ms: int) -> list[Effect]:
        """Let time pass, tick by tick; everything that came out meanwhile."""
        out: list[Effect] = []
        end = self.now + ms * 1_000_000
        while self.now < end:
            self.now += 20_000_000
            out.extend(self.step(Tick()))
        self.out = out
        return out

    # --- looking ---------------------------------------------------------------------------------------------------

    def sent(self, kind: type[Message], effects: list[Effect] | None = None) -> list[Message]:
        """Messages of a kind among what was sent, opened."""
        found: list[Message] = []
        for effect in self.out if effects is None else effects:
            if not isinstance(effect, Send | Broadcast):
                continue
            packet = effect.packet
            signed = packet.signed if isinstance(packet, Proposal) else packet
            if isinstance(signed, Signed) and kind in ReplicaMessage.__args__:
                message = decode_replica_message(signed.payload)
                if isinstance(message, kind):
                    found.append(message)
            elif isinstance(packet, kind):
                found.append(packet)
        return found

    def rejections(self) -> list[str]:
        """Reasons of what was rejected."""
        return [effect.reason for effect in self.out if isinstance(effect, Rejected)]

    @property
    def executed(self) -> int:
        """Last executed slot."""
        return int(str(self.replica.summary()["executed"]))

    @property
    def stable(self) -> int:
        """Low watermark."""
        return int(str(self.replica.summary()["stable"]))

    # --- making messages -------------------------------------------------------------------------------------------

    def signed(self, sender: int, message: ReplicaMessage) -> Signed:
        """A message signed by any replica."""
        payload = encode(message)
        return Signed(sender, payload, self.vault.replica_signer(sender).sign(payload))

    def request(
        self, number: int = 1, *operations: list[object], session: int = EPOCH_NS, **fields: object
    ) -> SignedRequest:
        """An envelope of the test's client; by default one `put`."""
        calls = operations or ([("put"), f"k{number}", f"v{number}"],)
        values = {"acknowledged": 1, "after": (), **fields}
        request = Request(
            session,
            number,
            int(str(values["acknowledged"])),
            tuple(msgspec.msgpack.encode(list(call)) for call in calls),
            tuple(values["after"]),  # type: ignore[arg-type]
        )
        payload = encode(request)
        return SignedRequest(CLIENT, payload, self.vault.client_signer(CLIENT).sign(payload))

    def batch(self, *requests: SignedRequest, time_ns: int | None = None) -> bytes:
        """An encoded batch; by default of one request."""
        return encode(Batch(self.now if time_ns is None else time_ns, requests or (self.request(),)))

    def proposal(self, seq: int, batch: bytes, view: int = 0, sender: int | None = None) -> Proposal:
        """A proposal by the view's primary (or by somebody else who pretends)."""
        primary = self.quorums.primary(view) if sender is None else sender
        return Proposal(self.signed(primary, PrePrepare(0, view, seq, batch_digest(batch))), batch)

    def endorse(self, message: ReplicaMessage, replicas: list[int]) -> tuple[Endorsement, ...]:
        """Signatures of several replicas under one message."""
        return tuple(Endorsement(replica, self.signed(replica, message).signature) for replica in replicas)

    def prepared_certificate(
        self, seq: int, digest: bytes, view: int = 0, backups: list[int] | None = None
    ) -> PreparedCertificate:
        """A valid prepared certificate (unless the backups named make it invalid)."""
        primary = self.quorums.primary(view)
        chosen = backups
        if chosen is None:
            chosen = [replica for replica in range(self.n) if replica != primary][: self.quorums.prepares]
        return PreparedCertificate(
            self.signed(primary, PrePrepare(0, view, seq, digest)), self.endorse(Prepare(0, view, seq, digest), chosen)
        )

    def commit_certificate(self, seq: int, digest: bytes, view: int = 0) -> CommitCertificate:
        """A valid commit certificate."""
        message = Commit(0, view, seq, digest)
        return CommitCertificate(0, view, seq, digest, self.endorse(message, list(range(self.quorums.strong))))

    def checkpoint_certificate(
        self, seq: int, digest: bytes, replicas: list[int] | None = None
    ) -> CheckpointCertificate:
        """A certificate of a checkpoint; stable if the replicas are a strong quorum."""
        chosen = list(range(self.quorums.strong)) if replicas is None else replicas
        return CheckpointCertificate(0, seq, digest, self.endorse(Checkpoint(0, seq, digest), chosen))

    def pages(self, sender: int, *pages: bytes) -> PageBodies:
        """Pages that a replica serves, signed for as what was asked for."""
        digests = tuple(page_digest(page) for page in pages)
        return PageBodies(self.signed(sender, PagesServed(0, digests, digests)), pages)

    def order(self, seq: int, batch: bytes, view: int = 0) -> list[Effect]:
        """Take one slot through all phases at this backup; everything that came out meanwhile."""
        digest = batch_digest(batch)
        out = [*self.deliver(self.quorums.primary(view), self.proposal(seq, batch, view))]
        for replica in range(self.n):
            if replica not in (self.me, self.quorums.primary(view)):
                out += self.deliver(replica, self.signed(replica, Prepare(0, view, seq, digest)))
        for replica in range(self.n):
            if replica != self.me:
                out += self.deliver(replica, self.signed(replica, Commit(0, view, seq, digest)))
        return out


@pytest.fixture
def bench() -> Bench:
    """Replica 1 of 4, a backup in view 0 and the primary of view 1."""
    return Bench()


@pytest.fixture
def make_bench() -> type[Bench]:
    """Benches of other shapes."""
    return Bench


@pytest.fixture
def source() -> Bench:
    """Replica 2, whose state is right, with a stable checkpoint at slot 8."""
    found = Bench(me=2)
    for seq in range(1, 9):
        found.order(seq, found.batch(found.request(seq)))
    digest = found.store.load().snapshot.digest
    for replica in (0, 3):
        found.deliver(replica, found.signed(replica, Checkpoint(0, 8, digest)))
    assert found.stable == 8
    return found
