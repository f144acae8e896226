"""Test the two generals: every protocol has a flaw, and the probabilities are right."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest

from bft.generals.ids import GeneralsError
from bft.generals.two_generals import (
    Exchange,
    Flaw,
    alone_with_acknowledgements,
    alone_with_messengers,
    every_rule,
    every_run,
    exchange,
    find_lone_attack,
    play,
    probability_alone,
    simulate_messengers,
)


@pytest.mark.parametrize("k", range(1, 9))
def test_acknowledgements_leave_one_alone(k: int) -> None:
    """With any number of acknowledgements there is a run in which exactly one attacks.

    [Gray78]
    """
    found = find_lone_attack(exchange(("AB" * k)[:k]))
    assert found.flaw is Flaw.LONE
    assert found.lone is not None
    assert found.lone.is_lone
    assert len(found.chain) == k + 1


@pytest.mark.parametrize("schedule", ["A", "AB", "ABA", "AAB", "ABAB", "AABB", "BBBA"])
def test_no_pair_of_rules_is_safe_and_useful(schedule: str) -> None:
    """All pairs of decision rules attack alone in some run, blindly, or never.

    [Gray78]
    """
    found = every_rule(schedule)
    assert found.tried == found.lone + found.blind + found.never
    assert found.blind == found.never == 1


def test_neighbouring_runs_look_alike_to_one_general() -> None:
    """The general who sent the message that makes the difference acts the same in both runs.

    [Gray78]
    """
    found = find_lone_attack(exchange("ABAB"))
    for place, unaware in enumerate(found.unaware):
        one, other = found.chain[place], found.chain[place + 1]
        if unaware == "A":
            assert one.attack_a == other.attack_a
        else:
            assert one.attack_b == other.attack_b


def test_trivial_protocols_are_blind_or_useless() -> None:
    """Attacking always, or never, is safe and worthless.

    [Gray78]
    """
    assert find_lone_attack(exchange("AB", 0, 0)).flaw is Flaw.BLIND
    assert find_lone_attack(exchange("AB", 9, 9)).flaw is Flaw.NEVER


def test_probabilities_equal_the_sum_over_all_runs() -> None:
    """The closed forms equal the exact sum over the 2^k patterns of loss.

    [Gray78]
    """
    loss = Fraction(1, 5)
    for k in range(1, 7):
        assert probability_alone(exchange(("AB" * k)[:k]), loss) == alone_with_acknowledgements(k, loss)
        messengers = Exchange("A" * k, lambda seen: True, lambda seen: len(seen) > 0, is_chained=False)
        assert probability_alone(messengers, loss) == alone_with_messengers(k, loss)


def test_simulation_comes_near() -> None:
    """Throwing dice gives about the same probability.

    [Gray78]
    """
    estimate = simulate_messengers(2, Fraction(1, 2), 4_000, random.Random(1))
    assert abs(estimate - Fraction(1, 4)) < Fraction(3, 100)


def test_unchained_messages_are_sent_regardless() -> None:
    """Without the chain a later message may arrive though an earlier one was lost.

    [Gray78]
    """
    free = Exchange("AA", lambda seen: True, lambda seen: bool(seen), is_chained=False)
    assert play(free, (False, True)).delivered == (2,)
    assert play(exchange("AA"), (False, True)).delivered == ()
    assert len(list(every_run(free))) == 4


def test_nonsense_is_refused() -> None:
    """Other letters and endless schedules are the user's error.

    [Gray78]
    """
    for schedule in ("", "ABC", "A" * 17):
        with pytest.raises(GeneralsError):
            exchange(schedule)
    with pytest.raises(GeneralsError):
        every_rule("AB" * 8)
