"""The session's rules on envelopes, results, lanes and time; replicas are played by the test."""

from __future__ import annotations

from bft.client.seam import Cancel, Flush, Lost, Tick, Unreachable
from bft.client.session import Session
from bft.client.window import BACKLOG_WINDOWS
from bft.config import MILLISECOND, Protocol
from bft.messages import Query, SignedRequest
from tests.unit.client.bench import INCARNATION, RETRY, Bench, bundle, done

# --- envelopes ----------------------------------------------------------------------------------------------------


def test_waiting_operations_leave_as_one_signed_envelope() -> None:
    """Consecutive numbers, one signature, to the presumed primary only [CL99 4.1]."""
    bench = Bench()
    bench.submit(b"a", b"b", b"c")
    ((to, request),) = bench.take_requests()
    assert to == 0 and bench.signer.count == 1
    assert (request.session, request.number, request.acknowledged) == (INCARNATION, 1, 1)
    assert request.operations == (b"a", b"b", b"c") and request.after == ()
    bench.submit(b"d")
    ((_, request),) = bench.take_requests()
    assert (request.number, request.operations) == (4, (b"d",))


def test_nothing_leaves_before_the_link_is_free() -> None:
    """Submitting alone sends nothing."""
    bench = Bench()
    bench.submit(b"a", flush=False)
    assert bench.take() == []
    bench.do(Flush())
    assert len(bench.take()) == 1
    bench.do(Flush())
    assert bench.take() == []


def test_envelopes_keep_the_limits_of_a_batch() -> None:
    """In operations and in bytes; a single operation larger than a batch's bytes still goes."""
    bench = Bench(protocol={"batch_operations_max": 3, "batch_bytes_max": 1024})
    bench.submit(*[b"x"] * 7)
    assert [len(request.operations) for _, request in bench.take_requests()] == [3, 3, 1]
    bench.submit(bytes(500), bytes(500), bytes(2000), b"y")
    assert [len(request.operations) for _, request in bench.take_requests()] == [1, 1, 1, 1]


def test_window_bounds_what_is_on_its_way() -> None:
    """number + count - 1 < acknowledged + window, always; the rest waits for outcomes, and leaves with them."""
    bench = Bench(protocol={"session_window": 4})
    bench.submit(*[b"x"] * 6)
    ((_, first),) = bench.take_requests()
    assert (first.number, len(first.operations)) == (1, 4)
    for replica in (0, 1):
        bench.reply(replica, 1, bundle(2, 3, 4))
    assert bench.take_requests() == [], "number 1 is unfinished: acknowledged stays"
    for replica in (0, 1):
        bench.reply(replica, 2, bundle(1))
    ((_, second),) = bench.take_requests()
    assert (second.number, second.acknowledged, len(second.operations)) == (5, 5, 2)


def test_backlog_is_bounded() -> None:
    """Beyond it an operation is lost as overloaded, unsent; those before it are not harmed."""
    bench = Bench(protocol={"session_window": 4})
    tickets = bench.submit(*[b"x"] * 4)
    tickets += bench.submit(*[b"x"] * (4 * BACKLOG_WINDOWS + 1))
    assert bench.finished() == [Lost(tickets[-1], "overloaded")]
    assert bench.session.outstanding == 4 + 4 * BACKLOG_WINDOWS


def test_cancelled_operation_is_not_sent_if_it_still_waits() -> None:
    """What was sent goes on and is still reported."""
    bench = Bench()
    first, second = bench.submit(b"a", b"b", flush=False)
    bench.do(Cancel(first))
    bench.do(Flush())
    ((_, request),) = bench.take_requests()
    assert request.operations == (b"b",)
    bench.do(Cancel(second))
    for replica in (1, 2):
        bench.reply(replica, 1, bundle(1))
    assert bench.finished() == done((second, b"ok1", 1, 0))


# --- results ------------------------------------------------------------------------------------------------------


def test_result_needs_a_weak_quorum_of_distinct_replicas() -> None:
    """f + 1 equal bundles, whoever sends them and however often one repeats itself [CL99 4.1]."""
    bench = Bench()
    (ticket,) = bench.submit(b"a")
    for _ in range(5):
        bench.reply(3, 9, bundle(1))
    assert bench.finished() == []
    bench.reply(2, 9, bundle(1))
    assert bench.finished() == done((ticket, b"ok1", 9, 0))
    assert bench.session.seq == 9
    bench.reply(1, 9, bundle(1))
    assert bench.finished() == []


def test_liar_is_outvoted_and_counted() -> None:
    """Its bundle is never believed, before or after the others."""
    bench = Bench()
    (ticket,) = bench.submit(b"a")
    bench.reply(0, 9, bundle(1, value=b"lie"))
    bench.reply(1, 9, bundle(1))
    bench.reply(2, 9, bundle(1))
    bench.reply(0, 9, bundle(1, value=b"other lie"))
    assert bench.finished() == done((ticket, b"ok1", 9, 0))
    assert bench.session.disagreements == {0: 2}


