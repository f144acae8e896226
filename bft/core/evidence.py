"""Accountability: two signed messages of one replica that no correct replica can both have signed.

Evidence is self-contained: with the cluster's public keys anybody can verify it, offline. It is sound: a correct
replica writes what binds it to disk before it speaks, so neither crash nor restart makes it contradict itself, and a
signature covers the cluster, so nothing can be brought in from elsewhere. Silence and bad timing are no evidence.
"""

from __future__ import annotations

import msgspec

from bft.core.proofs import opened, opened_pre_prepare
from bft.epochs import ChainError, Configuration, verify_chain
from bft.messages import Checkpoint, Commit, EpochLink, NewView, Prepare, PrePrepare, Signed, ViewChange
from bft.ports import KeyVerifier

VERSION = 1
BEYOND_EPOCH = "vote-beyond-epoch"
"""A vote for a slot that the vote's epoch does not have (E12)."""


class EvidenceFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Evidence as it is kept and passed on (JSON; bytes as base64).

    Attributes:
        cluster: 32-byte cluster id, which the signatures cover.
        kind: what `contradiction` calls it, or `BEYOND_EPOCH`, of which `first` and `second` are the same message.
        links: the way from genesis to the epoch of the messages; for `BEYOND_EPOCH` also the link that ends it.
    """

    version: int = VERSION
    cluster: bytes
    kind: str
    accused: int
    first: Signed
    second: Signed
    links: tuple[EpochLink, ...] = ()


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


def beyond_epoch(vote: Signed, link: EpochLink) -> bool:
    """True if a vote is of an epoch that had ended before the vote's slot.

    Sound: a correct replica votes within its window only, which ends with the epoch, as far as it can tell and further
    (`bft.epochs`).
    """
    message = opened(vote)
    if not isinstance(message, PrePrepare | Prepare | Commit | Checkpoint):
        return False
    return message.epoch == link.certificate.epoch and message.seq > link.certificate.seq


def verdict(evidence: EvidenceFile, cluster_id: bytes, genesis: Configuration, verifier: KeyVerifier) -> str | None:
    """What is wrong with a piece of evidence; None if it proves what it says.

    Args:
        genesis: the replicas of the cluster file; those of later epochs are proven by the evidence's links.
        verifier: checks signatures of this cluster.
    """
    if evidence.version != VERSION:
        return f"format version {evidence.version} is unknown, this is {VERSION}"
    if evidence.cluster != cluster_id:
        return "it belongs to another cluster"
    message = opened(evidence.first)
    epoch = message.epoch if message is not None else 0
    try:
        there = verify_chain(genesis, evidence.links[:epoch], verifier)
        verify_chain(there, evidence.links[epoch:], verifier)
    except ChainError as error:
        return str(error)
    if there.epoch != epoch:
        return f"the messages are of epoch {epoch}, and the evidence does not say who its members were"
    key = there.keys.get(evidence.accused)
    for name, signed in (("first", evidence.first), ("second", evidence.second)):
        if signed.sender != evidence.accused:
            return f"the {name} message is signed by replica {signed.sender}, not by the accused {evidence.accused}"
        if key is None or not verifier.verify_key(key, signed.sender, signed.payload, signed.signature):
            return f"the signature of the {name} message does not hold"
    return _kind_flaw(evidence, epoch)


def _kind_flaw(evidence: EvidenceFile, epoch: int) -> str | None:
    if evidence.kind == BEYOND_EPOCH:
        ends = evidence.links[epoch : epoch + 1]
        return None if ends and beyond_epoch(evidence.first, ends[0]) else "the vote is not beyond the epoch's end"
    found = contradiction(evidence.first, evidence.second)
    if found is None:
        return "a correct replica may have signed both messages"
    return None if found == evidence.kind else f"it proves {found}, not {evidence.kind}"
