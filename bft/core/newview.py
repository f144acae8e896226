"""What a NEW-VIEW must propose: a pure function of the VIEW-CHANGEs in it [CL99 4.4].

Both the new primary (to make O) and every backup (to recompute it) call `select`; nobody trusts a received O.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bft.digests import NULL_DIGEST
from bft.messages import CheckpointCertificate, PrePrepare, ViewChange
from bft.wire.codec import decode_replica_message


@dataclass(frozen=True, slots=True)
class Selection:
    """Result of `select`.

    Attributes:
        stable: proof of the highest stable checkpoint in V (min-s); None for the checkpoint at the epoch's base.
        proposals: (seq, digest) for every slot from min-s + 1 to max-s, without gaps.
    """

    stable: CheckpointCertificate | None
    proposals: tuple[tuple[int, bytes], ...]


def select(view_changes: Sequence[ViewChange], base: int = 0) -> Selection:
    """Choose, per slot, the digest of the certificate with the *highest view*, or null where there is none.

    Why the highest: if (v, seq, d) committed, strong many replicas held a prepared certificate for it in view v; every
    later V shares a correct one of them, and by induction no certificate for another digest exists in a view >= v.
    Any other choice (first, lowest, most frequent) loses committed requests (mutant M07).
    """
    stable: CheckpointCertificate | None = None
    for view_change in view_changes:
        if view_change.stable is not None and (stable is None or view_change.stable.seq > stable.seq):
            stable = view_change.stable
    low = stable.seq if stable is not None else base
    best: dict[int, PrePrepare] = {}
    for view_change in view_changes:
        for certificate in view_change.prepared:
            header = decode_replica_message(certificate.pre_prepare.payload)
            assert isinstance(header, PrePrepare), "V was validated before"
            held = best.get(header.seq)
            if held is None or header.view > held.view:
                best[header.seq] = header
    high = max(best, default=low)
    return Selection(
        stable,
        tuple((seq, best[seq].digest if seq in best else NULL_DIGEST) for seq in range(low + 1, high + 1)),
    )
