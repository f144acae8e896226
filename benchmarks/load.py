"""Load: closed loops (each caller waits for its result) and open loops (operations arrive by the clock).

In an open loop a latency counts from the moment at which the operation was *due*, not from the moment at which the
generator got round to sending it: a stall of the system, or of the generator, shows in every operation that had to
wait for it ("coordinated omission"). Operations that stay unanswered count with the time they have waited so far.
"""

from __future__ import annotations

import time
from array import array
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from random import Random
from typing import Protocol

import anyio

from benchmarks.latency import Latencies
from bft.client.client import Client
from bft.client.session import Completed, Lost

OPEN_LOOP_TURN_SECONDS = 0.001
OPEN_LOOP_DRAIN_SECONDS = 2.0
OPEN_LOOP_OUTSTANDING_MAX = 4000
"""Per client; beyond it operations wait in the generator, and their latencies grow: fewer than a session's window."""
NS = 1_000_000_000

OnDone = Callable[[Completed | Lost], None]


class Submitter(Protocol):
    """What load is put on: `bft.client.client.Client`, or a peer's stand-in for it."""

    def submit(self, operation: bytes, on_done: OnDone, /) -> None:
        """Start an operation; `on_done` is called once, with its outcome."""
        ...


@dataclass
class Measurement:
    """What one run of load measured.

    Attributes:
        operations: completed within the measured time.
        seconds: measured time.
        latencies_ns: one per operation, and one per operation that was due but unanswered (open loop).
        failures: operations that ended without a result.
        stall_ms: longest time without any completion.
        unanswered: operations due within the measured time without an answer at its end (open loop).
    """

    operations: int
    seconds: float
    latencies_ns: Sequence[int] = field(default_factory=list)
    failures: int = 0
    stall_ms: float = 0.0
    unanswered: int = 0

    @property
    def throughput(self) -> float:
        """Operations per second."""
        return self.operations / self.seconds

    @cached_property
    def latencies(self) -> Latencies:
        """All latencies as a histogram."""
        return Latencies(self.latencies_ns)

    def percentile_ms(self, share: float) -> float:
        """Latency below which `share` (0 to 1) of the operations stayed."""
        return self.latencies.percentile_ms(share * 100)


class Recorder:
    """Takes notes of completions, from `begin` to `end`, which may follow each other more than once.

    Attributes:
        completed: all completions so far, measured or not.
        failures: all operations so far that ended without a result.
    """

    def __init__(self) -> None:
        self.completed = 0
        self.failures = 0
        self.measuring = False
        self._latencies = array("q")
        self._began = self._last = self._stall = self._reported = 0

    def begin(self) -> None:
        """Start measuring."""
        self.measuring = True
        self._latencies = array("q")
        self._stall = 0
        self._began = self._last = time.perf_counter_ns()

    def note(self, since_ns: int, *, failed: bool = False) -> None:
        """An operation that was due at `since_ns` (of `perf_counter_ns`) has ended."""
        now = time.perf_counter_ns()
        self.completed += 1
        if failed:
            self.failures += 1
            return
        if self.measuring:
            self._latencies.append(now - since_ns)
            if now - self._last > self._stall:
                self._stall = now - self._last
            self._last = now

    def end(self) -> Measurement:
        """Stop measuring; failures are those since the last time, or since the start."""
        now = time.perf_counter_ns()
        self.measuring = False
        stall = max(self._stall, now - self._last)
        failures, self._reported = self.failures - self._reported, self.failures
        return Measurement(len(self._latencies), (now - self._began) / NS, self._latencies, failures, stall / 1e6)


class ClosedLoop:
    """`callers` callers, each submitting `operation` again when the last one is done; they share `clients` evenly."""

    def __init__(self, clients: Submitter | Sequence[Submitter], operation: bytes, callers: int) -> None:
        self._clients = clients if isinstance(clients, Sequence) else (clients,)
        self._operation = operation
        self._callers = callers
        self._running = True
        self._recorder = Recorder()

    @property
    def completed(self) -> int:
        """Completions so far, warm-up included."""
        return self._recorder.completed

    async def run(self, *, warm_up: float, seconds: float) -> Measurement:
        """Warm up, measure, and let the last calls end."""
        self.start()
        await anyio.sleep(warm_up)
        measured = await self.measure(seconds)
        self.stop()
        return measured

    def start(self) -> None:
        """Begin to call."""
        for caller in range(self._callers):
            self._submit(caller, caller)

    def stop(self) -> None:
        """Let the last calls end."""
        self._running = False

    async def measure(self, seconds: float) -> Measurement:
        """What completes from now on, for so long; may be asked again and again."""
        self._recorder.begin()
        await anyio.sleep(seconds)
        return self._recorder.end()

    def _submit(self, caller: int, turn: int) -> None:
        started = time.perf_counter_ns()

        def on_done(outcome: Completed | Lost) -> None:
            failed = isinstance(outcome, Lost)
            self._recorder.note(started, failed=failed)
            if self._running and not failed:
                self._submit(caller, turn + 1)

        self._call(caller, turn, on_done)

    def _call(self, caller: int, turn: int, on_done: OnDone) -> None:
        self._clients[caller % len(self._clients)].submit(self._operation, on_done)


