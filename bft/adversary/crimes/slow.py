"""Slowness: everything is said, but late (P06, X06, N04). Expected: slow, or a view change; never a wrong result."""

from __future__ import annotations

from collections.abc import Iterable

from bft.adversary.strategy import Context, Strategy
from bft.ids import Peer
from bft.messages import Packet, Proposal


class _Slow(Strategy):
    def __init__(self, ms: int, jitter_ms: int) -> None:
        self._ms = ms
        self._jitter_ms = jitter_ms

    def outgoing(self, context: Context, target: Peer, packet: Packet) -> Iterable[tuple[Peer, Packet]]:
        jitter = context.random.randrange(self._jitter_ms + 1)
        context.send(target, packet, after_ms=self._ms + jitter)
        return ()


class _SlowPrimary(_Slow):
    def outgoing(self, context: Context, target: Peer, packet: Packet) -> Iterable[tuple[Peer, Packet]]:
        if isinstance(packet, Proposal) and packet.signed.sender == context.me:
            return super().outgoing(context, target, packet)
        return ((target, packet),)


def slow(ms: int = 300, jitter_ms: int = 0) -> Strategy:
    """Send everything `ms` late, and up to `jitter_ms` more, which also reorders it."""
    return _Slow(ms, jitter_ms)


def slow_primary(ms: int = 350) -> Strategy:
    """Propose just before the backups' patience ends (P06)."""
    return _SlowPrimary(ms, 0)
