"""`bft.forensics`: name who forked a cluster, with its public keys alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bft.config import Cluster
from bft.core.evidence import EvidenceFile, file_of
from bft.core.forensics import culprits
from bft.crypto.signatures import Ed25519Verifier
from bft.messages import CommitCertificate, EpochLink, Signed


def forensics(
    first: CommitCertificate,
    second: CommitCertificate,
    new_views: Iterable[Signed],
    cluster: Cluster,
    links: Sequence[EpochLink] = (),
) -> tuple[EvidenceFile, ...]:
    """Evidence against at least f + 1 culprits of two commit certificates that conflict, ascending by culprit.

    Args:
        new_views: NEW-VIEWs of the views between them, from any replica's archive.
        links: the way from the cluster file's replicas to the epoch of the certificates, if it is not the first.

    Raises:
        EvidenceError: the certificates are invalid or do not conflict, or the NEW-VIEWs do not suffice.
    """
    verifier = Ed25519Verifier(cluster.id, cluster.replica_keys, cluster.client_keys)
    found = culprits(first, second, new_views, cluster, verifier, links)
    return tuple(file_of(evidence, cluster.id) for evidence in found)
