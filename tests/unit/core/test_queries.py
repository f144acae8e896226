"""Reads without ordering: the commit-wait rule."""

from __future__ import annotations

import msgspec

from bft.core import budget
from bft.core.queries import OPERATION_OVERHEAD_BYTES, SERVED_AT_ONCE, WAITING_MAX, size_of
from bft.digests import batch_digest
from bft.messages import Commit, Prepare, Query, QueryReply, ReadAnswer, Refusal

CLIENT = bytes(range(32))
GET = msgspec.msgpack.encode(["get", "k1"])


def test_query_is_answered_from_the_executed_state(bench):
    """A replica that has sent no COMMIT beyond what it executed answers at once."""
    bench.order(1, bench.batch(bench.request(1)))
    bench.deliver(CLIENT, Query(1, 0, True, (GET,)))
    assert bench.sent(QueryReply) == [QueryReply(1, 1, 0, 0, (ReadAnswer(0, msgspec.msgpack.encode("v1")),))]


def test_query_waits_for_slots_it_sent_commit_for(bench):
    """It answers after executing every slot for which it had sent COMMIT (mutant M25). [CL99 5.1]"""
    batch = bench.batch(bench.request(1))
    digest = batch_digest(batch)
    bench.deliver(0, bench.proposal(1, batch))
    bench.deliver(2, bench.signed(2, Prepare(0, 0, 1, digest)))
    bench.deliver(CLIENT, Query(1, 0, True, (GET,)))
    assert not bench.sent(QueryReply)
    for replica in (0, 2):
        bench.deliver(replica, bench.signed(replica, Commit(0, 0, 1, digest)))
    assert [reply.seq for reply in bench.sent(QueryReply)] == [1]


def test_query_waits_for_its_commits_also_after_a_restart(bench):
    """What it sent COMMIT for is on disk, so a restarted replica waits as well."""
    batch = bench.batch(bench.request(1))
    bench.deliver(0, bench.proposal(1, batch))
    bench.deliver(2, bench.signed(2, Prepare(0, 0, 1, batch_digest(batch))))
    bench.restart()
    bench.deliver(CLIENT, Query(1, 0, True, (GET,)))
    assert not bench.sent(QueryReply)


def test_weak_query_does_not_wait_but_honours_its_floor(bench):
    """A stale answer is allowed, one from before what the client has seen is not."""
    batch = bench.batch(bench.request(1))
    bench.deliver(0, bench.proposal(1, batch))
    bench.deliver(2, bench.signed(2, Prepare(0, 0, 1, batch_digest(batch))))
    bench.deliver(CLIENT, Query(1, 0, False, (GET,)))
    assert [reply.seq for reply in bench.sent(QueryReply)] == [0]
    bench.deliver(CLIENT, Query(2, 1, False, (GET,)))
    assert not bench.sent(QueryReply)


def test_query_of_a_replica_is_not_answered(bench):
    """Replicas have no quota of reads, and no use for them: 64 scans in a small frame would be a cheap weapon."""
    bench.deliver(2, Query(1, 0, False, (GET,)))
    assert not bench.sent(QueryReply)
    assert bench.rejections() == ["unexpected"]


def test_query_for_the_far_future_is_refused(bench):
    """A floor beyond reach would wait for ever: the client is told at once."""
    bench.deliver(CLIENT, Query(1, 10**9, False, (GET,)))
    assert [refusal.reason for refusal in bench.sent(Refusal)] == ["busy"]


def test_large_answers_come_in_parts(bench):
    """Reads share a query, their values need not fit into one reply; each part says where it begins."""
    value = "x" * 150_000
    bench.order(1, bench.batch(bench.request(1, ["put", "k1", value])))
    missing = msgspec.msgpack.encode(["get", "k9"])
    bench.deliver(CLIENT, Query(1, 0, True, (GET, missing, GET, GET, missing)))
    replies = bench.sent(QueryReply)
    assert [(reply.first, len(reply.answers)) for reply in replies] == [(0, 2), (2, 1), (3, 2)]
    given = [msgspec.msgpack.decode(answer.value) for reply in replies for answer in reply.answers]
    assert given == [value, None, value, value, None]


def test_many_empty_reads_are_not_free(bench):
    """What waits is bounded by bytes, and an operation of none takes some, too."""
    assert size_of((b"",) * 64) > 63 * OPERATION_OVERHEAD_BYTES - 1
    assert size_of((b"abc",)) == 3


def test_a_client_is_answered_within_a_budget(bench):
    """Small questions with large answers: what is beyond the budget is refused, and the replica votes on."""
    value = "x" * 400_000
    bench.order(1, bench.batch(bench.request(1, ["put", "k1", value])))
    sent = size = 0
    for nonce in range(1, 33):
        bench.deliver(CLIENT, Query(nonce, 0, True, (GET,) * 64))
        replies = bench.sent(QueryReply)
        sent += len(replies)
        size += sum(len(answer.value) for reply in replies for answer in reply.answers)
        assert replies or bench.sent(Refusal)[0].number == nonce
    assert 0 < size <= budget.CLIENT_BYTES_PER_TICK + 400_010
    bench.wait(100)
    bench.deliver(CLIENT, Query(99, 0, True, (GET,)))
    assert bench.sent(QueryReply)


def test_reads_that_wait_are_served_a_part_at_a_time(bench):
    """However many are due at once; and operations count, however few queries they come in."""
    for nonce in range(1, 100):
        bench.deliver(CLIENT, Query(nonce, 1, True, (GET,) * 64))
    assert len(bench.sent(Refusal)) == 1, "half of the room is the most that one client gets"
    assert bench.replica.summary()["waiting_queries"] == WAITING_MAX // 64 // 2
    served = []
    step = bench.step
    bench.step = lambda event: served.append(step(event))
    bench.order(1, bench.batch(bench.request(1)))
    bench.step = step
    counts = [len(bench.sent(QueryReply, out)) for out in served]
    assert max(counts) == SERVED_AT_ONCE // 64
    later = bench.wait(1000)
    assert sum(counts) + len(bench.sent(QueryReply, later)) == WAITING_MAX // 64 // 2
