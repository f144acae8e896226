"""What becomes of an envelope that waits: the primary gets it, then everybody; what needs no ordering is forgotten."""

from __future__ import annotations

from bft.config import MILLISECOND
from bft.core.pool import Pending
from bft.events import Broadcast, Effect, Send
from bft.messages import Proposal, SignedRequest
from tests.conftest import CLIENT

PATIENT = {"request_timeout_ms": 2000, "slow_floor_ms": 0}
"""To the primary after 500 ms, to all after 1000: no monitor, which is quicker."""


def _passed_on(effects: list[Effect]) -> list[object]:
    """To whom envelopes went; `all` for everybody."""
    found: list[object] = []
    for effect in effects:
        if isinstance(effect, Send | Broadcast) and isinstance(effect.packet, SignedRequest):
            found.append(effect.to if isinstance(effect, Send) else "all")
    return found


def _only(bench) -> Pending:
    (pending,) = bench.replica._state.pool
    return pending


def test_envelope_that_waits_goes_to_the_primary_and_then_to_everybody(make_bench):
    """Once each, a quarter and a half of the timeout after it came."""
    bench = make_bench(protocol=PATIENT)
    bench.deliver(CLIENT, bench.request(1))
    begun = bench.now
    assert _passed_on(bench.wait(480)) == []
    assert _passed_on(bench.wait(20)) == [0]
    assert _only(bench).forwarded == begun + 500 * MILLISECOND
    assert _passed_on(bench.wait(480)) == []
    assert _passed_on(bench.wait(20)) == ["all"]
    assert _passed_on(bench.wait(480)) == []


def test_primary_passes_nothing_on_to_itself(make_bench):
    """What it proposes too slowly goes to all others, so that they know what is late."""
    bench = make_bench(me=0, protocol={**PATIENT, "pipeline": 1})
    bench.deliver(CLIENT, bench.request(1))
    assert bench.sent(Proposal)
    bench.deliver(CLIENT, bench.request(2))
    assert _passed_on(bench.wait(980)) == []
    assert _passed_on(bench.wait(20)) == ["all", "all"]


def test_what_another_envelope_finished_is_forgotten_and_not_passed_on(make_bench):
    """It would stay the oldest of its client for ever, and depose one primary after another."""
    bench = make_bench(protocol=PATIENT)
    bench.deliver(CLIENT, bench.request(2))
    bench.order(1, bench.batch(bench.request(1, ["put", "a", "1"], ["put", "b", "2"])))
    assert (bench.executed, bench.replica.summary()["pending"]) == (1, 1)
    assert _passed_on(bench.wait(500)) == []
    assert bench.replica.summary()["pending"] == 0


def test_what_another_envelope_finished_is_not_watched(make_bench):
    """That batches leave it out is no unfairness."""
    bench = make_bench(protocol={"request_timeout_ms": 2000})
    monitor = bench.replica._state.monitor
    bench.deliver(CLIENT, bench.request(2))
    bench.wait(100)
    assert monitor.watched is _only(bench)
    bench.order(1, bench.batch(bench.request(1, ["put", "a", "1"], ["put", "b", "2"])))
    bench.wait(20)
    assert monitor.watched is None
