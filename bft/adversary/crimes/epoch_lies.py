"""Lies about the membership (19.5): links that lead elsewhere. Expected: each is held against the members it claims.

The keys of the coalition are good for their own signatures only: not for a strong quorum's, and not for an
administrator's.
"""

from __future__ import annotations

from collections.abc import Iterable

from bft.adversary.strategy import Context, Strategy
from bft.digests import page_digest, state_digest
from bft.epochs import change_bytes
from bft.events import Deliver, Input
from bft.headers import Approval, Header, Member, Pending, Reconfigure
from bft.ids import Peer
from bft.messages import (
    Checkpoint,
    CheckpointCertificate,
    Endorsement,
    EpochLink,
    EpochProof,
    FetchEpochs,
    Packet,
)
from bft.wire.codec import encode


class _FalseEpochs(Strategy):
    """Tells replicas and clients that the epoch is over, and that its friends are the members of the next."""

    def incoming(self, context: Context, event: Deliver) -> Iterable[Input]:
        if isinstance(event.packet, FetchEpochs):
            context.send(event.peer, self._proof(context))
        return (event,)

    def unprompted(self, context: Context) -> Iterable[tuple[Peer, Packet]]:
        if context.random.randrange(4):
            return
        proof = self._proof(context)
        for target in context.others():
            yield target, proof

    def _proof(self, context: Context) -> EpochProof:
        configuration = context.configuration
        assert configuration is not None, "whoever made the context knows the epoch"
        seq = (context.seq // 8 + 1) * 8
        friends = [Member(100 + index, context.random.randbytes(32), "elsewhere", 1 + index) for index in range(4)]
        change = change_bytes(configuration.epoch, friends)
        admins = sorted(configuration.admins)[: configuration.threshold]
        approvals = tuple(Approval(key, context.random.randbytes(64)) for key in admins)
        operation = Reconfigure(change, context.random.choice((approvals, approvals[:1], ())), ())
        empty = page_digest(b"")
        header = encode(
            Header(configuration.epoch, seq, empty, 1, 1, empty, configuration.digest, Pending(seq, operation))
        )
        digest = state_digest(header)
        return EpochProof((EpochLink(header, self._certificate(context, seq, digest)),))

    def _certificate(self, context: Context, seq: int, digest: bytes) -> CheckpointCertificate:
        own = context.sign(Checkpoint(context.epoch, seq, digest))
        quorums = context.quorums
        signers = sorted({context.me, *[r for r in quorums.members if r != context.me][: quorums.strong - 1]})
        match context.random.randrange(3):
            case 0:
                endorsements = tuple(Endorsement(replica, own.signature) for replica in signers)
            case 1:
                endorsements = (Endorsement(context.me, own.signature),) * quorums.strong
            case _:
                endorsements = (Endorsement(context.me, own.signature),)
        return CheckpointCertificate(context.epoch, seq, digest, endorsements)


def false_epochs() -> Strategy:
    """Show forged links to whoever asks, and to everybody else (19.5)."""
    return _FalseEpochs()
