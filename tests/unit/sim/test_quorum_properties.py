"""Quorum arithmetic, for every size of cluster that the library allows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bft.membership import REPLICAS_MAX, REPLICAS_MIN, Quorums

SIZES = st.integers(REPLICAS_MIN, REPLICAS_MAX)


@given(SIZES)
def test_two_strong_quorums_share_a_correct_replica(n: int) -> None:
    """Even the two that overlap least, with all f faults in the overlap [CL99 3]."""
    quorums = Quorums.of(n)
    assert 2 * quorums.strong - n > quorums.f


@given(SIZES)
def test_correct_replicas_alone_form_a_strong_quorum(n: int) -> None:
    """Nobody ever has to wait for a faulty replica [CL99 3]."""
    quorums = Quorums.of(n)
    assert quorums.strong <= n - quorums.f


@given(SIZES)
def test_strong_quorum_is_the_smallest_that_is_safe(n: int) -> None:
    """One replica fewer, and two quorums could meet in faulty replicas only."""
    quorums = Quorums.of(n)
    assert 2 * (quorums.strong - 1) - n <= quorums.f


@given(SIZES, st.data())
def test_drawn_quorums_intersect_in_a_weak_one(n: int, data: st.DataObject) -> None:
    """The same by drawing sets instead of by arithmetic."""
    quorums = Quorums.of(n)
    strong = st.sets(st.integers(0, n - 1), min_size=quorums.strong)
    first, second = data.draw(strong), data.draw(strong)
    assert len(first & second) >= quorums.weak


@given(SIZES)
def test_tolerated_faults_are_the_most_possible(n: int) -> None:
    """f is the largest number with 3f < n [LSP82 3], and a weak quorum is one more."""
    quorums = Quorums.of(n)
    assert 3 * quorums.f < n <= 3 * (quorums.f + 1)
    assert quorums.weak == quorums.f + 1
    assert quorums.prepares == quorums.strong - 1


@given(SIZES, st.integers(0, 10_000))
def test_every_replica_is_primary_in_turn(n: int, view: int) -> None:
    """Any n views in a row have n primaries [CL99 4]."""
    quorums = Quorums.of(n)
    assert {quorums.primary(view + step) for step in range(n)} == set(range(n))


@pytest.mark.parametrize(("n", "f", "strong"), [(4, 1, 3), (5, 1, 4), (6, 1, 4), (7, 2, 5), (8, 2, 6), (10, 3, 7)])
def test_known_sizes(n: int, f: int, strong: int) -> None:
    """The table that people know, and the sizes in between that 2f + 1 gets wrong."""
    quorums = Quorums.of(n)
    assert (quorums.f, quorums.strong) == (f, strong)
