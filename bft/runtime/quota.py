"""How much a client may make this replica do: token buckets, and patience that bad signatures use up.

PURE: time is handed in. A quota belongs to the key that a connection has proven, never to a name in an unverified
message: else one forger could have another client held back. What is over it is not dropped but left unread, so that
the sender's own socket fills: back-pressure. It is decided before a frame is decoded or a signature checked.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from bft.config import MILLISECOND, ClientLimits
from bft.ids import Nanos
from bft.wire.codec import reads_in

SECOND = 1000 * MILLISECOND
REQUEST_TAG = b"\x02"
"""The tag of `bft.messages.SignedRequest`, the second byte of its frame: the only thing of a client's that costs a
signature check. A frame that lies about it is malformed, and counts as a bad signature."""
READS_PER_MESSAGE = 4
"""Reads that come together cost as much as one that comes by itself."""
PENALTY_MIN_NS = 100 * MILLISECOND
PENALTY_MAX_NS = 60 * SECOND
FORGIVEN_NS = 120 * SECOND
QUOTAS_MAX = 4096


class Bucket:
    """A token bucket: `rate` tokens per second, at most `burst` saved up. May go into debt for one frame."""

    __slots__ = ("_at", "_burst", "_level", "_rate")

    def __init__(self, rate: int, burst: int, now: Nanos) -> None:
        self._rate = rate
        self._burst = burst * SECOND
        self._level = self._burst
        self._at = now

    def spend(self, tokens: int, now: Nanos) -> None:
        """Take tokens out."""
        self._level = min(self._burst, self._level + (now - self._at) * self._rate) - tokens * SECOND
        self._at = now

    def pause_ns(self, now: Nanos) -> Nanos:
        """How long until it is out of debt."""
        level = self._level + (now - self._at) * self._rate
        return 0 if level >= 0 else -(level // self._rate)


class Quota:
    """What one client may do from now on."""

    __slots__ = ("_bad", "_bad_max", "_blamed_at", "_buckets", "_level", "_until")

    def __init__(self, limits: ClientLimits, now: Nanos) -> None:
        seconds = limits.burst_seconds
        self._buckets = tuple(
            (name, Bucket(rate, rate * seconds, now))
            for name, rate in (
                ("envelopes", limits.envelopes_per_second),
                ("messages", limits.messages_per_second),
                ("bytes", limits.bytes_per_second),
            )
        )
        self._bad_max = limits.bad_signatures_max
        self._bad = 0
        self._level = 0
        self._blamed_at: Nanos = 0
        self._until: Nanos = 0

    def spend(self, frames: Sequence[bytes], now: Nanos) -> None:
        """Account for frames that are about to be looked at."""
        envelopes = sum(frame[1:2] == REQUEST_TAG for frame in frames)
        messages = len(frames) + sum(map(reads_in, frames)) // READS_PER_MESSAGE
        for (_, bucket), tokens in zip(self._buckets, (envelopes, messages, sum(map(len, frames))), strict=True):
            bucket.spend(tokens, now)

    def blame(self, count: int, now: Nanos) -> None:
        """The client sent `count` frames that it cannot have meant: signatures that do not hold, malformed bytes.

        Every `bad_signatures_max` of them it is left unread for a time, twice as long each time; after two minutes
        without any, all is forgiven.
        """
        if now - self._blamed_at > FORGIVEN_NS:
            self._bad = self._level = 0
        self._blamed_at = now
        self._bad += count
        if self._bad >= self._bad_max:
            self._bad = 0
            self._until = now + min(PENALTY_MIN_NS << self._level, PENALTY_MAX_NS)
            self._level = min(self._level + 1, 16)

    def pause_ns(self, now: Nanos) -> tuple[Nanos, str]:
        """How long the client must wait before the next frame of it is looked at, and for what; 0 if not at all."""
        if now < self._until:
            return self._until - now, "bad-signatures"
        for name, bucket in self._buckets:
            pause = bucket.pause_ns(now)
            if pause:
                return pause, name
        return 0, ""


class Quotas:
    """Quotas by client key; they outlive connections, so that reconnecting wins nothing; few are kept."""

    def __init__(self, limits: ClientLimits) -> None:
        self._limits = limits
        self._held: OrderedDict[bytes, Quota] = OrderedDict()

    def of(self, client: bytes, now: Nanos) -> Quota:
        """The client's quota; connections of one key share it."""
        quota = self._held.get(client)
        if quota is None:
            quota = self._held[client] = Quota(self._limits, now)
            if len(self._held) > QUOTAS_MAX:
                self._held.popitem(last=False)
        self._held.move_to_end(client)
        return quota
