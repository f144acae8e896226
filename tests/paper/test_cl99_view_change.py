"""Claims of Castro and Liskov 1999, section 4.4, held against one real replica."""

from __future__ import annotations

import msgspec
import pytest

from bft.core.newview import select
from bft.digests import NULL_DIGEST, batch_digest
from bft.events import Broadcast, Deliver, Persist, Send, ViewRecord
from bft.messages import (
    BatchBody,
    Commit,
    FetchBatch,
    NewView,
    Prepare,
    PrePrepare,
    Signed,
    Status,
    Suspect,
    ViewChange,
)
from bft.wire.codec import encode

A = batch_digest(b"A")
B = batch_digest(b"B")


def _view_change(bench, sender: int, view: int = 1, stable=None, prepared=()) -> Signed:
    return bench.signed(sender, ViewChange(0, view, stable, tuple(prepared)))


def _new_view(bench, view: int, view_changes: list[Signed], proposals: list[tuple[int, bytes]]) -> Signed:
    primary = bench.quorums.primary(view)
    signed = tuple(bench.signed(primary, PrePrepare(0, view, seq, digest)) for seq, digest in proposals)
    return bench.signed(primary, NewView(0, view, tuple(view_changes), signed))


def test_backup_suspects_a_primary_that_does_not_order_a_request(bench):
    """A backup's timer runs while it waits for a request it has; on expiry it complains. [CL99 4.4]"""
    bench.deliver(bytes(range(32)), bench.request(1))
    bench.wait(300)
    assert not bench.sent(Suspect)
    bench.wait(300)
    assert Suspect(0, 0, "request-timeout") in bench.sent(Suspect)


def test_one_complaint_does_not_start_a_view_change(bench):
    """f liars cannot depose a primary: it takes f + 1 complaints, one of them a correct replica's."""
    bench.deliver(3, bench.signed(3, Suspect(0, 0, "lies")))
    assert not bench.sent(ViewChange)
    bench.deliver(3, bench.signed(3, Suspect(0, 0, "again")))
    assert not bench.sent(ViewChange)
    bench.deliver(2, bench.signed(2, Suspect(0, 0, "lies")))
    assert [message.view for message in bench.sent(ViewChange)] == [1]


def test_a_complaint_that_is_not_repeated_expires(bench):
    """A passing grievance of a correct replica does not lend its voice to a liar for ever."""
    bench.deliver(2, bench.signed(2, Suspect(0, 0, "passing")))
    bench.wait(1000)
    bench.deliver(3, bench.signed(3, Suspect(0, 0, "lies")))
    assert not bench.sent(ViewChange)
    bench.deliver(2, bench.signed(2, Suspect(0, 0, "passing")))
    assert bench.sent(ViewChange)


def _leave(bench, view: int = 1) -> None:
    """Make the replica leave its view by complaints of the others."""
    for replica in (2, 3):
        bench.deliver(replica, bench.signed(replica, Suspect(0, view - 1, "test")))


def test_view_change_is_durable_before_it_leaves(bench):
    """After VIEW-CHANGE(v) the replica must never act in an older view again, crash or not. [CL02 4.6]"""
    _leave(bench)
    kinds = [type(effect).__name__ for effect in bench.out]
    assert kinds.index("Persist") < kinds.index("Broadcast")


def test_no_vote_in_the_old_view_after_leaving_it(bench):
    """It stops accepting messages other than checkpoint, view-change and new-view. [CL99 4.4]"""
    _leave(bench)
    bench.deliver(0, bench.proposal(1, bench.batch()))
    assert not bench.sent(Prepare)


def test_no_vote_in_the_old_view_for_what_was_admitted_before_leaving_it(bench):
    """What came in one read is admitted together, and stepped one by one: it matters what holds then. [CL99 4.4]"""
    admitted = bench.admission.admit(encode(bench.proposal(1, bench.batch())), 0, bench.engine.wants)
    assert isinstance(admitted, Deliver)
    _leave(bench)
    bench.step(admitted)
    assert bench.out == []
    assert bench.replica.summary()["slots"] == 0


