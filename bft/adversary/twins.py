"""Twins: two honest replicas with one identity, each talking to a part of the cluster (D10, P01, B02, P24, X04).

Nothing is forged or mutated: whatever the two say is what the protocol says, only twice. Equivocation, double votes and
lost state come out of it by themselves [Bano et al., OPODIS 2021].
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from bft.adversary.strategy import Context, Strategy, is_own
from bft.events import Broadcast, Deliver, Effect, Input, Persist, Send, SetTimer, Start, Tick
from bft.ids import Nanos, Peer
from bft.messages import Packet

if TYPE_CHECKING:
    from bft.engine import Engine
    from bft.ports import Store


class _Twins(Strategy):
    """The second twin runs inside the strategy; `groups[view % len]` are the replicas that talk to it."""

    def __init__(self, groups: tuple[tuple[int, ...], ...]) -> None:
        self._groups = groups
        self._twin: tuple[Engine, Store] | None = None
        self._tick_at: Nanos = 0

    def _is_seconds(self, context: Context, peer: Peer) -> bool:
        return isinstance(peer, int) and peer in self._groups[context.view % len(self._groups)]

    def outgoing(self, context: Context, target: Peer, packet: Packet) -> Iterable[tuple[Peer, Packet]]:
        return () if self._is_seconds(context, target) else ((target, packet),)

    def incoming(self, context: Context, event: Deliver) -> Iterable[Input]:
        if isinstance(event.peer, bytes):
            self._step(context, event)
            return (event,)
        if self._is_seconds(context, event.peer):
            self._step(context, event)
            return ()
        return (event,)

    def unprompted(self, context: Context) -> Iterable[tuple[Peer, Packet]]:
        if self._twin is None:
            self._start(context)
        elif context.now >= self._tick_at:
            self._step(context, Tick())
        return ()

    def _start(self, context: Context) -> None:
        assert context.make_twin is not None, "twins need a host that can make a second replica"
        self._twin = context.make_twin()
        self._step(context, Start())

    def _step(self, context: Context, event: Input) -> None:
        if is_own(event, context.me):
            return
        if self._twin is None:
            self._start(context)
        assert self._twin is not None, "started above"
        for effect in self._twin[0].step(event, context.now):
            self._carry_out(context, effect)

    def _carry_out(self, context: Context, effect: Effect) -> None:
        match effect:
            case Send():
                if isinstance(effect.to, bytes) or self._is_seconds(context, effect.to):
                    context.send(effect.to, effect.packet)
            case Broadcast():
                for target in context.others():
                    if self._is_seconds(context, target):
                        context.send(target, effect.packet)
            case SetTimer():
                self._tick_at = effect.at_ns
            case Persist():
                assert self._twin is not None, "it has just been stepped"
                self._twin[1].write([effect.record])
            case _:
                pass


def twins(*groups: tuple[int, ...]) -> Strategy:
    """Run a second honest replica of this identity for the replicas of a group: `groups[view % len(groups)]`."""
    return _Twins(groups or ((1,), (2,), (3,)))
