"""What repeated runs say: spreads, and whether two sets of runs differ by more than noise.

Runs on a shared machine are few and not normally distributed, so the verdict is the exact rank test of Mann and Whitney
on the runs themselves, without assumptions on their distribution. Five against five runs without any overlap have a
chance of 2 in 252 under equal distributions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import ceil, comb, erfc, sqrt
from statistics import median
from typing import Literal

SIGNIFICANCE = 0.05
ENUMERATED_MAX = 200_000
Verdict = Literal["better", "worse", "noise", "too few runs"]


def spread(values: Sequence[float]) -> dict[str, object]:
    """Median, smallest and largest of repeated runs, and the runs themselves."""
    return {
        "median": median(values),
        "min": min(values),
        "max": max(values),
        "runs": len(values),
        "values": list(values),
    }


def spreads(runs: Sequence[Mapping[str, float]]) -> dict[str, dict[str, object]]:
    """The spread of every metric of repeated runs; all have the same metrics."""
    return {name: spread([run[name] for run in runs]) for name in runs[0]}


def is_spread(value: object) -> bool:
    """True for what `spread` returns: how a metric is told from a column that identifies a row."""
    return isinstance(value, dict) and {"median", "min", "max", "runs"} <= value.keys()


def show_spread(value: object) -> str:
    """A spread as text: the median, and the smallest and the largest in brackets if there were several runs."""
    if not is_spread(value):
        return "-" if value is None else str(value)
    assert isinstance(value, dict)
    digits = 0 if value["median"] >= 100 else 2
    if value["runs"] == 1:
        return f"{value['median']:,.{digits}f}"
    return f"{value['median']:,.{digits}f} ({value['min']:,.{digits}f} .. {value['max']:,.{digits}f})"


def rank_test(first: Sequence[float], second: Sequence[float]) -> float:
    """Chance that equal distributions differ in rank as much as these two samples or more, two-sided.

    Exact up to 200 000 arrangements (10 runs against 10); by the normal approximation beyond.
    """
    total = len(first) + len(second)
    ranks = _ranks([*first, *second])
    centre = len(first) * (total + 1) / 2
    distance = abs(sum(ranks[: len(first)]) - centre)
    if comb(total, len(first)) > ENUMERATED_MAX:
        deviation = sqrt(len(first) * len(second) * (total + 1) / 12)
        return erfc(max(distance - 0.5, 0.0) / deviation / sqrt(2))
    sums = [sum(chosen) for chosen in combinations(ranks, len(first))]
    return sum(abs(found - centre) >= distance - 1e-9 for found in sums) / len(sums)


def _ranks(values: Sequence[float]) -> list[float]:
    """Rank of each value, equal ones sharing the mean of their ranks."""
    return [
        sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2 for value in values
    ]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two spreads of one metric.

    Attributes:
        ratio: second median over first; None where the first has a zero.
        ratio_min, ratio_max: the smallest and the largest that single runs give.
        chance: of such a difference by noise alone; None with too few runs to tell.
        verdict: on the second, as seen from the first.
    """

    ratio: float | None
    ratio_min: float | None
    ratio_max: float | None
    chance: float | None
    verdict: Verdict


def compare(
    metric: str, first: dict[str, object], second: dict[str, object], *, exact: bool = False
) -> Comparison | None:
    """Compare two spreads; None where there is nothing to compare, since all runs of both are zero.

    Args:
        metric: its name; says which way is better.
        exact: the figures have no noise (virtual time, counts): any difference counts.
    """
    a, b = _values(first), _values(second)
    if not any((*a, *b)):
        return None
    chance = float(a == b) if exact else _chance(a, b)
    before, after = median(a), median(b)
    verdict: Verdict
    if chance is None:
        verdict = "too few runs"
    elif chance >= SIGNIFICANCE or before == after:
        verdict = "noise"
    else:
        verdict = "better" if (after > before) == is_higher_better(metric) else "worse"
    if min(a) <= 0:
        return Comparison(None, None, None, chance, verdict)
    return Comparison(after / before, min(b) / max(a), max(b) / min(a), chance, verdict)


def called_by_noise(comparisons: Sequence[Comparison]) -> int:
    """How many of so many tests may find a difference between equal systems: each does with a chance of 5 %."""
    return ceil(SIGNIFICANCE * sum(found.chance is not None for found in comparisons))


def is_higher_better(metric: str) -> bool:
    """True for throughputs and for shares of them that remain; anything else is a cost."""
    return metric.startswith("op_s") or metric.endswith(("_op_s", "ratio"))


def _values(found: dict[str, object]) -> list[float]:
    values = found.get("values")
    if isinstance(values, list):
        return [float(value) for value in values]
    # A file without single runs: its three known values stand for them, which makes the verdict more careful.
    return sorted(float(str(found[name])) for name in ("min", "median", "max"))[: int(str(found["runs"]))]


def _chance(a: Sequence[float], b: Sequence[float]) -> float | None:
    if 2 / comb(len(a) + len(b), len(a)) >= SIGNIFICANCE:
        return None  # even samples without overlap would prove nothing
    return rank_test(a, b)
