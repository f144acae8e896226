"""Equivocation: different replicas are told different things, each properly signed (P01, B02).

A primary splits its batch (or, if it has but one envelope, its proposed time) between the halves of the cluster; a
backup votes for another digest towards the higher half. Evidence E1 and E2 result; agreement must hold.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from bft.adversary.strategy import Context, Strategy, opened_message
from bft.digests import batch_digest
from bft.ids import Peer
from bft.messages import Commit, Packet, Prepare, PrePrepare, Proposal, Signed
from bft.wire.codec import decode_batch, encode


class _Equivocate(Strategy):
    def outgoing(self, context: Context, target: Peer, packet: Packet) -> Iterable[tuple[Peer, Packet]]:
        if not isinstance(target, int) or not _is_second_half(context, target):
            return ((target, packet),)
        message = opened_message(packet)
        if isinstance(packet, Proposal) and isinstance(message, PrePrepare) and packet.signed.sender == context.me:
            return ((target, _other_proposal(context, packet, message)),)
        if isinstance(packet, Signed) and isinstance(message, Prepare | Commit) and packet.sender == context.me:
            other = msgspec.structs.replace(message, digest=batch_digest(message.digest))
            return ((target, context.sign(other)),)
        return ((target, packet),)


def _is_second_half(context: Context, target: int) -> bool:
    others = context.others()
    return target in others[len(others) // 2 :]


def _other_proposal(context: Context, packet: Proposal, message: PrePrepare) -> Proposal:
    batch = decode_batch(packet.batch)
    requests = batch.requests[1:] if len(batch.requests) > 1 else batch.requests
    body = encode(msgspec.structs.replace(batch, time_ns=batch.time_ns + 1, requests=requests))
    return Proposal(context.sign(msgspec.structs.replace(message, digest=batch_digest(body))), body)


def equivocate() -> Strategy:
    """Tell the second half of the other replicas something else."""
    return _Equivocate()
