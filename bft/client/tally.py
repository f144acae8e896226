"""Which reply bundle to believe: the one that `weak` distinct replicas of one epoch sent for a slot [CL99 4.1].

PURE. Among `weak` equal statements one is a correct replica's. Bounded: a replica's unfinished replies are limited in
number and bytes, and only its own are evicted for it, so that a flood harms nobody else's votes.
"""

from __future__ import annotations

from msgspec.structs import replace

from bft.digests import bundle_digest
from bft.membership import Quorums
from bft.messages import Reply

BYTES_MAX = 32 * 1024 * 1024


class Tally:
    """Replies per slot, until one bundle is believed.

    Attributes:
        disagreements: per replica, how many of its replies differ from what was believed: it lies, or is corrupt.
    """

    __slots__ = ("_bytes", "_done", "_kept", "_kept_max", "_slots", "_weak", "disagreements")

    def __init__(self, quorums: Quorums, kept_max: int) -> None:
        """Keep at most `kept_max` unfinished replies (and 32 MiB) per replica."""
        self._weak = quorums.weak
        self._kept_max = kept_max
        self._slots: dict[int, dict[int, Reply]] = {}
        self._kept: dict[int, dict[int, None]] = {replica: {} for replica in quorums.members}
        self._bytes = dict.fromkeys(quorums.members, 0)
        self._done: dict[int, bytes] = {}
        self.disagreements: dict[int, int] = {}

    def __len__(self) -> int:
        """Replies kept."""
        return sum(map(len, self._kept.values()))

    def enter(self, quorums: Quorums) -> None:
        """Another epoch: votes of the one before count no more. What was believed stays so, and is not told twice."""
        self._weak, self._slots = quorums.weak, {}
        self._kept = {replica: {} for replica in quorums.members}
        self._bytes = dict.fromkeys(quorums.members, 0)

    def add(self, replica: int, reply: Reply) -> bytes | None:
        """Count a replica's reply; its latest for a slot replaces the one before.

        Returns:
            The bundle's bytes when this reply made them believed; empty if the digest is believed but nobody has sent
            the bytes; None otherwise.
        """
        seq = reply.seq
        agreed = self._done.get(seq)
        if agreed is not None:
            self._judge(replica, reply.digest, agreed)
            return None
        votes = self._slots.setdefault(seq, {})
        before = votes.get(replica)
        if before is None:
            self._kept[replica][seq] = None
        elif reply.bundle or before.digest != reply.digest:
            self._bytes[replica] -= len(before.bundle)
        else:
            return None  # says nothing new
        votes[replica] = reply
        self._bytes[replica] += len(reply.bundle)
        if len(votes) >= self._weak:
            equal = [r for r, vote in votes.items() if vote.digest == reply.digest and vote.epoch == reply.epoch]
            if len(equal) >= self._weak:
                bundle = self._bundle(seq, equal)
                self._evict(replica)
                return bundle
        self._evict(replica)
        return None

    def _bundle(self, seq: int, equal: list[int]) -> bytes:
        """The bytes of an agreed digest. Hashed only here: once per slot, however many replicas sent them.

        Wrong ones are forgotten, lest liars have them hashed again and again with short replies.
        """
        votes = self._slots[seq]
        for replica in equal:
            vote = votes[replica]
            if not vote.bundle:
                continue
            if bundle_digest(vote.bundle) == vote.digest:
                self._finish(seq, vote.digest)
                return vote.bundle
            self._bytes[replica] -= len(vote.bundle)
            votes[replica] = replace(vote, bundle=b"")
        return b""

    def _finish(self, seq: int, agreed: bytes) -> None:
        for replica, vote in self._slots.pop(seq).items():
            del self._kept[replica][seq]
            self._bytes[replica] -= len(vote.bundle)
            self._judge(replica, vote.digest, agreed)
        self._done[seq] = agreed
        if len(self._done) > 2 * self._kept_max:
            del self._done[next(iter(self._done))]

    def _judge(self, replica: int, digest: bytes, agreed: bytes) -> None:
        if digest != agreed:
            self.disagreements[replica] = self.disagreements.get(replica, 0) + 1

    def _evict(self, replica: int) -> None:
        kept = self._kept[replica]
        while len(kept) > self._kept_max or self._bytes[replica] > BYTES_MAX:
            seq = next(iter(kept))
            del kept[seq]
            votes = self._slots[seq]
            self._bytes[replica] -= len(votes.pop(replica).bundle)
            if not votes:
                del self._slots[seq]
