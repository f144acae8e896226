"""The only way into a node: who must have signed what, each check once, and what convicts whoever signed it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import msgspec
import pytest

from bft.core.recovery import rules_of
from bft.digests import NULL_DIGEST, batch_digest, page_digest
from bft.events import Deliver, Evidence, Rejected
from bft.ids import Peer
from bft.messages import (
    ENVELOPE_BYTES_MAX,
    BatchBody,
    Checkpoint,
    Commit,
    EpochLink,
    FetchBatch,
    NewView,
    Packet,
    PageBodies,
    PagesServed,
    Prepare,
    PrePrepare,
    Proposal,
    Signed,
    SignedRequest,
    Suspect,
    ViewChange,
)
from bft.ports import Verifier
from bft.wire.admission import Admission, Limits
from bft.wire.codec import encode
from tests.conftest import CLIENT, Bench

FORGED = bytes(64)
STRANGER = b"s" * 32
BATCH_BYTES = 4096


@dataclass
class Counting:
    """A verifier that counts what it is asked."""

    inner: Verifier
    asked: list[Peer] = field(default_factory=list)

    def verify_replica(self, sender: int, payload: bytes, signature: bytes, /) -> bool:
        self.asked.append(sender)
        return self.inner.verify_replica(sender, payload, signature)

    def verify_client(self, client: bytes, digest: bytes, signature: bytes, /) -> bool:
        self.asked.append(client)
        return self.inner.verify_client(client, digest, signature)


class Gate:
    """Admission alone, of a node that wants everything unless told otherwise; the bench's cluster signs."""

    def __init__(self, memo_max: int = 64) -> None:
        self.bench = Bench()
        self.rules = rules_of(self.bench.cluster, self.bench.replica.configuration)
        self.verifier = Counting(self.bench.vault.verifier(self.bench.n))
        self.admission = Admission(self.verifier, self.rules, Limits(16, 8, BATCH_BYTES), memo_max)

    def admit(self, packet: Packet, peer: Peer = 2, *, wanted: bool = True) -> Deliver | Rejected | None:
        return self.admission.admit(encode(packet), peer, lambda *_: wanted)

    def reason(self, packet: Packet, peer: Peer = 2) -> str:
        """Why it was refused; empty if it was not."""
        admitted = self.admit(packet, peer)
        assert admitted is not None
        return admitted.reason if isinstance(admitted, Rejected) else ""

    def evidence(self, packet: Packet, peer: Peer = 2) -> Evidence | None:
        """What its refusal proves."""
        admitted = self.admit(packet, peer)
        assert isinstance(admitted, Rejected)
        return admitted.evidence


@pytest.fixture
def gate() -> Gate:
    return Gate()


def _forged(signed: Signed) -> Signed:
    return Signed(signed.sender, signed.payload, FORGED)


def _packets(bench: Bench) -> Iterator[tuple[str, Packet, Packet]]:
    """What must be signed: (name, as it should be, with one signature that does not hold)."""
    vote = bench.signed(2, Commit(0, 0, 1, NULL_DIGEST))
    yield "message", vote, _forged(vote)
    request = bench.request(1)
    loose = SignedRequest(request.client, request.payload, FORGED)
    yield "request", request, loose
    yield "body", BatchBody(bench.batch(request)), BatchBody(bench.batch(loose))
    proposal = bench.proposal(1, bench.batch(request))
    yield "proposal", proposal, Proposal(_forged(proposal.signed), proposal.batch)
    yield "proposal-of-forged-request", proposal, bench.proposal(1, bench.batch(bench.request(2), loose))
    commit = bench.commit_certificate(1, NULL_DIGEST)
    bad = (*commit.commits[:2], msgspec.structs.replace(commit.commits[2], signature=FORGED))
    yield "commit-certificate", commit, msgspec.structs.replace(commit, commits=bad)
    stable = bench.checkpoint_certificate(8, NULL_DIGEST)
    bad = (msgspec.structs.replace(stable.checkpoints[0], signature=FORGED), *stable.checkpoints[1:])
    worse = msgspec.structs.replace(stable, checkpoints=bad)
    yield "checkpoint-certificate", stable, worse
    pages = bench.pages(2, b"page")
    assert pages.signed is not None
    yield "pages", pages, PageBodies(_forged(pages.signed), pages.pages)
    change = bench.signed(2, ViewChange(0, 1, stable, ()))
    yield "view-change", change, bench.signed(2, ViewChange(0, 1, worse, ()))
    prepared = bench.prepared_certificate(1, NULL_DIGEST)
    weak = msgspec.structs.replace(prepared, pre_prepare=_forged(prepared.pre_prepare))
    good = bench.signed(2, ViewChange(0, 1, None, (prepared,)))
    yield "prepared", good, bench.signed(2, ViewChange(0, 1, None, (weak,)))
    changes = [bench.signed(sender, ViewChange(0, 1, None, ())) for sender in (0, 2, 3)]
    new = bench.signed(1, NewView(0, 1, tuple(changes), ()))
    yield "new-view", new, bench.signed(1, NewView(0, 1, (changes[0], _forged(changes[1]), changes[2]), ()))


