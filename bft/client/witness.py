"""Which envelopes the backups see besides the primary: some, at moments that the primary cannot foresee.

PURE. Backups judge a primary by how long requests wait (`bft.core.monitor`), and know only of requests that reach them.
Sending every envelope to all replicas would cost each of them a frame per envelope; one in some tens of milliseconds
costs nothing and shows the same. When the primary is slow, envelopes become rare and every one is witnessed.

Where many clients share the slots, that would be one in some tens of milliseconds from each of them: half of all
envelopes, and a third of the throughput of 200 independent clients. So whoever is in few of the slots sends few: of a
client with one envelope in k slots every (k / RARE)th. All together they still show some in every slot. A primary could
make slots only to see fewer; it does not get below one in `RARE_INTERVALS` intervals from anybody.

The moments come from a keyed hash, its key from the client's own signature under bytes that no request can have: a
primary that treats witnessed envelopes better has to guess. A backup that colludes with it can tell it, so with f > 1
a primary may discriminate; what the other envelopes then wait shows to the client, which sends late ones to all.
"""

from __future__ import annotations

from bft.digests import witness_dice
from bft.ids import Nanos
from bft.ports import Signer

RARE = 4
"""Slots per envelope of this client's from which on not all are witnessed that the interval allows."""
RARE_INTERVALS = 40
"""Intervals after which one is, whatever the others do."""
HALF_TO_ONE_AND_A_HALF = 1024
"""Thresholds are drawn from half to one and a half of themselves, in parts of this."""
NOT_A_REQUEST = b"bft witness"
"""No canonical REQUEST: the signature under it is a secret of the client, and good for nothing else."""


class Witness:
    """Decides envelope by envelope.

    Args:
        interval_ns: about how often; 0 for never.
        signer: the client's.
    """

    def __init__(self, interval_ns: Nanos, signer: Signer) -> None:
        self._interval = interval_ns
        self._key = signer.sign(NOT_A_REQUEST) if interval_ns else b""
        self._count = 0
        self._next: Nanos = 0
        self._last: Nanos = 0
        self._part = 0
        self._seq = 0
        self._sent = 0

    def is_due(self, now: Nanos, seq: int) -> bool:
        """True if the envelope sent now goes to all replicas; the next one half to one and a half intervals later.

        Args:
            seq: of the newest slot that held something of this client, 0 for none so far.
        """
        self._sent += 1
        if not self._interval or now < self._next:
            return False
        if now < self._last + RARE_INTERVALS * self._interval and self._is_rare(seq):
            return False
        dice = witness_dice(self._key, self._count + 1)
        self._count += 1
        self._last = now
        self._next = now + self._interval // 2 + dice % self._interval
        self._part = HALF_TO_ONE_AND_A_HALF // 2 + (dice >> 32) % HALF_TO_ONE_AND_A_HALF
        self._seq, self._sent = seq, 0
        return self._count > 1

    def _is_rare(self, seq: int) -> bool:
        """True if `_sent` envelopes since the last witnessed one are fewer than the slots per envelope over RARE."""
        slots = (seq - self._seq) * self._part // HALF_TO_ONE_AND_A_HALF if self._seq else 0
        return RARE * self._sent * self._sent < slots
