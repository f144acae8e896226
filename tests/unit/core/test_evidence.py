"""Accountability: evidence proves what it says, and nothing proves anything against a correct replica."""

from __future__ import annotations

import msgspec
import pytest
import trio

from bft.core.evidence import VIEWS_PER_BUCKET, EvidenceFile, bucket, contradiction, file_of
from bft.core.newview import select
from bft.core.verdict import verdict
from bft.digests import batch_digest, bundle_digest
from bft.events import Evidence, Rejected
from bft.messages import (
    Checkpoint,
    Commit,
    NewView,
    Prepare,
    PrePrepare,
    Proposal,
    ReplyStatement,
    Signed,
    Status,
    Suspect,
    ViewChange,
)
from bft.runtime.evidence import FILES_PER_ACCUSED_MAX, EvidenceKeeper
from bft.sim.scenario import Scenario
from bft.sim.world import simulated_cluster
from bft.wire.codec import decode_replica_message, encode

A = batch_digest(b"A")
B = batch_digest(b"B")
CONFIG = simulated_cluster(Scenario(seed=0))
CLUSTER = CONFIG.id
ELSEWHERE = simulated_cluster(Scenario(seed=0, protocol={"window": 32}))
"""The same replicas with the same keys in another cluster."""


def _file(first: Signed, second: Signed, **changes: object) -> EvidenceFile:
    found = contradiction(first, second) or "nothing"
    made = EvidenceFile(cluster=CLUSTER, kind=found, accused=first.sender, first=first, second=second)
    return msgspec.structs.replace(made, **changes)


def _accusations(bench) -> list[tuple[int, str]]:
    """(accused, kind) of everything reported in the last step; each piece is judged, and must hold."""
    found = []
    for effect in bench.out:
        evidence = effect.evidence if isinstance(effect, Rejected) else effect
        if isinstance(evidence, Evidence):
            assert verdict(file_of(evidence, CLUSTER), bench.cluster, bench.vault.verifier(bench.n)) is None
            found.append((evidence.accused, evidence.kind))
    return found


def _new_view(bench, view: int, senders: tuple[int, ...], prepared: tuple = (), **changes: object) -> Signed:
    """The NEW-VIEW that these VIEW-CHANGEs imply, all with the same certificates."""
    changed = [ViewChange(0, view, None, prepared) for _ in senders]
    primary = bench.quorums.primary(view)
    proposals = tuple(
        bench.signed(primary, PrePrepare(0, view, seq, digest)) for seq, digest in select(changed).proposals
    )
    signed = tuple(bench.signed(sender, message) for sender, message in zip(senders, changed, strict=True))
    return bench.signed(primary, msgspec.structs.replace(NewView(0, view, signed, proposals), **changes))


@pytest.mark.parametrize(
    ("one", "other", "kind"),
    [
        (PrePrepare(0, 0, 1, A), PrePrepare(0, 0, 1, B), "two-pre-prepares"),
        (Prepare(0, 1, 1, A), Prepare(0, 1, 1, B), "two-prepares"),
        (Commit(0, 1, 1, A), Commit(0, 1, 1, B), "two-commits"),
        (Checkpoint(0, 8, A), Checkpoint(0, 8, B), "two-checkpoints"),
        (Commit(0, 1, 1, A), ViewChange(0, 2, None, ()), "hidden-certificate"),
        (Prepare(0, 1, 1, A), Commit(0, 1, 1, B), "crossed-votes"),
        (PrePrepare(0, 0, 1, A), Commit(0, 0, 1, B), "crossed-votes"),
        (ReplyStatement(0, A, 1, 1, A), ReplyStatement(0, A, 1, 1, B), "two-replies"),
    ],
)
def test_contradictions_are_proven(bench, one, other, kind):
    """Two signatures of one replica are enough, with public keys alone."""
    evidence = _file(bench.signed(0, one), bench.signed(0, other))
    assert evidence.kind == kind
    assert verdict(evidence, CONFIG, bench.vault.verifier(4)) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Prepare(0, 1, 1, A), Prepare(0, 1, 1, A)),
        (Prepare(0, 1, 1, A), Prepare(0, 2, 1, B)),
        (Prepare(0, 1, 1, A), Prepare(0, 1, 2, B)),
        (Prepare(0, 1, 1, A), Commit(0, 1, 1, A)),
        (Prepare(0, 1, 1, A), Commit(0, 2, 1, B)),
        (ReplyStatement(0, A, 1, 1, A), ReplyStatement(0, A, 1, 2, B)),
        (ReplyStatement(0, A, 1, 1, A), ReplyStatement(0, A, 2, 1, B)),
        (ReplyStatement(0, A, 1, 1, A), ReplyStatement(0, B, 1, 1, B)),
        (Commit(0, 2, 1, A), ViewChange(0, 2, None, ())),
    ],
)
def test_what_a_correct_replica_may_sign_is_no_evidence(bench, one, other):
    """Different views, slots or kinds do not exclude each other."""
    assert contradiction(bench.signed(1, one), bench.signed(1, other)) is None