PACKETS = {name: (sound, forged) for name, sound, forged in _packets(Bench())}


@pytest.mark.parametrize("name", PACKETS)
def test_nothing_gets_in_on_a_signature_that_does_not_hold(gate, name):
    """Nor does it later: only what held is remembered. The same with a good one is admitted, and checked once."""
    sound, forged = PACKETS[name]
    reason = "bad-client-signature" if name in ("request", "body", "proposal-of-forged-request") else "bad-signature"
    for _ in range(2):
        assert gate.reason(forged) == reason
    assert gate.reason(sound) == ""
    asked = len(gate.verifier.asked)
    assert gate.reason(sound) == ""
    assert len(gate.verifier.asked) == asked
    assert gate.reason(forged) == reason


@pytest.mark.parametrize("name", PACKETS)
def test_what_no_longer_matters_costs_no_signature_check(gate, name):
    """And is neither delivered nor refused."""
    for packet in PACKETS[name]:
        assert gate.admit(packet, wanted=False) is None
    assert gate.verifier.asked == []


def test_what_nobody_signs_gets_in_where_it_is_wanted(gate):
    """It can only ask for something."""
    question = FetchBatch(NULL_DIGEST)
    assert gate.admit(question) == Deliver(2, question)
    assert gate.admit(question, wanted=False) is None


def test_memory_of_signatures_is_bounded():
    """The oldest goes; it is checked again."""
    gate = Gate(memo_max=2)
    votes = [gate.bench.signed(sender, Commit(0, 0, 1, NULL_DIGEST)) for sender in (0, 2, 3)]
    for vote in votes:
        assert gate.reason(vote) == ""
    assert len(gate.admission._memo) == 2
    assert gate.reason(votes[2]) == "" and gate.verifier.asked == [0, 2, 3]
    assert gate.reason(votes[0]) == "" and gate.verifier.asked == [0, 2, 3, 0]


def test_signature_of_one_replica_is_not_another_ones(gate):
    """Nor what a client signed a replica's."""
    vote = gate.bench.signed(2, Commit(0, 0, 1, NULL_DIGEST))
    assert gate.reason(vote) == ""
    assert gate.reason(Signed(3, vote.payload, vote.signature)) == "bad-signature"
    request = gate.bench.request(1)
    assert gate.reason(request) == ""
    other = SignedRequest(STRANGER, request.payload, request.signature)
    assert gate.reason(other) == "bad-client-signature"


def test_client_brings_its_own_envelopes_only(gate):
    """Replicas bring anybody's."""
    assert gate.reason(gate.bench.request(1), CLIENT) == ""
    assert gate.reason(gate.bench.request(1), STRANGER) == "another-clients"
    assert gate.reason(gate.bench.request(1), 3) == ""


