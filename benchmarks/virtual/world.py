"""A virtual cluster under load: virtual time, a network with latency and bandwidth, and what came of it.

Integers only, one queue of events with ties in the order of asking, no dice: one case is one result, to the digit, on
every machine. Tests run it in processes with different hash seeds.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from benchmarks.virtual.costs import Costs
from benchmarks.virtual.nodes import VirtualClient, VirtualNode, VirtualReplica
from bft.config import Cluster, Durability, Protocol, ReplicaEntry
from bft.errors import BFTError
from bft.ids import Nanos, Peer
from bft.membership import REPLICAS_MAX
from bft.services.null import operation
from bft.sim.keys import KeyVault
from bft.sim.network import REGION_LATENCY_MS

EPOCH_NS = 1_700_000_000_000_000_000
MILLISECOND = 1_000_000
SETTLING_MS = 300
REGIONS = len(REGION_LATENCY_MS)
WINDOWS = (256, 128, 64, 32, 16)
"""Windows to try, largest first: with many replicas a NEW-VIEW over the default window would not fit into a message."""


class Wire(msgspec.Struct, frozen=True, kw_only=True):
    """A network.

    Attributes:
        latency_ns: one way, within a region.
        mbit_s: what one node can send.
        regions: node i lives in region i mod 5, clients in region 0; the table of `bft.sim.network` adds up.
    """

    latency_ns: int
    mbit_s: int
    regions: bool = False


WIRES = {
    "lan": Wire(latency_ns=50_000, mbit_s=10_000),
    "wan": Wire(latency_ns=250_000, mbit_s=1_000, regions=True),
}


class VirtualCase(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What runs in virtual time.

    Attributes:
        callers: closed-loop callers, dealt evenly to `clients` client processes.
        operations: what each client process makes in all; 0 for no end.
        warm_up_ms, measured_ms: virtual time.
        protocol: parameters that differ from the defaults.
    """

    network: Literal["lan", "wan"] = "lan"
    n: Annotated[int, Meta(ge=4, le=REPLICAS_MAX)] = 4
    durability: Durability = "memory"
    clients: Annotated[int, Meta(ge=1)] = 1
    callers: Annotated[int, Meta(ge=1)] = 200
    operations: Annotated[int, Meta(ge=0)] = 0
    request_bytes: int = 0
    reply_bytes: int = 0
    warm_up_ms: int = 200
    measured_ms: int = 1000
    protocol: dict[str, int] = {}


class Traffic(msgspec.Struct):
    """Counts of frames and bytes, by the kinds of sender and receiver."""

    replica_frames: int = 0
    replica_bytes: int = 0
    client_frames: int = 0
    client_bytes: int = 0


