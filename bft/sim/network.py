"""The simulated network: delays, loss, duplication, reordering, partitions, regions, bandwidth.

It can delay, drop and repeat; it can forge nothing, since links are authenticated: a frame's sender is who sent it.
"""

from __future__ import annotations

from random import Random

from bft.config import MILLISECOND
from bft.ids import Nanos, Peer
from bft.messages import CommitCertificate, Packet, Proposal, Signed
from bft.sim.scenario import Network, Rule
from bft.wire.codec import Malformed, decode_replica_message

MICROSECOND = 1000
REGION_LATENCY_MS = (
    (0, 35, 40, 75, 110),
    (35, 0, 70, 45, 80),
    (40, 70, 0, 110, 85),
    (75, 45, 110, 0, 35),
    (110, 80, 85, 35, 0),
)
"""One-way latencies of five regions (two American coasts, Europe, East Asia, Oceania), rounded public figures."""


class SimulatedNetwork:
    """Decides when, how often and whether a frame arrives."""

    def __init__(self, model: Network, random: Random) -> None:
        self._model = model
        self._random = random
        self._groups: dict[int, int] = {}
        self._cut: set[tuple[int, int]] = set()
        self._busy_until: dict[Peer, Nanos] = {}
        self.calm = False

    def partition(self, groups: tuple[tuple[int, ...], ...]) -> None:
        """Let replicas talk within their group only; replicas not named form a group of their own."""
        self._groups = {replica: index + 1 for index, group in enumerate(groups) for replica in group}

    def cut(self, sources: tuple[int, ...], targets: tuple[int, ...]) -> None:
        """Drop what sources send to targets; the other direction stays."""
        self._cut |= {(source, target) for source in sources for target in targets}

    def heal(self) -> None:
        """End every partition and cut."""
        self._groups = {}
        self._cut = set()

    def stabilise(self) -> None:
        """Global stabilisation: from now on every message arrives, once and soon."""
        self.heal()
        self.calm = True

    def rule_for(self, rules: tuple[Rule, ...], source: int, target: int, packet: Packet) -> Rule | None:
        """The first rule that applies to a packet; none once the network is calm."""
        if self.calm:
            return None
        kinds, view, seq = _described(packet)
        for rule in rules:
            if (
                (not rule.sources or source in rule.sources)
                and (not rule.targets or target in rule.targets)
                and (rule.view is None or rule.view == view)
                and (not rule.seqs or (seq is not None and rule.seqs[0] <= seq <= rule.seqs[1]))
                and (not rule.kinds or any(kind in rule.kinds for kind in kinds))
            ):
                return rule
        return None

    def arrivals(self, source: Peer, target: Peer, size: int, now: Nanos) -> list[Nanos]:
        """When copies of a frame of `size` bytes sent now arrive; empty if it is lost."""
        model = self._model
        random = self._random
        low, high = model.delay_us
        if self.calm:
            return [now + self._latency(source, target) + random.randint(low, min(high, 5000)) * MICROSECOND]
        if isinstance(source, int) and isinstance(target, int) and self._is_cut(source, target):
            return []
        if model.loss_permille and random.randrange(1000) < model.loss_permille:
            return []
        copies = 1
        if model.duplicate_permille and random.randrange(1000) < model.duplicate_permille:
            copies = 2
        start = now + self._transmission(source, size, now) + self._latency(source, target)
        times = []
        for _ in range(copies):
            delay = random.randint(low, high) * MICROSECOND
            if model.slow_permille and random.randrange(1000) < model.slow_permille:
                delay += model.slow_ms * MILLISECOND
            times.append(start + delay)
        return times

    def _is_cut(self, source: int, target: int) -> bool:
        return (source, target) in self._cut or (
            bool(self._groups) and self._groups.get(source, 0) != self._groups.get(target, 0)
        )

    def _latency(self, source: Peer, target: Peer) -> Nanos:
        if not self._model.regions:
            return 0
        here = source % 5 if isinstance(source, int) else 0
        there = target % 5 if isinstance(target, int) else 0
        return REGION_LATENCY_MS[here][there] * MILLISECOND

    def _transmission(self, source: Peer, size: int, now: Nanos) -> Nanos:
        if not self._model.bandwidth_mbit:
            return 0
        begin = max(now, self._busy_until.get(source, 0))
        end = begin + size * 8 * 1000 // self._model.bandwidth_mbit
        self._busy_until[source] = end
        return end - now


def _described(packet: Packet) -> tuple[tuple[str, ...], int | None, int | None]:
    """(names of the packet and of what is signed in it, view, slot)."""
    signed = packet.signed if isinstance(packet, Proposal) else packet
    message: object = packet
    if isinstance(signed, Signed):
        try:
            message = decode_replica_message(signed.payload)
        except Malformed:
            return (type(packet).__name__,), None, None
    elif not isinstance(packet, CommitCertificate):
        return (type(packet).__name__,), None, None
    names = (type(packet).__name__, type(message).__name__)
    return names, getattr(message, "view", None), getattr(message, "seq", None)
