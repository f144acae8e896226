"""When is a message or certificate well formed? One validator for inbound, outbound and stored values.

`flaw(message, sender, rules)` says what is wrong, or None. It looks at structure only: counts, distinctness, views,
watermarks. That the signatures hold is checked by `wire.admission`, which walks over `endorsed` and `nested`.
Every message that a replica is about to send passes through here too, so that a counting bug of ours stops us before
it misleads others (`test_every_outbound_message_passes_the_inbound_validator`).

Facts used below: two strong quorums share a correct replica; a weak one contains a correct replica (`membership`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bft.core.newview import select
from bft.membership import Quorums
from bft.messages import (
    Checkpoint,
    CheckpointCertificate,
    Commit,
    CommitCertificate,
    Endorsements,
    NewView,
    Prepare,
    PreparedCertificate,
    PrePrepare,
    ReplicaMessage,
    Signed,
    Suspect,
    ViewChange,
)
from bft.wire.codec import Malformed, decode_replica_message, encode


@dataclass(frozen=True, slots=True)
class Rules:
    """What validity depends on beside the message itself; equal on all correct replicas of an epoch."""

    quorums: Quorums
    epoch: int
    checkpoint_interval: int
    window: int
    base: int = 0
    """The slot after which the epoch begins: in it, no checkpoint at or below counts, and none is needed there."""


def flaw(message: ReplicaMessage, sender: int, rules: Rules) -> str | None:
    """What is structurally wrong with `message` signed by `sender`; None if nothing."""
    if sender not in rules.quorums.ids:
        return "not-a-member"
    if message.epoch != rules.epoch:
        return "other-epoch"
    match message:
        case PrePrepare():
            return None if sender == rules.quorums.primary(message.view) else "not-the-primary"
        case Prepare():
            return None if sender != rules.quorums.primary(message.view) else "prepare-by-primary"
        case Commit() | Suspect():
            return None
        case Checkpoint():
            return _checkpoint_flaw(message.seq, rules)
        case ViewChange():
            return _view_change_flaw(message, rules)
        case NewView():
            return _new_view_flaw(message, sender, rules)


def commit_certificate_flaw(certificate: CommitCertificate, rules: Rules) -> str | None:
    """What is wrong with the structure of a commit certificate: exactly `strong` distinct signers."""
    if certificate.epoch != rules.epoch:
        return "other-epoch"
    return _signers_flaw(certificate.commits, rules.quorums.strong, rules)


def checkpoint_certificate_flaw(certificate: CheckpointCertificate, rules: Rules) -> str | None:
    """What is wrong with the structure of a stable-checkpoint certificate: exactly `strong` distinct signers.

    A weak quorum would prove the digest right, but not that enough correct replicas hold the state for others to
    fetch: it must never advance a low watermark (mutant M12).
    """
    if certificate.epoch != rules.epoch:
        return "other-epoch"
    return _checkpoint_flaw(certificate.seq, rules) or _signers_flaw(
        certificate.checkpoints, rules.quorums.strong, rules
    )


def prepared_certificate_flaw(certificate: PreparedCertificate, rules: Rules) -> str | None:
    """What is wrong with a prepared certificate: `strong - 1` distinct *backups* beside the primary's PRE-PREPARE."""
    header = opened_pre_prepare(certificate.pre_prepare)
    if header is None:
        return "no-pre-prepare"
    found = flaw(header, certificate.pre_prepare.sender, rules)
    if found is not None:
        return found
    primary = rules.quorums.primary(header.view)
    if any(endorsement.replica == primary for endorsement in certificate.prepares):
        return "prepare-by-primary"
    return _signers_flaw(certificate.prepares, rules.quorums.prepares, rules)


def opened_pre_prepare(signed: Signed) -> PrePrepare | None:
    """The PRE-PREPARE inside `signed`, or None if it holds something else."""
    message = opened(signed)
    return message if isinstance(message, PrePrepare) else None


def opened(signed: Signed) -> ReplicaMessage | None:
    """The message inside `signed`, or None if its payload is malformed."""
    try:
        return decode_replica_message(signed.payload)
    except Malformed:
        return None


def prepared_header(certificate: PreparedCertificate) -> PrePrepare:
    """The PRE-PREPARE of a certificate already found valid."""
    header = opened_pre_prepare(certificate.pre_prepare)
    assert header is not None, "a valid certificate holds a PRE-PREPARE"
    return header