def test_no_vote_in_the_old_view_after_leaving_it_and_a_crash(bench):
    """A restart does not bring the replica back into a view that it left. [CL02 4.6]"""
    _leave(bench)
    bench.restart()
    bench.deliver(0, bench.proposal(1, bench.batch()))
    assert not bench.sent(Prepare)
    assert bench.replica.summary()["view"] == 1
    assert not bench.replica.summary()["active"]


def test_view_change_carries_the_prepared_certificates(bench):
    """P holds, for each request prepared above the stable checkpoint, its certificate. [CL99 4.4]"""
    batch = bench.batch()
    bench.deliver(0, bench.proposal(1, batch))
    bench.deliver(2, bench.signed(2, Prepare(0, 0, 1, batch_digest(batch))))
    _leave(bench)
    (message,) = bench.sent(ViewChange)
    assert len(message.prepared) == 1


def test_prepared_certificate_survives_a_crash(bench):
    """What was prepared before a crash is shown in the view change after it. [CL02 4.6]"""
    batch = bench.batch()
    bench.deliver(0, bench.proposal(1, batch))
    bench.deliver(2, bench.signed(2, Prepare(0, 0, 1, batch_digest(batch))))
    bench.restart()
    _leave(bench)
    (message,) = bench.sent(ViewChange)
    assert len(message.prepared) == 1


def test_prepared_certificate_survives_two_view_changes(make_bench):
    """Entering a view does not clear what was prepared in an older one (mutant M06). [CL99 4.4]"""
    bench = make_bench(me=3)
    batch = bench.batch()
    bench.deliver(0, bench.proposal(1, batch))
    bench.deliver(2, bench.signed(2, Prepare(0, 0, 1, batch_digest(batch))))
    changes = [_view_change(bench, sender) for sender in (0, 1, 2)]
    bench.deliver(1, _new_view(bench, 1, changes, []))
    assert bench.replica.summary()["view"] == 1
    for replica in (0, 2):
        bench.deliver(replica, bench.signed(replica, Suspect(0, 1, "test")))
    (message,) = bench.sent(ViewChange)
    assert (message.view, len(message.prepared)) == (2, 1)


def test_view_change_is_repeated_with_the_same_bytes(bench):
    """Lost VIEW-CHANGEs are sent again, unchanged: two different ones for a view would be evidence."""
    _leave(bench)
    (first,) = [effect.packet for effect in bench.out if isinstance(effect, Broadcast)]
    again = [effect.packet for effect in bench.wait(1000) if isinstance(effect, Broadcast)]
    repeated = [packet for packet in again if isinstance(packet, Signed) and packet.payload == first.payload]
    assert repeated
    assert all(packet == first for packet in repeated)


def test_follows_f_plus_one_others_that_are_ahead(bench):
    """f + 1 VIEW-CHANGEs for views above its own make a replica join the smallest of them at least. [CL99 4.5.2]"""
    bench.deliver(2, _view_change(bench, 2, view=5))
    assert bench.replica.summary()["view"] == 0
    bench.deliver(3, _view_change(bench, 3, view=3))
    assert bench.replica.summary()["view"] == 3


def test_highest_view_of_each_is_what_counts(bench):
    """Whoever is ahead has passed through lower views, and may be heard of them first or last. [CL99 4.5.2]"""
    for view in (3, 7, 5):
        bench.deliver(2, _view_change(bench, 2, view=view))
    bench.deliver(3, _view_change(bench, 3, view=7))
    assert bench.replica.summary()["view"] == 7


def test_one_far_view_change_moves_nobody(bench):
    """f liars cannot inflate the view. [CL99 4.5.2]"""
    for view in (7, 1000, 8, 2**40):
        bench.deliver(3, _view_change(bench, 3, view=view))
    assert bench.replica.summary()["view"] == 0
    assert bench.replica.summary()["view_changes"] == 1