def test_envelope_keeps_to_the_limits_of_its_session(gate):
    """Alone and in a batch."""
    within, beyond = gate.bench.request(16), gate.bench.request(17)
    assert (gate.reason(within), gate.reason(beyond)) == ("", "outside-session-window")
    assert gate.reason(BatchBody(gate.bench.batch(beyond))) == "outside-session-window"


# --- batches --------------------------------------------------------------------------------------------------------


def test_batch_is_the_one_that_was_proposed(gate):
    """The primary signs a digest; the bytes beside it may be from anybody."""
    bench = gate.bench
    signed = bench.proposal(1, bench.batch(bench.request(1))).signed
    found = gate.admit(Proposal(signed, bench.batch(bench.request(2))))
    assert isinstance(found, Rejected) and (found.reason, found.evidence) == ("digest-mismatch", None)


def test_proposal_holds_a_pre_prepare(gate):
    """Nothing else can be proposed."""
    batch = gate.bench.batch()
    for message in (Prepare(0, 0, 1, batch_digest(batch)), Commit(0, 0, 1, batch_digest(batch))):
        assert gate.reason(Proposal(gate.bench.signed(2, message), batch)) == "malformed"


def test_batch_keeps_to_its_limits(gate):
    """Operations: a lone envelope may have more, or it would wait for ever. Bytes: and one envelope on top."""
    request = gate.bench.request
    eight = [request(1, *[["put", "k", "v"]] * 4), request(5, *[["put", "k", "v"]] * 4)]
    assert gate.reason(BatchBody(gate.bench.batch(*eight))) == ""
    assert gate.reason(BatchBody(gate.bench.batch(*eight, request(9)))) == "batch-too-large"
    assert gate.reason(BatchBody(gate.bench.batch(request(1, *[["put", "k", "v"]] * 9)))) == ""
    assert gate.reason(BatchBody(gate.bench.batch(eight[0], eight[0]))) == "envelope-twice"
    room = BATCH_BYTES + ENVELOPE_BYTES_MAX
    assert gate.reason(BatchBody(bytes(room + 1))) == "batch-too-large"
    assert gate.reason(BatchBody(bytes(room))) == "malformed"


def test_opened_batch_says_who_asked_for_what(gate):
    """In order, with the digest of its bytes and the time that it proposes."""
    requests = [gate.bench.request(2), gate.bench.request(1)]
    body = gate.bench.batch(*requests, time_ns=77)
    for packet in (BatchBody(body), gate.bench.proposal(1, body)):
        found = gate.admit(packet)
        assert isinstance(found, Deliver) and found.batch is not None
        assert (found.batch.digest, found.batch.body, found.batch.time_ns) == (batch_digest(body), body, 77)
        assert [(client, request.number) for client, request in found.batch.requests] == [(CLIENT, 2), (CLIENT, 1)]


# --- evidence -------------------------------------------------------------------------------------------------------


def test_who_proposes_an_invalid_batch_is_convicted_with_it(gate):
    """A PRE-PREPARE names the batch, so that its bytes are part of the proof."""
    for seq, batch in enumerate((b"no batch", gate.bench.batch(gate.bench.request(99))), 1):
        gate.admission._convicted.clear()
        proposal = gate.bench.proposal(seq, batch)
        found = gate.evidence(proposal)
        assert found == Evidence(0, "invalid-batch", proposal.signed, attachment=batch)


@pytest.mark.parametrize(
    ("sender", "message", "crime"),
    [
        (2, PrePrepare(0, 0, 1, NULL_DIGEST), "proposal-by-backup"),
        (0, Prepare(0, 0, 1, NULL_DIGEST), "prepare-by-primary"),
        (2, Checkpoint(0, 7, NULL_DIGEST), "invalid-checkpoint"),
        (2, ViewChange(0, 0, None, ()), "invalid-view-change"),
        (2, NewView(0, 0, (Signed(0, b"", FORGED),), ()), "invalid-new-view"),
        (2, PagesServed(0, (bytes(32),), (b"x" * 32,)), "lying-page"),
    ],
)
def test_who_signs_what_must_not_be_signed_is_convicted_once(gate, sender, message, crime):
    """By its own signature: a forged one convicts nobody, nor keeps the real one from doing so."""
    signed = gate.bench.signed(sender, message)
    assert gate.evidence(_forged(signed)) is None
    assert gate.evidence(signed) == Evidence(sender, crime, signed)
    assert gate.evidence(signed) is None
    assert gate.reason(signed) != ""


