"""Equivocation: different replicas are told different things, each properly signed (P01, P02, B02, X02).

A primary splits its batch (or, if it has but one envelope, its proposed time) between the halves of the cluster; a
backup votes for another digest towards the higher half. Evidence E1 and E2 result; agreement must hold.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from bft.adversary.strategy import Context, Strategy
from bft.adversary.tools import own_message, own_proposal, proposal, variant
from bft.digests import batch_digest
from bft.ids import Peer
from bft.messages import Commit, Packet, Prepare
from bft.wire.codec import encode


class _Equivocate(Strategy):
    def outgoing(self, context: Context, target: Peer, packet: Packet) -> Iterable[tuple[Peer, Packet]]:
        if not isinstance(target, int) or not _is_second_half(context, target):
            return ((target, packet),)
        proposed = own_proposal(context, packet)
        if proposed is not None:
            message, batch, _ = proposed
            requests = batch.requests[1:] if len(batch.requests) > 1 else batch.requests
            body = encode(msgspec.structs.replace(batch, time_ns=batch.time_ns + 1, requests=requests))
            return ((target, proposal(context, message, body)),)
        message_out = own_message(context, packet)
        if isinstance(message_out, Prepare | Commit):
            other = msgspec.structs.replace(message_out, digest=batch_digest(message_out.digest))
            return ((target, context.sign(other)),)
        return ((target, packet),)


def _is_second_half(context: Context, target: int) -> bool:
    others = context.others()
    return target in others[len(others) // 2 :]


class _Split(Strategy):
    """Value `k` goes to the replicas named in `groups[k]`; to those named nowhere, nothing."""

    def __init__(self, groups: tuple[tuple[int, ...], ...], both: bool) -> None:
        self._groups = groups
        self._both = both

    def outgoing(self, context: Context, target: Peer, packet: Packet) -> Iterable[tuple[Peer, Packet]]:
        proposed = own_proposal(context, packet)
        if proposed is None or not isinstance(target, int):
            return ((target, packet),)
        message, batch, _ = proposed
        groups = self._groups or tuple((replica,) for replica in context.others())
        values = [value for value, group in enumerate(groups) if target in group]
        if self._both:
            values = [value for value in range(len(groups)) if value not in values] + values
        return [
            (target, proposal(context, message, variant(batch, value)) if value else packet) for value in values
        ]


def equivocate() -> Strategy:
    """Tell the second half of the other replicas something else."""
    return _Equivocate()


def split(*groups: tuple[int, ...]) -> Strategy:
    """Propose another batch to each group, to each backup if no groups are given (P02); nothing to the rest."""
    return _Split(tuple(groups), both=False)


def propose_twice(*groups: tuple[int, ...]) -> Strategy:
    """Propose every value to everybody, each group its own one last: the second must be refused (P01, P21)."""
    return _Split(tuple(groups), both=True)
