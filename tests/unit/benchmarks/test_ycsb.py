"""YCSB's generators have YCSB's distributions, and one seed is one sequence of questions."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any, cast

import pytest

from benchmarks.ycsb import WORKLOADS, Caller, Records, Zipfian, key_of, scrambled


def test_zipfian_ranks_have_their_weights() -> None:
    """Rank r is drawn in proportion to 1 / (r + 1)^0.99."""
    count, draws = 1000, 50_000
    zipfian = Zipfian(count, Random(1))
    seen = Counter(zipfian.draw(count) for _ in range(draws))
    zeta = sum(1 / (rank + 1) ** 0.99 for rank in range(count))
    for rank in (0, 1):  # exact by the method; later ranks are approximated
        assert seen[rank] / draws == pytest.approx(1 / (rank + 1) ** 0.99 / zeta, rel=0.05)
    hundred = sum(seen[rank] for rank in range(100)) / draws
    assert hundred == pytest.approx(sum(1 / (rank + 1) ** 0.99 for rank in range(100)) / zeta, rel=0.05)
    assert min(seen) >= 0 and max(seen) < count


def test_zipfian_follows_a_growing_count() -> None:
    grown = Zipfian(10, Random(3))
    grown.draw(500)
    fresh = Zipfian(500, Random(3))
    fresh.draw(500)
    assert [grown.draw(500) for _ in range(100)] == [fresh.draw(500) for _ in range(100)]


def test_scrambling_spreads_popular_ranks_over_the_keys() -> None:
    places = [scrambled(rank, 1000) for rank in range(1000)]
    assert max(Counter(place // 100 for place in places).values()) < 150
    assert scrambled(0, 1 << 64) == 0xA8C7F832281A39C5  # FNV-1a of eight zero bytes


def test_keys_do_not_tell_the_age_of_a_record() -> None:
    keys = [key_of(number) for number in range(1000)]
    assert len(set(keys)) == 1000
    assert sorted(keys) != keys
    assert len({len(key) for key in keys}) == 1


@pytest.mark.parametrize("letter", sorted(WORKLOADS))
def test_workload_has_its_shares(letter: str) -> None:
    workload = WORKLOADS[letter]
    assert sum(share for _, share in workload.shares) == 100
    caller = Caller(cast("Any", None), workload, Records(100), Random(letter))
    seen = Counter(caller.kind() for _ in range(10_000))
    for kind, share in workload.shares:
        assert seen[kind] / 100 == pytest.approx(share, abs=2)


def test_latest_means_the_newest_records_that_surely_exist() -> None:
    records = Records(1000)
    caller = Caller(cast("Any", None), WORKLOADS["D"], records, Random(5))
    newest = records.take()
    assert all(caller.number() < 1000 for _ in range(1000))  # not there yet: a read could miss it
    records.inserted(newest)
    drawn = Counter(caller.number() for _ in range(2000))
    assert drawn.most_common(1)[0][0] == 1000


def test_records_count_only_what_has_no_gap() -> None:
    records = Records(10)
    first, second, third = records.take(), records.take(), records.take()
    records.inserted(third)
    records.inserted(second)
    assert records.count == 10
    records.inserted(first)
    assert records.count == 13


def test_one_seed_is_one_sequence() -> None:
    def sequence(seed: int) -> list[object]:
        caller = Caller(cast("Any", None), WORKLOADS["A"], Records(100), Random(f"{seed}/0"))
        return [(caller.kind(), caller.number()) for _ in range(50)]

    assert sequence(1) == sequence(1) != sequence(2)