class VirtualWorld:
    """Runs one case.

    Args:
        case: what runs.
        costs: what it takes.
        on_send: told of every frame; for counting by kind.
    """

    def __init__(
        self, case: VirtualCase, costs: Costs, on_send: Callable[[Peer, Peer, bytes], None] | None = None
    ) -> None:
        self.case = case
        self.costs = costs
        self.now: Nanos = EPOCH_NS
        self.vault = KeyVault(1)
        self.cluster = virtual_cluster(case, self.vault)
        self.traffic = Traffic()
        self._wire = WIRES[case.network]
        self._on_send = on_send
        self._queue: list[tuple[Nanos, int, Callable[[], None]]] = []
        self._counter = 0
        self._line_free: dict[Peer, Nanos] = {}
        ordered = operation(reply_bytes=case.reply_bytes, padding_bytes=case.request_bytes)
        self.replicas = [VirtualReplica(self, index) for index in range(case.n)]
        shares = [case.callers // case.clients + (i < case.callers % case.clients) for i in range(case.clients)]
        self.clients = [VirtualClient(self, i, share, ordered, case.operations) for i, share in enumerate(shares)]
        self._nodes: dict[Peer, VirtualNode] = {node.name: node for node in [*self.replicas, *self.clients]}

    def at(self, when: Nanos, action: Callable[[], None]) -> None:
        """Do something at a point in time; ties in the order of asking."""
        self._counter += 1
        heapq.heappush(self._queue, (when, self._counter, action))

    def start(self) -> None:
        """Start the replicas, let them find each other, and then start the clients."""
        for replica in self.replicas:
            replica.start()
        self.run_until(self.now + SETTLING_MS * MILLISECOND)
        self.traffic = Traffic()
        for client in self.clients:
            client.start()

    def run_until(self, end: Nanos) -> None:
        """Let everything happen that is due before `end`."""
        while self._queue and self._queue[0][0] < end:
            self.now, _, action = heapq.heappop(self._queue)
            action()
        self.now = end

    def transmit(self, source: Peer, target: Peer, frame: bytes) -> None:
        """Put a frame on the sender's line; it arrives when it has left whole and travelled."""
        if isinstance(source, int) and isinstance(target, int):
            self.traffic.replica_frames += 1
            self.traffic.replica_bytes += len(frame)
        else:
            self.traffic.client_frames += 1
            self.traffic.client_bytes += len(frame)
        if self._on_send is not None:
            self._on_send(source, target, frame)
        begin = max(self.now, self._line_free.get(source, 0))
        self._line_free[source] = end = begin + len(frame) * 8 * 1000 // self._wire.mbit_s
        node = self._nodes[target]
        self.at(end + self._latency(source, target), lambda: node.arrive(source, frame))

    def _latency(self, source: Peer, target: Peer) -> Nanos:
        if not self._wire.regions:
            return self._wire.latency_ns
        here = source % REGIONS if isinstance(source, int) else 0
        there = target % REGIONS if isinstance(target, int) else 0
        return self._wire.latency_ns + REGION_LATENCY_MS[here][there] * MILLISECOND


def virtual_cluster(case: VirtualCase, vault: KeyVault) -> Cluster:
    """The configuration of a case: the defaults, with the largest window that many replicas allow.

    Raises:
        ConfigError, ValueError: no window does.
    """
    entries = tuple(
        ReplicaEntry(index, "virtual", index + 1, vault.replica_key(index).hex()) for index in range(case.n)
    )
    for window in WINDOWS:
        protocol = msgspec.convert(
            {"window": window, "checkpoint_interval": min(128, window // 2), **case.protocol}, Protocol
        )
        try:
            return Cluster(name="virtual", protocol=protocol, replica=entries)
        except (BFTError, ValueError):
            if window == WINDOWS[-1] or "window" in case.protocol:
                raise
    raise AssertionError("unreachable: the smallest window returns or raises")


def run_case(case: VirtualCase, costs: Costs) -> dict[str, float]:
    """Figures of one case; equal on every machine.

    Raises:
        AssertionError: a replica rejected a correct one's message, or the view changed: the case overloads the cluster.
    """
    world = VirtualWorld(case, costs)
    world.start()
    begin = world.now + case.warm_up_ms * MILLISECOND
    end = begin + case.measured_ms * MILLISECOND
    world.run_until(begin)
    before = _counts(world)
    world.run_until(end)
    used = {name: value - before[name] for name, value in _counts(world).items()}
    assert not any(replica.rejected for replica in world.replicas), "a correct replica's message was rejected"
    assert not any(replica.view for replica in world.replicas), "the view changed: nothing was measured of view 0"

    latencies = sorted(
        latency for client in world.clients for done, latency in client.latencies_ns if begin <= done < end
    )
    operations, slots = len(latencies), used["slots"]
    assert operations and slots, f"nothing completed within {case.measured_ms} ms"
    return {
        "op_s": operations * 1000 / case.measured_ms,
        "p50_ms": latencies[len(latencies) // 2] / MILLISECOND,
        "p99_ms": latencies[len(latencies) * 99 // 100] / MILLISECOND,
        "operations_per_slot": used["operations"] / slots,
        "frames_per_op": (used["replica_frames"] + used["client_frames"]) / operations,
        "bytes_per_op": (used["replica_bytes"] + used["client_bytes"]) / operations,
        "signed_per_op": used["signed"] / operations,
        "verified_per_op": used["verified"] / operations,
        "cpu_us_per_op": used["busy_ns"] / 1000 / operations,
        "primary_cpu_percent": used["primary_busy_ns"] * 100 / (case.measured_ms * MILLISECOND),
    }


def _counts(world: VirtualWorld) -> dict[str, int]:
    nodes = [*world.replicas, *world.clients]
    return {
        **msgspec.structs.asdict(world.traffic),
        "slots": world.replicas[0].executed,
        "operations": world.replicas[0].meter.operations,
        "signed": sum(node.meter.signed for node in nodes),
        "verified": sum(node.meter.verified for node in nodes),
        "busy_ns": sum(node.busy_ns for node in world.replicas),
        "primary_busy_ns": world.replicas[0].busy_ns,
    }
