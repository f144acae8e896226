"""Forgery: messages in other replicas' and clients' names, with signatures that cannot be theirs (B18, B19, B22)."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from bft.adversary.strategy import Context, Strategy
from bft.adversary.tools import is_colleague
from bft.digests import batch_digest
from bft.events import Deliver, Input
from bft.ids import Peer
from bft.messages import Checkpoint, Commit, Packet, Prepare, PrePrepare, Request, Signed, SignedRequest, Suspect
from bft.wire.codec import decode_request, encode


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


class _Impersonate(Strategy):
    """Everything that it hears voted, it says again in the name of those who have not said it."""

    def incoming(self, context: Context, event: Deliver) -> Iterable[Input]:
        message = event.message
        if is_colleague(context, event):
            return (event,)
        if isinstance(message, PrePrepare):
            message = Prepare(message.epoch, message.view, message.seq, message.digest)
        if isinstance(message, Prepare | Commit | Checkpoint | Suspect) and not context.random.randrange(3):
            own = context.sign(message)
            for victim in context.others():
                for target in context.others():
                    if target != victim:
                        context.send(target, Signed(victim, own.payload, own.signature))
        return (event,)


class _Reflect(Strategy):
    """Sends others' messages back to them, and copies of them under its own name."""

    def incoming(self, context: Context, event: Deliver) -> Iterable[Input]:
        message = event.message
        if is_colleague(context, event) or context.random.randrange(2):
            return (event,)
        if isinstance(event.packet, Signed) and isinstance(event.peer, int):
            context.send(event.peer, event.packet)
            if isinstance(message, Prepare | Commit | Checkpoint | Suspect):
                for target in context.others():
                    context.send(target, context.sign(message))
        return (event,)


class _FalseRequest(Strategy):
    """Passes on requests in clients' names that they never signed: other operations, later numbers, no signature."""

    def incoming(self, context: Context, event: Deliver) -> Iterable[Input]:
        packet = event.packet
        if isinstance(packet, SignedRequest) and not is_colleague(context, event):
            request = decode_request(packet.payload)
            random = context.random
            false: Request = random.choice(
                (
                    msgspec.structs.replace(request, operations=(request.operations[0] + b"\xc0",), after=()),
                    msgspec.structs.replace(request, number=request.number + 1),
                    msgspec.structs.replace(request, session=request.session + 1),
                    msgspec.structs.replace(request, acknowledged=request.number),
                )
            )
            signature = random.choice((packet.signature, random.randbytes(64)))
            for target in context.others():
                context.send(target, SignedRequest(packet.client, encode(false), signature))
        return (event,)


def forge(per_tick: int = 1) -> Strategy:
    """On every tick, send votes in a victim's name under the own signature (B19)."""
    return _Forge(per_tick)


def impersonate() -> Strategy:
    """Repeat what is voted in the names of all who have not voted so (B22)."""
    return _Impersonate()


def reflect() -> Strategy:
    """Send messages back to their signers, and sign copies (B22). Expected: the signer's id is in what is signed."""
    return _Reflect()


def false_request() -> Strategy:
    """Pass on garbage in clients' names (B18). Expected: refused, the client not blamed."""
    return _FalseRequest()
