"""Judging evidence: does it prove what it says, to somebody who has nothing but the cluster file?

The judge trusts nobody: every signature is verified for the signer it is ascribed to, and only then do contents count.
A single invalid message is judged by the same `Admission` that replicas use, so that judge and replica cannot differ.
"""

from __future__ import annotations

from bft.config import Cluster
from bft.core.evidence import VERSIONS_READ, WRONG_REPLY, EvidenceFile, contradiction
from bft.core.proofs import opened
from bft.core.recovery import rules_of
from bft.events import Rejected
from bft.messages import Packet, Proposal, ReplyStatement, Signed
from bft.ports import Verifier
from bft.wire.admission import INVALID_BATCH, Admission, Limits
from bft.wire.codec import encode


def admission_of(cluster: Cluster, verifier: Verifier) -> Admission:
    """The checks of a replica of this cluster."""
    protocol = cluster.protocol
    limits = Limits(protocol.session_window, protocol.batch_operations_max, protocol.batch_bytes_max)
    return Admission(verifier, rules_of(cluster), limits)


def verdict(evidence: EvidenceFile, cluster: Cluster, verifier: Verifier) -> str | None:
    """What is wrong with a piece of evidence; None if it proves what it says."""
    if evidence.version not in VERSIONS_READ:
        return f"format version {evidence.version} is unknown, this reads {VERSIONS_READ[-1]} and older"
    if evidence.cluster != cluster.id:
        return "it belongs to another cluster"
    if evidence.accused >= cluster.quorums.n:
        return f"the cluster has no replica {evidence.accused}"
    for name, signed in (("first", evidence.first), ("second", evidence.second)):
        if signed is None:
            continue
        if signed.sender != evidence.accused:
            return f"the {name} message is signed by replica {signed.sender}, not by the accused {evidence.accused}"
        if not verifier.verify_replica(signed.sender, signed.payload, signed.signature):
            return f"the signature of the {name} message does not hold"
    if evidence.kind == WRONG_REPLY:
        return _wrong_reply(evidence, cluster, verifier)
    if evidence.witnesses:
        return f"{evidence.kind} needs no witnesses, found {len(evidence.witnesses)}"
    found = _pair(evidence) if evidence.second is not None else _alone(evidence, cluster, verifier)
    if found is None:
        what = "both messages" if evidence.second is not None else "this message"
        return f"a correct replica may have signed {what}"
    return None if found == evidence.kind else f"it proves {found}, not {evidence.kind}"


def _pair(evidence: EvidenceFile) -> str | None:
    assert evidence.second is not None, "asked for by the caller"
    return contradiction(evidence.first, evidence.second) if not evidence.attachment else None


def _alone(evidence: EvidenceFile, cluster: Cluster, verifier: Verifier) -> str | None:
    """What a replica of the cluster would say if it were sent the message."""
    signed = evidence.first
    packet: Packet = Proposal(signed, evidence.attachment) if evidence.kind == INVALID_BATCH else signed
    if evidence.attachment and evidence.kind != INVALID_BATCH:
        return None
    answer = admission_of(cluster, verifier).admit(encode(packet), evidence.accused, lambda *_: True)
    if not isinstance(answer, Rejected) or answer.evidence is None:
        return None
    return answer.evidence.kind


def _wrong_reply(evidence: EvidenceFile, cluster: Cluster, verifier: Verifier) -> str | None:
    """A weak quorum of others agrees on another reply: one of them is correct, unless more than f lie."""
    said = opened(evidence.first)
    if not isinstance(said, ReplyStatement) or evidence.second is not None or evidence.attachment:
        return "a wrong reply is one statement of the accused against those of others"
    senders = [signed.sender for signed in evidence.witnesses]
    if len(set(senders)) != len(senders) or evidence.accused in senders:
        return "the witnesses must be distinct others"
    if len(senders) < cluster.quorums.weak:
        return f"{len(senders)} witnesses are too few: one of {cluster.quorums.weak} is correct"
    digests = []
    for signed in evidence.witnesses:
        if not verifier.verify_replica(signed.sender, signed.payload, signed.signature):
            return f"the signature of witness {signed.sender} does not hold"
        digests.append(_contradicting(said, signed))
    if None in digests or len(set(digests)) != 1:
        return "the witnesses do not agree on another reply"
    return None


def _contradicting(said: ReplyStatement, signed: Signed) -> bytes | None:
    """The digest that a witness gives for the same session and slot, if it is another one."""
    message = opened(signed)
    if not isinstance(message, ReplyStatement) or message.digest == said.digest:
        return None
    same = (message.epoch, message.client, message.session, message.seq) == (
        said.epoch,
        said.client,
        said.session,
        said.seq,
    )
    return message.digest if same else None
