"""Lies to clients (B16, B17, X07, X08). Expected: fewer than a weak quorum of replicas lie, so nothing is believed."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from bft.adversary.strategy import Context, Strategy
from bft.digests import bundle_digest
from bft.events import Deliver, Input
from bft.ids import Peer
from bft.messages import (
    Bundle,
    Packet,
    Query,
    QueryReply,
    ReadAnswer,
    Refusal,
    Reply,
    ReplyStatement,
    Result,
    SignedReply,
    SignedRequest,
)
from bft.wire.codec import decode_bundle, decode_request, encode


class _WrongReply(Strategy):
    """`both`: the true reply goes out as well."""

    def __init__(self, both: bool) -> None:
        self._both = both

    def outgoing(self, context: Context, target: Peer, packet: Packet) -> Iterable[tuple[Peer, Packet]]:
        true = ((target, packet),) if self._both else ()
        match packet:
            case Reply():
                return ((target, _wrong(packet)), *true)
            case SignedReply() if isinstance(target, bytes):
                return ((target, _signed(context, target, _wrong(packet.reply))), *true)
            case QueryReply():
                wrong = tuple(ReadAnswer(given.status, given.value + b"\xc0") for given in packet.answers)
                return ((target, msgspec.structs.replace(packet, answers=wrong)),)
            case _:
                return ((target, packet),)


def _signed(context: Context, client: bytes, reply: Reply) -> SignedReply:
    """A reply under the own signature: once it is out, it can be shown to others."""
    statement = ReplyStatement(reply.epoch, client, reply.session, reply.seq, reply.digest)
    return SignedReply(reply, context.sign(statement).signature)


def _wrong(reply: Reply) -> Reply:
    """The same reply with other values, hashed properly: only other replicas' answers show the lie."""
    if not reply.bundle:
        return msgspec.structs.replace(reply, digest=bundle_digest(reply.digest))
    bundle = decode_bundle(reply.bundle)
    results = tuple(Result(item.number, item.index, item.status, b"\xa4lies") for item in bundle.results)
    encoded = encode(msgspec.structs.replace(bundle, results=results))
    return msgspec.structs.replace(reply, digest=bundle_digest(encoded), bundle=encoded)


class _EarlyReply(Strategy):
    """Answers every request the moment it comes, for the whole coalition alike, as if it stood in the next slot."""

    def incoming(self, context: Context, event: Deliver) -> Iterable[Input]:
        packet = event.packet
        if isinstance(packet, SignedRequest):
            request = decode_request(packet.payload)
            numbers = range(request.number, request.number + len(request.operations))
            results = tuple(Result(number, place, 0, b"\xc0") for place, number in enumerate(numbers))
            bundle = encode(Bundle(results, ()))
            reply = Reply(request.session, context.seq + 1, 0, context.view, bundle_digest(bundle), bundle)
            context.send(packet.client, reply)
        return (event,)


class _StaleRead(Strategy):
    """Answers every read from the first state that it ever answered from, though under the slot asked for."""

    def __init__(self, honest_seq: bool) -> None:
        self._honest_seq = honest_seq
        self._first: dict[bytes, tuple[ReadAnswer, int]] = {}
        self._asked: dict[int, tuple[bytes, ...]] = {}

    def incoming(self, context: Context, event: Deliver) -> Iterable[Input]:
        if isinstance(event.packet, Query) and len(self._asked) < 4096:
            self._asked[event.packet.nonce] = event.packet.operations
        return (event,)

    def outgoing(self, context: Context, target: Peer, packet: Packet) -> Iterable[tuple[Peer, Packet]]:
        if not isinstance(packet, QueryReply):
            return ((target, packet),)
        asked = self._asked.get(packet.nonce, ())[packet.first :]
        first = [
            self._first.setdefault(operation, (given, packet.seq))
            for operation, given in zip(asked, packet.answers, strict=False)
        ]
        if not first:
            return ((target, packet),)
        seq = min(seq for _, seq in first) if self._honest_seq else packet.seq
        answers = tuple(given for given, _ in first)
        return ((target, msgspec.structs.replace(packet, answers=answers, seq=seq)),)


class _ViewLie(Strategy):
    def outgoing(self, context: Context, target: Peer, packet: Packet) -> Iterable[tuple[Peer, Packet]]:
        if isinstance(packet, Reply):
            return ((target, msgspec.structs.replace(packet, view=packet.view + 3)),)
        return ((target, packet),)


class _Refuse(Strategy):
    def incoming(self, context: Context, event: Deliver) -> Iterable[Input]:
        packet = event.packet
        if isinstance(packet, SignedRequest):
            request = decode_request(packet.payload)
            for reason in ("session-expired", "session-early", "result-unavailable", "busy"):
                context.send(packet.client, Refusal(request.session, request.number, reason))
        elif isinstance(packet, Query) and isinstance(event.peer, bytes):
            context.send(event.peer, Refusal(0, packet.nonce, "busy"))
        return (event,)


class _Withhold(Strategy):
    def outgoing(self, context: Context, target: Peer, packet: Packet) -> Iterable[tuple[Peer, Packet]]:
        if isinstance(packet, Reply):
            return ((target, msgspec.structs.replace(packet, bundle=b"")),)
        return ((target, packet),)


def wrong_reply(both: bool = False) -> Strategy:
    """Give every client wrong results that are well formed, before the right ones if `both` (B16, B17).

    Expected: evidence E11, where replies are signed.
    """
    return _WrongReply(both)


def early_reply() -> Strategy:
    """Answer requests before they are ordered, all colluders alike (B16, X07)."""
    return _EarlyReply()


def stale_read(honest_seq: bool = True) -> Strategy:
    """Answer reads from an old state (B17, X08)."""
    return _StaleRead(honest_seq)


def view_lie() -> Strategy:
    """Tell clients of a view that is not (B16): they send to the wrong primary, then to all."""
    return _ViewLie()


def refuse_clients() -> Strategy:
    """Tell clients that their session is over, their result gone, the replica busy (B16)."""
    return _Refuse()


def withhold_results() -> Strategy:
    """Confirm results by digest only, though their bytes are due (B16)."""
    return _Withhold()
