"""What is made of the samples of a cluster under attack."""

from __future__ import annotations

import pytest

from benchmarks.attacks import ATTACKS, longest_stall_ms, settled_rate, verdict


def test_settled_rate_is_that_of_the_last_third_by_the_clock() -> None:
    """Samples that come late, as those of a busy process do, make nothing faster."""
    early = [(0.25 * index, 0) for index in range(6)]
    late = [(1.25 + 0.5 * (index + 1), 100 * (index + 1)) for index in range(3)]
    assert settled_rate([*early, *late]) == pytest.approx(200.0)
    assert settled_rate(early[:1]) == 0.0


def test_longest_stall_is_the_longest_time_without_a_completion() -> None:
    samples = [(0.0, 0), (0.25, 5), (0.75, 5), (1.0, 5), (1.25, 9), (1.5, 9), (1.75, 12)]
    assert longest_stall_ms(samples) == pytest.approx(750.0)
    assert longest_stall_ms(samples[:2]) == 0.0


@pytest.mark.parametrize(
    ("attack", "ratio", "settled", "word"),
    [
        ("delay", 0.7, 0.0, "holds"),
        ("delay", 0.69, 0.7, "recovers"),
        ("delay", 0.69, 0.69, "below"),
        ("delay-floor", 0.1, 0.1, "within bounds"),
    ],
)
def test_verdict_asks_seventy_percent(attack: str, ratio: float, settled: float, word: str) -> None:
    assert verdict(ATTACKS[attack], ratio, settled) == word
