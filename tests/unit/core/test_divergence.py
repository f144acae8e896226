"""A replica whose state is not the quorum's: it says where, keeps quiet, goes on voting, is repaired."""

from __future__ import annotations

import pytest

from bft.core.proofs import opened
from bft.events import Progress, Send, Stable
from bft.messages import (
    Checkpoint,
    Commit,
    EventBodies,
    FetchEvents,
    FetchManifest,
    FetchPages,
    Prepare,
    Query,
    QueryReply,
    ReadAnswer,
    Reply,
    SignedReply,
)
from bft.sim.world import EPOCH_NS
from tests.conftest import CLIENT


@pytest.fixture
def diverged(bench, source):
    """A replica that has executed the same operations but for one, shown the certificate of the others."""
    for seq in range(1, 9):
        request = bench.request(seq, ["put", "k3", "rotten"]) if seq == 3 else bench.request(seq)
        bench.order(seq, bench.batch(request))
    bench.deliver(2, bench.checkpoint_certificate(8, source.store.load().snapshot.digest))
    return bench


def _progress(effects, what) -> list[str]:
    return [effect.detail for effect in effects if isinstance(effect, Progress) and effect.what == what]


def _repair(bench, source) -> list[object]:
    """Let the source answer what the replica asks for, to the end; everything that came out."""
    asked, out = list(bench.out), list(bench.out)
    while asked:
        effect = asked.pop(0)
        if isinstance(effect, Send) and isinstance(effect.packet, FetchManifest | FetchPages):
            for answer in source.deliver(bench.me, effect.packet):
                if isinstance(answer, Send):
                    came = bench.deliver(int(str(effect.to)), answer.packet)
                    asked += came
                    out += came
    return out


def test_diverged_replica_gives_nothing_of_its_state_out(diverged):
    """No kept replies, no events, no queries, weak or not."""
    assert diverged.replica.summary()["serves"] is False
    assert diverged.replica.summary()["diverged_at"] == 8
    diverged.deliver(CLIENT, diverged.request(3))
    assert not diverged.sent(Reply)
    diverged.deliver(CLIENT, FetchEvents(EPOCH_NS, 0))
    assert not diverged.sent(EventBodies)
    for wait in (True, False):
        diverged.deliver(CLIENT, Query(1, 0, wait, (b"\x92\xa3get\xa2k3",)))
        assert not diverged.sent(QueryReply)


def test_diverged_replica_goes_on_voting_but_does_not_execute(diverged):
    """PREPARE and COMMIT read the log alone; f other faults would stop the cluster without them."""
    batch = diverged.batch(diverged.request(9))
    diverged.deliver(0, diverged.proposal(9, batch))
    assert diverged.sent(Prepare)
    digest = diverged.sent(Prepare)[0].digest
    for replica in (2, 3):
        diverged.deliver(replica, diverged.signed(replica, Prepare(0, 0, 9, digest)))
    for replica in (0, 2, 3):
        diverged.deliver(replica, diverged.signed(replica, Commit(0, 0, 9, digest)))
    assert diverged.executed == 8


def test_repair_names_what_differs_and_serving_resumes(diverged, source):
    """The pages are numbered as soon as the manifest is here; afterwards everything is answered, and rightly."""
    diverged.deliver(CLIENT, Query(7, 0, False, (b"\x92\xa3get\xa2k3",)))
    diverged.deliver(2, diverged.checkpoint_certificate(8, source.store.load().snapshot.digest))
    diverged.wait(500)
    out = _repair(diverged, source)
    summary = diverged.replica.summary()
    assert summary["serves"] is True and summary["divergences"] == 1
    assert summary["stable"] == 8
    # Registers keep k1 to k8 in four pages, in turn: k3 is the third of page 2; the client's session kept the batch.
    assert any(line.startswith("service pages 2 of 4") for line in summary["differs"]), summary["differs"]
    assert _progress(out, "differs")
    (answer,) = [effect.packet for effect in out if isinstance(effect, Send) and isinstance(effect.packet, QueryReply)]
    assert answer.nonce == 7 and answer.answers == (ReadAnswer(0, b"\xa2v3"),)
    diverged.deliver(CLIENT, diverged.request(3))
    assert diverged.sent(Reply)


