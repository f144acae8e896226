"""Accountability: two signed messages of one replica that no correct replica can both have signed.

Evidence is self-contained: with the cluster's public keys anybody can verify it, offline. It is sound: a correct
replica writes what binds it to disk before it speaks, so neither crash nor restart makes it contradict itself, and a
signature covers the cluster, so nothing can be brought in from elsewhere. Silence and bad timing are no evidence.
"""

from __future__ import annotations

import msgspec

from bft.core.proofs import opened, opened_pre_prepare
from bft.messages import Checkpoint, Commit, NewView, Prepare, PrePrepare, Signed, ViewChange
from bft.ports import Verifier

VERSION = 1


class EvidenceFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Evidence as it is kept and passed on (JSON; bytes as base64).

    Attributes:
        cluster: 32-byte cluster id, which the signatures cover.
        kind: what `contradiction` calls it.
    """

    version: int = VERSION
    cluster: bytes
    kind: str
    accused: int
    first: Signed
    second: Signed


def contradiction(first: Signed, second: Signed) -> str | None:
    """How two messages of one signer exclude each other; None if a correct replica may have signed both."""
    if first.sender != second.sender or first.payload == second.payload:
        return None
    pair = (opened(first), opened(second))
    match pair:
        case (PrePrepare() as one, PrePrepare() as other) if _same_slot(one, other):
            return "two-pre-prepares"
        case (Prepare() as one, Prepare() as other) if _same_slot(one, other):
            return "two-prepares"
        case (Commit() as one, Commit() as other) if _same_slot(one, other):
            return "two-commits"
        case (Checkpoint() as one, Checkpoint() as other) if (one.epoch, one.seq) == (other.epoch, other.seq):
            return "two-checkpoints"
        case (ViewChange() as one, ViewChange() as other) if (one.epoch, one.view) == (other.epoch, other.view):
            return "two-view-changes"
        case (NewView() as one, NewView() as other) if (one.epoch, one.view) == (other.epoch, other.view):
            return "two-new-views"
        case (Commit() as commit, ViewChange() as change):
            return "hidden-certificate" if hides(commit, change) else None
        case _:
            return None


def _same_slot(one: PrePrepare | Prepare | Commit, other: PrePrepare | Prepare | Commit) -> bool:
    return (one.epoch, one.view, one.seq) == (other.epoch, other.view, other.seq)


def hides(commit: Commit, change: ViewChange) -> bool:
    """True if a VIEW-CHANGE omits what its signer had prepared when it sent the COMMIT.

    Sound: a correct replica stores the certificate before it sends COMMIT, keeps it (or one of a higher view) while
    the slot is above its low watermark, and sends no COMMIT in a view below one that it has left.
    """
    low = change.stable.seq if change.stable is not None else 0
    if change.epoch != commit.epoch or change.view <= commit.view or commit.seq <= low:
        return False
    headers = [opened_pre_prepare(certificate.pre_prepare) for certificate in change.prepared]
    return not any(header and header.seq == commit.seq and header.view >= commit.view for header in headers)


def verdict(evidence: EvidenceFile, cluster_id: bytes, verifier: Verifier) -> str | None:
    """What is wrong with a piece of evidence; None if it proves what it says."""
    if evidence.version != VERSION:
        return f"format version {evidence.version} is unknown, this is {VERSION}"
    if evidence.cluster != cluster_id:
        return "it belongs to another cluster"
    for name, signed in (("first", evidence.first), ("second", evidence.second)):
        if signed.sender != evidence.accused:
            return f"the {name} message is signed by replica {signed.sender}, not by the accused {evidence.accused}"
        if not verifier.verify_replica(signed.sender, signed.payload, signed.signature):
            return f"the signature of the {name} message does not hold"
    found = contradiction(evidence.first, evidence.second)
    if found is None:
        return "a correct replica may have signed both messages"
    return None if found == evidence.kind else f"it proves {found}, not {evidence.kind}"