def test_conviction_of_one_spares_no_other(gate):
    """Once per signer and crime."""
    for sender in (2, 3):
        found = gate.evidence(gate.bench.signed(sender, Checkpoint(0, 7, NULL_DIGEST)))
        assert found is not None and found.accused == sender
    assert gate.evidence(gate.bench.signed(2, ViewChange(0, 0, None, ()))) is not None


def test_certificate_of_a_view_change_that_does_not_hold_convicts_who_signed_it(gate):
    """It vouches for what is in it."""
    _, forged = PACKETS["view-change"]
    found = gate.evidence(forged)
    assert found is not None and (found.accused, found.kind) == (2, "invalid-view-change")


def test_message_of_another_epoch_or_of_a_stranger_convicts_nobody(gate):
    """Its own epoch's rules decide about it."""
    bench = gate.bench
    for packet, reason in (
        (bench.signed(2, Checkpoint(1, 7, NULL_DIGEST)), "other-epoch"),
        (bench.signed(9, Checkpoint(0, 8, NULL_DIGEST)), "not-a-member"),
        (bench.proposal(1, bench.batch(), sender=9), "not-a-member"),
        (bench.signed(2, Suspect(1, 0, "slow")), "other-epoch"),
    ):
        found = gate.admit(packet)
        assert isinstance(found, Rejected) and (found.reason, found.evidence) == (reason, None)


def test_new_epoch_forgets_what_old_keys_signed(gate):
    """Its members' keys and its rules hold from now on; whoever is convicted in it is convicted anew."""
    bench = gate.bench
    vote, wrong = bench.signed(2, Commit(0, 0, 1, NULL_DIGEST)), bench.signed(2, Checkpoint(0, 7, NULL_DIGEST))
    assert gate.reason(vote) == "" and gate.evidence(wrong) is not None
    keys = {replica: bench.vault.replica_key(replica, 1) for replica in range(4)}
    links = (EpochLink(b"the end of the first", bench.checkpoint_certificate(8, NULL_DIGEST)),)
    gate.admission.enter(bench.vault.verifier(keys), gate.rules, links)
    assert gate.reason(vote) == "bad-signature"
    assert gate.evidence(wrong) is None
    later = Signed(2, wrong.payload, bench.vault.replica_signer(2, 1).sign(wrong.payload))
    assert gate.evidence(later) == Evidence(2, "invalid-checkpoint", later, links=links)
    gate.admission.enter(bench.vault.verifier(keys), replace(gate.rules, epoch=1), ())
    assert gate.reason(later) == "other-epoch"


# --- pages ----------------------------------------------------------------------------------------------------------


def test_pages_count_only_under_their_senders_word(gate):
    """A member's under its own; those of who is no member here count by their digests alone."""
    bench, pages = gate.bench, (b"page",)
    assert gate.admit(PageBodies(None, pages), 2) is None
    assert isinstance(gate.admit(PageBodies(None, pages), 9), Deliver)
    assert gate.admit(PageBodies(None, pages), 9, wanted=False) is None
    word = bench.signed(2, PagesServed(0, (page_digest(b"page"),), (page_digest(b"page"),)))
    assert gate.reason(PageBodies(word, pages)) == ""
    assert gate.reason(PageBodies(word, (b"other",))) == "digest-mismatch"
    assert gate.reason(PageBodies(word, (b"page", b"page"))) == "digest-mismatch"
    assert gate.reason(PageBodies(bench.signed(2, Commit(0, 0, 1, NULL_DIGEST)), pages)) == "malformed"
    lie = bench.signed(2, PagesServed(0, (bytes(32),), (page_digest(b"page"),)))
    found = gate.evidence(PageBodies(lie, pages))
    assert found == Evidence(2, "lying-page", lie)
