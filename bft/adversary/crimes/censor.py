"""Censorship and reordering of requests by a primary (P07, P08, P09, P28). Expected: view change; lanes keep order."""

from __future__ import annotations

from collections.abc import Iterable

from bft.adversary.strategy import Context, Strategy
from bft.events import Deliver, Input
from bft.ids import Peer
from bft.messages import Packet, SignedRequest


class _Censor(Strategy):
    """Serves every client but the one with the smallest key among those met first."""

    def __init__(self) -> None:
        self._met: list[bytes] = []

    def incoming(self, context: Context, event: Deliver) -> Iterable[Input]:
        packet = event.packet
        if not isinstance(packet, SignedRequest):
            return (event,)
        if packet.client not in self._met and len(self._met) < 2:
            self._met.append(packet.client)
        return () if packet.client == min(self._met) else (event,)


class _IgnoreForwarded(Strategy):
    def incoming(self, context: Context, event: Deliver) -> Iterable[Input]:
        if isinstance(event.packet, SignedRequest) and isinstance(event.peer, int):
            return ()
        return (event,)


class _Reorder(Strategy):
    """Holds one request back until `depth` others have come, then takes the newest first."""

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._held: list[Deliver] = []

    def incoming(self, context: Context, event: Deliver) -> Iterable[Input]:
        if not isinstance(event.packet, SignedRequest):
            return (event,)
        self._held.append(event)
        if len(self._held) <= self._depth:
            return ()
        context.crimes += 1
        released = list(reversed(self._held))
        self._held = []
        return released


class _Gossip(Strategy):
    def outgoing(self, context: Context, target: Peer, packet: Packet) -> Iterable[tuple[Peer, Packet]]:
        return () if isinstance(packet, SignedRequest) else ((target, packet),)


def censor() -> Strategy:
    """Starve one client and serve the others (P07)."""
    return _Censor()


def ignore_forwarded() -> Strategy:
    """Serve what clients send themselves, ignore what backups pass on (P28)."""
    return _IgnoreForwarded()


def reorder(depth: int = 2) -> Strategy:
    """Order later requests before earlier ones (P08, P09)."""
    return _Reorder(depth)


def keep_requests() -> Strategy:
    """Never pass a request on (C04's accomplice)."""
    return _Gossip()
