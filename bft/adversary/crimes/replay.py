"""Replays: authentic messages at the wrong time (B15, B20, N02, N08). Expected: stale or counted once; no effect."""

from __future__ import annotations

from collections.abc import Iterable

from bft.adversary.strategy import Context, Strategy
from bft.events import Deliver, Input
from bft.ids import Peer
from bft.messages import Packet, Proposal, Signed, SignedRequest

HOARD_MAX = 1024


class _Replay(Strategy):
    def __init__(self, per_tick: int) -> None:
        self._per_tick = per_tick

    def unprompted(self, context: Context) -> Iterable[tuple[Peer, Packet]]:
        replayed = [packet for _, packet in context.heard if isinstance(packet, Signed | Proposal | SignedRequest)]
        for _ in range(self._per_tick if replayed else 0):
            packet = context.random.choice(replayed)
            for target in context.others():
                yield target, packet


class _Hoard(Strategy):
    """Keeps everything signed from early on and pours it out when a view has ended."""

    def __init__(self) -> None:
        self._kept: list[Packet] = []
        self._view = 0

    def incoming(self, context: Context, event: Deliver) -> Iterable[Input]:
        if isinstance(event.packet, Signed | Proposal) and len(self._kept) < HOARD_MAX:
            self._kept.append(event.packet)
        if context.view > self._view:
            self._view = context.view
            for packet in self._kept[:256]:
                for target in context.others():
                    context.send(target, packet, after_ms=context.random.randrange(400))
        return (event,)


class _Repeat(Strategy):
    def __init__(self, times: int, after_ms: int) -> None:
        self._times = times
        self._after_ms = after_ms

    def outgoing(self, context: Context, target: Peer, packet: Packet) -> Iterable[tuple[Peer, Packet]]:
        for again in range(1, self._times):
            context.send(target, packet, after_ms=again * self._after_ms)
        return ((target, packet),)


def replay(per_tick: int = 2) -> Strategy:
    """Send signed messages again that were heard lately, whoever signed them (B20)."""
    return _Replay(per_tick)


def hoard() -> Strategy:
    """Keep the messages of a view and release them into the next (N08)."""
    return _Hoard()


def repeat(times: int = 3, after_ms: int = 30) -> Strategy:
    """Say everything several times (N02)."""
    return _Repeat(times, after_ms)
