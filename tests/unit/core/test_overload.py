"""A replica under load: refusals that say so, grievances that floods do not cause, answers within a budget."""

from __future__ import annotations

import msgspec

from bft.core import budget
from bft.core.execution import BUSY, EARLY
from bft.core.ordering import GATHER_NS, GATHER_SLOT_NS, GATHER_WORK
from bft.core.pool import CLIENT_ENVELOPES_MAX, URGENT_MAX
from bft.core.queries import CLIENT_SHARE, WAITING_MAX
from bft.core.shares import SLOT_WORK
from bft.digests import batch_digest
from bft.events import Effect, Tick
from bft.messages import (
    BatchBody,
    Commit,
    EventBodies,
    FetchBatch,
    FetchEvents,
    FetchPages,
    Prepare,
    Proposal,
    Query,
    Refusal,
    Reply,
    Suspect,
)
from bft.sim.world import EPOCH_NS
from tests.conftest import CLIENT

HOUR_NS = 3_600_000_000_000
GET = msgspec.msgpack.encode(["get", "k1"])


def _fill(bench) -> None:
    for number in range(1, 1 + CLIENT_ENVELOPES_MAX):
        bench.deliver(CLIENT, bench.request(number, acknowledged=number))


def test_client_that_sends_too_much_is_told_so(bench):
    """BUSY goes to the client itself, never to who passes its envelopes on."""
    _fill(bench)
    more = bench.request(9999, acknowledged=9999)
    bench.deliver(CLIENT, more)
    assert [(refusal.number, refusal.reason) for refusal in bench.sent(Refusal)] == [(9999, BUSY)]
    assert bench.rejections() == ["pool-full"]
    bench.deliver(2, more)
    assert not bench.sent(Refusal)


def test_early_session_is_told_the_agreed_time(bench):
    """The client learns by how much its clock is wrong."""
    ahead = bench.request(1, session=EPOCH_NS + 2 * HOUR_NS)
    said: list[Effect] = []
    step = bench.step
    bench.step = lambda event: said.extend(step(event))
    bench.order(1, bench.batch(ahead))
    (refusal,) = bench.sent(Refusal, said)
    assert refusal.reason == EARLY
    assert 0 < refusal.time_ns < EPOCH_NS + HOUR_NS


def test_flood_of_one_client_is_no_grievance_while_its_turn_comes(make_bench):
    """A primary that orders one envelope of many per half timeout is fair to a client that sent too many at once."""
    bench = make_bench(protocol={"batch_operations_max": 8})
    requests = [bench.request(number, acknowledged=number) for number in range(1, 8)]
    for request in requests:
        bench.deliver(CLIENT, request)
    complaints = []
    for seq, request in enumerate(requests, 1):
        complaints += bench.sent(Suspect, bench.wait(200))
        bench.order(seq, bench.batch(request))
    assert complaints == []


def test_envelope_left_aside_is_a_grievance_though_later_ones_are_ordered(make_bench):
    """It stays the oldest: a primary cannot censor one operation of a client by serving its others."""
    bench = make_bench()
    requests = [bench.request(number, acknowledged=1) for number in range(1, 8)]
    for request in requests:
        bench.deliver(CLIENT, request)
    complaints = []
    for seq, request in enumerate(requests[1:], 1):
        complaints += bench.sent(Suspect, bench.wait(100))
        bench.order(seq, bench.batch(request))
    assert [complaint.reason for complaint in complaints[:1]] == ["request-timeout"]


def test_primary_takes_first_what_a_backup_waits_for(make_bench):
    """An envelope that is here already, behind a thousand others of its client, is proposed next."""
    bench = make_bench(me=0, protocol={"batch_operations_max": 4, "pipeline": 1})
    for number in range(1, 40):
        bench.deliver(CLIENT, bench.request(number, acknowledged=1))
    bench.deliver(2, bench.request(39, acknowledged=1))
    proposed = bench.replica._state.pool.take(9, 0, 2, 1 << 20)
    assert 39 in [pending.request.number for pending in proposed]


def test_full_queue_of_a_client_keeps_nothing_out_that_a_backup_waits_for(make_bench):
    """Else one client could show backups what the primary has no room for, and have one primary after another deposed.

    Bounded per replica, so that one that lies cannot fill the memory on a client's behalf.
    """
    bench = make_bench(me=0, protocol={"batch_operations_max": 4, "pipeline": 1})
    _fill(bench)
    session = EPOCH_NS + 1
    for number in range(1, 1 + URGENT_MAX):
        bench.deliver(2, bench.request(number, session=session, acknowledged=number))
        assert bench.rejections() == []
    bench.deliver(2, bench.request(9, session=session, acknowledged=9))
    assert bench.rejections() == ["pool-full"]
    proposed = bench.replica._state.pool.take(9, 0, 4, 1 << 20)
    assert session in [pending.request.session for pending in proposed]