class MixedLoop(ClosedLoop):
    """The same with clients of ours, of whose calls exactly `reads_percent` of every hundred are reads, evenly spread.

    Every caller begins at another place of the pattern.
    """

    def __init__(
        self, clients: Sequence[Client], operation: bytes, callers: int, read: bytes, reads_percent: int
    ) -> None:
        super().__init__(clients, operation, callers)
        self._readers = clients
        self._read = read
        self._percent = reads_percent

    def _call(self, caller: int, turn: int, on_done: OnDone) -> None:
        client = self._readers[caller % len(self._readers)]
        if (turn + 1) * self._percent // 100 > turn * self._percent // 100:
            client.submit_query(self._read, on_done)
        else:
            client.submit(self._operation, on_done)


class OpenLoop:
    """`rate` operations a second arrive at seeded random moments (a Poisson process), whatever the system does."""

    def __init__(
        self,
        clients: Sequence[Submitter],
        operation: bytes,
        rate: float,
        *,
        seed: int = 1,
        outstanding_max: int = OPEN_LOOP_OUTSTANDING_MAX,
        drain: float = OPEN_LOOP_DRAIN_SECONDS,
    ) -> None:
        self._clients = clients
        self._operation = operation
        self._gap_ns = NS / rate
        self._random = Random(seed)
        self._outstanding_max = outstanding_max * len(clients)
        self._drain = drain
        self._waiting: deque[int] = deque()
        self._open: dict[int, int] = {}
        self._number = 0
        self._answered: list[tuple[int, int]] = []
        self._failures = 0

    @property
    def completed(self) -> int:
        """Answers so far, warm-up included."""
        return len(self._answered)

    async def run(self, *, warm_up: float, seconds: float) -> Measurement:
        """Warm up, measure, wait a while for answers; what was due in the measured time counts from when it was due."""
        now = time.perf_counter_ns()
        begin, end = now + int(warm_up * NS), now + int((warm_up + seconds) * NS)
        due = now + self._gap()
        while now < end:
            while due <= min(now, end):
                self._waiting.append(due)
                due += self._gap()
            self._send()
            await anyio.sleep(OPEN_LOOP_TURN_SECONDS)
            now = time.perf_counter_ns()
        with anyio.move_on_after(self._drain):
            while self._open or self._waiting:
                self._send()
                await anyio.sleep(OPEN_LOOP_TURN_SECONDS)
        return self._measurement(begin, end)

    def _measurement(self, begin: int, end: int) -> Measurement:
        now = time.perf_counter_ns()
        unanswered = [due for due in [*self._open.values(), *self._waiting] if due >= begin]
        self._waiting.clear()
        self._open.clear()
        moments = [begin, *sorted(done for _, done in self._answered if begin <= done < end), end]
        latencies = array("q", (done - due for due, done in self._answered if due >= begin))
        latencies.extend(now - due for due in unanswered)
        return Measurement(
            len(moments) - 2,
            (end - begin) / NS,
            latencies,
            self._failures,
            max(after - before for before, after in pairwise(moments)) / 1e6,
            len(unanswered),
        )

    def _gap(self) -> int:
        return int(self._random.expovariate(1.0) * self._gap_ns) + 1

    def _send(self) -> None:
        while self._waiting and len(self._open) < self._outstanding_max:
            due = self._waiting.popleft()
            self._number += 1
            self._open[self._number] = due
            self._submit(self._clients[self._number % len(self._clients)], self._number, due)

    def _submit(self, client: Submitter, number: int, due: int) -> None:
        def on_done(outcome: Completed | Lost) -> None:
            if self._open.pop(number, None) is None:
                return  # too late: counted as unanswered
            if isinstance(outcome, Lost):
                self._failures += 1
            else:
                self._answered.append((due, time.perf_counter_ns()))

        client.submit(self._operation, on_done)


class TaskLoop:
    """Closed loop of tasks, for calls that are awaited: task `i` repeats `calls[i]()` without pause."""

    def __init__(self, calls: Sequence[Callable[[], Awaitable[None]]], failures: tuple[type[Exception], ...]) -> None:
        """Prepare the tasks; exceptions of the types `failures` are counted, others end the run."""
        self._calls = calls
        self._failures = failures
        self._recorder = Recorder()

    @property
    def completed(self) -> int:
        """Completions so far, warm-up included."""
        return self._recorder.completed

    async def run(self, *, warm_up: float, seconds: float) -> Measurement:
        """Warm up, measure, and cancel what is open."""
        async with anyio.create_task_group() as tasks:
            for call in self._calls:
                tasks.start_soon(self._repeat, call)
            await anyio.sleep(warm_up)
            self._recorder.begin()
            await anyio.sleep(seconds)
            measured = self._recorder.end()
            tasks.cancel_scope.cancel()
        return measured

    async def _repeat(self, call: Callable[[], Awaitable[None]]) -> None:
        while True:
            started = time.perf_counter_ns()
            try:
                await call()
            except self._failures:
                self._recorder.note(started, failed=True)
                await anyio.sleep(OPEN_LOOP_TURN_SECONDS)  # a refusal without a wait must not become a busy loop
            else:
                self._recorder.note(started)
