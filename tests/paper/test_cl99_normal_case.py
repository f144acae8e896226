"""Claims of Castro and Liskov 1999, section 4.2 and 4.3, held against one real replica."""

from __future__ import annotations

import pytest

from bft.digests import batch_digest
from bft.events import Broadcast, Committed, Deliver, Effect, Evidence, Persist
from bft.messages import (
    Checkpoint,
    Commit,
    FetchBatch,
    NewView,
    Prepare,
    PrePrepare,
    Proposal,
    Reply,
    Status,
    Suspect,
    ViewChange,
)
from bft.wire.codec import decode_bundle, encode


def test_primary_assigns_consecutive_sequence_numbers(make_bench):
    """The primary assigns a sequence number to each batch and multicasts PRE-PREPARE with it. [CL99 4.2]"""
    bench = make_bench(me=0)
    bench.deliver(bytes(range(32)), bench.request(1))
    first = bench.sent(PrePrepare)
    bench.deliver(bytes(range(32)), bench.request(2))
    assert [message.seq for message in first + bench.sent(PrePrepare, bench.wait(100))] == [1, 2]


def test_primary_never_sends_prepare(make_bench):
    """The PRE-PREPARE is the primary's vote: it sends no PREPARE. [CL99 4.2]"""
    bench = make_bench(me=0)
    bench.deliver(bytes(range(32)), bench.request(1))
    assert not bench.sent(Prepare)


def test_backup_accepts_a_pre_prepare_and_votes(bench):
    """A backup that accepts <PRE-PREPARE,v,n,d> multicasts <PREPARE,v,n,d>. [CL99 4.2]"""
    batch = bench.batch()
    bench.deliver(0, bench.proposal(1, batch))
    assert bench.sent(Prepare) == [Prepare(0, 0, 1, batch_digest(batch))]


def test_vote_is_durable_before_it_leaves(bench):
    """The accepted PRE-PREPARE is on disk before PREPARE is sent. [CL02 4.6]"""
    bench.deliver(0, bench.proposal(1, bench.batch()))
    kinds = [type(effect) for effect in bench.out if isinstance(effect, Persist | Broadcast)]
    assert kinds.index(Persist) < kinds.index(Broadcast)


@pytest.mark.parametrize("replica", [1, 2, 3])
def test_backup_refuses_a_pre_prepare_by_a_backup(bench, replica):
    """Only the primary of a view may assign. [CL99 4.2]"""
    bench.deliver(replica, bench.proposal(1, bench.batch(), sender=replica))
    assert not bench.sent(Prepare)


def test_backup_refuses_a_second_digest_for_one_slot_and_keeps_evidence(bench):
    """It has not accepted a PRE-PREPARE for view v and number n with a different digest. [CL99 4.2]"""
    bench.deliver(0, bench.proposal(1, bench.batch()))
    bench.deliver(0, bench.proposal(1, bench.batch(bench.request(2, acknowledged=1))))
    assert not bench.sent(Prepare)
    assert [effect.kind for effect in bench.out if isinstance(effect, Evidence)] == ["two-pre-prepares"]


@pytest.mark.parametrize(("seq", "votes"), [(0, 0), (1, 1), (16, 1), (17, 0), (10**6, 0)])
def test_sequence_number_must_lie_between_the_watermarks(bench, seq, votes):
    """h < n <= H = h + L, so that a faulty primary cannot exhaust the space of numbers. [CL99 4.2]"""
    bench.deliver(0, bench.proposal(seq, bench.batch()))
    assert len(bench.sent(Prepare)) == votes


def test_backup_refuses_another_view(bench):
    """A PRE-PREPARE is accepted in the present view only. [CL99 4.2]"""
    bench.deliver(1, bench.proposal(1, bench.batch(), view=1, sender=1))
    bench.deliver(0, bench.proposal(1, bench.batch(), view=4))
    assert not bench.sent(Prepare)


def test_digest_must_be_that_of_the_batch(bench):
    """d is the digest of the request m. [CL99 4.2]"""
    bench.deliver(0, Proposal(bench.proposal(1, bench.batch()).signed, bench.batch(bench.request(2))))
    assert bench.rejections() == ["digest-mismatch"]


def test_request_in_a_batch_must_be_signed_by_its_client(bench):
    """Backups check the client's signature: the primary cannot invent requests. [CL99 4.2]"""
    request = bench.request(1)
    forged = type(request)(request.client, request.payload, bytes(64))
    bench.deliver(0, bench.proposal(1, bench.batch(forged)))
    assert bench.rejections() == ["bad-client-signature"]


