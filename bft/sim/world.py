"""One simulated cluster: virtual time, a queue of things to come, and the production classes in between.

The world hands frames to `Admission`, authentic messages to `Engine`, records to a disk, and nothing else: not a line
of the protocol is here. It owns all chance, drawn from named streams of the scenario's seed.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from hashlib import blake2b
from random import Random

import msgspec

from bft.adversary.strategy import Coalition
from bft.config import MILLISECOND, AdminEntry, Cluster, Protocol, ReplicaEntry
from bft.core.evidence import file_of
from bft.core.verdict import verdict
from bft.events import Evidence
from bft.ids import Nanos, Peer
from bft.membership import Quorums
from bft.messages import Packet
from bft.ports import StateMachine
from bft.sim.history import History
from bft.sim.host import ReplicaHost
from bft.sim.keys import Ed25519Vault, KeyVault, Vault
from bft.sim.network import SimulatedNetwork
from bft.sim.reconfiguring import AdminHost
from bft.sim.scenario import ADMIN_THRESHOLD, SIMULATED, CrashPoint, Fault, Scenario
from bft.sim.workload import ClientHost, HostileClientHost
from bft.wire.codec import encode

EVENTS_MAX = 2_000_000
EPOCH_NS = 1_700_000_000_000_000_000
"""Virtual time begins here, so that clocks look like clocks."""

ADMINS = (2000, 2001, 2002)
"""Keys of administrators are numbered from here, those of hostile clients from 1000."""

Trace = Callable[[Nanos, str, Peer, Peer, bytes], None]


def vault_of(scenario: Scenario) -> Vault:
    """The keys of a scenario's world."""
    return Ed25519Vault(scenario.seed) if scenario.real_signatures else KeyVault(scenario.seed)


def simulated_cluster(scenario: Scenario) -> Cluster:
    """The configuration of a scenario's cluster."""
    vault = vault_of(scenario)
    entries = tuple(
        ReplicaEntry(index, "simulated", index + 1, vault.replica_key(index).hex()) for index in range(scenario.n)
    )
    protocol = msgspec.convert({**SIMULATED, **scenario.protocol}, Protocol)
    signs = scenario.signed_replies
    if not scenario.changes:
        return Cluster(name="simulated", protocol=protocol, replica=entries, signed_replies=signs)
    admins = tuple(AdminEntry(f"a{index}", vault.client_key(index).hex()) for index in ADMINS)
    return Cluster(
        name="simulated",
        protocol=protocol,
        replica=entries,
        admin=admins,
        admin_threshold=ADMIN_THRESHOLD,
        signed_replies=signs,
    )


