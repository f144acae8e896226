"""Silence: send nothing, or nothing of some kinds, or nothing from some point on (B01, P03, P05, P25, P26, P29)."""

from __future__ import annotations

from collections.abc import Iterable

from bft.adversary.strategy import Context, Strategy
from bft.adversary.tools import own_message
from bft.events import Deliver, Input
from bft.ids import Peer
from bft.messages import NewView, Packet, PrePrepare


class _Silent(Strategy):
    def outgoing(self, context: Context, target: Peer, packet: Packet) -> Iterable[tuple[Peer, Packet]]:
        return ()


class _SilentAfter(Strategy):
    def __init__(self, slots: int) -> None:
        self._slots = slots

    def outgoing(self, context: Context, target: Peer, packet: Packet) -> Iterable[tuple[Peer, Packet]]:
        return ((target, packet),) if context.seq <= self._slots else ()


class _Partial(Strategy):
    """Some kinds reach only the first `count` of the other replicas, in an order that changes with the view."""

    def __init__(self, kinds: type | tuple[type, ...], count: int) -> None:
        self._kinds = kinds
        self._count = count

    def outgoing(self, context: Context, target: Peer, packet: Packet) -> Iterable[tuple[Peer, Packet]]:
        if isinstance(target, int) and isinstance(own_message(context, packet), self._kinds):
            others = context.others()
            start = context.view % len(others)
            if target not in (others[start:] + others[:start])[: self._count]:
                return ()
        return ((target, packet),)


class _Deaf(Strategy):
    def incoming(self, context: Context, event: Deliver) -> Iterable[Input]:
        return ()


def silent() -> Strategy:
    """Drop everything that the honest node wants to send; narrow with `to`, `only`, `during`."""
    return _Silent()


def silent_after(slots: int = 4) -> Strategy:
    """Work well, then stop for good (P03, P29). Expected: view change."""
    return _SilentAfter(slots)


def in_the_dark(count: int = 2) -> Strategy:
    """Send PRE-PREPAREs to only so many backups (P04, P05). Expected: the others catch up by repair."""
    return _Partial(PrePrepare, count)


def partial_new_view(count: int = 1) -> Strategy:
    """Send NEW-VIEW to only so many replicas, 0 for none (P25, P26). Expected: repair brings it, or the next view."""
    return _Partial(NewView, count)


def deaf() -> Strategy:
    """Hear nothing (N06: can send, cannot receive); narrow with the guards."""
    return _Deaf()
