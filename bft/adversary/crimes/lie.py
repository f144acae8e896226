"""Lies to clients: wrong results, in replies and in read-only answers (B16, B17)."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from bft.adversary.strategy import Context, Strategy
from bft.digests import bundle_digest
from bft.ids import Peer
from bft.messages import Packet, QueryReply, Reply, Result
from bft.wire.codec import decode_bundle, encode


class _WrongReply(Strategy):
    def outgoing(self, context: Context, target: Peer, packet: Packet) -> Iterable[tuple[Peer, Packet]]:
        match packet:
            case Reply():
                return ((target, _wrong(packet)),)
            case QueryReply():
                return ((target, msgspec.structs.replace(packet, value=packet.value + b"\xc0")),)
            case _:
                return ((target, packet),)


def _wrong(reply: Reply) -> Reply:
    """The same reply with other values, hashed properly: only other replicas' answers show the lie."""
    if not reply.bundle:
        return msgspec.structs.replace(reply, digest=bundle_digest(reply.digest))
    bundle = decode_bundle(reply.bundle)
    results = tuple(Result(item.number, item.index, item.status, b"\xa4lies") for item in bundle.results)
    encoded = encode(msgspec.structs.replace(bundle, results=results))
    return msgspec.structs.replace(reply, digest=bundle_digest(encoded), bundle=encoded)


def wrong_reply() -> Strategy:
    """Give every client wrong results that are well formed."""
    return _WrongReply()
