"""Attacks on one real replica that once succeeded, and some that never did: each test is one hostile move."""

from __future__ import annotations

import time

import msgspec
import pytest

from bft.config import Protocol
from bft.core.clients import SessionTable
from bft.core.evidence import hides
from bft.core.pool import POOL_BYTES_MAX, Pending, Pool
from bft.core.requests import SPREAD_MAX
from bft.core.session import BUNDLE_BYTES_MAX, part_bytes_max
from bft.core.tablepages import Kept
from bft.digests import NULL_DIGEST, batch_digest, page_digest
from bft.events import Pages
from bft.messages import (
    OPERATION_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
    BatchBody,
    Checkpoint,
    Commit,
    FetchBatch,
    FetchPages,
    ManifestBody,
    NewView,
    PageBodies,
    Prepare,
    PrePrepare,
    Query,
    QueryReply,
    Refusal,
    Request,
    SignedRequest,
    Status,
    Suspect,
    ViewChange,
)
from bft.wire.codec import decode_bundle

CLIENT = bytes(range(32))
NOW = 1_700_000_000_000_000_000
A = b"a" * 32
B = b"b" * 32


def _table(**protocol: int) -> SessionTable:
    return SessionTable(msgspec.convert(protocol, Protocol))


def _request(number: int, *operations: bytes, session: int = NOW, acknowledged: int = 1, after: tuple[int, ...] = ()):
    return Request(session, number, acknowledged, operations or (b"op",), after)


def _run(table: SessionTable, seq: int, *requests: tuple[bytes, Request]):
    """Results as a client would see them: (client's session, numbers and values of its bundle)."""
    calls = table.select(requests, seq, NOW)
    bundles = table.record(seq, calls, [(0, call.operation) for call in calls], [])
    return [
        (session.client, session.incarnation, [(r.number, r.value) for r in decode_bundle(bundle).results])
        for session, _, bundle in bundles
    ]


# --- clients ------------------------------------------------------------------------------------------------------


def test_huge_acknowledgement_costs_nothing():
    """A client that acknowledges 2**62 operations it never sent must not keep every replica counting for ever."""
    table = _table()
    _run(table, 1, (A, _request(1)))
    far = 1 << 62
    assert _run(table, 2, (A, _request(far, b"far", acknowledged=far))) == [(A, NOW, [(far, b"far")])]


def test_restarted_clients_results_do_not_mix():
    """Operation 1 of the old process and operation 1 of the new one in one batch: each result is its session's own."""
    table = _table(sessions_per_client=1)
    old, new = _request(1, b"old"), _request(1, b"new", session=NOW + 1)
    bundles = _run(table, 1, (A, old), (A, new))
    assert (A, NOW + 1, [(1, b"new")]) in bundles
    assert [bundle for bundle in bundles if bundle[1] == NOW] in ([], [(A, NOW, [(1, b"old")])])


def test_session_evicted_by_its_own_batch():
    """A batch with more new clients than the table holds evicts some of its own; nobody crashes over them."""
    table = _table(sessions_max=1)
    assert _run(table, 1, (A, _request(1, session=NOW - 1)), (B, _request(1))) == [(B, NOW, [(1, b"op")])]


def test_lane_goes_on_when_its_predecessor_is_acknowledged():
    """Who gives an operation up acknowledges it; the lane's next one waits for nobody then."""
    table = _table()
    assert _run(table, 1, (A, _request(2, b"held", after=(1,)))) == []
    assert _run(table, 2, (A, _request(3, b"next", acknowledged=2))) == [(A, NOW, [(2, b"held"), (3, b"next")])]


# --- primaries ----------------------------------------------------------------------------------------------------


def test_batch_of_a_later_slot_survives_the_checkpoint_of_an_earlier_one(bench):
    """A primary that orders one batch twice cannot make a replica drop it before the second slot is executed."""
    twice = bench.batch(bench.request(1))
    bench.order(1, twice)
    for seq in range(2, 8):
        bench.order(seq, bench.batch(bench.request(seq)))
    bench.deliver(2, bench.commit_certificate(9, batch_digest(twice)))
    eighth = bench.batch(bench.request(8))
    source = bench_at_checkpoint(bench, eighth)
    for replica in (2, 3):
        bench.deliver(replica, bench.signed(replica, Checkpoint(0, 8, source)))
    bench.order(8, eighth)
    assert bench.stable == 8
    assert bench.executed == 9


