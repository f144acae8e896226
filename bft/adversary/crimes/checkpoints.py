"""Lies about checkpoints (B11, B12, X09). Expected: never stable without a strong quorum of equal digests; E4."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from bft.adversary.strategy import Context, Strategy
from bft.adversary.tools import is_colleague, other_digest, own_message
from bft.events import Deliver, Input
from bft.ids import Peer
from bft.messages import Checkpoint, CheckpointCertificate, CommitCertificate, Endorsement, Packet

INTERVAL = 8
"""The simulated cluster's checkpoint interval; another one only makes these lies ill formed."""


class _Bad(Strategy):
    def outgoing(self, context: Context, target: Peer, packet: Packet) -> Iterable[tuple[Peer, Packet]]:
        message = own_message(context, packet)
        if isinstance(message, Checkpoint):
            return ((target, context.sign(msgspec.structs.replace(message, digest=other_digest(context)))),)
        return ((target, packet),)


class _Early(Strategy):
    """Votes for the next checkpoints long before them."""

    def __init__(self, ahead: tuple[int, ...]) -> None:
        self._ahead = ahead

    def unprompted(self, context: Context) -> Iterable[tuple[Peer, Packet]]:
        base = context.seq - context.seq % INTERVAL
        for near in context.random.sample(self._ahead, min(2, len(self._ahead))):
            far = INTERVAL * context.random.randrange(1, 1 << 30)
            for seq in (base + near, base + far):
                signed = context.sign(Checkpoint(context.epoch, max(seq, 1), other_digest(context)))
                for target in context.others():
                    yield target, signed


class _Echo(Strategy):
    """Signs every checkpoint digest that anybody claims, at once and for the whole coalition."""

    def incoming(self, context: Context, event: Deliver) -> Iterable[Input]:
        if isinstance(event.message, Checkpoint) and not is_colleague(context, event):
            for member in sorted(context.coalition.signers):
                for target in context.others():
                    context.send(target, context.sign(event.message, member))
        return (event,)


class _Forged(Strategy):
    """Certificates that prove nothing: too few signers, one signer repeated, or signatures of the liar's own."""

    def unprompted(self, context: Context) -> Iterable[tuple[Peer, Packet]]:
        if context.random.randrange(8):
            return
        strong = context.quorums.strong
        seq = context.seq - context.seq % INTERVAL + INTERVAL * context.random.choice((0, 1, 4))
        digest = other_digest(context)
        checkpoint = context.sign(Checkpoint(context.epoch, max(seq, INTERVAL), digest))
        own = Endorsement(context.me, checkpoint.signature)
        everyone = tuple(Endorsement(replica, checkpoint.signature) for replica in range(strong))
        signers = context.random.choice(((own,), (own,) * strong, everyone))
        for target in context.others():
            yield target, CheckpointCertificate(context.epoch, max(seq, INTERVAL), digest, signers)
            yield target, CommitCertificate(context.epoch, context.view, context.seq + 1, digest, signers)


def bad_checkpoint() -> Strategy:
    """Vote for another state than the own, another one to everybody (B11, B12)."""
    return _Bad()


def early_checkpoint(*ahead: int) -> Strategy:
    """Vote for checkpoints to come, near and far, on and off the interval (B11)."""
    return _Early(ahead or (0, 3, 8, 16, 24))


def echo_checkpoint() -> Strategy:
    """Vote at once for every checkpoint that anybody takes, for the whole coalition (X09)."""
    return _Echo()


def false_proofs() -> Strategy:
    """Send commit and checkpoint certificates that prove nothing (B11, B20)."""
    return _Forged()