def test_new_primary_begins_with_two_f_plus_one_view_changes(bench):
    """The primary of v + 1 multicasts NEW-VIEW once it holds 2f valid VIEW-CHANGEs of others. [CL99 4.4]"""
    _leave(bench)
    bench.deliver(2, _view_change(bench, 2))
    assert not bench.sent(NewView)
    bench.deliver(3, _view_change(bench, 3))
    (message,) = bench.sent(NewView)
    assert [signed.sender for signed in message.view_changes] == [1, 2, 3]


def test_new_view_is_durable_before_it_leaves(bench):
    """The NEW-VIEW is on disk before others can act on it. [CL02 4.6]"""
    _leave(bench)
    bench.deliver(2, _view_change(bench, 2))
    bench.deliver(3, _view_change(bench, 3))
    kinds = [
        type(effect)
        for effect in bench.out
        if isinstance(effect, Broadcast) or (isinstance(effect, Persist) and isinstance(effect.record, ViewRecord))
    ]
    assert kinds[0] is Persist


def test_highest_view_wins_and_gaps_are_null(bench):
    """O takes the request of the certificate with the highest view, and null where there is none. [CL99 4.4]"""
    old = bench.prepared_certificate(1, A, view=0)
    new = bench.prepared_certificate(1, B, view=1, backups=[0, 2])
    far = bench.prepared_certificate(3, A, view=0)
    changes = [ViewChange(0, 2, None, (old, far)), ViewChange(0, 2, None, (new,)), ViewChange(0, 2, None, (old,))]
    assert select(changes).proposals == ((1, B), (2, NULL_DIGEST), (3, A))
    assert select(changes[::-1]).proposals == ((1, B), (2, NULL_DIGEST), (3, A))


def test_min_s_is_the_highest_stable_checkpoint(bench):
    """min-s is the latest stable checkpoint in V; what it covers is not proposed again. [CL99 4.4]"""
    stable = bench.checkpoint_certificate(8, bytes(32))
    changes = [
        ViewChange(0, 1, stable, ()),
        ViewChange(0, 1, None, (bench.prepared_certificate(5, A), bench.prepared_certificate(9, B))),
    ]
    selection = select(changes)
    assert selection.stable == stable
    assert selection.proposals == ((9, B),)


def test_backup_votes_for_what_the_new_view_proposes_again(make_bench):
    """A backup that accepts NEW-VIEW sends PREPARE for each message in O. [CL99 4.4]"""
    bench = make_bench(me=2)
    batch = bench.batch()
    digest = batch_digest(batch)
    bench.deliver(0, bench.proposal(1, batch))
    prepared = [bench.prepared_certificate(1, digest)]
    changes = [_view_change(bench, 0), _view_change(bench, 1, prepared=prepared), _view_change(bench, 3)]
    bench.deliver(1, _new_view(bench, 1, changes, [(1, digest)]))
    assert bench.sent(Prepare) == [Prepare(0, 1, 1, digest)]


def test_backup_does_not_vote_before_it_has_the_batch(make_bench):
    """O carries digests only: without the batch there is no vote, but a request for it."""
    bench = make_bench(me=2)
    batch = bench.batch()
    digest = batch_digest(batch)
    prepared = [bench.prepared_certificate(1, digest)]
    changes = [_view_change(bench, 0), _view_change(bench, 1, prepared=prepared), _view_change(bench, 3)]
    bench.deliver(1, _new_view(bench, 1, changes, [(1, digest)]))
    assert not bench.sent(Prepare)
    assert bench.sent(FetchBatch) == [FetchBatch(digest)]
    bench.deliver(3, BatchBody(batch))
    assert bench.sent(Prepare) == [Prepare(0, 1, 1, digest)]