def test_prepared_needs_two_f_prepares_of_distinct_backups(bench):
    """prepared(m,v,n,i) iff i has the PRE-PREPARE and 2f matching PREPAREs of different backups. [CL99 4.2]"""
    batch = bench.batch()
    digest = batch_digest(batch)
    bench.deliver(0, bench.proposal(1, batch))
    assert not bench.sent(Commit), "its own PREPARE is only one of two"
    bench.deliver(2, bench.signed(2, Prepare(0, 0, 1, digest)))
    assert bench.sent(Commit) == [Commit(0, 0, 1, digest)]


def test_a_backup_counts_once_however_often_it_votes(make_bench):
    """Quorums are sets of replicas, not counts of messages. [CL99 4.2]"""
    bench = make_bench(me=1, n=7)
    batch = bench.batch()
    bench.deliver(0, bench.proposal(1, batch))
    for _ in range(5):
        bench.deliver(2, bench.signed(2, Prepare(0, 0, 1, batch_digest(batch))))
        assert not bench.sent(Commit)


def test_prepares_for_another_digest_do_not_count(bench):
    """Matching means same view, same sequence number and same digest. [CL99 4.2]"""
    bench.deliver(0, bench.proposal(1, bench.batch()))
    for replica in (2, 3):
        bench.deliver(replica, bench.signed(replica, Prepare(0, 0, 1, batch_digest(b"another"))))
        assert not bench.sent(Commit)


def test_a_prepare_by_the_primary_is_refused(bench):
    """The primary's vote is its PRE-PREPARE; a PREPARE of its own would count it twice. [CL99 4.2]"""
    batch = bench.batch()
    bench.deliver(0, bench.proposal(1, batch))
    bench.deliver(0, bench.signed(0, Prepare(0, 0, 1, batch_digest(batch))))
    assert bench.rejections() == ["prepare-by-primary"]


def test_prepares_that_outrun_their_pre_prepare_are_kept(bench):
    """Messages may be reordered: votes wait for the PRE-PREPARE they belong to. [CL99 4.2]"""
    batch = bench.batch()
    for replica in (2, 3):
        bench.deliver(replica, bench.signed(replica, Prepare(0, 0, 1, batch_digest(batch))))
    bench.deliver(0, bench.proposal(1, batch))
    assert bench.sent(Commit)


def test_certificate_is_durable_before_commit_leaves(bench):
    """A COMMIT promises that a later view change can show the certificate. [CL02 4.6]"""
    batch = bench.batch()
    bench.deliver(0, bench.proposal(1, batch))
    bench.deliver(2, bench.signed(2, Prepare(0, 0, 1, batch_digest(batch))))
    kinds = [type(effect).__name__ for effect in bench.out]
    assert kinds.index("Persist") < kinds.index("Broadcast")


def test_execution_needs_two_f_plus_one_commits(bench):
    """committed-local iff prepared and 2f + 1 COMMITs, its own included. [CL99 4.2]"""
    batch = bench.batch()
    digest = batch_digest(batch)
    bench.deliver(0, bench.proposal(1, batch))
    bench.deliver(2, bench.signed(2, Prepare(0, 0, 1, digest)))
    bench.deliver(2, bench.signed(2, Commit(0, 0, 1, digest)))
    assert bench.executed == 0
    bench.deliver(3, bench.signed(3, Commit(0, 0, 1, digest)))
    assert bench.executed == 1
    assert any(isinstance(effect, Committed) for effect in bench.out)


def test_commits_of_different_views_never_combine(bench):
    """COMMITs match in view, sequence number and digest. [CL99 4.2]"""
    batch = bench.batch()
    digest = batch_digest(batch)
    bench.deliver(0, bench.proposal(1, batch))
    bench.deliver(2, bench.signed(2, Prepare(0, 0, 1, digest)))
    bench.deliver(2, bench.signed(2, Commit(0, 0, 1, digest)))
    bench.deliver(3, bench.signed(3, Commit(0, 1, 1, digest)))
    assert bench.executed == 0


def test_slots_execute_in_order_of_sequence_number(bench):
    """A replica executes after all requests with lower numbers, whatever the order of agreement. [CL99 4.2]"""
    first, second = bench.batch(bench.request(1)), bench.batch(bench.request(2))
    bench.order(2, second)
    assert bench.executed == 0
    bench.order(1, first)
    assert bench.executed == 2


def test_reply_goes_to_the_client_after_commit(bench):
    """The reply carries the result of the execution. [CL99 4.1]"""
    (reply,) = bench.sent(Reply, bench.order(1, bench.batch(bench.request(1, ["get", "nothing"]))))
    bundle = decode_bundle(reply.bundle)
    assert [(result.number, result.status, result.value) for result in bundle.results] == [(1, 0, b"\xc0")]
    bench.deliver(bytes(range(32)), bench.request(1, ["get", "nothing"]))
    assert bench.sent(Reply) == [reply], "a retransmission is answered from the table"