class World:
    """Runs one scenario.

    Args:
        scenario: what happens.
        make_service: the replicated service, a new one per replica life.
        on_event: told of every frame sent, delivered and dropped; for diagrams.
    """

    def __init__(
        self, scenario: Scenario, make_service: Callable[[], StateMachine], on_event: Trace | None = None
    ) -> None:
        self.scenario = scenario
        self.cluster = simulated_cluster(scenario)
        self.quorums = Quorums.of(scenario.n)
        self.vault = vault_of(scenario)
        self.make_service = make_service
        self.now: Nanos = EPOCH_NS
        self.network = SimulatedNetwork(scenario.network, self.stream("network"))
        self._queue: list[tuple[Nanos, int, Callable[[], None]]] = []
        self._counter = 0
        self._on_event = on_event
        self._trace = blake2b(digest_size=16)
        corrupted = scenario.corrupted_ids()
        machines = range(scenario.n + scenario.spares)
        self.history = History(n=len(machines), correct=tuple(index for index in machines if index not in corrupted))
        self.history.fair_share = _fair_share(scenario, self.cluster.protocol)
        self.coalition = Coalition({replica: self.vault.replica_signer(replica) for replica in corrupted})
        self.admin_keys = [self.vault.client_key(index) for index in ADMINS]
        self.replicas = [ReplicaHost(self, index) for index in machines]
        hosts: list[ClientHost | HostileClientHost | AdminHost] = [
            ClientHost(self, index) for index in range(scenario.workload.clients)
        ]
        hosts += [HostileClientHost(self, name, does) for name, does in sorted(scenario.hostile_clients.items())]
        hosts += [AdminHost(self, index) for index in range(len(scenario.changes))]
        self.clients = {host.client: host for host in hosts}

    def stream(self, name: str) -> Random:
        """A stream of chance of its own, so that drawing in one place does not shift another."""
        return Random(f"{self.scenario.seed}/{name}")

    # --- time -----------------------------------------------------------------------------------------------------

    def at(self, when: Nanos, action: Callable[[], None]) -> None:
        """Do something at a point in time; ties in the order of asking."""
        self._counter += 1
        heapq.heappush(self._queue, (when, self._counter, action))

    def run(self) -> History:
        """Safety phase until the stabilisation time, then liveness phase until all is answered or patience ends."""
        scenario = self.scenario
        gst = EPOCH_NS + scenario.gst_ms * MILLISECOND
        limit = gst + scenario.patience_ms * MILLISECOND
        self.history.gst = gst
        for host in self.replicas:
            host.start()
        for client in self.clients.values():
            client.start()
        for fault in scenario.faults:
            self.at(EPOCH_NS + fault.at_ms * MILLISECOND, lambda fault=fault: self._strike(fault))  # type: ignore[misc]
        self.at(gst, self._stabilise)
        events = 0
        while self._queue and self.now <= limit and events < EVENTS_MAX:
            self.now, _, action = heapq.heappop(self._queue)
            action()
            events += 1
            if self.now > gst and events % 64 == 0 and self._is_settled():
                break
        self._finish()
        return self.history

    def _is_settled(self) -> bool:
        """Everybody is answered and all correct replicas stand at the same slot."""
        if not all(client.is_done for client in self.clients.values()):
            return False
        members = self.history.members
        executed = {self.replicas[index].executed for index in members if not self.replicas[index].halted}
        return len(executed) == 1

    def _stabilise(self) -> None:
        self.network.stabilise()
        for host in self.replicas:
            host.clock_shift = 0
            if host.index in self.history.correct and not host.up and not host.halted and not host.retired:
                host.start()

    def _strike(self, fault: Fault) -> None:
        host = self.replicas[fault.replica] if fault.replica < len(self.replicas) else None
        match fault.kind:
            case "partition":
                self.network.partition(fault.groups)
            case "one-way":
                self.network.cut(fault.groups[0], fault.groups[1])
            case "heal":
                self.network.heal()
            case _ if host is not None:
                host.strike(fault)
            case _:
                pass

    def strike_at(self, point: CrashPoint) -> None:
        """A crash point is reached: the machines concerned stop, in the middle of what they do."""
        struck = self.replicas if point.strikes == "all" else [self.replicas[point.replica]]
        for host in struck:
            if host.up:
                host.cut(point)

    def _finish(self) -> None:
        history = self.history
        history.end = self.now
        for host in self.replicas:
            history.final[host.index] = host.summary()
            history.crimes += host.crimes
        history.unfinished = [
            host.unfinished for host in self.clients.values() if isinstance(host, AdminHost) and host.unfinished
        ]
        history.trace_digest = self._trace.hexdigest()

    def note_evidence(self, reporter: int, evidence: Evidence) -> None:
        """A correct node accuses somebody: judge it as an outsider would, with the cluster's public keys alone."""
        history = self.history
        history.accusations.append((reporter, evidence))
        verifier = self.vault.verifier(self.scenario.n)
        wrong = verdict(file_of(evidence, self.cluster.id), self.cluster, verifier)
        if wrong is not None:
            history.unproven.append((reporter, evidence, wrong))

    # --- wire -----------------------------------------------------------------------------------------------------

    def send(self, source: Peer, target: Peer, packet: Packet) -> None:
        """Put one packet on the wire, unless a rule keeps it off or back."""
        if self.scenario.rules and isinstance(source, int) and isinstance(target, int):
            rule = self.network.rule_for(self.scenario.rules, source, target, packet)
            if rule is not None:
                if rule.late_ms is not None:
                    frame = encode(packet)
                    self.at(self.now + rule.late_ms * MILLISECOND, lambda: self.transmit(source, target, frame))
                return
        self.transmit(source, target, encode(packet))

    def transmit(self, source: Peer, target: Peer, frame: bytes) -> None:
        """Put one frame on the wire; it arrives never, once, or more often."""
        for when in self.network.arrivals(source, target, len(frame), self.now):
            self.at(when, lambda: self._arrive(source, target, frame))
        if self._on_event is not None:
            self._on_event(self.now, "send", source, target, frame)

    def _arrive(self, source: Peer, target: Peer, frame: bytes) -> None:
        self._trace.update(b"%d>%d@%d" % (_label(source), _label(target), self.now))
        self._trace.update(frame)
        if isinstance(target, int):
            if target >= len(self.replicas) or not self.replicas[target].up:
                return
            host = self.replicas[target]
            self.history.delivered += 1
            host.deliver(source, frame)
        elif target in self.clients and isinstance(source, int):
            self.history.delivered += 1
            self.clients[target].deliver(source, frame)
        if self._on_event is not None:
            self._on_event(self.now, "deliver", source, target, frame)


FAIR_DELAY_US = 5000
"""The slowest network on which a request is at the primary before its share could be said to be due."""


def _fair_share(scenario: Scenario, protocol: Protocol) -> int:
    """See `History.fair_share`: what is in flight, and then a turn for each of the correct client's own envelopes.

    Doubled, since a client's envelopes may come a moment after the batch that had room for them.
    """
    network = scenario.network
    is_calm = not (network.loss_permille or network.slow_permille or network.regions or network.bandwidth_mbit)
    is_faulty = scenario.corrupted or scenario.faults or scenario.crash_points or scenario.rules
    if is_faulty or not is_calm or network.delay_us[1] > FAIR_DELAY_US:
        return 0
    if scenario.changes:
        return 0  # who leaves or joins may be missed as one that is at fault
    turns = protocol.pipeline + 1 + scenario.workload.outstanding
    return 2 * turns * protocol.batch_operations_max * max(1, len(scenario.hostile_clients))


def _label(peer: Peer) -> int:
    return peer if isinstance(peer, int) else 1000 + peer[0]
