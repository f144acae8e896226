"""The generators of load, against systems whose latency is known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from benchmarks.latency import Latencies
from benchmarks.load import ClosedLoop, OpenLoop, TaskLoop
from bft.client.session import Completed, Lost

DONE = Completed(1, 0, b"", 1, 0)


class Server:
    """Answers after `delay()` seconds; remembers how many operations were open at most."""

    def __init__(self, nursery: trio.Nursery, delay: Callable[[], float]) -> None:
        self._nursery = nursery
        self._delay = delay
        self.open = self.open_max = self.submitted = 0

    def submit(self, operation: bytes, on_done: Callable[[Completed | Lost], None]) -> None:
        self.open += 1
        self.submitted += 1
        self.open_max = max(self.open_max, self.open)
        self._nursery.start_soon(self._answer, on_done, self._delay())

    async def _answer(self, on_done: Callable[[Completed | Lost], None], delay: float) -> None:
        await trio.sleep(delay)
        self.open -= 1
        on_done(DONE)


class Deaf:
    """Never answers."""

    submitted = 0

    def submit(self, operation: bytes, on_done: Callable[[Completed | Lost], None]) -> None:
        self.submitted += 1


class Refusing:
    """Loses everything at once."""

    def submit(self, operation: bytes, on_done: Callable[[Completed | Lost], None]) -> None:
        on_done(Lost(1, "overloaded"))


def test_percentiles_have_three_digits() -> None:
    latencies = Latencies(range(1_000, 1_001_000, 1_000))  # 1 us .. 1 ms
    assert len(latencies) == 1000
    assert latencies.percentile_ms(50) == pytest.approx(0.5, rel=2e-3)
    assert latencies.percentile_ms(99) == pytest.approx(0.99, rel=2e-3)
    assert latencies.percentile_ms(100) == pytest.approx(1.0, rel=2e-3)


def test_percentiles_of_nothing_are_zero_and_extremes_are_kept() -> None:
    assert Latencies().percentile_ms(50) == 0.0
    assert Latencies([0]).percentile_ms(100) == 0.001
    assert Latencies([10**16]).percentile_ms(100) == pytest.approx(3_600_000, rel=2e-3)


async def test_closed_loop_keeps_one_call_open_per_caller() -> None:
    async with trio.open_nursery() as nursery:
        servers = [Server(nursery, lambda: 0.01) for _ in range(2)]
        measured = await ClosedLoop(servers, b"", 6).run(warm_up=0.02, seconds=0.2)
        nursery.cancel_scope.cancel()
    assert [server.open_max for server in servers] == [3, 3]
    assert measured.failures == 0
    assert 0 < measured.operations <= 6 * 21
    assert measured.percentile_ms(0.5) >= 10


async def test_closed_loop_stops_a_caller_whose_call_is_lost() -> None:
    measured = await ClosedLoop(Refusing(), b"", 5).run(warm_up=0.0, seconds=0.01)
    assert measured.failures == 5
    assert measured.operations == 0


async def test_open_loop_counts_from_when_an_operation_was_due() -> None:
    """One stall of 300 ms: a closed loop sees it once, an open loop in every operation that was due meanwhile."""
    async with trio.open_nursery() as nursery:
        start = trio.current_time()

        def delay() -> float:
            since = trio.current_time() - start
            return 0.5 - since if 0.2 <= since < 0.5 else 0.0

        loop = OpenLoop([Server(nursery, delay)], b"", 300, outstanding_max=1)
        measured = await loop.run(warm_up=0.0, seconds=1.0)
    assert measured.unanswered == 0
    assert measured.percentile_ms(0.9) > 150  # three tenths of the arrivals waited for up to 300 ms


async def test_open_loop_offers_its_rate_and_the_same_arrivals_for_one_seed() -> None:
    counts = []
    for _ in range(2):
        loop = OpenLoop([Deaf()], b"", 1000, seed=7)
        counts.append([loop._gap() for _ in range(50)])
    assert counts[0] == counts[1]
    async with trio.open_nursery() as nursery:
        server = Server(nursery, lambda: 0.001)
        await OpenLoop([server], b"", 1000).run(warm_up=0.0, seconds=0.5)
    assert 400 <= server.submitted <= 600


async def test_open_loop_counts_the_wait_of_what_is_never_answered() -> None:
    """Else a system that drops what it cannot do would look fast."""
    deaf = Deaf()
    measured = await OpenLoop([deaf], b"", 200, outstanding_max=10, drain=0.1).run(warm_up=0.0, seconds=0.3)
    assert deaf.submitted == 10  # bounded: the rest waits in the generator
    assert measured.operations == 0
    assert measured.unanswered == len(measured.latencies_ns) > 30
    assert measured.percentile_ms(0.0) >= 95
    assert measured.stall_ms == pytest.approx(300)


async def test_open_loop_counts_what_completes_after_its_time_for_what_it_cost() -> None:
    """A system that falls behind works on while the loop drains: its CPU time is that of these operations as well."""
    async with trio.open_nursery() as nursery:
        loop = OpenLoop([Server(nursery, lambda: 0.2)], b"", 200)
        measured = await loop.run(warm_up=0.0, seconds=0.3)
    assert measured.unanswered == 0
    assert loop.completed == len(measured.latencies_ns) > measured.operations


async def test_task_loop_counts_failures_of_the_declared_kind_and_passes_on_others() -> None:
    async def refuse() -> None:
        raise OSError("no")

    measured = await TaskLoop([refuse], (OSError,)).run(warm_up=0.0, seconds=0.02)
    assert measured.failures > 0
    assert measured.operations == 0
    with pytest.raises(BaseExceptionGroup):
        await TaskLoop([refuse], (ValueError,)).run(warm_up=0.0, seconds=0.02)
