"""Test the judge: IC1, IC2, and interactive consistency."""

from __future__ import annotations

import pytest

from bft.generals.conditions import judge, vector_agrees
from bft.generals.ids import GeneralId, GeneralsError
from bft.generals.plan import Plan

G = GeneralId
PLAN = Plan(n=4, m=1)


@pytest.mark.parametrize(
    ("traitors", "decisions", "ic1", "ic2"),
    [
        ((), "AAA", True, True),
        ((), "AAR", False, False),
        ((), "RRR", True, False),
        ((3,), "AAR", True, True),
        ((3,), "ARA", False, False),
        ((0,), "RRR", True, True),
        ((0,), "ARR", False, True),
        ((0, 1, 2, 3), "ARA", True, True),
    ],
)
def test_judge_applies_both_conditions(
    traitors: tuple[int, ...], decisions: str, ic1: bool, ic2: bool
) -> None:
    """Traitors' decisions do not count, and IC2 binds under a loyal commander only.

    [LSP82 1]
    """
    orders = {"A": "attack", "R": "retreat"}
    found = judge(
        PLAN, [G(i) for i in traitors], {G(i + 1): orders[letter] for i, letter in enumerate(decisions)}
    )
    assert (found.ic1, found.ic2) == (ic1, ic2)
    assert found.holds == (ic1 and ic2)


def test_judge_condemns_who_never_decides() -> None:
    """A loyal lieutenant without a decision breaks both conditions.

    [LSP82 1]
    """
    found = judge(PLAN, [], {G(1): "attack", G(2): "attack"})
    assert not found.ic1
    assert not found.ic2
    assert found.apart == (3,)


def test_vectors_must_agree_and_be_right() -> None:
    """Interactive consistency: equal vectors, right in the entries of loyal generals.

    [PSL80]
    """
    held = {G(0): "attack", G(1): "retreat"}
    good = ("attack", "retreat", "attack")
    assert vector_agrees({G(0): good, G(1): good}, held)
    assert not vector_agrees({G(0): good, G(1): ("attack", "retreat", "retreat")}, held)
    assert not vector_agrees({G(0): ("retreat",) * 3, G(1): ("retreat",) * 3}, held)


@pytest.mark.parametrize(
    "wrong",
    [
        {"n": 0},
        {"n": 65},
        {"m": -1},
        {"order": "sing"},
        {"orders": ("attack",)},
        {"orders": ("attack", "attack")},
        {"orders": ("attack", "x" * 33)},
        {"orders": tuple(str(i) for i in range(17))},
        {"commander": G(4)},
        {"hops": -1},
    ],
)
def test_plan_refuses_what_is_out_of_limits(wrong: dict[str, object]) -> None:
    """Every limit of a plan is checked.

    [LSP82 1]
    """
    with pytest.raises(GeneralsError):
        Plan(**{"n": 4, "m": 1, **wrong})  # type: ignore[arg-type]


def test_any_general_may_command() -> None:
    """The commander need not be general 0.

    [LSP82 1]
    """
    plan = Plan(n=4, m=1, commander=G(2))
    assert plan.lieutenants == (0, 1, 3)
