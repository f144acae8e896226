"""Forensics: when more than f replicas lied and the system forked, who did it? [Sheng et al., CCS 2021]

Two commit certificates for one slot and different batches cannot exist with at most f liars. Where they do, at least
f + 1 replicas have signed what no correct replica signs, and each is convicted by messages of its own:

- certificates of one view: two strong quorums share f + 1 replicas, each of which sent two COMMITs;
- certificates of views v < w: some NEW-VIEW of a view in (v, w] was the first that did not carry the batch decided in
  v. Its VIEW-CHANGEs and the COMMITs of v share f + 1 signers. Either they hid their certificate, or somebody showed
  one for another batch: of view v, and then its votes and the COMMITs of v share f + 1 signers who voted for both; or
  of a view between, whose own NEW-VIEW did not carry the batch, so that this one was not the first.

So the NEW-VIEWs that replicas entered views by must be at hand: replicas archive them (`bft.runtime.archive`). One case
stays open: a NEW-VIEW whose stable checkpoint already covers the slot closes it without proposing anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from bft.config import Cluster
from bft.core.evidence import contradiction, hides
from bft.core.proofs import Rules, commit_certificate_flaw, endorsed, opened, prepared_header
from bft.core.recovery import rules_in
from bft.core.verdict import MembersVerifier, admission_of, epoch_of
from bft.epochs import ChainError
from bft.errors import EvidenceError
from bft.events import Deliver, Evidence
from bft.messages import Commit, CommitCertificate, EpochLink, NewView, Prepare, PreparedCertificate, Signed, ViewChange
from bft.ports import OutsideVerifier
from bft.wire.admission import Admission
from bft.wire.codec import encode


def conflicts(certificates: Iterable[CommitCertificate]) -> list[tuple[CommitCertificate, CommitCertificate]]:
    """Pairs of certificates of one epoch that decide one slot in two ways, one pair per slot, ascending; unverified."""
    first: dict[tuple[int, int], CommitCertificate] = {}
    found: dict[tuple[int, int], tuple[CommitCertificate, CommitCertificate]] = {}
    for certificate in certificates:
        slot = (certificate.epoch, certificate.seq)
        known = first.setdefault(slot, certificate)
        if known.digest != certificate.digest:
            found.setdefault(slot, (known, certificate))
    return [found[slot] for slot in sorted(found)]


def culprits(
    first: CommitCertificate,
    second: CommitCertificate,
    new_views: Iterable[Signed],
    cluster: Cluster,
    verifier: OutsideVerifier,
    links: Sequence[EpochLink] = (),
) -> tuple[Evidence, ...]:
    """Name at least f + 1 of those who forked the system, each with the evidence that convicts it, ascending.

    Args:
        new_views: NEW-VIEWs of the views between the certificates, in any order; invalid ones are passed over.
        links: the way from genesis to the epoch of the certificates.

    Raises:
        EvidenceError: the certificates are invalid or do not conflict, or the NEW-VIEWs do not suffice; or the links do
            not say who the members were.
    """
    links = tuple(links[: first.epoch])
    try:
        there = epoch_of(cluster, first.epoch, links, verifier)
    except ChainError as error:
        raise EvidenceError(f"the certificate of slot {first.seq} cannot be judged: {error}") from error
    rules, members = rules_in(cluster.protocol, there), MembersVerifier(there, verifier)
    for certificate in (first, second):
        _require_valid(certificate, rules, members)
    if first.seq != second.seq or first.digest == second.digest:
        raise EvidenceError(f"certificates of slots {first.seq} and {second.seq} do not conflict")
    early, late = sorted((first, second), key=lambda certificate: certificate.view)
    found: dict[int, Evidence] = {}
    _accuse_pairs(_commits(early), _commits(late), found)
    begun = _begun(admission_of(cluster, there, verifier), new_views, early.view, late.view)
    for signed, message in begun:
        _accuse_of_hiding(_commits(early), message, found)
        for votes in _votes(message, early, late):
            _accuse_pairs(votes, _commits(early), found)
            _accuse_pairs(votes, _commits(late), found)
        for other, _ in begun:
            _accuse_pairs({signed.sender: signed}, {other.sender: other}, found)
    if len(found) < there.quorums.weak:
        raise EvidenceError(
            f"slot {first.seq} was decided in views {early.view} and {late.view}: the {len(begun)} valid NEW-VIEWs at"
            f" hand of views {early.view + 1} to {late.view} convict {len(found)} replicas, not {there.quorums.weak}"
        )
    return tuple(replace(found[accused], links=links) for accused in sorted(found))


def _require_valid(certificate: CommitCertificate, rules: Rules, members: MembersVerifier) -> None:
    flaw = commit_certificate_flaw(certificate, rules)
    if flaw is not None:
        raise EvidenceError(f"the certificate of slot {certificate.seq} is invalid: {flaw}")
    for sender, payload, signature in endorsed(certificate):
        if not members.verify_replica(sender, payload, signature):
            raise EvidenceError(f"the certificate of slot {certificate.seq} is invalid: bad signature of r{sender}")


def _begun(admission: Admission, new_views: Iterable[Signed], after: int, until: int) -> list[tuple[Signed, NewView]]:
    """Valid NEW-VIEWs of views in (after, until], each once, ascending by view."""
    found: dict[bytes, tuple[Signed, NewView]] = {}
    for signed in new_views:
        message = opened(signed)
        if not isinstance(message, NewView) or not after < message.view <= until or signed.payload in found:
            continue
        if isinstance(admission.admit(encode(signed), signed.sender, lambda *_: True), Deliver):
            found[signed.payload] = (signed, message)
    return sorted(found.values(), key=lambda entry: (entry[1].view, entry[0].payload))


def _commits(certificate: CommitCertificate) -> dict[int, Signed]:
    payload = encode(Commit(certificate.epoch, certificate.view, certificate.seq, certificate.digest))
    return {item.replica: Signed(item.replica, payload, item.signature) for item in certificate.commits}


def _votes(message: NewView, *certificates: CommitCertificate) -> Iterator[dict[int, Signed]]:
    """Votes for the slot of the certificates that a NEW-VIEW shows: in its proposals, and in its VIEW-CHANGEs."""
    seq = certificates[0].seq
    for signed in message.pre_prepares:
        proposal = opened(signed)
        if getattr(proposal, "seq", None) == seq:
            yield {signed.sender: signed}
    for change in _view_changes(message):
        for certificate in change[1].prepared:
            if prepared_header(certificate).seq == seq:
                yield _voters(certificate)


def _voters(certificate: PreparedCertificate) -> dict[int, Signed]:
    header = prepared_header(certificate)
    payload = encode(Prepare(header.epoch, header.view, header.seq, header.digest))
    signed = certificate.pre_prepare
    return {
        signed.sender: signed,
        **{item.replica: Signed(item.replica, payload, item.signature) for item in certificate.prepares},
    }


def _view_changes(message: NewView) -> Iterator[tuple[Signed, ViewChange]]:
    for signed in message.view_changes:
        change = opened(signed)
        assert isinstance(change, ViewChange), "the NEW-VIEW was validated"
        yield signed, change


def _accuse_of_hiding(commits: dict[int, Signed], message: NewView, found: dict[int, Evidence]) -> None:
    for signed, change in _view_changes(message):
        vote = commits.get(signed.sender)
        commit = opened(vote) if vote is not None else None
        if vote is not None and isinstance(commit, Commit) and hides(commit, change):
            found.setdefault(signed.sender, Evidence(signed.sender, "hidden-certificate", vote, signed))


def _accuse_pairs(ones: dict[int, Signed], others: dict[int, Signed], found: dict[int, Evidence]) -> None:
    for replica, one in ones.items():
        other = others.get(replica)
        kind = contradiction(one, other) if other is not None else None
        if kind is not None:
            found.setdefault(replica, Evidence(replica, kind, one, other))