def test_shown_certificate_hides_nothing(bench):
    """A VIEW-CHANGE that shows the certificate, or one of a higher view, or covers the slot, is honest."""
    commit = bench.signed(1, Commit(0, 0, 1, A))
    shown = ViewChange(0, 2, None, (bench.prepared_certificate(1, A),))
    covered = ViewChange(0, 2, bench.checkpoint_certificate(8, B), ())
    assert contradiction(commit, bench.signed(1, shown)) is None
    assert contradiction(commit, bench.signed(1, covered)) is None
    assert contradiction(bench.signed(1, Commit(0, 1, 1, B)), bench.signed(1, shown)) == "hidden-certificate"


def test_forged_mixed_or_foreign_evidence_proves_nothing(bench):
    """Every signature is checked, for the accused and for this cluster."""
    verifier = bench.vault.verifier(4)
    one, other = bench.signed(0, Prepare(0, 1, 1, A)), bench.signed(0, Prepare(0, 1, 1, B))
    by_another = bench.signed(2, Prepare(0, 1, 1, B))
    forged = Signed(0, by_another.payload, by_another.signature)
    assert "signature" in str(verdict(_file(one, forged), CONFIG, verifier))
    assert "not by the accused" in str(verdict(_file(one, by_another), CONFIG, verifier))
    assert "may have signed both" in str(verdict(_file(one, one), CONFIG, verifier))
    assert "not two-commits" in str(verdict(_file(one, other, kind="two-commits"), CONFIG, verifier))
    assert "version" in str(verdict(_file(one, other, version=9), CONFIG, verifier))
    assert "no replica 9" in str(verdict(_file(one, other, accused=9), CONFIG, verifier))
    assert "may have signed both" in str(verdict(_file(one, other, attachment=b"x"), CONFIG, verifier))
    assert "needs no witnesses" in str(verdict(_file(one, other, witnesses=(one,)), CONFIG, verifier))
    assert verdict(_file(one, other, version=1), CONFIG, verifier) is None


def test_evidence_of_another_cluster_with_the_same_keys_proves_nothing(bench):
    """The cluster's id is in the file for people and under the signatures for good: neither can be exchanged."""
    one, other = bench.signed(0, Prepare(0, 1, 1, A)), bench.signed(0, Prepare(0, 1, 1, B))
    assert "another cluster" in str(verdict(_file(one, other, cluster=ELSEWHERE.id), CONFIG, bench.vault.verifier(4)))
    assert "another cluster" in str(verdict(_file(one, other), ELSEWHERE, bench.vault.verifier(4)))


def test_two_new_views_are_evidence(bench):
    """A new primary that begins one view in two ways."""
    first, second = (
        NewView(0, 1, (bench.signed(2, Prepare(0, 0, 1, A)),), ()),
        NewView(0, 1, (bench.signed(3, Prepare(0, 0, 1, A)),), ()),
    )
    assert contradiction(bench.signed(1, first), bench.signed(1, second)) == "two-new-views"


def test_replica_reports_a_hidden_certificate(bench):
    """Who holds the COMMIT and sees the VIEW-CHANGE without its certificate accuses the signer."""
    bench.deliver(3, bench.signed(3, Commit(0, 0, 1, A)))
    bench.deliver(3, bench.signed(3, ViewChange(0, 1, None, ())))
    found = [effect for effect in bench.out if isinstance(effect, Evidence)]
    assert [(effect.accused, effect.kind) for effect in found] == [(3, "hidden-certificate")]


