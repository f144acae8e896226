"""Latencies as an HDR histogram (the `hdrhistogram` package): three significant digits from 1 us to an hour.

The histogram is filled after a measurement, from plain numbers that the load kept: recording costs the generator one
append per operation.
"""

from __future__ import annotations

from collections.abc import Iterable

from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]  # it ships no types

LOWEST_US = 1
HIGHEST_US = 3_600_000_000
DIGITS = 3
NS_PER_US = 1000
PERCENTILES = {"p50_ms": 50.0, "p90_ms": 90.0, "p99_ms": 99.0, "p999_ms": 99.9, "max_ms": 100.0}


class Latencies:
    """Percentiles of many latencies; those beyond an hour count as an hour."""

    def __init__(self, values_ns: Iterable[int] = ()) -> None:
        self._histogram = HdrHistogram(LOWEST_US, HIGHEST_US, DIGITS)
        for value in values_ns:
            self._histogram.record_value(min(max(value // NS_PER_US, LOWEST_US), HIGHEST_US))

    def __len__(self) -> int:
        return int(self._histogram.get_total_count())

    def percentile_ms(self, percent: float) -> float:
        """Latency that `percent` of the operations did not exceed, in milliseconds; 0 when there were none."""
        if not len(self):
            return 0.0
        return float(self._histogram.get_value_at_percentile(percent)) / 1000

    def summary(self) -> dict[str, float]:
        """The percentiles that are reported, by name."""
        return {name: self.percentile_ms(percent) for name, percent in PERCENTILES.items()}