def test_equivocating_replica_counts_once_per_digest_it_says_last() -> None:
    """Changing its mind never makes two voters of one."""
    bench = Bench()
    bench.submit(b"a")
    for value in (b"x", b"y", b"x", b"y"):
        bench.reply(3, 9, bundle(1, value=value))
    assert bench.finished() == []
    bench.reply(2, 9, bundle(1, value=b"x"))
    assert bench.finished() == []
    bench.reply(1, 9, bundle(1, value=b"x"))
    assert len(bench.finished()) == 1


def test_slot_is_part_of_the_match() -> None:
    """Equal bundles for different slots do not add up."""
    bench = Bench()
    bench.submit(b"a")
    bench.reply(0, 8, bundle(1))
    bench.reply(1, 9, bundle(1))
    bench.reply(2, 10, bundle(1))
    assert bench.finished() == []


def test_epoch_is_part_of_the_match_and_view_is_not() -> None:
    """Correct replicas may be in different views, a quorum is of one epoch."""
    bench = Bench()
    bench.submit(b"a")
    bench.reply(0, 9, bundle(1), epoch=0, view=1)
    bench.reply(1, 9, bundle(1), epoch=1, view=1)
    assert bench.finished() == []
    bench.reply(2, 9, bundle(1), epoch=1, view=7)
    assert len(bench.finished()) == 1


def test_replies_of_other_sessions_and_peers_are_ignored() -> None:
    """An old incarnation's replies, and packets of clients or of replicas that do not exist."""
    bench = Bench()
    bench.submit(b"a")
    bench.reply(0, 9, bundle(1))
    bench.reply(1, 9, bundle(1), session=INCARNATION - 1)
    bench.reply(4, 9, bundle(1))
    bench.reply(-1, 9, bundle(1))
    assert bench.finished() == [] and bench.session.outstanding == 1


def test_bundle_may_cover_parts_of_several_envelopes() -> None:
    """And results of operations that were finished before, or never asked for, are passed over."""
    bench = Bench()
    tickets = bench.submit(b"a", b"b") + bench.submit(b"c", b"d")
    for replica in (0, 1):
        bench.reply(replica, 4, bundle(2, 3))
    assert bench.finished() == done((tickets[1], b"ok2", 4, 0), (tickets[2], b"ok3", 4, 1))
    for replica in (0, 1):
        bench.reply(replica, 5, bundle(1, 2, 4, 99))
    assert bench.finished() == done((tickets[0], b"ok1", 5, 0), (tickets[3], b"ok4", 5, 2))
    bench.submit(b"e")
    assert bench.take_requests()[-1][1].acknowledged == 5


def test_bundle_bytes_must_hash_to_the_agreed_digest() -> None:
    """Wrong bytes under the right digest are no result; another replica's bytes are."""
    bench = Bench()
    (ticket,) = bench.submit(b"a")
    bench.reply(0, 9, bundle(1), body=bundle(1, value=b"lie"))
    bench.reply(1, 9, bundle(1), bare=True)
    assert bench.finished() == []
    bench.reply(2, 9, bundle(1))
    assert bench.finished() == done((ticket, b"ok1", 9, 0))


