"""Primaries that serve just well enough (P06, P07, P10, P16). Expected: a complaint about performance, a view change.

`slow.slow_primary` delays everything by the same time; here are the one that grows slower by and by, the one that lets
one client wait, the one that fills batches with what was executed before, the one that orders one request at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import msgspec

from bft.adversary.crimes.batches import _Spoiled
from bft.adversary.strategy import Context, Strategy
from bft.adversary.tools import own_message, proposal
from bft.config import MILLISECOND
from bft.events import Deliver, Input
from bft.ids import Nanos, Peer
from bft.messages import Batch, Commit, Packet, PrePrepare, Proposal, SignedRequest
from bft.wire.codec import decode_request, encode

HELD_MAX = 4096
SEEN_MAX = 256
NANOS_PER_SECOND = 1000 * MILLISECOND


class _Creep(Strategy):
    def __init__(self, per_second_ms: int, most_ms: int) -> None:
        self._per_second_ms = per_second_ms
        self._most_ms = most_ms
        self._began: Nanos = 0

    def outgoing(self, context: Context, target: Peer, packet: Packet) -> Iterable[tuple[Peer, Packet]]:
        if not (isinstance(packet, Proposal) and packet.signed.sender == context.me):
            return ((target, packet),)
        self._began = self._began or context.now
        grown = (context.now - self._began) * self._per_second_ms // NANOS_PER_SECOND
        context.send(target, packet, after_ms=min(grown, self._most_ms))
        return ()


class _Starve(Strategy):
    """Lets one of the first two clients it meets wait, or all of them, before the honest node hears of the request."""

    def __init__(self, ms: int, *, everybody: bool) -> None:
        self._ms = ms
        self._everybody = everybody
        self._met: list[bytes] = []
        self._held: deque[tuple[Nanos, Deliver]] = deque()

    def incoming(self, context: Context, event: Deliver) -> Iterable[Input]:
        ready: list[Input] = []
        while self._held and self._held[0][0] <= context.now:
            ready.append(self._held.popleft()[1])
        packet = event.packet
        if not isinstance(packet, SignedRequest):
            return [*ready, event]
        if packet.client not in self._met and len(self._met) < 2:
            self._met.append(packet.client)
        if not self._everybody and (packet.client != min(self._met) or len(self._met) < 2):
            return [*ready, event]
        if len(self._held) < HELD_MAX:
            self._held.append((context.now + self._ms * MILLISECOND, event))
        return ready


class _OneAtATime(Strategy):
    """Shows the honest node the next request only when the last slot has two COMMITs."""

    def __init__(self) -> None:
        self._waiting: deque[Deliver] = deque()
        self._seen: dict[bytes, None] = {}
        self._proposed = 0
        self._commits = 0

    def incoming(self, context: Context, event: Deliver) -> Iterable[Input]:
        if isinstance(event.message, Commit) and event.message.seq >= self._proposed:
            self._commits += 1
        if not isinstance(event.packet, SignedRequest):
            return [event, *self._next(context)]
        signature = event.packet.signature
        if signature not in self._seen and len(self._waiting) < HELD_MAX:
            if len(self._seen) >= SEEN_MAX:
                self._seen = {}
            self._seen[signature] = None
            self._waiting.append(event)
        return self._next(context)

    def _next(self, context: Context) -> list[Input]:
        if self._waiting and (self._commits >= 2 or not self._proposed or not context.is_primary):
            return [self._waiting.popleft()]
        return []

    def outgoing(self, context: Context, target: Peer, packet: Packet) -> Iterable[tuple[Peer, Packet]]:
        message = own_message(context, packet)
        if isinstance(packet, Proposal) and isinstance(message, PrePrepare) and message.seq > self._proposed:
            self._proposed = message.seq
            self._commits = 0
        return ((target, packet),)


class _Pad:
    """Puts envelopes of earlier batches before the fresh ones, as many as the limits leave room for."""

    def __init__(self, count: int, operations_max: int) -> None:
        self._count = count
        self._operations_max = operations_max
        self._old: deque[tuple[tuple[bytes, int, int], int, SignedRequest]] = deque(maxlen=count)

    def __call__(self, context: Context, message: PrePrepare, batch: Batch, body: bytes) -> Proposal:
        fresh = []
        for packet in batch.requests:
            request = decode_request(packet.payload)
            key = (packet.client, request.session, request.number)
            fresh.append((key, len(request.operations), packet))
        keys = {key for key, _, _ in fresh}
        room = self._operations_max - sum(operations for _, operations, _ in fresh)
        stale = []
        for key, operations, packet in self._old:
            if key not in keys and operations <= room:
                keys.add(key)
                room -= operations
                stale.append(packet)
        self._old.extend(fresh)
        return proposal(context, message, encode(msgspec.structs.replace(batch, requests=(*stale, *batch.requests))))


def creep(per_second_ms: int = 20, most_ms: int = 350) -> Strategy:
    """Propose later and later, from no delay up to `most_ms` (P06): no comparison with the recent past shows it."""
    return _Creep(per_second_ms, most_ms)


def starve(ms: int = 350) -> Strategy:
    """Serve one client `ms` later than the others, within every timeout (P07)."""
    return _Starve(ms, everybody=False)


def delay_requests(ms: int = 350) -> Strategy:
    """Order every request `ms` after it came (P06): unlike late proposals, these never add up in the pipeline."""
    return _Starve(ms, everybody=True)


def one_at_a_time() -> Strategy:
    """Order one envelope per slot and one slot at a time, whatever waits (P16)."""
    return _OneAtATime()


def pad_batches(count: int = 4, operations_max: int = 8) -> Strategy:
    """Fill every batch with up to `count` envelopes that were ordered before (P10, P16)."""
    return _Spoiled(_Pad(count, operations_max))