def test_slots_executed_before_are_voted_for_but_not_executed_again(make_bench):
    """Replicas redo the protocol for requests in O but do not execute them twice. [CL99 4.4]"""
    bench = make_bench(me=2)
    batch = bench.batch()
    digest = batch_digest(batch)
    bench.order(1, batch)
    assert bench.executed == 1
    prepared = [bench.prepared_certificate(1, digest)]
    changes = [_view_change(bench, 0), _view_change(bench, 1, prepared=prepared), _view_change(bench, 3)]
    bench.deliver(1, _new_view(bench, 1, changes, [(1, digest)]))
    assert bench.sent(Prepare) == [Prepare(0, 1, 1, digest)]
    bench.deliver(3, bench.signed(3, Prepare(0, 1, 1, digest)))
    for replica in (0, 1, 3):
        bench.deliver(replica, bench.signed(replica, Commit(0, 1, 1, digest)))
    assert bench.executed == 1


@pytest.mark.parametrize(
    ("proposals", "reason"),
    [
        ([], "wrong-proposals"),
        ([(1, B)], "wrong-proposals"),
        ([(1, NULL_DIGEST)], "wrong-proposals"),
        ([(1, A), (2, NULL_DIGEST)], "wrong-proposals"),
        ([(2, A)], "wrong-proposals"),
    ],
)
def test_new_view_with_another_o_is_refused(make_bench, proposals, reason):
    """Backups verify O by the same computation as the primary's; nothing in it is trusted. [CL99 4.4]"""
    bench = make_bench(me=2)
    prepared = [bench.prepared_certificate(1, A)]
    changes = [_view_change(bench, 0), _view_change(bench, 1, prepared=prepared), _view_change(bench, 3)]
    bench.deliver(1, _new_view(bench, 1, changes, proposals))
    assert bench.rejections() == [reason]
    assert bench.replica.summary()["view"] == 0


@pytest.mark.parametrize(
    ("senders", "reason"),
    [
        ([0, 1], "wrong-quorum"),
        ([0, 1, 1], "signers-not-ascending"),
        ([3, 1, 0], "signers-not-ascending"),
        ([0, 1, 2, 3], "wrong-quorum"),
    ],
)
def test_new_view_needs_a_strong_quorum_of_distinct_senders(make_bench, senders, reason):
    """V holds the VIEW-CHANGEs of 2f + 1 different replicas. [CL99 4.4]"""
    bench = make_bench(me=2)
    bench.deliver(1, _new_view(bench, 1, [_view_change(bench, sender) for sender in senders], []))
    assert bench.rejections() == [reason]


def test_new_view_by_another_replica_is_refused(make_bench):
    """Only the primary of v + 1 may begin it. [CL99 4.4]"""
    bench = make_bench(me=2)
    changes = [_view_change(bench, sender) for sender in (0, 1, 3)]
    bench.deliver(3, bench.signed(3, NewView(0, 1, tuple(changes), ())))
    assert bench.rejections() == ["not-the-primary"]


def test_new_view_with_view_changes_for_another_view_is_refused(make_bench):
    """The VIEW-CHANGEs in V are for the very view. [CL99 4.4]"""
    bench = make_bench(me=2)
    changes = [_view_change(bench, 0), _view_change(bench, 1, view=2), _view_change(bench, 3)]
    bench.deliver(1, _new_view(bench, 1, changes, []))
    assert bench.rejections() == ["view-change-for-another-view"]


def _broken_certificates(bench):
    good = bench.prepared_certificate(1, A)
    replace = msgspec.structs.replace
    yield "too few prepares", "wrong-quorum", replace(good, prepares=good.prepares[:1])
    yield "a signer twice", "signers-not-ascending", replace(good, prepares=(good.prepares[0], good.prepares[0]))
    yield "the primary as preparer", "prepare-by-primary", bench.prepared_certificate(1, A, backups=[0, 2])
    yield "a stranger", "not-a-member", replace(good, prepares=(good.prepares[0], replace(good.prepares[1], replica=9)))
    yield "mixed digests", "bad-signature", replace(good, prepares=bench.prepared_certificate(1, B).prepares)
    yield "no pre-prepare", "no-pre-prepare", replace(good, pre_prepare=bench.signed(0, Prepare(0, 1, 1, A)))
    yield "beyond the window", "prepared-outside-the-window", bench.prepared_certificate(17, A)
    yield "of the view itself", "prepared-in-a-later-view", bench.prepared_certificate(1, A, view=1, backups=[2, 3])


