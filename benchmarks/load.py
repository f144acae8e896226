"""Closed-loop load: a number of callers in one process, each with one call open, latencies of all of them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import anyio

from bft.client.client import Client
from bft.client.session import Completed, Lost


@dataclass
class Measurement:
    """What one run of load measured.

    Attributes:
        operations: completed within the measured time.
        seconds: measured time.
        latencies_ns: one per operation.
        stall_ms: longest time without any completion.
    """

    operations: int
    seconds: float
    latencies_ns: list[int] = field(default_factory=list)
    failures: int = 0
    stall_ms: float = 0.0

    @property
    def throughput(self) -> float:
        """Operations per second."""
        return self.operations / self.seconds

    def percentile_ms(self, share: float) -> float:
        """Latency below which `share` of the operations stayed."""
        if not self.latencies_ns:
            return 0.0
        ordered = sorted(self.latencies_ns)
        return ordered[min(int(len(ordered) * share), len(ordered) - 1)] / 1e6


class ClosedLoop:
    """`callers` callers on one client, each submitting `operation` again when the last one is done."""

    def __init__(self, client: Client, operation: bytes, callers: int) -> None:
        self._client = client
        self._operation = operation
        self._callers = callers
        self._latencies: list[int] = []
        self._measuring = False
        self._running = True
        self._failures = 0
        self._last = 0
        self._stall = 0
        self.completed = 0

    async def run(self, *, warm_up: float, seconds: float) -> Measurement:
        """Warm up, measure, and let the last calls end."""
        self.start()
        await anyio.sleep(warm_up)
        measured = await self.measure(seconds)
        self.stop()
        return measured

    def start(self) -> None:
        """Begin to call."""
        for _ in range(self._callers):
            self._submit()

    def stop(self) -> None:
        """Let the last calls end."""
        self._running = False

    async def measure(self, seconds: float) -> Measurement:
        """What completes from now on, for so long; may be asked again and again."""
        self._latencies, self._stall, failures = [], 0, self._failures
        self._measuring = True
        self._last = started = time.perf_counter_ns()
        await anyio.sleep(seconds)
        self._measuring = False
        self._stall = max(self._stall, time.perf_counter_ns() - self._last)
        elapsed = (time.perf_counter_ns() - started) / 1e9
        failed = self._failures - failures
        return Measurement(len(self._latencies), elapsed, self._latencies, failed, self._stall / 1e6)

    def _submit(self) -> None:
        started = time.perf_counter_ns()

        def on_done(outcome: Completed | Lost) -> None:
            now = time.perf_counter_ns()
            self.completed += 1
            if self._measuring:
                self._latencies.append(now - started)
                self._stall = max(self._stall, now - self._last)
                self._last = now
            if isinstance(outcome, Lost):
                self._failures += 1
                return
            if self._running:
                self._submit()

        self._client.submit(self._operation, on_done)
