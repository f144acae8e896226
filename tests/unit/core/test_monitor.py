"""How a backup judges its primary: windows, bounds, damping, and what never counts against a primary."""

from __future__ import annotations

import pytest

from bft.config import MILLISECOND, Protocol
from bft.core.monitor import DOUBLINGS_MAX, SLOW, UNFAIR, WASTE, WINDOW_SAMPLES, Monitor
from bft.core.pool import Pending
from bft.events import Tick
from bft.messages import Request, SignedRequest, Suspect
from bft.sim.world import EPOCH_NS
from tests.conftest import CLIENT, Bench

PROTOCOL = Protocol(request_timeout_ms=1000, slow_floor_ms=200, slow_factor=3, fair_slack_ms=100, skips_max=8)
SECOND = 1000 * MILLISECOND
START = 1_700_000_000 * SECOND


class Judge:
    """A monitor and its time."""

    def __init__(self, protocol: Protocol = PROTOCOL, weak: int = 2) -> None:
        self.monitor = Monitor(protocol, weak)
        self.now = START
        self.monitor.enter(0, self.now)

    def serve(self, latency_ms: int, slots: int, every_ms: int = 30) -> str:
        """So many slots, one per `every_ms`, each after that latency; the last verdict."""
        verdict = ""
        for _ in range(slots):
            self.now += every_ms * MILLISECOND
            self.monitor.note_executed(self.now - latency_ms * MILLISECOND, 1, self.now)
            verdict = self.monitor.judge(self.now)
        return verdict

    def depose(self, primary: int) -> None:
        """The view ends for performance, the next begins."""
        self.monitor.leave(self.now, for_performance=True)
        self.monitor.enter(primary, self.now)


def _pending(forwarded: int) -> Pending:
    packet = SignedRequest(bytes(32), b"", bytes(64))
    return Pending(packet, Request(1, 1, 1, (b"",), ()), forwarded, forwarded=forwarded)


def test_slow_primary_is_named_after_two_windows():
    """One window may be a pause of the machine; the second one in a row is a complaint."""
    judge = Judge()
    assert judge.serve(10, 40) == ""
    assert judge.serve(400, WINDOW_SAMPLES) == ""
    assert judge.serve(400, 2 * WINDOW_SAMPLES) == SLOW


def test_pause_between_good_windows_is_forgiven():
    """Bad windows count in a row only."""
    judge = Judge()
    for _ in range(8):
        judge.serve(400, WINDOW_SAMPLES)
        assert judge.serve(10, 2 * WINDOW_SAMPLES) == ""


def test_one_slow_request_in_twenty_is_no_slow_primary():
    """The 90th percentile, not the maximum."""
    judge = Judge()
    for _ in range(10):
        judge.serve(10, 19)
        assert judge.serve(900, 1) == ""


def test_few_samples_must_all_be_slow():
    """The more a primary delays, the fewer samples come: four slow ones in two seconds do for a window."""
    judge = Judge()
    assert judge.serve(900, 12, every_ms=900) == SLOW
    judge = Judge()
    for _ in range(8):
        judge.serve(900, 3, every_ms=900)
        assert judge.serve(10, 1, every_ms=900) == ""


def test_bound_follows_the_weak_th_slowest_primary():
    """f primaries that were slow before do not raise it; the (f + 1)-th slowest does."""
    judge = Judge()
    assert judge.monitor.theta == 200 * MILLISECOND
    judge.serve(900, 2 * WINDOW_SAMPLES)
    assert judge.monitor.theta == 200 * MILLISECOND
    judge.monitor.enter(1, judge.now)
    judge.serve(50, 2 * WINDOW_SAMPLES)
    assert judge.monitor.theta == (3 * 50 + 200) * MILLISECOND


def test_age_before_the_view_is_not_the_new_primarys_fault():
    """A request that outlived three primaries is as old as the view to the fourth."""
    judge = Judge()
    judge.monitor.enter(1, judge.now)
    assert judge.serve(5000, 6) == ""
    assert max(judge.monitor.p90.values(), default=0) < 200 * MILLISECOND


def test_performance_changes_close_together_double_the_bound_and_the_doubling_decays():
    """weak many deposed within a period include a correct one: the load has changed."""
    judge = Judge()
    before = judge.monitor.theta
    judge.depose(1)
    assert judge.monitor.theta == before
    judge.depose(2)
    assert judge.monitor.theta == 2 * before
    for primary in range(100):
        judge.depose(primary % 4)
    assert judge.monitor.theta == before << DOUBLINGS_MAX
    for _ in range(DOUBLINGS_MAX):
        judge.now += 31 * SECOND
        judge.monitor.judge(judge.now)
    assert judge.monitor.theta == before