def test_later_certificate_takes_over_the_repair(diverged, make_bench):
    """Peers keep two checkpoints: a replica that was wrong at 8 and at 16 moves on to 16 when it is shown."""
    later = make_bench(me=2)
    for seq in range(1, 17):
        later.order(seq, later.batch(later.request(seq)))
    assert diverged.replica.summary()["fetching"] == 8
    # It had executed up to 16 before it was shown that 8 was wrong.
    other = make_bench(me=1)
    for seq in range(1, 17):
        request = other.request(seq, ["put", "k3", "rotten"]) if seq == 3 else other.request(seq)
        other.order(seq, other.batch(request))
    other.deliver(2, other.checkpoint_certificate(8, bytes(32)))
    assert other.replica.summary()["fetching"] == 8
    other.deliver(2, other.checkpoint_certificate(16, later.store.load().snapshot.digest))
    assert other.replica.summary()["fetching"] == 16 and other.replica.summary()["divergences"] == 1
    other.deliver(2, other.checkpoint_certificate(8, bytes(32)))
    assert other.replica.summary()["fetching"] == 16


def test_overtaken_repair_ends(make_bench, source):
    """A state that was wrong for a while and is right again needs no repair, and must not go back for one."""
    later = make_bench(me=2)
    other = make_bench(me=1)
    for bench in (later, other):
        for seq in range(1, 17):
            bench.order(seq, bench.batch(bench.request(seq)))
            if bench is other and seq == 8:
                _, vote = other.replica._state.own_checkpoints[8]
                other.replica._state.own_checkpoints[8] = (bytes(32), vote)  # as if a bit had flipped, and back
    other.deliver(2, other.checkpoint_certificate(8, source.store.load().snapshot.digest))
    asked = list(other.out)
    assert other.replica.summary()["serves"] is False and other.replica.summary()["fetching"] == 8
    other.deliver(2, other.checkpoint_certificate(16, later.store.load().snapshot.digest))
    summary = other.replica.summary()
    assert (summary["stable"], summary["fetching"], summary["serves"]) == (16, None, True)
    other.out = asked
    _repair(other, source)
    assert (other.stable, other.executed) == (16, 16)
    other.order(17, other.batch(other.request(17)))
    assert other.executed == 17
    other.restart()
    assert other.executed == 16 and other.replica.summary()["serves"]


@pytest.mark.parametrize("is_repaired", [False, True])
def test_wrong_state_does_not_come_back_with_a_restart(make_bench, source, is_repaired):
    """Whenever the process dies: what it says afterwards comes from a state that was certified, or made from one."""
    bench = make_bench(me=1)
    for seq in range(1, 17):
        request = bench.request(seq, ["put", "k3", "rotten"]) if seq == 3 else bench.request(seq)
        bench.order(seq, bench.batch(request))
    bench.deliver(2, bench.checkpoint_certificate(8, source.store.load().snapshot.digest))
    if is_repaired:
        _repair(bench, source)
    votes = bench.store.load().votes
    assert [opened(vote).seq for vote in votes] == ([16] if is_repaired else [8, 16])
    bench.restart()
    assert (bench.stable, bench.executed) == ((8, 16) if is_repaired else (0, 0))
    bench.deliver(CLIENT, bench.request(3))
    bench.deliver(CLIENT, Query(1, 0, False, (b"\x92\xa3get\xa2k3",)))
    assert [answer.answers[0].value for answer in bench.sent(QueryReply)] == [b"\xa2v3" if is_repaired else b"\xc0"]
    for vote in votes:
        bench.deliver(2, vote)
    assert bench.replica.summary()["refuses"] is None, "what it voted for is not forgotten with the state"


def test_no_uncertified_state_comes_back(make_bench):
    """The first certificate that is seen shows a later state to be wrong: the earlier ones may be so as well."""
    right, wrong = make_bench(me=2), make_bench(me=1)
    for seq in range(1, 17):
        right.order(seq, right.batch(right.request(seq)))
        request = wrong.request(seq, ["put", "k3", "rotten"]) if seq == 3 else wrong.request(seq)
        wrong.order(seq, wrong.batch(request))
    wrong.deliver(2, wrong.checkpoint_certificate(16, right.store.load().snapshot.digest))
    votes = wrong.store.load().votes
    wrong.restart()
    assert (wrong.stable, wrong.executed) == (0, 0)
    assert wrong.store.load().votes == votes and len(votes) == 2


