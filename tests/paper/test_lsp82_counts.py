"""Hold the claims of [LSP82 7]: what the algorithms cost."""

from __future__ import annotations

import pytest

from bft.generals import counts
from bft.generals.algorithms import KING, ORAL, SIGNED
from bft.generals.crimes_signed import two_orders
from bft.generals.exhaustive_signed import senders
from bft.generals.ids import GeneralId
from bft.generals.plan import Plan
from bft.generals.run import fight

SIZES = [(3, 1), (4, 1), (5, 1), (7, 1), (7, 2), (5, 2), (6, 3), (4, 5), (2, 1), (1, 1)]


@pytest.mark.parametrize(("n", "m"), SIZES)
def test_om_sends_as_many_messages_as_the_formula(n: int, m: int) -> None:
    """OM(m) sends (n-1) + (n-1)(n-2) + ... messages in m + 1 rounds, and the recursion gives the same number.

    [LSP82 7]
    """
    outcome = fight(ORAL, Plan(n=n, m=m))
    assert outcome.messages == counts.oral_messages(n, m) == counts.oral_messages_by_recursion(n, m)
    assert outcome.rounds == m + 1


@pytest.mark.parametrize(("n", "m"), SIZES)
def test_sm_sends_as_many_messages_as_the_formula(n: int, m: int) -> None:
    """SM(m) sends (n-1)^2 messages when all are loyal and m >= 1, in m + 1 rounds.

    [LSP82 7]
    """
    outcome = fight(SIGNED, Plan(n=n, m=m))
    assert outcome.messages == counts.signed_messages(n, m)
    assert outcome.rounds == m + 1


def test_commander_who_signs_two_orders_costs_at_most_twice_the_relays() -> None:
    """With two signed orders the loyal send at most 2 (n-1)(n-2) relays.

    [LSP82 7]
    """
    plan = Plan(n=7, m=2)
    assert fight(SIGNED, plan, {GeneralId(0): two_orders()}).messages <= counts.signed_messages(7, 2, 2) == 66
    both = [(1, lieutenant, order, 1) for lieutenant in plan.lieutenants for order in plan.orders]
    outcome = fight(SIGNED, plan, senders(plan, [GeneralId(0)], both))
    relays = sum(1 for flight in outcome.flights if flight.sender != 0)
    assert relays == counts.signed_messages(7, 2, 2) - 6 == 60


@pytest.mark.parametrize(
    ("n", "m", "expected"),
    [(4, 1, 9), (7, 2, 156), (10, 2, 585), (10, 3, 3_609), (13, 4, 108_384), (16, 5, 3_999_675)],
)
def test_om_grows_as_known(n: int, m: int, expected: int) -> None:
    """The number of messages is exponential in m.

    [LSP82 7]
    """
    assert counts.oral_messages(n, m) == expected


@pytest.mark.parametrize(("n", "m"), [(4, 1), (7, 2), (10, 3)])
def test_king_sends_as_many_messages_as_the_formula(n: int, m: int) -> None:
    """King sends at most (n-1) + (m+1)(2n+1)(n-1) messages, reached when all are loyal.

    [BGP89]
    """
    assert fight(KING, Plan(n=n, m=m)).messages == counts.king_messages(n, m)
    assert counts.king_consensus_messages(4, 1) == 54


def test_pbft_slot_counts_as_known() -> None:
    """A PBFT slot costs (n-1) + (n-1)^2 + n(n-1) messages.

    [CL99 4.2]
    """
    assert [counts.pbft_messages(n) for n in (4, 7, 10, 13, 16)] == [24, 84, 180, 312, 480]
