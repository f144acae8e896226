"""Lies of a new primary (P22, P23, P24, P27). Expected: wrong ones are refused, the view fails; two valid are safe."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from bft.adversary.strategy import Context, Strategy
from bft.adversary.tools import gathered, other_digest, own_message
from bft.core.newview import select
from bft.digests import NULL_DIGEST
from bft.events import Deliver, Input
from bft.ids import Peer
from bft.messages import NewView, Packet, PrePrepare, Signed, ViewChange
from bft.wire.codec import decode_replica_message

Change = Callable[[Context, NewView], NewView]


class _Changed(Strategy):
    def __init__(self, change: Change) -> None:
        self._change = change

    def outgoing(self, context: Context, target: Peer, packet: Packet) -> Iterable[tuple[Peer, Packet]]:
        message = own_message(context, packet)
        if not isinstance(message, NewView):
            return ((target, packet),)
        return ((target, context.sign(self._change(context, message))),)


def _pre_prepares(context: Context, view: int, values: Iterable[tuple[int, bytes]]) -> tuple[Signed, ...]:
    return tuple(context.sign(PrePrepare(context.epoch, view, seq, digest)) for seq, digest in values)


def _values(message: NewView) -> list[tuple[int, bytes]]:
    headers = [decode_replica_message(signed.payload) for signed in message.pre_prepares]
    return [(header.seq, header.digest) for header in headers if isinstance(header, PrePrepare)]


def _null(context: Context, message: NewView) -> NewView:
    values = [(seq, NULL_DIGEST) for seq, _ in _values(message)]
    return msgspec.structs.replace(message, pre_prepares=_pre_prepares(context, message.view, values))


def _drop(context: Context, message: NewView) -> NewView:
    return msgspec.structs.replace(message, pre_prepares=message.pre_prepares[:-1])


def _other(context: Context, message: NewView) -> NewView:
    known = sorted({digest for _, _, digest in gathered(context).proposals}) or [other_digest(context)]
    values = [(seq, context.random.choice(known)) for seq, _ in _values(message)]
    return msgspec.structs.replace(message, pre_prepares=_pre_prepares(context, message.view, values))


def _extra(context: Context, message: NewView) -> NewView:
    values = _values(message)
    last = values[-1][0] if values else 0
    extra = _pre_prepares(context, message.view, [(last + 1, other_digest(context))])
    return msgspec.structs.replace(message, pre_prepares=(*message.pre_prepares, *extra))


def _swap(context: Context, message: NewView) -> NewView:
    values = _values(message)
    digests = [digest for _, digest in values]
    turned = [(seq, digest) for (seq, _), digest in zip(values, reversed(digests), strict=True)]
    return msgspec.structs.replace(message, pre_prepares=_pre_prepares(context, message.view, turned))


def _rebuilt(context: Context, message: NewView, chosen: list[Signed]) -> NewView:
    ordered = tuple(sorted(chosen, key=lambda signed: signed.sender))
    opened = [decode_replica_message(signed.payload) for signed in ordered]
    proposals = select([item for item in opened if isinstance(item, ViewChange)]).proposals
    return NewView(context.epoch, message.view, ordered, _pre_prepares(context, message.view, proposals))


def _repeated(context: Context, message: NewView) -> NewView:
    own = context.sign(ViewChange(context.epoch, message.view, None, ()))
    others = sorted(
        (signed for signed in message.view_changes if signed.sender != context.me),
        key=lambda signed: (len(signed.payload), signed.sender),
    )
    return _rebuilt(context, message, [own, own, *others[: context.quorums.strong - 2]])


def _few(context: Context, message: NewView) -> NewView:
    own = context.sign(ViewChange(context.epoch, message.view, None, ()))
    others = [signed for signed in message.view_changes if signed.sender != context.me]
    least = sorted(others, key=lambda signed: (len(signed.payload), signed.sender))
    return _rebuilt(context, message, [own, *least[: context.quorums.strong - 2]])


def _bare(context: Context, message: NewView) -> NewView:
    """Invented VIEW-CHANGEs of others who know nothing, with signatures that cannot be theirs."""
    own = context.sign(ViewChange(context.epoch, message.view, None, ()))
    forged = [Signed(replica, own.payload, own.signature) for replica in range(context.quorums.strong)]
    return _rebuilt(context, message, forged)


class _Choose(Strategy):
    """Builds NEW-VIEWs of its own from all VIEW-CHANGEs heard: those that know least, or different ones per half."""

    def __init__(self, two: bool) -> None:
        self._two = two
        self._heard: dict[tuple[int, int], Signed] = {}

    def incoming(self, context: Context, event: Deliver) -> Iterable[Input]:
        if isinstance(event.message, ViewChange) and isinstance(event.packet, Signed) and len(self._heard) < 64:
            self._heard[event.message.view, event.packet.sender] = event.packet
        return (event,)

    def outgoing(self, context: Context, target: Peer, packet: Packet) -> Iterable[tuple[Peer, Packet]]:
        message = own_message(context, packet)
        if not isinstance(message, NewView) or (self._two and isinstance(target, int) and target % 2):
            return ((target, packet),)
        bare = context.sign(ViewChange(context.epoch, message.view, None, ()))
        heard = [signed for (view, sender), signed in sorted(self._heard.items()) if view == message.view]
        heard = [*(signed for signed in message.view_changes if signed.sender != context.me), *heard]
        distinct = {signed.sender: signed for signed in sorted(heard, key=lambda signed: -len(signed.payload))}
        chosen = sorted(distinct.values(), key=lambda signed: (len(signed.payload), signed.sender))
        return ((target, context.sign(_rebuilt(context, message, [bare, *chosen[: context.quorums.strong - 1]]))),)


KINDS: dict[str, Change] = {"null": _null, "drop": _drop, "other": _other, "extra": _extra, "swap": _swap}
QUORUMS: dict[str, Change] = {"repeated": _repeated, "few": _few, "forged": _bare}


def wrong_proposals(kind: str = "null") -> Strategy:
    """Propose something else than V implies: `null`, `drop`, `other`, `extra` or `swap` (P23)."""
    assert kind in KINDS, f"wrong_proposals knows {', '.join(KINDS)}, not {kind!r}"
    return _Changed(KINDS[kind])


def bad_quorum(kind: str = "repeated") -> Strategy:
    """Begin the view with a V that repeats a sender, is too `few`, or is `forged` (P22)."""
    assert kind in QUORUMS, f"bad_quorum knows {', '.join(QUORUMS)}, not {kind!r}"
    return _Changed(QUORUMS[kind])


def two_new_views() -> Strategy:
    """Send even replicas another valid NEW-VIEW, from another V (P24). Expected: safe, and detected."""
    return _Choose(two=True)


def least_new_view() -> Strategy:
    """Choose for V those who know least, the own empty lie first (P27). Expected: safe, the others catch up."""
    return _Choose(two=False)