def test_replica_reports_a_second_new_view(bench, make_bench):
    """Two NEW-VIEWs of one primary for one view (E6); the same one again is nothing."""
    bench = make_bench(me=3)
    bench.deliver(2, bench.signed(2, ViewChange(0, 1, None, ())))
    first, second = _new_view(bench, 1, (0, 1, 2)), _new_view(bench, 1, (0, 1, 3))
    bench.deliver(1, first)
    assert bench.replica.summary()["view"] == 1
    assert bench.deliver(1, first) == []
    bench.deliver(0, second)
    assert _accusations(bench) == [(1, "two-new-views")]
    assert bench.deliver(2, second) == [], "once is enough"


def test_replicas_compare_how_a_view_began(make_bench):
    """STATUS names the NEW-VIEW: who holds another one shows it, once per peer and view."""
    bench = make_bench(me=3)
    new_view = _new_view(bench, 1, (0, 1, 2))
    bench.deliver(1, new_view)
    began = [message.began for message in bench.sent(Status, bench.wait(2000))]
    assert len(set(began)) == 1 and len(began[0]) == 32
    same, other = Status(0, 1, True, 0, 0, (), began[0]), Status(0, 1, True, 0, 0, (), bytes(32))
    assert bench.sent(NewView, bench.deliver(0, same)) == []
    bench.now += 1_000_000_000
    assert len(bench.sent(NewView, bench.deliver(0, other))) == 1
    bench.now += 1_000_000_000
    assert bench.sent(NewView, bench.deliver(0, other)) == []


def test_restarted_replica_knows_how_its_view_began(make_bench):
    """Else a restart would hide a second NEW-VIEW."""
    bench = make_bench(me=3)
    bench.deliver(1, _new_view(bench, 1, (0, 1, 2)))
    bench.restart()
    assert [len(message.began) for message in bench.sent(Status)] == [32]
    bench.deliver(0, _new_view(bench, 1, (0, 1, 3)))
    assert _accusations(bench) == [(1, "two-new-views")]


def test_new_view_that_shows_another_view_change_accuses_its_signer(make_bench):
    """What the new primary was told is held against what this replica was told (E5), and against COMMITs (E7)."""
    bench = make_bench(me=3)
    bench.deliver(2, bench.signed(2, Commit(0, 0, 1, A)))
    bench.deliver(0, bench.signed(0, ViewChange(0, 1, None, (bench.prepared_certificate(1, A),))))
    bench.deliver(1, _new_view(bench, 1, (0, 1, 2)))
    assert _accusations(bench) == [(0, "two-view-changes"), (2, "hidden-certificate")]


@pytest.mark.parametrize(
    ("sender", "message", "kind"),
    [
        (0, Prepare(0, 0, 1, A), "prepare-by-primary"),
        (2, PrePrepare(0, 0, 1, A), "proposal-by-backup"),
        (2, Checkpoint(0, 9, A), "invalid-checkpoint"),
    ],
)
def test_message_that_nobody_may_sign_convicts_its_signer(make_bench, sender, message, kind):
    """Without a second message (E8); once per signer and kind, however much of it comes."""
    bench = make_bench(me=1)
    signed = bench.signed(sender, message)
    packet = Proposal(signed, b"") if isinstance(message, PrePrepare) else signed
    bench.deliver(3, packet)
    assert _accusations(bench) == [(sender, kind)]
    bench.deliver(sender, packet)
    assert len(bench.rejections()) == 1 and _accusations(bench) == []


def test_forged_nonsense_convicts_nobody(bench):
    """Anybody can write down an invalid message under another's name; only its signature makes it his."""
    signed = bench.signed(0, Prepare(0, 0, 1, A))
    bench.deliver(3, msgspec.structs.replace(signed, signature=bench.signed(3, Prepare(0, 0, 1, A)).signature))
    assert bench.rejections() == ["prepare-by-primary"] and _accusations(bench) == []
    bench.deliver(3, signed)
    assert _accusations(bench) == [(0, "prepare-by-primary")], "the forgery did not use up the conviction"


def test_message_of_another_epoch_convicts_nobody(bench):
    """Its rules are not ours: the primary of a view may be another one there. Not even if somebody wants it."""
    foreign = bench.signed(0, Prepare(7, 0, 1, A))
    bench.deliver(0, foreign)
    assert bench.rejections() == [] and _accusations(bench) == []
    assert bench.admission.admit(encode(foreign), 0, lambda *_: True) == Rejected(0, "other-epoch")