def test_backup_takes_no_more_of_a_client_than_it_may_whoever_sends_it(bench):
    """Only a primary is blamed for what waits elsewhere."""
    _fill(bench)
    bench.deliver(2, bench.request(9999, acknowledged=9999))
    assert bench.rejections() == ["pool-full"]


def test_retransmissions_are_answered_within_a_budget(bench):
    """An envelope that was executed brings its replies again, but not without end."""
    request = bench.request(1)
    bench.order(1, bench.batch(request))
    replies = sum(len(bench.sent(Reply, bench.deliver(CLIENT, request))) for _ in range(2 * budget.ANSWERS_PER_TICK))
    assert replies == budget.ANSWERS_PER_TICK
    assert bench.rejections() == ["asks-too-much"]
    bench.wait(20)
    assert bench.sent(Reply, bench.deliver(CLIENT, request))


def test_fetches_are_answered_within_a_budget(bench):
    """A replica that asks for one batch for ever gets it a bounded number of times per tick, and others as often."""
    body = bench.batch()
    bench.order(1, body)
    fetch = FetchBatch(batch_digest(body))
    for _ in range(budget.ANSWERS_PER_TICK):
        assert bench.sent(BatchBody, bench.deliver(2, fetch))
    assert not bench.sent(BatchBody, bench.deliver(2, fetch))
    assert bench.rejections() == ["asks-too-much"]
    bench.deliver(2, FetchPages((bytes(32),)))
    assert bench.rejections() == ["asks-too-much"]
    assert bench.sent(BatchBody, bench.deliver(3, fetch))


def test_events_that_a_client_has_are_not_charged(bench):
    """It asks for later ones whenever a connection begins anew, as often as a lying replica wants it to."""
    bench.order(1, bench.batch(bench.request(1)))
    session = bench.replica._state.sessions.get(CLIENT, EPOCH_NS)
    for _ in range(4):
        session.emit(bytes(2**20), 4 * 2**20)
    for _ in range(20):
        assert bench.sent(EventBodies, bench.deliver(CLIENT, FetchEvents(EPOCH_NS, 4)))
    assert bench.rejections() == []
    for _ in range(3):
        bench.deliver(CLIENT, FetchEvents(EPOCH_NS, 0))
    assert bench.rejections() == ["asks-too-much"]


