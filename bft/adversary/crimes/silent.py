"""Silence: send nothing, or nothing of some kinds (B01, P03)."""

from __future__ import annotations

from collections.abc import Iterable

from bft.adversary.strategy import Context, Strategy
from bft.ids import Peer
from bft.messages import Packet


class _Silent(Strategy):
    def outgoing(self, context: Context, target: Peer, packet: Packet) -> Iterable[tuple[Peer, Packet]]:
        return ()


def silent() -> Strategy:
    """Drop everything that the honest node wants to send; narrow with `to`, `only`, `during`."""
    return _Silent()