def test_changes_far_apart_do_not_double():
    """One slow primary a minute is just that."""
    judge = Judge()
    before = judge.monitor.theta
    for primary in range(6):
        judge.now += 31 * SECOND
        judge.depose(primary % 4)
    assert judge.monitor.theta == before


def test_request_that_is_passed_over_again_and_again_is_unfair():
    """Batches with room, or with younger requests, that leave out what the primary was given."""
    judge = Judge()
    judge.now += SECOND
    judge.monitor.watch(_pending(judge.now))
    judge.now += 99 * MILLISECOND
    for _ in range(20):
        judge.monitor.note_passed_over(0, judge.now, has_room=True)
    assert judge.monitor.skips == 0, "within the slack"
    judge.now += MILLISECOND
    for _ in range(20):
        judge.monitor.note_passed_over(judge.now - 99 * MILLISECOND, judge.now, has_room=False)
    assert judge.monitor.skips == 0, "a full batch of requests no younger"
    for _ in range(8):
        assert judge.monitor.judge(judge.now) == ""
        judge.monitor.note_passed_over(0, judge.now, has_room=True)
    assert judge.monitor.judge(judge.now) == UNFAIR
    judge.monitor.watch(None)
    assert judge.monitor.judge(judge.now) == ""


def test_stale_proposals_are_waste_when_they_are_most():
    """Half of them may be duplicates: views change, clients retransmit."""
    for stale, verdict in ((10, ""), (11, WASTE)):
        judge = Judge()
        for _ in range(3):
            judge.now += SECOND
            for index in range(WINDOW_SAMPLES):
                judge.monitor.note_proposed(stale=index < stale)
            found = judge.monitor.judge(judge.now)
        assert found == verdict


def test_probe_left_out_by_most_batches_is_waste():
    """Who orders one at a time passes over what waits, long before it is late."""
    for passes, verdict in ((4, ""), (5, WASTE)):
        judge = Judge()
        judge.now += SECOND
        for _ in range(2 * WINDOW_SAMPLES):
            judge.now += 100 * MILLISECOND
            assert judge.monitor.wants_probe(judge.now)
            judge.monitor.begin_probe(_pending(judge.now), judge.now)
            assert not judge.monitor.wants_probe(judge.now + SECOND), "one at a time"
            for _ in range(passes):
                judge.monitor.note_left_out()
            judge.monitor.end_probe()
            found = judge.monitor.judge(judge.now)
        assert found == verdict


def test_floor_of_zero_switches_everything_off():
    """For comparison, and for those who prefer it."""
    judge = Judge(Protocol(slow_floor_ms=0))
    assert judge.serve(900, 200) == ""
    assert not judge.monitor.wants_probe(judge.now)


def test_memory_is_bounded_whatever_happens():
    """A window never grows beyond its maximum, however many slots a second."""
    judge = Judge()
    for _ in range(5000):
        judge.now += MILLISECOND
        judge.monitor.note_executed(judge.now - 1, 1, judge.now)
    assert judge.monitor.figures()["samples"] == 64


def test_request_kept_back_frames_nobody():
    """What waited here without being passed on says nothing, and afterwards no more than the usual patience counts."""
    judge = Judge()
    monitor, patience = judge.monitor, judge.monitor.forward_ns
    pending = _pending(0)
    pending.since = START
    assert monitor.waited_since(pending, START + patience) == START
    assert monitor.waited_since(pending, START + patience + 1) == 0
    pending.forwarded = START + patience
    assert monitor.waited_since(pending, START + 9 * patience) == START
    pending.forwarded = START + 8 * patience
    assert monitor.waited_since(pending, START + 9 * patience) == START + 7 * patience
    pending.is_behind = True
    assert monitor.waited_since(pending, START + 9 * patience) == 0


def test_only_what_finished_long_ago_is_waste():
    """For one to two pipelines of slots a finished operation is fresh; those below it never were."""
    monitor = Judge().monitor
    whole, within, other = (bytes(32), 1, 5), (bytes(32), 1, 6), (bytes(32), 2, 5)
    monitor.note_slot()
    monitor.note_fresh(whole, 5)
    assert monitor.is_fresh(within, 6) and not monitor.is_fresh((bytes(32), 1, 3), 4)
    assert not monitor.is_fresh(other, 5), "nothing of that session was executed"
    assert not monitor.is_fresh(whole, 8), "the very envelope that was executed is known to whoever proposed it"
    for _ in range(PROTOCOL.pipeline):
        monitor.note_slot()
    assert monitor.is_fresh(within, 6) and not monitor.is_fresh(whole, 8)
    for _ in range(PROTOCOL.pipeline):
        monitor.note_slot()
    assert not monitor.is_fresh(within, 6)