def test_queries_of_many_hostile_keys_leave_an_honest_client_its_share(bench):
    """The queue is full of three keys' queries: a fourth client's are taken, and the largest gives way."""
    for key in (7, 8, 9):
        for nonce in range(1, 1 + WAITING_MAX // CLIENT_SHARE):
            bench.deliver(bytes([key]) * 32, Query(nonce, 5, True, (b"",)))
    assert WAITING_MAX - 3 < bench.replica.summary()["waiting_queries"] <= WAITING_MAX
    for nonce in range(1, 100):
        assert CLIENT not in [effect.to for effect in bench.deliver(CLIENT, Query(nonce, 5, True, (GET,)))]
    load = bench.replica._state.waiting_load
    assert load[CLIENT][0] == 99
    assert bench.replica.summary()["waiting_queries"] <= WAITING_MAX


def test_client_speaks_for_its_own_key_only(bench):
    """Else one connection could have any number of shares; replicas pass on what they were sent."""
    request = bench.request(1)
    stranger = b"s" * 32
    bench.deliver(stranger, request)
    assert bench.rejections() == ["another-clients"]
    bench.deliver(2, request)
    assert bench.rejections() == []
    assert bench.replica.summary()["pending"] == 1


def test_primary_proposes_nothing_that_another_envelope_finished(make_bench):
    """Backups would count it as waste: a client that sends every operation twice must not depose who orders it."""
    bench = make_bench(me=0, protocol={"pipeline": 1})
    bench.deliver(CLIENT, bench.request(1, ["put", "a", "1"], ["put", "b", "2"]))
    (proposal,) = bench.sent(Proposal)
    bench.deliver(CLIENT, bench.request(2, ["put", "b", "2"]))
    assert not bench.sent(Proposal), "one slot at a time"
    digest = batch_digest(proposal.batch)
    out = []
    for kind in (Prepare, Commit):
        for replica in (1, 2):
            out += bench.deliver(replica, bench.signed(replica, kind(0, 0, 1, digest)))
    assert bench.executed == 1
    assert not bench.sent(Proposal, out)
    assert bench.replica.summary()["pending"] == 0


def test_little_load_beside_a_slot_in_flight_waits_but_not_for_long(make_bench):
    """It goes with the next slot, or after a while; a lone request goes at once."""
    bench = make_bench(me=0)
    bench.deliver(CLIENT, bench.request(1))
    assert len(bench.sent(Proposal)) == 1
    bench.deliver(CLIENT, bench.request(2))
    assert not bench.sent(Proposal)
    assert len(bench.sent(Proposal, bench.wait(100))) == 1


def test_enough_load_opens_a_slot_beside_those_in_flight(make_bench):
    """What costs twice as much as their votes does not wait for them; nor does anything where slots take long."""
    bench = make_bench(me=0, protocol={"batch_operations_max": 1024, "session_window": 1024})
    bench.deliver(CLIENT, bench.request(1))
    many = [["put", "k", "v"]] * GATHER_WORK
    bench.deliver(CLIENT, bench.request(2, *many))
    assert len(bench.sent(Proposal)) == 1
    far = make_bench(me=0)
    far.replica._state.timing.slot_ns = GATHER_SLOT_NS + 1
    for number in (1, 2, 3):
        far.deliver(CLIENT, far.request(number))
        assert len(far.sent(Proposal)) == 1


def test_backlog_of_one_client_opens_no_slots_for_the_others(make_bench):
    """What waits of a client beyond its share is no load that is worth a slot, however much and long."""
    bench = make_bench(me=0)
    state = bench.replica._state
    other = b"\7" * 32
    for _ in range(40):
        state.pool.shares.charge({CLIENT: 2000, other: 10})
    bench.deliver(CLIENT, bench.request(1))
    assert len(bench.sent(Proposal)) == 1, "it did most of the work, and nothing is in flight"
    for number in range(2, 20):
        bench.deliver(CLIENT, bench.request(number))
    assert state.pool.open_work > SLOT_WORK
    assert not bench.sent(Proposal) and not bench.sent(Proposal, bench.wait(60))


def test_client_beyond_its_share_gets_a_slot_when_the_others_do_not_come_back(make_bench):
    """It leaves them a gap as long as a slot; then nobody is left to wait for."""
    bench = make_bench(me=0, protocol={"request_timeout_ms": 10_000, "view_change_timeout_ms": 10_000})
    state = bench.replica._state
    for _ in range(40):
        state.pool.shares.charge({CLIENT: 2000, b"\7" * 32: 2000, b"\6" * 32: 10})
    state.timing.slot_ns = 5_000_000
    state.timing.progressed = bench.now
    bench.deliver(CLIENT, bench.request(1))
    assert not bench.sent(Proposal)
    assert state.timer_at == bench.now + state.timing.slot_ns
    bench.now = state.timer_at
    (proposal,) = bench.sent(Proposal, bench.step(Tick()))
    bench.deliver(CLIENT, bench.request(2))
    bench.now += 5_000_000
    out = []
    for kind in (Prepare, Commit):
        for replica in (1, 2):
            out += bench.deliver(replica, bench.signed(replica, kind(0, 0, 1, batch_digest(proposal.batch))))
    assert len(bench.sent(Proposal, out)) == 1, "they did not come back, and are not waited for again"


def test_little_load_goes_when_it_has_waited_and_no_tick_must_come(make_bench):
    """The timer is asked for the moment at which it has waited long enough."""
    bench = make_bench(me=0, protocol={"request_timeout_ms": 10_000, "view_change_timeout_ms": 10_000})
    bench.deliver(CLIENT, bench.request(1))
    bench.deliver(CLIENT, bench.request(2))
    state = bench.replica._state
    assert state.timer_at == bench.now + GATHER_NS
    bench.now = state.timer_at
    assert len(bench.sent(Proposal, bench.step(Tick()))) == 1
    assert state.timer_at > bench.now, "the tick comes when it would have come"


def test_slots_are_timed_from_proposal_to_execution(make_bench):
    """One at a time, and the next as soon as that has been executed."""
    bench = make_bench(me=0)
    for seq in (1, 2):
        bench.deliver(CLIENT, bench.request(seq))
        (proposal,) = bench.sent(Proposal)
        digest = batch_digest(proposal.batch)
        bench.now += seq * 7_000_000
        for kind in (Prepare, Commit):
            for replica in (1, 2):
                bench.deliver(replica, bench.signed(replica, kind(0, 0, seq, digest)))
        assert bench.replica._state.timing.slot_ns == seq * 7_000_000


def test_nobody_is_held_back_while_nothing_is_ordered(make_bench):
    """A backlog has no end then; and weak reads, probes and proofs of epochs come over the same connection."""
    bench = make_bench(me=0)
    state = bench.replica._state
    for _ in range(40):
        state.pool.shares.charge({CLIENT: 2000, b"\7" * 32: 2000, b"\6" * 32: 10})
    for number in range(1, 40):
        bench.deliver(CLIENT, bench.request(number))
    assert bench.replica.hold_back(CLIENT, bench.now)[1] == "backlog"
    assert bench.replica.hold_back(CLIENT, bench.now + state.request_timeout_ns) == (0, "")
    state.active = False
    assert bench.replica.hold_back(CLIENT, bench.now) == (0, "")
