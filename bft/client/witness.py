"""Which envelopes the backups see besides the primary: some, at moments that the primary cannot foresee.

PURE. Backups judge a primary by how long requests wait (`bft.core.monitor`), and know only of requests that reach them.
Sending every envelope to all replicas would cost each of them a frame per envelope; one in some tens of milliseconds
costs nothing and shows the same. When the primary is slow, envelopes become rare and every one is witnessed.

The moments come from a keyed hash, its key from the client's own signature under bytes that no request can have: a
primary that treats witnessed envelopes better has to guess. A backup that colludes with it can tell it, so with f > 1
a primary may discriminate; what the other envelopes then wait shows to the client, which sends late ones to all.
"""

from __future__ import annotations

from bft.digests import witness_dice
from bft.ids import Nanos
from bft.ports import Signer

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

    def is_due(self, now: Nanos) -> bool:
        """True if the envelope sent now goes to all replicas; the next one half to one and a half intervals later."""
        if not self._interval or now < self._next:
            return False
        self._count += 1
        self._next = now + self._interval // 2 + witness_dice(self._key, self._count) % self._interval
        return self._count > 1