def test_probe_that_another_envelope_finished_says_nothing():
    """The primary drops what needs no ordering any more; that it leaves the probe out is no waste."""
    judge = Judge()
    judge.monitor.begin_probe(_pending(START), START)
    for _ in range(2 * PROTOCOL.pipeline):
        judge.monitor.note_left_out()
    judge.monitor.drop_probe(judge.now)
    assert judge.monitor.figures()["left_out"] == "0/0"
    assert judge.monitor.wants_probe(judge.now), "what comes next is watched"


# --- inside a replica ----------------------------------------------------------------------------------------------


def _slow_slots(bench, first: int, count: int, latency_ms: int = 150) -> list[str]:
    """The bench's replica sees requests that the primary proposes only so much later; its complaints."""
    reasons = []
    for seq in range(first, first + count):
        request = bench.request(seq, acknowledged=seq)
        bench.deliver(bytes(range(32)), request)
        effects = bench.wait(latency_ms)
        reasons += [message.reason for message in bench.sent(Suspect, effects)]
        bench.order(seq, bench.batch(request))
        bench.now += MILLISECOND
        reasons += [message.reason for message in bench.sent(Suspect, bench.step(Tick()))]
    return reasons


@pytest.mark.parametrize(("floor", "expected"), [(100, {SLOW}), (0, set())])
def test_backup_complains_of_a_primary_that_never_misses_a_timeout(make_bench, floor, expected):
    """150 ms of a timeout of 400: no request is ever late, and the primary is slow all the same."""
    bench = make_bench(protocol={"checkpoint_interval": 64, "window": 128, "slow_floor_ms": floor})
    assert set(_slow_slots(bench, 1, 40)) == expected


def test_timeout_takes_the_place_of_a_complaint_about_performance(make_bench):
    """The back-off must grow when the reason is a fault, whatever was said before."""
    bench = make_bench(protocol={"checkpoint_interval": 64, "window": 128, "slow_floor_ms": 100})
    assert SLOW in _slow_slots(bench, 1, 40)
    bench.deliver(bytes(range(32)), bench.request(99, acknowledged=41))
    reasons = [message.reason for message in bench.sent(Suspect, bench.wait(500))]
    assert "request-timeout" in reasons


def test_performance_change_does_not_raise_the_back_off(make_bench):
    """Else a slow primary's successor, or itself next time, could hide behind longer timeouts."""
    for own, backoff in ((True, 0), (False, 1)):
        bench = make_bench(protocol={"slow_floor_ms": 100})
        state = bench.replica._state
        state.timing.executed_at_change = state.executed
        if own:
            state.timing.grievance = SLOW
        for sender in (2, 3):
            bench.deliver(sender, bench.signed(sender, Suspect(0, 0, SLOW)))
        assert bench.replica.summary()["view"] == 1
        assert bench.replica.summary()["backoff"] == backoff


def test_f_complainers_alone_depose_nobody(make_bench):
    """Whatever reason they give, and however often."""
    bench = make_bench()
    for _ in range(50):
        for reason in (SLOW, UNFAIR, WASTE, "request-timeout"):
            bench.deliver(3, bench.signed(3, Suspect(0, 0, reason)))
        bench.wait(220)
    assert bench.replica.summary()["view"] == 0


# --- what a replica shows its monitor of a fresh proposal ----------------------------------------------------------

WATCHFUL = {"request_timeout_ms": 4000, "witness_interval_ms": 10, "batch_bytes_max": 2048}
"""Envelopes go to the primary 100 ms after they came; half a batch is 4 operations or 1024 bytes."""
OTHER = EPOCH_NS + 1
"""Another session of the client."""


def _propose(bench, seq: int, operations: int = 1, size: int = 0) -> None:
    """The primary proposes so many operations of the other session, in a batch of so many bytes if any are named."""
    number = 1 + 10 * seq

    def body(value: str) -> bytes:
        calls = [["put", "k", value], *[["put", "k", "v"]] * (operations - 1)]
        return bench.batch(bench.request(number, *calls, session=OTHER, acknowledged=number))

    batch = body("v" * (size and 500 + size - len(body("v" * 500))))
    assert len(batch) == size or not size
    bench.deliver(0, bench.proposal(seq, batch))
    assert bench.rejections() == []


@pytest.mark.parametrize(
    ("operations", "size", "left_out"), [(4, 0, 1), (5, 0, 0), (1, 1024, 1), (1, 1025, 0), (5, 1025, 0)]
)
def test_probe_counts_as_left_out_by_batches_with_room_only(make_bench, operations, size, left_out):
    """A full batch may leave out what came last; one that is no more than half full may not."""
    bench = make_bench(protocol=WATCHFUL)
    bench.deliver(CLIENT, bench.request(1))
    monitor = bench.replica._state.monitor
    assert monitor.probe is not None
    for seq in range(1, 6):
        _propose(bench, seq, operations, size)
    bench.deliver(0, bench.proposal(6, bench.batch(bench.request(1))))
    assert monitor.probe is None
    assert monitor.figures()["left_out"] == f"{left_out}/1"