@pytest.mark.parametrize("case", range(8))
def test_view_change_with_a_broken_certificate_is_refused(bench, case):
    """Each certificate in P is checked: one liar's forgery must neither count nor shadow others'. [CL99 4.4]"""
    what, reason, certificate = list(_broken_certificates(bench))[case]
    bench.deliver(3, _view_change(bench, 3, prepared=[certificate]))
    assert bench.rejections() == [reason], what
    assert bench.replica.summary()["view_changes"] == 0


@pytest.mark.parametrize("replicas", [[0, 1], [0, 1, 1], [0, 1, 2, 3]])
def test_view_change_needs_a_proof_of_its_checkpoint(bench, replicas):
    """C is the 2f + 1 CHECKPOINTs that prove the stable checkpoint. [CL99 4.4]"""
    bench.deliver(3, _view_change(bench, 3, stable=bench.checkpoint_certificate(8, A, replicas)))
    assert len(bench.rejections()) == 1


def test_view_floor_closes_slots_below_the_new_views_checkpoint(make_bench):
    """A laggard does not vote in v + 1 for slots that the new view's checkpoint covers: they are decided."""
    bench = make_bench(me=2)
    stable = bench.checkpoint_certificate(8, A)
    changes = [_view_change(bench, 0, stable=stable), _view_change(bench, 1), _view_change(bench, 3)]
    bench.deliver(1, _new_view(bench, 1, changes, []))
    assert bench.replica.summary()["view"] == 1
    bench.deliver(1, bench.proposal(5, bench.batch(), view=1))
    assert not bench.sent(Prepare)
    bench.deliver(1, bench.proposal(9, bench.batch(), view=1))
    assert len(bench.sent(Prepare)) == 1


def test_primary_may_not_contradict_its_own_new_view(make_bench):
    """For slots in O the new primary can assign nothing else. [CL99 4.4]"""
    bench = make_bench(me=2)
    prepared = [bench.prepared_certificate(1, A)]
    changes = [_view_change(bench, 0), _view_change(bench, 1, prepared=prepared), _view_change(bench, 3)]
    bench.deliver(1, _new_view(bench, 1, changes, [(1, A)]))
    bench.deliver(1, bench.proposal(1, bench.batch(), view=1))
    assert not bench.sent(Prepare)


def test_gives_up_on_a_silent_new_primary(make_bench):
    """If NEW-VIEW does not come in time, the next view is tried, with twice the patience. [CL99 4.4]"""
    bench = make_bench(me=3)
    for replica in (0, 2):
        bench.deliver(replica, _view_change(bench, replica))
    assert bench.replica.summary()["view"] == 1
    bench.wait(500)
    assert bench.replica.summary()["view"] == 2


def test_does_not_run_ahead_alone(make_bench):
    """The timer for v + 2 starts only when 2f + 1 replicas want v + 1. [CL99 4.5.2]"""
    bench = make_bench(me=3)
    for replica in (0, 2):
        bench.deliver(replica, bench.signed(replica, Suspect(0, 0, "test")))
    assert bench.replica.summary()["view"] == 1
    bench.wait(5000)
    assert bench.replica.summary()["view"] == 1


def test_new_view_reaches_a_replica_that_missed_it(make_bench):
    """Whoever is in the view repeats its NEW-VIEW to a replica that says it is not."""
    bench = make_bench(me=2)
    changes = [_view_change(bench, sender) for sender in (0, 1, 3)]
    new_view = _new_view(bench, 1, changes, [])
    bench.deliver(1, new_view)
    bench.wait(100)
    bench.deliver(3, Status(0, 0, True, 0, 0, ()))
    assert [effect.packet for effect in bench.out if isinstance(effect, Send) and effect.packet == new_view]
