"""Lies in VIEW-CHANGE (B05-B10, X03). Expected: valid but stale ones are safe, forged ones refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from bft.adversary.strategy import Context, Strategy
from bft.adversary.tools import gathered, listen, other_digest, own_message, votes
from bft.events import Deliver, Input
from bft.ids import Peer
from bft.messages import (
    CheckpointCertificate,
    Endorsement,
    Packet,
    PreparedCertificate,
    PrePrepare,
    Proposal,
    Signed,
    ViewChange,
)

Change = Callable[[Context, ViewChange], ViewChange]


class _Changed(Strategy):
    def __init__(self, change: Change, *, toward_half: bool = False) -> None:
        self._change = change
        self._toward_half = toward_half

    def incoming(self, context: Context, event: Deliver) -> Iterable[Input]:
        listen(context, event)
        return (event,)

    def outgoing(self, context: Context, target: Peer, packet: Packet) -> Iterable[tuple[Peer, Packet]]:
        message = own_message(context, packet)
        if isinstance(packet, Proposal):
            gathered(context).note(context, packet.signed)
        if not isinstance(message, ViewChange) or (self._toward_half and isinstance(target, int) and target % 2):
            return ((target, packet),)
        return ((target, context.sign(self._change(context, message))),)


def _hide(context: Context, message: ViewChange) -> ViewChange:
    return msgspec.structs.replace(message, prepared=())


def _stale(context: Context, message: ViewChange) -> ViewChange:
    return msgspec.structs.replace(message, stable=None, prepared=_chosen(context, message, 0, lowest=False))


def _chosen(context: Context, message: ViewChange, low: int, *, lowest: bool) -> tuple[PreparedCertificate, ...]:
    """Per slot above `low`, the genuine certificate of the lowest or the highest view below the message's."""
    best: dict[int, PreparedCertificate] = {}
    for header, certificate in gathered(context).certificates(context):
        if header.view < message.view and low < header.seq <= low + 16 and not (lowest and header.seq in best):
            best[header.seq] = certificate
    return tuple(best[seq] for seq in sorted(best))


def _old(context: Context, message: ViewChange) -> ViewChange:
    low = message.stable.seq if message.stable is not None else 0
    return msgspec.structs.replace(message, prepared=_chosen(context, message, low, lowest=True))


def _best(context: Context, message: ViewChange) -> ViewChange:
    low = message.stable.seq if message.stable is not None else 0
    return msgspec.structs.replace(message, prepared=_chosen(context, message, low, lowest=False))


def _invented(context: Context, message: ViewChange) -> ViewChange:
    """A certificate for another slot's batch, of the newest view, with signatures that cannot be theirs."""
    low = message.stable.seq if message.stable is not None else 0
    view = message.view - 1
    heard = [(at, digest) for _, at, digest in gathered(context).proposals if low < at <= low + 16]
    seq = min((at for at, _ in heard), default=low + 1)
    primary = context.quorums.primary(view)
    others = sorted({digest for at, digest in heard if at != seq}) or [other_digest(context)]
    header = PrePrepare(context.epoch, view, seq, context.random.choice(others))
    own = context.sign(header)
    backups = [replica for replica in context.quorums.members if replica != primary][: context.quorums.prepares]
    endorsements = tuple(Endorsement(replica, own.signature) for replica in backups)
    forged = PreparedCertificate(Signed(primary, own.payload, own.signature), endorsements)
    rest = tuple(item for item in message.prepared if _seq(item) > seq)
    return msgspec.structs.replace(message, prepared=(forged, *rest))


def _mixed(context: Context, message: ViewChange) -> ViewChange:
    """A certificate whose PRE-PREPARE the coalition made, with the votes of another value under it."""
    if not message.prepared:
        return _invented(context, message)
    held = message.prepared[-1]
    header = msgspec.msgpack.decode(held.pre_prepare.payload, type=PrePrepare)
    primary = context.quorums.primary(header.view)
    other = msgspec.structs.replace(header, digest=other_digest(context))
    signer = primary if primary in context.coalition.signers else context.me
    signed = context.sign(other, signer)
    mixed = PreparedCertificate(Signed(primary, signed.payload, signed.signature), held.prepares)
    return msgspec.structs.replace(message, prepared=(*message.prepared[:-1], mixed))


def _repeated(context: Context, message: ViewChange) -> ViewChange:
    """A certificate that counts one signer as often as needed."""
    found = gathered(context)
    low = message.stable.seq if message.stable is not None else 0
    proposals = list(found.proposals.items())
    context.random.shuffle(proposals)
    for (view, seq, digest), signed in proposals:
        if view >= message.view or not low < seq <= low + 16:
            continue
        for vote in votes(context, view, seq, digest):
            if vote.sender != context.quorums.primary(view):
                endorsement = Endorsement(vote.sender, vote.signature)
                forged = PreparedCertificate(signed, (endorsement,) * context.quorums.prepares)
                return msgspec.structs.replace(message, prepared=(forged,))
    return message


def _outside(context: Context, message: ViewChange) -> ViewChange:
    return msgspec.structs.replace(message, stable=None) if message.stable is not None else message


def _false_stable(context: Context, message: ViewChange) -> ViewChange:
    seq = 8 * (1 << context.random.randrange(20))
    signature = context.sign(message).signature
    forged = tuple(Endorsement(replica, signature) for replica in range(context.quorums.strong))
    stable = CheckpointCertificate(context.epoch, seq, other_digest(context), forged)
    return msgspec.structs.replace(message, stable=stable, prepared=())


def _seq(certificate: PreparedCertificate) -> int:
    return msgspec.msgpack.decode(certificate.pre_prepare.payload, type=PrePrepare).seq


class _Spam(Strategy):
    def unprompted(self, context: Context) -> Iterable[tuple[Peer, Packet]]:
        if context.random.randrange(4):
            return
        view = context.view + context.random.choice((1, 1, 2, 5, 1000, context.random.randrange(1, 1 << 40)))
        signed = context.sign(ViewChange(context.epoch, view, None, ()))
        for target in context.others():
            yield target, signed


def hide_prepared() -> Strategy:
    """Forget every prepared certificate (B06). Expected: another member of the quorum carries it."""
    return _Changed(_hide)


def stale_stable() -> Strategy:
    """Claim the genesis checkpoint, with all certificates still known (B07)."""
    return _Changed(_stale)


def outside_window() -> Strategy:
    """Keep certificates that do not fit the claimed checkpoint (B07). Expected: refused."""
    return _Changed(_outside)


def old_certificate() -> Strategy:
    """Show the genuine certificate of the lowest view that the coalition can assemble (B09)."""
    return _Changed(_old)


def hoard_certificate() -> Strategy:
    """Assemble certificates that no correct replica holds, and show them views later (X03)."""
    return _Changed(_best)


def forged_certificate(kind: str = "invented") -> Strategy:
    """Show a certificate that is `invented`, `mixed`, `repeated` (one signer counted often) or for `stable` (B08)."""
    kinds = {"invented": _invented, "mixed": _mixed, "repeated": _repeated, "stable": _false_stable}
    assert kind in kinds, f"forged_certificate knows {', '.join(kinds)}, not {kind!r}"
    return _Changed(kinds[kind])


def two_view_changes() -> Strategy:
    """Tell even replicas of no certificates, odd ones of all (B10). Expected: E5."""
    return _Changed(_hide, toward_half=True)


def view_change_spam() -> Strategy:
    """Leave the view again and again, for near and far ones (B05). Expected: no effect below a weak quorum."""
    return _Spam()
