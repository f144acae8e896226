"""Small and large mutations of the own messages, in the manner of ByzzFuzz (B22, N09). Expected: masked or refused.

Small ones change one field to a neighbouring value and sign again: the kind that validation lets through. `flip`
changes a byte under the old signature.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from bft.adversary.strategy import Context, Strategy
from bft.adversary.tools import own_message
from bft.digests import NULL_DIGEST
from bft.ids import Peer
from bft.messages import (
    Checkpoint,
    Commit,
    NewView,
    Packet,
    PagesServed,
    Prepare,
    PrePrepare,
    Proposal,
    ReplicaMessage,
    ReplyStatement,
    Signed,
    Suspect,
    ViewChange,
)


class _Mutate(Strategy):
    def __init__(self, permille: int) -> None:
        self._permille = permille
        self._digests: list[bytes] = [NULL_DIGEST]

    def outgoing(self, context: Context, target: Peer, packet: Packet) -> Iterable[tuple[Peer, Packet]]:
        message = own_message(context, packet)
        if message is None:
            return ((target, packet),)
        digest = getattr(message, "digest", None)
        if digest is not None and digest not in self._digests:
            self._digests = [*self._digests[-7:], digest]
        if context.random.randrange(1000) >= self._permille:
            return ((target, packet),)
        signed = context.sign(self._neighbour(context, message))
        return ((target, Proposal(signed, packet.batch) if isinstance(packet, Proposal) else signed),)

    def _neighbour(self, context: Context, message: ReplicaMessage) -> ReplicaMessage:
        random = context.random
        step = random.choice((-1, 1))
        match message:
            case PrePrepare() | Prepare() | Commit():
                changes: tuple[dict[str, object], ...] = (
                    {"view": max(message.view + step, 0)},
                    {"seq": max(message.seq + step, 0)},
                    {"digest": random.choice(self._digests)},
                    {"epoch": 1},
                )
                return msgspec.structs.replace(message, **random.choice(changes))
            case Checkpoint():
                changes = ({"seq": max(message.seq + 8 * step, 0)}, {"digest": random.choice(self._digests)})
                return msgspec.structs.replace(message, **random.choice(changes))
            case Suspect():
                return msgspec.structs.replace(message, view=max(message.view + step, 0))
            case ViewChange():
                return self._view_change(context, message, step)
            case NewView():
                return self._new_view(context, message)
            case ReplyStatement():
                return msgspec.structs.replace(message, digest=random.choice(self._digests))
            case PagesServed():
                return msgspec.structs.replace(message, asked=message.asked[::-1])

    def _view_change(self, context: Context, message: ViewChange, step: int) -> ViewChange:
        prepared = list(message.prepared)
        if prepared and context.random.randrange(2):
            del prepared[context.random.randrange(len(prepared))]
            return msgspec.structs.replace(message, prepared=tuple(prepared))
        if context.random.randrange(2):
            return msgspec.structs.replace(message, stable=None)
        return msgspec.structs.replace(message, view=max(message.view + step, 0))

    def _new_view(self, context: Context, message: NewView) -> NewView:
        name = context.random.choice(("view_changes", "pre_prepares"))
        entries = list(getattr(message, name))
        match context.random.randrange(3):
            case 0 if len(entries) > 1:
                del entries[context.random.randrange(len(entries))]
            case 1 if len(entries) > 1:
                entries[0], entries[-1] = entries[-1], entries[0]
            case _ if entries:
                entries.append(entries[0])
            case _:
                pass
        return msgspec.structs.replace(message, **{name: tuple(entries)})


class _Flip(Strategy):
    def __init__(self, permille: int) -> None:
        self._permille = permille

    def outgoing(self, context: Context, target: Peer, packet: Packet) -> Iterable[tuple[Peer, Packet]]:
        if not isinstance(packet, Signed) or context.random.randrange(1000) >= self._permille:
            return ((target, packet),)
        payload = bytearray(packet.payload)
        payload[context.random.randrange(len(payload))] ^= 1 << context.random.randrange(8)
        return ((target, Signed(packet.sender, bytes(payload), packet.signature)),)


def mutate(permille: int = 200) -> Strategy:
    """Change one field of an own message to a neighbouring value, signed again."""
    return _Mutate(permille)


def flip(permille: int = 200) -> Strategy:
    """Flip a bit of a signed payload (N09)."""
    return _Flip(permille)