def test_invalid_batch_convicts_the_primary_that_signed_its_digest(bench):
    """A client's signature that does not hold, or no batch at all (E9); the batch is in the evidence."""
    forged = msgspec.structs.replace(bench.request(), signature=bytes(64))
    for body, reason in ((bench.batch(forged), "bad-client-signature"), (b"\xc1", "malformed")):
        bench.restart()
        bench.deliver(0, bench.proposal(1, body))
        assert bench.rejections() == [reason]
        assert _accusations(bench) == [(0, "invalid-batch")]
        (refused,) = (effect for effect in bench.out if isinstance(effect, Rejected))
        proof = file_of(refused.evidence, CLUSTER)
        other = msgspec.structs.replace(proof, attachment=bench.batch())
        assert "may have signed" in str(verdict(other, CONFIG, bench.vault.verifier(4)))


def test_relayed_batch_that_was_exchanged_convicts_nobody(bench):
    """The primary signed another digest: whoever relayed it has lied, or the network."""
    bench.deliver(3, Proposal(bench.proposal(1, bench.batch()).signed, b"\xc1"))
    assert bench.rejections() == ["digest-mismatch"] and _accusations(bench) == []


def test_invalid_view_change_convicts_its_sender(bench):
    """A certificate that proves nothing, by its form or by a signature in it (E10)."""
    few = msgspec.structs.replace(bench.prepared_certificate(1, A), prepares=bench.endorse(Prepare(0, 0, 1, A), [1]))
    good = bench.prepared_certificate(1, A)
    bogus = msgspec.structs.replace(good, prepares=bench.endorse(Prepare(0, 0, 1, B), [1, 2]))
    for certificate, reason in ((few, "wrong-quorum"), (bogus, "bad-signature")):
        bench.restart()
        bench.deliver(2, bench.signed(2, ViewChange(0, 1, None, (certificate,))))
        assert bench.rejections() == [reason]
        assert _accusations(bench) == [(2, "invalid-view-change")]


def test_invalid_new_view_convicts_the_new_primary(make_bench):
    """Other proposals than its VIEW-CHANGEs imply, or VIEW-CHANGEs that nobody signed (E10)."""
    bench = make_bench(me=3)
    prepared = (bench.prepared_certificate(1, A),)
    wrong = _new_view(bench, 1, (0, 1, 2), prepared, pre_prepares=(bench.signed(1, PrePrepare(0, 1, 1, B)),))
    bench.deliver(1, wrong)
    assert bench.rejections() == ["wrong-proposals"] and _accusations(bench) == [(1, "invalid-new-view")]
    bench.restart()
    honest = decode_replica_message(_new_view(bench, 1, (0, 1, 2)).payload)
    inner = tuple(msgspec.structs.replace(signed, signature=bytes(64)) for signed in honest.view_changes)
    bench.deliver(1, bench.signed(1, msgspec.structs.replace(honest, view_changes=inner)))
    assert bench.rejections() == ["bad-signature"] and _accusations(bench) == [(1, "invalid-new-view")]


def test_what_a_correct_replica_signs_convicts_nobody(bench):
    """A single valid message is no evidence, whatever kind it is said to be."""
    verifier = bench.vault.verifier(4)
    for sender, message in ((1, Prepare(0, 0, 1, A)), (0, PrePrepare(0, 0, 1, A)), (2, Suspect(0, 0, "x"))):
        for kind in ("prepare-by-primary", "invalid-batch", "invalid-view-change", "anything"):
            made = EvidenceFile(cluster=CLUSTER, kind=kind, accused=sender, first=bench.signed(sender, message))
            assert verdict(made, CONFIG, verifier) is not None


def test_reply_that_a_weak_quorum_contradicts_is_evidence(bench):
    """f + 1 equal statements of others; any signature that does not hold, and the accusation falls."""
    verifier = bench.vault.verifier(4)
    said, true = ReplyStatement(0, A, 1, 1, bundle_digest(b"lie")), ReplyStatement(0, A, 1, 1, bundle_digest(b"true"))
    other_slot = ReplyStatement(0, A, 1, 2, bundle_digest(b"true"))
    witnesses = (bench.signed(1, true), bench.signed(2, true))
    made = EvidenceFile(
        cluster=CLUSTER, kind="wrong-reply", accused=3, first=bench.signed(3, said), witnesses=witnesses
    )
    assert verdict(made, CONFIG, verifier) is None
    forged = Signed(2, witnesses[1].payload, witnesses[0].signature)
    for changes, why in (
        ({"witnesses": witnesses[:1]}, "too few"),
        ({"witnesses": (witnesses[0], witnesses[0])}, "distinct"),
        ({"witnesses": (witnesses[0], bench.signed(3, true))}, "distinct"),
        ({"witnesses": (witnesses[0], forged)}, "witness 2"),
        ({"witnesses": (witnesses[0], bench.signed(2, said))}, "do not agree"),
        ({"witnesses": (witnesses[0], bench.signed(2, other_slot))}, "do not agree"),
        ({"first": bench.signed(3, true)}, "do not agree"),
        ({"first": bench.signed(3, Prepare(0, 0, 1, A))}, "one statement"),
        ({"attachment": b"x"}, "one statement"),
    ):
        assert why in str(verdict(msgspec.structs.replace(made, **changes), CONFIG, verifier))