def _checkpoint_flaw(seq: int, rules: Rules) -> str | None:
    return None if seq > rules.base and seq % rules.checkpoint_interval == 0 else "not-a-checkpoint"


def _signers_flaw(endorsements: Endorsements, count: int, rules: Rules) -> str | None:
    """Certificates hold *exactly* the quorum, ascending: a repeated or foreign signer cannot hide in one."""
    if len(endorsements) != count:
        return "wrong-quorum"
    previous = -1
    for endorsement in endorsements:
        if endorsement.replica <= previous:
            return "signers-not-ascending"
        previous = endorsement.replica
        if previous not in rules.quorums.ids:
            return "not-a-member"
    return None


def _view_change_flaw(message: ViewChange, rules: Rules) -> str | None:
    if message.view == 0:
        return "view-change-to-0"
    if message.stable is not None:
        found = checkpoint_certificate_flaw(message.stable, rules)
        if found is not None:
            return found
    low = message.stable.seq if message.stable is not None else rules.base
    previous = low
    for certificate in message.prepared:
        found = prepared_certificate_flaw(certificate, rules)
        if found is not None:
            return found
        header = prepared_header(certificate)
        if header.view >= message.view:
            return "prepared-in-a-later-view"
        if not previous < header.seq <= low + rules.window:
            return "prepared-outside-the-window"
        previous = header.seq
    return None


def _new_view_flaw(message: NewView, sender: int, rules: Rules) -> str | None:
    """A NEW-VIEW is recomputed, never trusted: V must be a strong quorum, O must be what V implies [CL99 4.4]."""
    if message.view == 0:
        return "new-view-0"
    if sender != rules.quorums.primary(message.view):
        return "not-the-primary"
    if len(message.view_changes) != rules.quorums.strong:
        return "wrong-quorum"
    previous = -1
    view_changes = []
    for signed in message.view_changes:
        if signed.sender <= previous:
            return "signers-not-ascending"
        previous = signed.sender
        view_change = opened(signed)
        if not isinstance(view_change, ViewChange) or view_change.view != message.view:
            return "view-change-for-another-view"
        found = flaw(view_change, signed.sender, rules)
        if found is not None:
            return found
        view_changes.append(view_change)
    expected = select(view_changes, rules.base).proposals
    if len(expected) != len(message.pre_prepares):
        return "wrong-proposals"
    for (seq, digest), signed in zip(expected, message.pre_prepares, strict=True):
        if signed.sender != sender:
            return "wrong-proposals"
        if opened_pre_prepare(signed) != PrePrepare(message.epoch, message.view, seq, digest):
            return "wrong-proposals"
    return None


def endorsed(
    certificate: CommitCertificate | CheckpointCertificate | PreparedCertificate,
) -> Iterator[tuple[int, bytes, bytes]]:
    """(signer, payload, signature) of every signature that a structurally valid certificate rests on."""
    match certificate:
        case CommitCertificate():
            payload = encode(Commit(certificate.epoch, certificate.view, certificate.seq, certificate.digest))
            endorsements = certificate.commits
        case CheckpointCertificate():
            payload = encode(Checkpoint(certificate.epoch, certificate.seq, certificate.digest))
            endorsements = certificate.checkpoints
        case PreparedCertificate():
            signed = certificate.pre_prepare
            yield signed.sender, signed.payload, signed.signature
            header = prepared_header(certificate)
            payload = encode(Prepare(header.epoch, header.view, header.seq, header.digest))
            endorsements = certificate.prepares
    for endorsement in endorsements:
        yield endorsement.replica, payload, endorsement.signature


def nested(message: ReplicaMessage) -> Iterator[tuple[int, bytes, bytes]]:
    """Every signature inside a structurally valid message, beside its sender's own."""
    if isinstance(message, ViewChange):
        if message.stable is not None:
            yield from endorsed(message.stable)
        for certificate in message.prepared:
            yield from endorsed(certificate)
    elif isinstance(message, NewView):
        for signed in (*message.view_changes, *message.pre_prepares):
            yield signed.sender, signed.payload, signed.signature
            inner = opened(signed)
            assert inner is not None, "a valid NEW-VIEW holds readable messages"
            yield from nested(inner)
