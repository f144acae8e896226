"""`bft.forensics`: name who forked a cluster, with its public keys alone."""

from __future__ import annotations

from collections.abc import Iterable

from bft.config import Cluster
from bft.core.evidence import EvidenceFile, file_of
from bft.core.forensics import culprits
from bft.crypto.signatures import Ed25519Verifier
from bft.messages import CommitCertificate, Signed


def forensics(
    first: CommitCertificate, second: CommitCertificate, new_views: Iterable[Signed], cluster: Cluster
) -> tuple[EvidenceFile, ...]:
    """Evidence against at least f + 1 culprits of two commit certificates that conflict, ascending by culprit.

    Args:
        new_views: NEW-VIEWs of the views between them, from any replica's archive.

    Raises:
        EvidenceError: the certificates are invalid or do not conflict, or the NEW-VIEWs do not suffice.
    """
    verifier = Ed25519Verifier(cluster.id, cluster.replica_keys, cluster.client_keys)
    found = culprits(first, second, new_views, cluster, verifier)
    return tuple(file_of(evidence, cluster.id) for evidence in found)