def test_state_made_anew_is_held_against_the_certificate_not_the_vote(make_bench, source):
    """Executed again and rightly, it needs no second repair after one more restart."""
    bench = make_bench(me=1)
    for seq in range(1, 17):
        request = bench.request(seq, ["put", "k3", "rotten"]) if seq == 3 else bench.request(seq)
        bench.order(seq, bench.batch(request))
    digest = source.store.load().snapshot.digest
    bench.deliver(2, bench.checkpoint_certificate(8, digest))
    bench.store._accepted.clear()  # what this bench ordered differs from what the others did; rot does not
    bench.store._prepared.clear()
    bench.restart()
    for seq in range(1, 17):
        bench.order(seq, bench.batch(bench.request(seq)))
    bench.restart()
    bench.deliver(2, bench.checkpoint_certificate(8, digest))
    summary = bench.replica.summary()
    assert (summary["stable"], summary["serves"], summary["divergences"]) == (8, True, 0)


def test_process_may_die_between_the_records_of_a_repair(diverged, source):
    """A store that tears them apart leaves no replica that does not know its own vote."""
    (own,) = diverged.store.load().votes
    write = diverged.store.write

    def torn(records):
        for record in records:
            if isinstance(record, Stable):
                raise KeyboardInterrupt
            write([record])

    diverged.store.write = torn
    with pytest.raises(KeyboardInterrupt):
        _repair(diverged, source)
    diverged.store.write = write
    diverged.restart()
    diverged.deliver(2, own)
    assert diverged.replica.summary()["refuses"] is None


def test_repaired_replica_signs_nothing_twice(make_bench, source):
    """A flipped bit in a reply is bad enough: signing the right one as well would convict the replica for good."""
    bench = make_bench(me=1)
    bench.replica._state.signs_replies = True
    for seq in range(1, 9):
        request = bench.request(seq, ["put", "k3", "rotten"]) if seq == 3 else bench.request(seq)
        bench.order(seq, bench.batch(request))
    bench.deliver(CLIENT, bench.request(3))
    assert bench.sent(SignedReply)
    bench.deliver(2, bench.checkpoint_certificate(8, source.store.load().snapshot.digest))
    _repair(bench, source)
    for _ in range(2):
        bench.deliver(CLIENT, bench.request(3))
        assert bench.sent(Reply) and not bench.sent(SignedReply)
        bench.restart()
        bench.replica._state.signs_replies = True
    bench.order(9, bench.batch(bench.request(9)))
    bench.deliver(CLIENT, bench.request(9))
    assert bench.sent(SignedReply)


def test_states_that_all_differ_are_told_once(bench):
    """When no strong quorum of equal checkpoints can come any more, the service is to blame: ordering stops safely."""
    for seq in range(1, 9):
        bench.order(seq, bench.batch(bench.request(seq)))
    said = []
    for replica in (0, 2, 3):
        bench.deliver(replica, bench.signed(replica, Checkpoint(0, 8, bytes([replica]) * 32)))
        said += _progress(bench.out, "split")
    assert said == ["3 states differ: is the service deterministic?"], "after the third of four votes"
    assert bench.replica.summary()["split"] == 8 and bench.stable == 0


def test_one_liar_splits_nothing(bench, source):
    """f wrong checkpoints are a liar's, not the service's."""
    for seq in range(1, 9):
        bench.order(seq, bench.batch(bench.request(seq)))
    bench.deliver(3, bench.signed(3, Checkpoint(0, 8, b"x" * 32)))
    bench.deliver(2, bench.signed(2, Checkpoint(0, 8, source.store.load().snapshot.digest)))
    assert bench.replica.summary()["split"] == 0
    bench.deliver(0, bench.signed(0, Checkpoint(0, 8, source.store.load().snapshot.digest)))
    assert bench.stable == 8