def test_an_operation_executes_once_though_ordered_twice(bench):
    """Exactly-once semantics: duplicates are recognised by client, session and number. [CL99 4.1]"""
    request = bench.request(1, ["cas", "k", None, "first"])
    (first,) = bench.sent(Reply, bench.order(1, bench.batch(request)))
    replies = bench.sent(Reply, bench.order(2, bench.batch(request, bench.request(2, ["get", "k"]))))
    assert bench.executed == 2
    assert [result.value for result in decode_bundle(first.bundle).results] == [b"\xc3"]
    assert [result.number for reply in replies for result in decode_bundle(reply.bundle).results] == [2]


def _take_eight_slots(bench) -> list[Effect]:
    return [effect for seq in range(1, 9) for effect in bench.order(seq, bench.batch(bench.request(seq)))]


def test_checkpoint_is_stable_with_two_f_plus_one_votes(bench):
    """2f + 1 CHECKPOINTs with one digest prove it stable; then the log below is dropped. [CL99 4.3]"""
    _take_eight_slots(bench)
    vote = bench.store.load().votes[0]
    digest = bench.store.load().snapshot.digest
    assert vote.sender == 1
    bench.deliver(2, bench.signed(2, Checkpoint(0, 8, digest)))
    assert bench.stable == 0, "f + 1 votes prove the digest, not that enough replicas hold the state"
    bench.deliver(3, bench.signed(3, Checkpoint(0, 8, digest)))
    assert bench.stable == 8
    assert bench.replica.summary()["slots"] == 0


def test_votes_admitted_before_a_checkpoint_that_covers_them_do_nothing(bench):
    """The log below is gone, also for what came in one read with the last vote for the checkpoint. [CL99 4.3]"""
    batch, digest = bench.batch(bench.request(8)), batch_digest(bench.batch(bench.request(8)))
    late = [bench.proposal(8, batch), *(bench.signed(2, kind(0, 0, 8, digest)) for kind in (Prepare, Commit))]
    admitted = [bench.admission.admit(encode(packet), sender, bench.engine.wants)
                for packet, sender in zip(late, (0, 2, 2), strict=True)]  # fmt: skip
    _take_eight_slots(bench)
    for replica in (2, 3):
        bench.deliver(replica, bench.signed(replica, Checkpoint(0, 8, bench.store.load().snapshot.digest)))
    assert bench.stable == 8
    for event in admitted:
        assert isinstance(event, Deliver)
        bench.step(event)
        assert bench.out == []
    assert bench.replica.summary()["slots"] == 0


def test_checkpoints_with_other_digests_do_not_count(bench):
    """The proof is 2f + 1 messages with the same state digest. [CL99 4.3]"""
    _take_eight_slots(bench)
    for replica in (0, 2, 3):
        bench.deliver(replica, bench.signed(replica, Checkpoint(0, 8, batch_digest(b"%d" % replica))))
    assert bench.stable == 0


def test_checkpoint_only_at_multiples_of_the_interval(bench):
    """Checkpoints are taken every K slots; others are ill formed. [CL99 4.3]"""
    bench.deliver(2, bench.signed(2, Checkpoint(0, 7, bytes(32))))
    assert bench.rejections() == ["not-a-checkpoint"]


def test_proposal_without_its_batch_is_no_proposal(bench):
    """A fresh assignment comes with what it assigns; a bare header is ignored, and never voted for. [CL99 4.2]"""
    bench.deliver(0, bench.proposal(1, bench.batch()).signed)
    assert not bench.sent(Prepare)
    assert not bench.sent(FetchBatch)


def test_every_outbound_message_passes_the_inbound_validator(make_bench):
    """What a replica signs, another replica's admission accepts: in the normal case, and on the way to a new view."""
    primary, backup, other = make_bench(me=0), make_bench(me=1), make_bench(me=2)
    proposed = primary.deliver(bytes(range(32)), primary.request(1))
    out = [*_take_eight_slots(backup), *backup.deliver(bytes(range(32)), backup.request(9)), *backup.wait(600)]
    for message in (Suspect(0, 0, "test"), ViewChange(0, 1, None, ())):
        for replica in (2, 3):
            out += backup.deliver(replica, backup.signed(replica, message))
    assert primary.sent(PrePrepare, proposed)
    for kind in (Prepare, Commit, Checkpoint, Status, Suspect, ViewChange, NewView):
        assert backup.sent(kind, out), f"no {kind.__name__} among what is checked"
    for sender, effects in ((0, proposed), (1, out)):
        for packet in (effect.packet for effect in effects if isinstance(effect, Broadcast)):
            admitted = other.admission.admit(encode(packet), sender, lambda *_: True)
            assert isinstance(admitted, Deliver), f"{packet}: {admitted}"