def bench_at_checkpoint(bench, eighth: bytes) -> bytes:
    """The state digest that an honest replica reports after the eighth slot."""
    other = type(bench)(me=2)
    for seq in range(1, 8):
        other.order(seq, other.batch(other.request(seq)))
    other.order(8, eighth)
    (digest,) = {message.digest for message in other.sent(Checkpoint)} or {other.store.load().snapshot.digest}
    return digest


def test_slot_of_an_old_view_is_no_grievance_against_the_new_primary(bench):
    """A proposal that only this replica saw dies with its view; else it and one liar depose primaries for ever."""
    bench.deliver(0, bench.proposal(1, bench.batch()))
    for replica in (2, 3):
        bench.deliver(replica, bench.signed(replica, Suspect(0, 0, "test")))
        bench.deliver(replica, bench.signed(replica, Suspect(0, 1, "test")))
    changes = [bench.signed(replica, ViewChange(0, 2, None, ())) for replica in (0, 2, 3)]
    bench.deliver(2, bench.signed(2, NewView(0, 2, tuple(changes), ())))
    assert bench.replica.summary()["view"] == 2
    assert not bench.sent(Suspect, bench.wait(5000))


@pytest.mark.parametrize("me", [1, 3])
def test_window_reaches_proposals_later(make_bench, me):
    """A replica that lagged when the view began votes for all of its proposals once it has caught up.

    The null slots 17 .. 19 lie beyond its window until the checkpoint at 8 is here; nobody can send them again.
    """
    source = make_bench(me=2)
    batches = [source.batch(source.request(seq)) for seq in range(1, 9)]
    for seq, batch in enumerate(batches, 1):
        source.order(seq, batch)
    digest = source.store.load().snapshot.digest
    stable = source.checkpoint_certificate(8, digest, [0, 2, 3])

    bench = make_bench(me=me)
    for replica in (0, 2, 3):
        if replica != me:
            bench.deliver(replica, bench.signed(replica, Suspect(0, 0, "test")))
    last = bench.prepared_certificate(20, batch_digest(b"x"))
    changes = {replica: bench.signed(replica, ViewChange(0, 1, stable, (last,))) for replica in (0, 2, 3)}
    for replica in (0, 2, 3):
        if replica != me:
            bench.deliver(replica, changes[replica])
    if me != 1:
        slots = [(seq, NULL_DIGEST) for seq in range(9, 20)] + [(20, batch_digest(b"x"))]
        signed = tuple(bench.signed(1, PrePrepare(0, 1, seq, at)) for seq, at in slots)
        bench.deliver(1, bench.signed(1, NewView(0, 1, tuple(changes[r] for r in (0, 2, 3)), signed)))
    assert bench.replica.summary()["view"] == 1
    assert bench.replica.summary()["active"]

    for seq, batch in enumerate(batches, 1):
        bench.deliver(2, bench.proposal(seq, batch))
        bench.deliver(2, bench.commit_certificate(seq, batch_digest(batch)))
        bench.deliver(2, BatchBody(batch))
    assert bench.stable == 8
    for seq in (17, 18, 19):
        vote = Prepare(0, 1, seq, NULL_DIGEST)
        others = [replica for replica in (0, 2, 3) if replica != me]
        sent = [effect for replica in others for effect in bench.deliver(replica, bench.signed(replica, vote))]
        assert [message.seq for message in bench.sent(Commit, sent)] == [seq]


# --- memory and time ----------------------------------------------------------------------------------------------


def test_votes_for_far_checkpoints_fill_nothing(bench):
    """One beyond the window is a sign that this replica lags; a thousand from one liar are kept as one."""
    for interval in range(100, 1100):
        bench.deliver(3, bench.signed(3, Checkpoint(0, 8 * interval, bytes(32))))
    assert list(bench.replica._state.checkpoints) == [8 * 1099]


def test_bundle_too_large_for_a_packet_is_unavailable():
    """Thousands of large results in one slot make no reply that nobody can send, and no page that nobody can fetch."""
    table = _table()
    value = bytes(1024 * 1024)
    calls = table.select(((A, _request(1, *[b"get"] * 20)),), 1, NOW)
    ((session, _, bundle),) = table.record(1, calls, [(0, value) for _ in calls], [])
    assert bundle == b""
    assert session.kept_bytes == 0
    assert _run(table, 2, (A, _request(1, *[b"get"] * 20))) == []


