"""Accountability: signed statements of one replica that no correct replica can have made.

Evidence is self-contained: with the cluster's public keys anybody can verify it, offline. It is sound: a correct
replica writes what binds it to disk before it speaks, so neither crash nor restart makes it contradict itself, and a
signature covers the cluster, so nothing can be brought in from elsewhere. Silence and bad timing are no evidence.

Epochs change keys and quorums: evidence of a later one brings the links that lead there from the cluster file.

Four forms, and what makes each sound:

- two messages that exclude each other (`contradiction`): a correct replica says such a thing once, durably;
- one message that is invalid in itself (`bft.wire.admission`, which finds it): a correct replica passes everything that
  it signs through the very validator that others hold against it;
- a vote for a slot that its epoch does not have, and the link that ended the epoch before it (`beyond_epoch`);
- a reply that a weak quorum of others contradicts: rests on the assumption that one of those is correct (`ASSUMES_F`).

`bft.core.verdict` judges evidence, `bft.core.forensics` finds it after a fork.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from bft.core.proofs import opened, opened_pre_prepare
from bft.events import Evidence
from bft.ids import DigestBytes, ReplicaIndex
from bft.messages import (
    REPLICAS_BOUND,
    Checkpoint,
    Commit,
    EpochLink,
    NewView,
    Payload,
    Prepare,
    PrePrepare,
    ReplyStatement,
    Signed,
    ViewChange,
)

VERSION = 2
VERSIONS_READ = (1, 2)
WRONG_REPLY = "wrong-reply"
BEYOND_EPOCH = "vote-beyond-epoch"
"""A vote for a slot that the vote's epoch does not have (E12)."""
ASSUMES_F = (WRONG_REPLY,)
"""Kinds that convict only if at most f replicas lie; all others hold whatever the rest of the cluster does."""
VIEWS_PER_BUCKET = 16
"""Evidence of one kind against one replica is kept once per this many views: one conviction is as good as ten."""


class EvidenceFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Evidence as it is kept and passed on (JSON; bytes as base64); fields as of `bft.events.Evidence`.

    Attributes:
        cluster: 32-byte cluster id, which the signatures cover.
        version: 2 since evidence need not be a pair; pairs of version 1 are still read.
        links: the way from genesis to the epoch of the messages; for `BEYOND_EPOCH` also the link that ends it.
    """

    version: int = VERSION
    cluster: DigestBytes
    kind: Annotated[str, Meta(max_length=64)]
    accused: ReplicaIndex
    first: Signed
    second: Signed | None = None
    attachment: Payload = b""
    witnesses: Annotated[tuple[Signed, ...], Meta(max_length=REPLICAS_BOUND)] = ()
    links: tuple[EpochLink, ...] = ()

    def to_json(self) -> bytes:
        """The content of an evidence file."""
        return msgspec.json.encode(self)


def file_of(evidence: Evidence, cluster_id: bytes) -> EvidenceFile:
    """What a replica or client reports, as it is kept."""
    return EvidenceFile(
        cluster=cluster_id,
        kind=evidence.kind,
        accused=evidence.accused,
        first=evidence.first,
        second=evidence.second,
        attachment=evidence.attachment,
        witnesses=evidence.witnesses,
        links=evidence.links,
    )


def bucket(evidence: Evidence) -> int:
    """Which stretch of views the first message belongs to; 0 for messages without a view."""
    view = getattr(opened(evidence.first), "view", 0)
    assert isinstance(view, int), "views are integers"
    return view // VIEWS_PER_BUCKET


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
        case (PrePrepare() | Prepare() as vote, Commit() as commit) if _same_slot(vote, commit):
            return "crossed-votes" if vote.digest != commit.digest else None
        case (ReplyStatement() as one, ReplyStatement() as other) if _same_reply(one, other):
            return "two-replies"
        case _:
            return None


def _same_slot(one: PrePrepare | Prepare | Commit, other: PrePrepare | Prepare | Commit) -> bool:
    """What a correct replica prepared is the one proposal that it accepted in that view, durably, and COMMITs."""
    return (one.epoch, one.view, one.seq) == (other.epoch, other.view, other.seq)


def _same_reply(one: ReplyStatement, other: ReplyStatement) -> bool:
    """Execution is deterministic, also when it is repeated after a crash: a session's bundle of a slot is one."""
    return (one.epoch, one.client, one.session, one.seq) == (other.epoch, other.client, other.session, other.seq)


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
