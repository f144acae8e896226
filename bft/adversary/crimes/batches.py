"""Bad batches from a primary (P10, P11, P12, P13, P17). Expected: no PREPARE and a view change; replays are no-ops."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from bft.adversary.strategy import Context, Strategy
from bft.adversary.tools import own_proposal, proposal
from bft.config import MILLISECOND
from bft.ids import Peer
from bft.messages import Batch, Packet, PrePrepare, Proposal
from bft.wire.codec import encode

Spoil = Callable[[Context, PrePrepare, Batch, bytes], Proposal]


class _Spoiled(Strategy):
    """One spoiled proposal per slot, the same to everybody."""

    def __init__(self, spoil: Spoil) -> None:
        self._spoil = spoil
        self._made: dict[tuple[int, int], Proposal] = {}

    def outgoing(self, context: Context, target: Peer, packet: Packet) -> Iterable[tuple[Peer, Packet]]:
        proposed = own_proposal(context, packet)
        if proposed is None:
            return ((target, packet),)
        message, batch, body = proposed
        key = (message.view, message.seq)
        if key not in self._made:
            self._made = {**dict(list(self._made.items())[-32:]), key: self._spoil(context, message, batch, body)}
        return ((target, self._made[key]),)


def _bad_signature(context: Context, message: PrePrepare, batch: Batch, body: bytes) -> Proposal:
    if not batch.requests:
        return proposal(context, message, body)
    first = batch.requests[0]
    broken = msgspec.structs.replace(first, signature=bytes(64))
    requests = (broken, *batch.requests[1:])
    return proposal(context, message, encode(msgspec.structs.replace(batch, requests=requests)))


def _tampered(context: Context, message: PrePrepare, batch: Batch, body: bytes) -> Proposal:
    if not batch.requests:
        return proposal(context, message, body)
    first = batch.requests[0]
    swapped = first.payload.replace(b"\xa3put", b"\xa3cas").replace(b"\xa2k0", b"\xa2k9")
    broken = msgspec.structs.replace(first, payload=swapped)
    return proposal(context, message, encode(msgspec.structs.replace(batch, requests=(broken, *batch.requests[1:]))))


def _malformed(context: Context, message: PrePrepare, batch: Batch, body: bytes) -> Proposal:
    return proposal(context, message, context.random.choice((body + b"\xc0", body[:-1], b"", b"\xc1" * 40)))


def _twice(context: Context, message: PrePrepare, batch: Batch, body: bytes) -> Proposal:
    doubled = (*batch.requests, *batch.requests[:1])
    return proposal(context, message, encode(msgspec.structs.replace(batch, requests=doubled)))


def _body_missing(context: Context, message: PrePrepare, batch: Batch, body: bytes) -> Proposal:
    return Proposal(context.sign(message), encode(msgspec.structs.replace(batch, time_ns=batch.time_ns + 1)))


class _Replay:
    """Proposes each batch again in the slot after it."""

    def __init__(self) -> None:
        self._bodies: list[bytes] = []

    def __call__(self, context: Context, message: PrePrepare, batch: Batch, body: bytes) -> Proposal:
        self._bodies = [*self._bodies[-8:], body]
        chosen = context.random.choice(self._bodies)
        old = msgspec.msgpack.decode(chosen, type=Batch)
        merged = {request.payload: request for request in (*old.requests[:1], *batch.requests)}
        fresh = msgspec.structs.replace(batch, requests=tuple(merged.values()))
        return proposal(context, message, encode(fresh))


def replay_batch() -> Strategy:
    """Order requests again that were ordered before (P10)."""
    return _Spoiled(_Replay())


def bad_client_signature(tampered: bool = False) -> Strategy:
    """Put a request into the batch that its client never signed: a bad signature, or other content (P11)."""
    return _Spoiled(_tampered if tampered else _bad_signature)


def malformed_batch() -> Strategy:
    """Propose bytes that are no canonical batch under their right digest (P12)."""
    return _Spoiled(_malformed)


def envelope_twice() -> Strategy:
    """Put the same envelope twice into one batch (P12)."""
    return _Spoiled(_twice)


def withhold_body() -> Strategy:
    """Attach another body than the digest says: the right one is with nobody (P13)."""
    return _Spoiled(_body_missing)


def time_warp(ms: int = 500) -> Strategy:
    """Propose times this far ahead of the own clock, or behind it if negative (P17)."""

    def warp(context: Context, message: PrePrepare, batch: Batch, body: bytes) -> Proposal:
        time_ns = max(batch.time_ns + ms * MILLISECOND, 0)
        return proposal(context, message, encode(msgspec.structs.replace(batch, time_ns=time_ns)))

    return _Spoiled(warp)


def frozen_time() -> Strategy:
    """Propose the same time for ever, jumping back within what backups let pass (P17)."""
    first: list[int] = []

    def freeze(context: Context, message: PrePrepare, batch: Batch, body: bytes) -> Proposal:
        first.append(batch.time_ns)
        return proposal(context, message, encode(msgspec.structs.replace(batch, time_ns=first[0])))

    return _Spoiled(freeze)
