"""Wrong slots and views in a primary's proposals (P14, P15, P20, P21, B04).

Expected: proposals outside the window or the view are not stored; gaps are filled with null by the next view.
"""

from __future__ import annotations

from collections.abc import Iterable

from bft.adversary.strategy import Context, Strategy
from bft.adversary.tools import other_digest, own_proposal, proposal, variant, votes
from bft.digests import batch_digest
from bft.ids import Peer
from bft.messages import Commit, Packet, Prepare, PrePrepare, Suspect


class _Shift(Strategy):
    """Proposes in the slot `by` further on; `beside` proposes in the right one as well."""

    def __init__(self, by: int, beside: bool) -> None:
        self._by = by
        self._beside = beside

    def outgoing(self, context: Context, target: Peer, packet: Packet) -> Iterable[tuple[Peer, Packet]]:
        proposed = own_proposal(context, packet)
        if proposed is None:
            yield target, packet
            return
        message, batch, _ = proposed
        if self._beside:
            yield target, packet
        seq = message.seq + self._by
        if 0 <= seq < 1 << 62:
            body = variant(batch, 1)
            yield target, proposal(context, message, body, seq=seq)
            for vote in votes(context, message.view, seq, batch_digest(body)):
                yield target, vote


class _WrongView(Strategy):
    def __init__(self, by: int) -> None:
        self._by = by

    def outgoing(self, context: Context, target: Peer, packet: Packet) -> Iterable[tuple[Peer, Packet]]:
        yield target, packet
        proposed = own_proposal(context, packet)
        if proposed is not None and proposed[0].view + self._by >= 0:
            message, batch, _ = proposed
            yield target, proposal(context, message, variant(batch, 1), view=message.view + self._by)


class _ContradictNewView(Strategy):
    """Follows every proposal with other values for the slots before it."""

    def outgoing(self, context: Context, target: Peer, packet: Packet) -> Iterable[tuple[Peer, Packet]]:
        yield target, packet
        proposed = own_proposal(context, packet)
        if proposed is not None:
            header, batch, _ = proposed
            for back in range(1, 9):
                if header.seq > back:
                    body = variant(batch, 1 + back)
                    yield target, proposal(context, header, body, seq=header.seq - back)
                    for vote in votes(context, header.view, header.seq - back, batch_digest(body)):
                        yield target, vote


class _Future(Strategy):
    """Votes and complaints for slots and views that nobody has reached."""

    def __init__(self, per_tick: int) -> None:
        self._per_tick = per_tick

    def unprompted(self, context: Context) -> Iterable[tuple[Peer, Packet]]:
        random = context.random
        for _ in range(self._per_tick):
            view = context.view + random.choice((0, 0, 1, context.quorums.n, 1000, 1 << 40))
            seq = context.seq + random.choice((0, 1, 8, 15, 16, 17, 1000, 1 << 40))
            match random.randrange(4):
                case 0 if context.quorums.primary(view) != context.me:
                    message: Prepare | Commit | Suspect | PrePrepare
                    message = Prepare(context.epoch, view, seq, other_digest(context))
                case 1 if context.quorums.primary(view) == context.me:
                    message = PrePrepare(context.epoch, view, seq, other_digest(context))
                case 2:
                    message = Suspect(context.epoch, view, "spam")
                case _:
                    message = Commit(context.epoch, view, seq, other_digest(context))
            signed = context.sign(message)
            for target in context.others():
                yield target, signed


def skip_sequence(by: int = 1) -> Strategy:
    """Leave gaps: propose `by` slots further on than due (P14)."""
    return _Shift(by, beside=False)


def far_sequence(by: int = 16) -> Strategy:
    """Propose also at the window's edge, beyond it, or (negative) in slots long decided (P15)."""
    return _Shift(by, beside=True)


def wrong_view(by: int = 4) -> Strategy:
    """Propose also in a view that is over or to come (P20)."""
    return _WrongView(by)


def contradict_new_view() -> Strategy:
    """Propose other values in slots already proposed, e.g. by the own NEW-VIEW (P21)."""
    return _ContradictNewView()


def future_spam(per_tick: int = 2) -> Strategy:
    """Vote for slots, views and digests that do not exist (B04). Expected: dropped, tables bounded."""
    return _Future(per_tick)
