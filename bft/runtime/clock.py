"""The clock that drives a replica: wall time, made to never go back and never stand still."""

from __future__ import annotations

import time
from collections.abc import Callable

from bft.ids import Nanos


class Clock:
    """Nanoseconds since 1970, never decreasing.

    A node uses one clock for its timers and for the batch times it proposes, so it must be near wall time *and* make
    progress. When somebody sets the machine's clock back, this one runs at half speed until the wall has caught up;
    clamping it instead would stop all timers for as long as the step was wide.
    """

    def __init__(
        self, wall: Callable[[], int] = time.time_ns, monotonic: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._elapsed_at = monotonic()
        self._now = wall()

    def now(self) -> Nanos:
        """The present."""
        elapsed_at = self._monotonic()
        creeping = self._now + (elapsed_at - self._elapsed_at) // 2
        self._elapsed_at = elapsed_at
        self._now = max(creeping, self._wall())
        return self._now