def test_probe_of_a_client_beyond_its_share_is_not_left_out(make_bench):
    """A fair primary lets it wait."""
    bench = make_bench(protocol=WATCHFUL)
    bench.deliver(CLIENT, bench.request(1))
    monitor = bench.replica._state.monitor
    monitor.probe.is_behind = True
    for seq in range(1, 6):
        _propose(bench, seq)
    bench.deliver(0, bench.proposal(6, bench.batch(bench.request(1))))
    assert monitor.figures()["left_out"] == "0/1"


def test_probe_that_needs_no_ordering_any_more_is_dropped(make_bench):
    """Another envelope held its operations: that a primary leaves it out says nothing, and the next one is a probe."""
    bench = make_bench(protocol=WATCHFUL)
    bench.deliver(CLIENT, bench.request(2))
    monitor = bench.replica._state.monitor
    bench.order(1, bench.batch(bench.request(1, ["put", "a", "1"], ["put", "b", "2"])))
    assert bench.executed == 1 and monitor.probe is not None
    for seq in range(2, 8):
        _propose(bench, seq)
    assert monitor.probe is None and monitor.figures()["left_out"] == "0/0"
    assert monitor.wants_probe(bench.now)


def test_probe_that_is_gone_ends(make_bench):
    """Forgotten before the next proposal came: it must not be watched for ever, in the place of all that follow."""
    bench = make_bench(protocol={**WATCHFUL, "slow_floor_ms": 40})
    bench.deliver(CLIENT, bench.request(2))
    monitor = bench.replica._state.monitor
    bench.order(1, bench.batch(bench.request(1, ["put", "a", "1"], ["put", "b", "2"])))
    bench.wait(60)
    assert bench.replica.summary()["pending"] == 0 and monitor.probe is not None
    _propose(bench, 2)
    assert monitor.probe is None and monitor.figures()["left_out"] == "0/1"


def _watching(make_bench) -> tuple[Bench, Monitor]:
    """A replica that gave an envelope to its primary as long ago as a fair one needs."""
    bench = make_bench(protocol={**WATCHFUL, "witness_interval_ms": 0})
    bench.deliver(CLIENT, bench.request(1))
    monitor = bench.replica._state.monitor
    assert not bench.wait(80) or monitor.watched is None
    bench.wait(120)
    assert monitor.watched is not None and monitor.watched.forwarded == EPOCH_NS + 100 * MILLISECOND
    return bench, monitor


def test_watched_envelope_is_passed_over_by_batches_with_room(make_bench):
    """Not by a full one of what came no later; once it is proposed nothing is held against the primary any more."""
    bench, monitor = _watching(make_bench)
    _propose(bench, 1, 4)
    assert monitor.skips == 1
    _propose(bench, 2, 5)
    assert monitor.skips == 1, "full"
    _propose(bench, 3, 1, 1025)
    assert monitor.skips == 1, "full of bytes"
    _propose(bench, 4)
    assert monitor.skips == 2
    monitor.watched.is_behind = True
    _propose(bench, 5)
    assert monitor.skips == 2, "its client had more than its share"
    bench.deliver(0, bench.proposal(6, bench.batch(bench.request(1))))
    assert monitor.watched is None and monitor.skips == 0


@pytest.mark.parametrize(("after_ms", "skips"), [(80, 0), (100, 1)])
def test_watched_envelope_is_passed_over_by_younger_ones_in_a_full_batch(make_bench, after_ms, skips):
    """What came here so much later than this was given to the primary should not be before it."""
    bench, monitor = _watching(make_bench)
    bench.now = EPOCH_NS + (100 + after_ms) * MILLISECOND
    younger = bench.request(1, session=OTHER + 1)
    bench.deliver(CLIENT, younger)
    bench.now = EPOCH_NS + 300 * MILLISECOND
    many = bench.request(1, *[["put", "k", "v"]] * 4, session=OTHER)
    bench.deliver(0, bench.proposal(1, bench.batch(many, younger)))
    assert (bench.rejections(), monitor.skips) == ([], skips)


def test_proposal_of_what_was_executed_long_ago_is_stale(make_bench):
    """Not while it may still have been on its way, nor what is new, nor a session that nobody knows."""
    bench = make_bench(protocol=WATCHFUL)
    bench.order(1, bench.batch(bench.request(1)))
    bench.order(2, bench.batch(bench.request(2)))
    assert bench.replica._state.monitor.figures()["stale"] == "0/2"
    bench.deliver(0, bench.proposal(3, bench.batch(bench.request(1))))
    assert bench.replica._state.monitor.figures()["stale"] == "1/3", "the primary knows what it has proposed"
