"""The message log: one slot per sequence number between the watermarks, and the batches that slots refer to."""

from __future__ import annotations

from dataclasses import dataclass, field

from bft.digests import NULL_DIGEST
from bft.events import OpenedBatch
from bft.messages import CommitCertificate, PreparedCertificate, Signed

Vote = tuple[int, bytes, bytes]
"""(view, digest, signature) of a PREPARE or COMMIT; the slot and the sender are known from where it is kept."""


@dataclass(slots=True)
class Slot:
    """What a replica knows of one sequence number.

    Attributes:
        accepted: view -> (digest, PRE-PREPARE) for every view in which this replica accepted one.
        voted_view: highest view in which this replica prepared (or, as primary, proposed) here; -1 for none.
        prepares: per backup, its PREPARE of the highest view.
        commits: per replica, its COMMIT of the highest view.
        prepared: certificate of the highest view, kept across view changes until the slot is stable.
        prepared_view: view of `prepared`, -1 for none.
        committed: proof that the slot's batch is decided.
    """

    seq: int
    accepted: dict[int, tuple[bytes, Signed]] = field(default_factory=dict)
    voted_view: int = -1
    prepares: dict[int, Vote] = field(default_factory=dict)
    commits: dict[int, Vote] = field(default_factory=dict)
    prepared: PreparedCertificate | None = None
    prepared_view: int = -1
    committed: CommitCertificate | None = None


class Log:
    """Slots in (low, low + window], and opened batches by digest.

    A batch that this replica voted for is kept while its slot is above the low watermark, whatever views come: an old
    certificate may be chosen later by a V that holds no newer one.
    """

    def __init__(self, window: int) -> None:
        self.low = 0
        self.window = window
        self.high = window
        """High watermark: the last sequence number that may be used; never beyond the last slot of the epoch."""
        self._end: int | None = None
        self.slots: dict[int, Slot] = {}
        self._batches: dict[bytes, OpenedBatch] = {}
        self._needed_until: dict[bytes, int] = {}

    def end(self, seq: int | None) -> None:
        """Set the last slot of the epoch; None if it has none yet."""
        self._end = seq
        self._move(self.low)

    def _move(self, low: int) -> None:
        self.low = low
        self.high = low + self.window if self._end is None else min(low + self.window, self._end)

    def within(self, seq: int) -> bool:
        """True if `seq` lies between the watermarks."""
        return self.low < seq <= self.high

    def begin(self, low: int) -> None:
        """Stand at a checkpoint from the start: the log is new, or restored."""
        assert not self.slots, "a log begins empty"
        self._move(low)

    def slot(self, seq: int) -> Slot:
        """The slot, made if new; `seq` must lie between the watermarks."""
        found = self.slots.get(seq)
        if found is None:
            assert self.within(seq), f"slot {seq} outside ({self.low}, {self.high}]"
            found = self.slots[seq] = Slot(seq)
        return found

    def batch(self, digest: bytes) -> OpenedBatch | None:
        """The opened batch with this digest, if here."""
        return self._batches.get(digest)

    def has_batch(self, digest: bytes) -> bool:
        """True if the batch is here, or is the null batch that has no body."""
        return digest == NULL_DIGEST or digest in self._batches

    def keep_batch(self, batch: OpenedBatch, seq: int) -> None:
        """Keep a batch at least until slot `seq` is stable."""
        self._batches.setdefault(batch.digest, batch)
        if self._needed_until.get(batch.digest, 0) < seq:
            self._needed_until[batch.digest] = seq

    @property
    def batch_count(self) -> int:
        """Number of batches kept."""
        return len(self._batches)

    def truncate(self, low: int) -> None:
        """Advance the low watermark: everything at or below `low` is covered by a stable checkpoint."""
        assert low >= self.low, f"low watermark cannot fall from {self.low} to {low}"
        self._move(low)
        self.slots = {seq: slot for seq, slot in self.slots.items() if seq > low}
        for digest in [digest for digest, until in self._needed_until.items() if until <= low]:
            del self._batches[digest]
            del self._needed_until[digest]
