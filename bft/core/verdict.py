"""Judging evidence: does it prove what it says, to somebody who has nothing but the cluster file?

The judge trusts nobody: every signature is verified for the signer it is ascribed to, and only then do contents count.
A single invalid message is judged by the same `Admission` that replicas use, so that judge and replica cannot differ.
"""

from __future__ import annotations

from collections.abc import Sequence

from bft.config import Cluster
from bft.core.evidence import BEYOND_EPOCH, VERSIONS_READ, WRONG_REPLY, EvidenceFile, beyond_epoch, contradiction
from bft.core.proofs import opened
from bft.core.recovery import rules_in
from bft.epochs import ChainError, Configuration, genesis, verify_chain
from bft.events import Rejected
from bft.messages import EpochLink, Packet, Proposal, ReplyStatement, Signed
from bft.ports import OutsideVerifier
from bft.wire.admission import INVALID_BATCH, Admission, Limits
from bft.wire.codec import encode


class MembersVerifier:
    """A `Verifier` for the members of one epoch, made of one that knows the cluster but not who its replicas are."""

    def __init__(self, configuration: Configuration, verifier: OutsideVerifier) -> None:
        self._keys = configuration.keys
        self._verifier = verifier

    def verify_replica(self, sender: int, payload: bytes, signature: bytes, /) -> bool:
        """See `bft.ports.Verifier`."""
        key = self._keys.get(sender)
        return key is not None and self._verifier.verify_key(key, sender, payload, signature)

    def verify_client(self, client: bytes, digest: bytes, signature: bytes, /) -> bool:
        """See `bft.ports.Verifier`."""
        return self._verifier.verify_client(client, digest, signature)


def admission_of(cluster: Cluster, configuration: Configuration, verifier: OutsideVerifier) -> Admission:
    """The checks of a replica in this epoch of a cluster."""
    protocol = cluster.protocol
    limits = Limits(protocol.session_window, protocol.batch_operations_max, protocol.batch_bytes_max)
    return Admission(MembersVerifier(configuration, verifier), rules_in(protocol, configuration), limits)


def epoch_of(cluster: Cluster, epoch: int, links: Sequence[EpochLink], verifier: OutsideVerifier) -> Configuration:
    """The members of an epoch, proven from the cluster file by links that are not trusted.

    Args:
        links: from genesis on; those beyond `epoch` must hold as well.

    Raises:
        ChainError: the links do not hold, or do not lead there.
    """
    there = verify_chain(genesis(cluster), links[:epoch], verifier)
    verify_chain(there, links[epoch:], verifier)
    if there.epoch != epoch:
        raise ChainError(f"what was signed is of epoch {epoch}, and nothing here says who its members were")
    return there


def verdict(evidence: EvidenceFile, cluster: Cluster, verifier: OutsideVerifier) -> str | None:
    """What is wrong with a piece of evidence; None if it proves what it says.

    The messages are held against the members, keys and rules of the epoch that they are of.

    Args:
        verifier: checks signatures of this cluster; the members of all epochs are proven by the evidence's links.
    """
    if evidence.version not in VERSIONS_READ:
        return f"format version {evidence.version} is unknown, this reads {VERSIONS_READ[-1]} and older"
    if evidence.cluster != cluster.id:
        return "it belongs to another cluster"
    message = opened(evidence.first)
    epoch = message.epoch if message is not None else 0
    try:
        there = epoch_of(cluster, epoch, evidence.links, verifier)
    except ChainError as error:
        return str(error)
    if evidence.accused not in there.quorums.ids:
        return f"the cluster has no replica {evidence.accused}" + (f" in epoch {epoch}" if epoch else "")
    members = MembersVerifier(there, verifier)
    for name, signed in (("first", evidence.first), ("second", evidence.second)):
        if signed is None:
            continue
        if signed.sender != evidence.accused:
            return f"the {name} message is signed by replica {signed.sender}, not by the accused {evidence.accused}"
        if not members.verify_replica(signed.sender, signed.payload, signed.signature):
            return f"the signature of the {name} message does not hold"
    if evidence.kind == WRONG_REPLY:
        return _wrong_reply(evidence, there, members)
    if evidence.witnesses:
        return f"{evidence.kind} needs no witnesses, found {len(evidence.witnesses)}"
    if evidence.kind == BEYOND_EPOCH:
        return _beyond_epoch(evidence, epoch)
    found = _pair(evidence) if evidence.second is not None else _alone(evidence, cluster, there, verifier)
    if found is None:
        what = "both messages" if evidence.second is not None else "this message"
        return f"a correct replica may have signed {what}"
    return None if found == evidence.kind else f"it proves {found}, not {evidence.kind}"


def _beyond_epoch(evidence: EvidenceFile, epoch: int) -> str | None:
    """One vote, against the link that ended its epoch."""
    if evidence.second is not None or evidence.attachment:
        return "a vote beyond its epoch is one message against the link that ended the epoch"
    ends = evidence.links[epoch : epoch + 1]
    return None if ends and beyond_epoch(evidence.first, ends[0]) else "the vote is not beyond the epoch's end"


def _pair(evidence: EvidenceFile) -> str | None:
    assert evidence.second is not None, "asked for by the caller"
    return contradiction(evidence.first, evidence.second) if not evidence.attachment else None


def _alone(
    evidence: EvidenceFile, cluster: Cluster, configuration: Configuration, verifier: OutsideVerifier
) -> str | None:
    """What a replica of that epoch would say if it were sent the message."""
    signed = evidence.first
    packet: Packet = Proposal(signed, evidence.attachment) if evidence.kind == INVALID_BATCH else signed
    if evidence.attachment and evidence.kind != INVALID_BATCH:
        return None
    admission = admission_of(cluster, configuration, verifier)
    answer = admission.admit(encode(packet), evidence.accused, lambda *_: True)
    if not isinstance(answer, Rejected) or answer.evidence is None:
        return None
    return answer.evidence.kind


def _wrong_reply(evidence: EvidenceFile, configuration: Configuration, members: MembersVerifier) -> str | None:
    """A weak quorum of others agrees on another reply: one of them is correct, unless more than f lie."""
    said = opened(evidence.first)
    if not isinstance(said, ReplyStatement) or evidence.second is not None or evidence.attachment:
        return "a wrong reply is one statement of the accused against those of others"
    senders = [signed.sender for signed in evidence.witnesses]
    if len(set(senders)) != len(senders) or evidence.accused in senders:
        return "the witnesses must be distinct others"
    if len(senders) < configuration.quorums.weak:
        return f"{len(senders)} witnesses are too few: one of {configuration.quorums.weak} is correct"
    digests = []
    for signed in evidence.witnesses:
        if not members.verify_replica(signed.sender, signed.payload, signed.signature):
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
