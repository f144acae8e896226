"""Forgery: messages in other replicas' names, with signatures that cannot be theirs (B19, B22, X13)."""

from __future__ import annotations

from collections.abc import Iterable

from bft.adversary.strategy import Context, Strategy
from bft.digests import batch_digest
from bft.ids import Peer
from bft.messages import Commit, Packet, Prepare, Signed
from bft.wire.codec import encode


class _Forge(Strategy):
    def __init__(self, per_tick: int) -> None:
        self._per_tick = per_tick

    def unprompted(self, context: Context) -> Iterable[tuple[Peer, Packet]]:
        for _ in range(self._per_tick):
            victim = context.random.choice(context.others())
            kind = context.random.choice((Prepare, Commit))
            digest = batch_digest(context.random.randbytes(8))
            message = kind(0, context.view, context.seq + context.random.randrange(4), digest)
            own = context.sign(message)
            forged = Signed(victim, encode(message), own.signature)
            for target in context.others():
                yield target, forged


def forge(per_tick: int = 1) -> Strategy:
    """On every tick, send votes in a victim's name under the own signature."""
    return _Forge(per_tick)