async def test_keeper_that_is_stopped_writes_what_is_left(bench, tmp_path):
    """Whoever stops the process must not lose what was found last."""
    keeper = EvidenceKeeper(tmp_path / "evidence", CLUSTER)
    one, other = bench.signed(0, Commit(0, 0, 1, A)), bench.signed(0, Commit(0, 0, 1, B))
    assert keeper.keep(Evidence(0, "two-commits", one, other))
    with trio.fail_after(5), trio.CancelScope() as scope:
        scope.cancel()
        await keeper.run()
    assert len(list((tmp_path / "evidence").iterdir())) == 1


def test_keeper_writes_files_that_verify_and_stops_at_its_bound(bench, tmp_path):
    """Evidence survives the process; a liar cannot fill the disk with it, nor with its like."""
    keeper = EvidenceKeeper(tmp_path / "evidence", CLUSTER)
    for view in range(0, (FILES_PER_ACCUSED_MAX + 5) * VIEWS_PER_BUCKET, VIEWS_PER_BUCKET // 2):
        one, other = bench.signed(0, Commit(0, view, 1, A)), bench.signed(0, Commit(0, view, 1, B))
        keeper.keep(Evidence(0, "two-commits", one, other))
    assert len(keeper.flush()) == FILES_PER_ACCUSED_MAX
    files = sorted((tmp_path / "evidence").iterdir())
    assert len(files) == FILES_PER_ACCUSED_MAX
    read = msgspec.json.decode(files[0].read_bytes(), type=EvidenceFile)
    assert verdict(read, CONFIG, bench.vault.verifier(4)) is None
    again = EvidenceKeeper(tmp_path / "evidence", CLUSTER)
    again.keep(Evidence(0, "two-commits", one, other))
    assert again.flush() == []
    other_one = Evidence(1, "two-commits", bench.signed(1, Commit(0, 0, 1, A)), bench.signed(1, Commit(0, 0, 1, B)))
    assert again.keep(other_one) and not again.keep(other_one)
    assert [path.name for path in again.flush()] == ["r1-two-commits-v0.json"]
    later = EvidenceKeeper(tmp_path / "evidence", CLUSTER)
    assert later.keep(other_one) and later.flush() == [], "it is there from an earlier life"


def test_bucket_is_a_stretch_of_views(bench):
    """Messages without a view share one."""
    assert bucket(Evidence(0, "x", bench.signed(0, Commit(0, 2 * VIEWS_PER_BUCKET, 1, A)))) == 2
    assert bucket(Evidence(0, "x", bench.signed(0, Checkpoint(0, 8, A)))) == 0


def test_replica_accuses_once_per_kind_and_view(bench):
    """What a liar sends makes no more reports than one of each kind, until the view changes."""
    bench.deliver(2, bench.signed(2, Prepare(0, 0, 1, A)))
    for attempt in range(3):
        bench.deliver(2, bench.signed(2, Prepare(0, 0, 1, batch_digest(bytes([attempt])))))
        assert _accusations(bench) == [(2, "two-prepares")] * (attempt == 0)


def test_primary_that_commits_to_another_batch_than_it_proposed_is_accused(bench):
    """It sends no PREPARE: its PRE-PREPARE is what its COMMIT crosses."""
    batch = bench.batch()
    bench.deliver(0, bench.proposal(1, batch))
    bench.deliver(0, bench.signed(0, Commit(0, 0, 1, B)))
    assert _accusations(bench) == []
    for replica in (2, 3):
        bench.deliver(replica, bench.signed(replica, Prepare(0, 0, 1, batch_digest(batch))))
    for replica in (2, 3):
        bench.deliver(replica, bench.signed(replica, Commit(0, 0, 1, batch_digest(batch))))
    assert _accusations(bench) == [(0, "crossed-votes")]
    assert bench.executed == 1