def test_missing_bytes_are_asked_for_from_everybody() -> None:
    """f + 1 digests agree and the designated replica keeps silent: the same envelope goes to all, soon."""
    bench = Bench()
    (ticket,) = bench.submit(b"a")
    original = bench.take()[0].packet
    for replica in (0, 1, 2):
        bench.reply(replica, 9, bundle(1), bare=True)
    bench.wait(RETRY // 2)
    assert [(int(send.to), send.packet) for send in bench.take()] == [(replica, original) for replica in range(4)]
    bench.reply(1, 9, bundle(1))
    assert bench.finished() == done((ticket, b"ok1", 9, 0))


def test_bytes_that_arrive_in_time_cost_no_retransmission() -> None:
    """Digests often come before the bytes: that alone is no reason to hurry."""
    bench = Bench()
    bench.submit(b"a")
    bench.take()
    for replica in (0, 1):
        bench.reply(replica, 9, bundle(1), bare=True)
    bench.reply(2, 9, bundle(1))
    assert len(bench.finished()) == 1
    bench.wait(10 * RETRY)
    assert bench.take() == []


def test_malformed_bundle_that_a_weak_quorum_agrees_on_is_dropped() -> None:
    """It can only come from another version; the session survives it."""
    bench = Bench()
    bench.submit(b"a")
    for replica in (0, 1, 2):
        bench.reply(replica, 9, b"garbage")
    assert bench.finished() == []


# --- time ---------------------------------------------------------------------------------------------------------


def test_overdue_envelope_goes_to_all_with_the_same_bytes_and_backs_off() -> None:
    """Signed once; 2x, 4x ... up to a cap."""
    bench = Bench()
    bench.submit(b"a")
    original = bench.take()[0].packet
    times = []
    for _ in range(8):
        before = bench.now
        while not bench.sent:
            bench.fire()
        times.append((bench.now - before) // RETRY)
        assert [(int(send.to), send.packet) for send in bench.take()] == [(replica, original) for replica in range(4)]
    assert bench.signer.count == 1
    assert times == [1, 2, 4, 8, 16, 16, 16, 16]


def test_new_envelopes_go_to_all_while_the_primary_is_silent() -> None:
    """Backups need not wait for another timeout to learn of them."""
    bench = Bench()
    bench.submit(b"a")
    bench.wait(RETRY)
    bench.take()
    bench.submit(b"b")
    assert [to for to, _ in bench.take_requests()] == [0, 1, 2, 3]
    for replica in (1, 2):
        bench.reply(replica, 3, bundle(1, 2))
    bench.submit(b"c")
    assert [to for to, _ in bench.take_requests()] == [0]


def test_finished_session_sets_no_timer() -> None:
    """At rest nothing ticks."""
    bench = Bench()
    bench.submit(b"a")
    for replica in (1, 2):
        bench.reply(replica, 3, bundle(1))
    bench.fire()
    assert bench.timer is None and bench.session.outstanding == 0


def test_stale_tick_does_nothing() -> None:
    """A timer that was replaced may still fire."""
    bench = Bench()
    bench.submit(b"a")
    bench.take()
    set_for = bench.timer
    bench.do(Tick())
    assert bench.take() == [] and bench.timer == set_for


def test_patience_follows_latency_within_bounds() -> None:
    """A slow but working cluster is not sent everything twice."""
    bench = Bench()
    for round_number in range(40):
        bench.submit(b"a")
        bench.now += RETRY * 9 // 10
        for replica in (0, 1):
            bench.reply(replica, round_number + 1, bundle(round_number + 1))
    bench.take()
    bench.submit(b"b")
    bench.take()
    bench.wait(3 * RETRY)
    assert bench.take() == []
    bench.wait(5 * RETRY)
    assert len(bench.take()) == 4


def test_primary_is_that_of_the_highest_view_that_a_weak_quorum_has_reached() -> None:
    """f liars cannot send the session elsewhere, up or down."""
    bench = Bench()
    bench.submit(b"a")
    bench.reply(3, 1, b"x", view=2**62)
    assert bench.session.primary == 0
    bench.reply(0, 1, b"y", view=1)
    assert bench.session.primary == 1
    bench.reply(1, 1, b"z", view=2)
    assert bench.session.primary == 2
    bench.reply(3, 2, b"x", view=0)
    assert bench.session.primary == 1
    bench.reply(2, 1, b"w", view=2)
    assert bench.session.primary == 2
    bench.take()
    bench.submit(b"b")
    assert [to for to, _ in bench.take_requests()] == [2]


def test_lost_connection_sends_again_at_once() -> None:
    """To everybody if it was the primary's; else only what that replica had been sent."""
    bench = Bench()
    bench.submit(b"a")
    query = bench.ask()
    bench.take()
    bench.do(Unreachable(2))
    (send,) = bench.take()
    assert int(send.to) == 2 and isinstance(send.packet, Query)
    bench.do(Unreachable(0))
    assert [int(send.to) for send in bench.take()] == [0, 0, 1, 2, 3]
    bench.do(Unreachable(2))
    kinds = [type(send.packet) for send in bench.take()]
    assert kinds == [Query, SignedRequest]
    assert query == bench.ticket


# --- lanes --------------------------------------------------------------------------------------------------------


def test_lane_names_the_unfinished_predecessor() -> None:
    """Within and across envelopes; lane 0 and other lanes do not wait."""
    bench = Bench()
    bench.submit(b"a", b"b", lane=5, flush=False)
    bench.submit(b"c", flush=False)
    bench.submit(b"d", lane=6, flush=False)
    bench.submit(b"e", lane=5)
    ((_, request),) = bench.take_requests()
    assert request.after == (0, 1, 0, 0, 2)
    bench.submit(b"f", lane=5)
    assert bench.take_requests()[0][1].after == (5,)
    bench.submit(b"g")
    assert bench.take_requests()[0][1].after == ()


def test_finished_predecessor_is_not_named() -> None:
    """It has executed: nothing can overtake it any more."""
    bench = Bench()
    bench.submit(b"a", lane=5)
    bench.submit(b"b", lane=6)
    for replica in (0, 1):
        bench.reply(replica, 3, bundle(1))
    bench.take()
    bench.submit(b"c", lane=5)
    bench.submit(b"d", lane=6)
    assert [request.after for _, request in bench.take_requests()] == [(), (2,)]


def test_timeout_defaults_to_a_quarter_of_the_request_timeout() -> None:
    """Well before a backup that knows of the request suspects the primary."""
    bench = Bench()
    assert bench.timer is None
    session = Session(Protocol(request_timeout_ms=400), bench.quorums, b"c" * 32, bench.signer, 1)
    assert session._retry_ns == 100 * MILLISECOND