@pytest.mark.parametrize("window", [64, 4096, 65536])
def test_fullest_session_fits_into_a_packet(window):
    """Kept replies, held operations and events at their limits: the page can still be sent to a replica that lags."""
    table = _table(session_window=window, session_reply_bytes_max=1 << 30)
    far = 1 << 62
    table.select(((A, _request(far, *[b"x"] * 4096 if window > 4096 else [b"x"], acknowledged=far)),), 1 << 60, NOW)
    session = table.get(A, NOW)
    seq = 1 << 61
    for number in range(far, far + window // 2):
        session.done[number] = seq + number - far
        session.keep(Kept(seq + number - far, number, bytes(32), b""), 0)
    session.keep(Kept(seq + window, far, bytes(32), bytes(BUNDLE_BYTES_MAX)), part_bytes_max(table._protocol))
    size = part_bytes_max(table._protocol) // (window - window // 2)
    for number in range(far + window // 2, far + window):
        session.hold(number, number - 1, bytes(size))
    for _ in range(1024):
        session.emit(bytes(part_bytes_max(table._protocol) // 1024), part_bytes_max(table._protocol))
    assert len(session.encoded()) <= PAYLOAD_BYTES_MAX


def test_long_lane_is_released_in_linear_time():
    """One client's longest chain of held operations does not stop everybody for seconds."""
    table = _table(session_window=65536)
    for first in range(1, 40000, 4000):
        after = tuple(range(first, first + 4000))
        table.select(((A, _request(first + 1, *[b""] * 4000, after=after)),), first, NOW)
    started = time.process_time()
    calls = table.select(((A, _request(1)),), 50000, NOW)
    assert len(calls) == 40001
    assert time.process_time() - started < 2


def test_flood_of_new_keys_evicts_in_order_and_cheaply():
    """Each eviction takes the least recently used session, without a look at all of them."""
    table = _table(sessions_max=5000)
    keys = [number.to_bytes(32, "big") for number in range(15000)]
    started = time.process_time()
    for seq in range(1, 6):
        _run(table, seq, *((key, _request(1)) for key in keys[(seq - 1) * 1000 : seq * 1000]))
    _run(table, 6, *((key, _request(2, session=NOW)) for key in keys[:10]))
    for seq in range(7, 17):
        start = (seq - 2) * 1000
        _run(table, seq, *((key, _request(1, session=NOW + seq)) for key in keys[start : start + 1000]))
        if seq == 7:
            assert [key for key in keys[:1020] if table.get(key, NOW)] == keys[:10] + keys[1010:1020]
    assert len(table) == 5000
    assert time.process_time() - started < 5


def test_restored_table_evicts_like_the_original():
    """The order of eviction is no memory of this process: a replica that caught up drops the same sessions."""
    table = _table(sessions_max=4)
    keys = [bytes([number]) * 32 for number in range(12)]
    for seq, key in enumerate(keys[:6], 1):
        _run(table, seq, (key, _request(1, session=NOW + seq)))
    digests, pages = table.checkpoint()
    other = _table(sessions_max=4)
    other.restore([pages[digest] for digest in digests])
    batches = [((keys[3], 4),), ((keys[6], 20), (keys[7], 20)), ((keys[2], 30), (keys[8], 30), (keys[9], 30))]
    for seq, batch in enumerate(batches, 10):
        requests = [(key, _request(2, session=NOW + session)) for key, session in batch]
        assert _run(table, seq, *requests) == _run(other, seq, *requests)
        assert table.checkpoint()[0] == other.checkpoint()[0]


def test_waiting_queries_are_bounded_in_bytes(bench):
    """A client that asks for a state that is not here yet cannot fill the memory with its questions."""
    question = bytes(OPERATION_BYTES_MAX)
    refused = 0
    for nonce in range(1, 200):
        refused += len(bench.sent(Refusal, bench.deliver(CLIENT, Query(nonce, 5, False, (question,)))))
    assert bench.replica.summary()["waiting_queries"] == 32
    assert refused == 199 - 32
    other = bench.deliver(bytes(32), Query(1, 5, False, (b"small",)))
    assert not bench.sent(Refusal, other)


def test_queries_that_waited_are_answered_after_a_transfer(make_bench):
    """A read that waits for slots which come as a whole state is not forgotten."""
    source = make_bench(me=2)
    for seq in range(1, 9):
        source.order(seq, source.batch(source.request(seq)))
    snapshot = source.store.load().snapshot
    bench = make_bench(me=1)
    bench.deliver(CLIENT, Query(7, 8, False, (msgspec.msgpack.encode(["get", "k1"]),)))
    bench.deliver(2, bench.checkpoint_certificate(8, snapshot.digest))
    bench.wait(500)
    bench.deliver(2, ManifestBody(snapshot.manifest))
    bench.deliver(2, bench.pages(2, *snapshot.pages.values()))
    assert bench.executed == 8
    assert [(reply.nonce, reply.seq) for reply in bench.sent(QueryReply)] == [(7, 8)]


def test_tiny_envelopes_count_what_they_cost():
    """A pool limited by payload bytes alone would take millions of envelopes of a few bytes."""
    pool = Pool()
    added = 0
    for client in range(100):
        for number in range(1, 5000):
            packet = SignedRequest(client.to_bytes(32, "big"), b"", bytes(64))
            added += pool.add(Pending(packet, _request(number), 0))
    assert len(pool) == added - len(pool.evicted) <= POOL_BYTES_MAX // 1024


def test_one_request_for_pages_has_a_bounded_answer(bench):
    """Naming one large page 256 times, or 256 large pages, does not bring gigabytes into the send queue."""
    page = bytes(9 * 1024 * 1024)
    pages = {page_digest(page + bytes([extra])): page + bytes([extra]) for extra in range(4)}
    bench.store.write([Pages(pages)])
    first = next(iter(pages))
    bench.deliver(2, FetchPages((first,) * 256))
    assert len(bench.sent(PageBodies)) == 1
    bench.deliver(2, FetchPages(tuple(pages)))
    assert len(bench.sent(PageBodies)) == 1


@pytest.mark.parametrize("packet", ["vote", "proposal", "commit-certificate", "checkpoint-certificate", "status"])
def test_clients_do_not_speak_for_replicas(bench, packet):
    """Replica traffic is looked at only when a replica brings it: clients cannot make us check signatures with it."""
    batch = bench.batch()
    packets = {
        "vote": bench.signed(2, Prepare(0, 0, 1, batch_digest(batch))),
        "proposal": bench.proposal(1, batch),
        "commit-certificate": bench.commit_certificate(1, batch_digest(batch)),
        "checkpoint-certificate": bench.checkpoint_certificate(8, bytes(32)),
        "status": Status(0, 0, True, 0, 0, ()),
    }
    assert bench.deliver(CLIENT, packets[packet]) == []


def test_restart_goes_on_asking_for_the_batch_of_a_new_view(bench):
    """What the NEW-VIEW proposes and this replica could not vote for before a crash, it votes for after it."""
    batch = bench.batch()
    prepared = bench.prepared_certificate(1, batch_digest(batch))
    changes = tuple(bench.signed(r, ViewChange(0, 2, None, (prepared,) if r == 0 else ())) for r in (0, 2, 3))
    again = bench.signed(2, PrePrepare(0, 2, 1, batch_digest(batch)))
    bench.deliver(2, bench.signed(2, NewView(0, 2, changes, (again,))))
    assert bench.sent(FetchBatch) == [FetchBatch(batch_digest(batch))]
    bench.restart()
    assert bench.sent(FetchBatch) == [FetchBatch(batch_digest(batch))]
    bench.deliver(2, BatchBody(batch))
    assert bench.sent(Prepare) == [Prepare(0, 2, 1, batch_digest(batch))]


def test_later_envelopes_of_a_flood_are_spread_in_their_turn(make_bench):
    """A tick looks at a client's oldest envelopes only; the primary still gets all of them in the end."""
    bench = make_bench(protocol={"batch_operations_max": SPREAD_MAX})
    for number in range(1, 1 + 2 * SPREAD_MAX):
        bench.deliver(CLIENT, bench.request(number, acknowledged=number))
    passed = bench.sent(SignedRequest, bench.wait(140))
    assert len(passed) == SPREAD_MAX
    body = bench.batch(*[bench.request(number, acknowledged=number) for number in range(1, 1 + SPREAD_MAX)])
    bench.order(1, body)
    assert len(bench.sent(SignedRequest, bench.wait(40))) == SPREAD_MAX


def test_garbage_in_a_view_change_does_not_stop_the_judge(bench):
    """Evidence comes from files of strangers: a certificate without a PRE-PREPARE in it is no reason to crash."""
    certificate = bench.prepared_certificate(1, NULL_DIGEST)
    broken = msgspec.structs.replace(certificate, pre_prepare=bench.signed(0, Commit(0, 0, 1, NULL_DIGEST)))
    change = ViewChange(0, 1, None, (broken,))
    assert hides(Commit(0, 0, 1, NULL_DIGEST), change)
    assert not hides(Commit(0, 0, 1, NULL_DIGEST), msgspec.structs.replace(change, prepared=(certificate,)))
