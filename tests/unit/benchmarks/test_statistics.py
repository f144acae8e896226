"""Verdicts on repeated runs: what noise explains is called noise."""

from __future__ import annotations

from random import Random

import pytest

from benchmarks.statistics import called_by_noise, compare, is_spread, rank_test, spread


def test_spread_keeps_the_runs_beside_their_median_and_limits() -> None:
    found = spread([3.0, 1.0, 2.0])
    assert found == {"median": 2.0, "min": 1.0, "max": 3.0, "runs": 3, "values": [3.0, 1.0, 2.0]}
    assert is_spread(found)
    assert not is_spread({"median": 2.0})
    assert not is_spread(2.0)


def test_rank_test_of_samples_without_overlap_is_the_share_of_two_arrangements() -> None:
    """5 against 5: 2 of 252 arrangements are as extreme."""
    assert rank_test([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]) == pytest.approx(2 / 252)


def test_rank_test_agrees_with_the_published_example() -> None:
    """Six tortoises and six hares with U = 11: tables give a two-sided chance of 0.3095."""
    # tortoise and hares in the order of arrival T H H H H H T T T T T H
    tortoises, hares = [1, 7, 8, 9, 10, 11], [2, 3, 4, 5, 6, 12]
    by_definition = sum(t < h for t in tortoises for h in hares)
    assert by_definition == 11
    assert rank_test(tortoises, hares) == pytest.approx(2 * 143 / 924, abs=1e-12)


def test_rank_test_of_equal_samples_finds_nothing() -> None:
    assert rank_test([1.0, 1.0, 1.0], [1.0, 1.0, 1.0]) == 1.0


def test_rank_test_of_many_runs_is_close_to_the_exact_one() -> None:
    """Beyond 200 000 arrangements the normal approximation takes over, without a jump."""
    first, second = [float(2 * i) for i in range(10)], [float(2 * i + 5) for i in range(10)]
    exact = rank_test(first, second)
    approximate = rank_test([*first, 9.0], [*second, 14.0])
    assert abs(exact - approximate) < 0.1
    assert rank_test([float(i) for i in range(20)], [float(i + 100) for i in range(20)]) < 1e-6


@pytest.mark.parametrize(
    ("metric", "second", "verdict"),
    [
        ("op_s", [120.0, 121.0, 122.0, 123.0, 124.0], "better"),
        ("op_s", [80.0, 81.0, 82.0, 83.0, 84.0], "worse"),
        ("p50_ms", [120.0, 121.0, 122.0, 123.0, 124.0], "worse"),
        ("p50_ms", [80.0, 81.0, 82.0, 83.0, 84.0], "better"),
        ("attacked_op_s", [80.0, 81.0, 82.0, 83.0, 84.0], "worse"),
        ("op_s_meanwhile", [80.0, 81.0, 82.0, 83.0, 84.0], "worse"),
        ("settled_ratio", [120.0, 121.0, 122.0, 123.0, 124.0], "better"),
        ("op_s", [95.0, 99.5, 101.0, 104.0, 110.0], "noise"),
        ("op_s", [120.0, 130.0], "too few runs"),
    ],
)
def test_compare_calls_a_difference_by_direction_and_only_outside_noise(
    metric: str, second: list[float], verdict: str
) -> None:
    found = compare(metric, spread([98.0, 99.0, 100.0, 101.0, 102.0]), spread(second))
    assert found is not None
    assert found.verdict == verdict
    assert found.ratio is not None
    assert found.ratio_min is not None
    assert found.ratio_max is not None
    assert found.ratio_min <= found.ratio <= found.ratio_max


def test_compare_has_no_ratio_to_nothing_but_sees_what_was_not_there_before() -> None:
    """A system that begins to fail is worse, though nothing is how many times zero."""
    found = compare("failures", spread([0.0] * 5), spread([1.0] * 5))
    assert found is not None
    assert (found.ratio, found.verdict) == (None, "worse")
    once = compare("failures", spread([0.0] * 5), spread([0.0] * 4 + [1.0]))
    assert once is not None
    assert once.verdict == "noise"
    assert compare("failures", spread([0.0] * 5), spread([0.0] * 5)) is None


def test_equal_systems_differ_in_no_more_tests_than_is_said() -> None:
    """Many tests at 5 % find something; how much of that is noise is told beside it."""
    dice = Random(1)
    draws = [(spread([dice.gauss(100, 5) for _ in range(5)]), spread([dice.gauss(100, 5) for _ in range(5)]))
             for _ in range(300)]  # fmt: skip
    found = [made for a, b in draws if (made := compare("op_s", a, b)) is not None]
    called = sum(made.verdict in ("better", "worse") for made in found)
    assert 0 < called <= called_by_noise(found) == 15
    few = compare("op_s", spread([1.0]), spread([2.0]))
    assert few is not None
    assert called_by_noise([few]) == 0


def test_compare_does_not_judge_by_medians_alone() -> None:
    """A file of before single runs were kept has three values: never enough."""
    old = {"median": 100.0, "min": 99.0, "max": 101.0, "runs": 5}
    found = compare("op_s", old, {"median": 200.0, "min": 199.0, "max": 201.0, "runs": 5})
    assert found is not None
    assert found.verdict == "too few runs"
