"""Hold the claims of [LSP82 4]: the algorithm SM(m)."""

from __future__ import annotations

import pytest

from bft.crypto.generals_keys import Ed25519Notary
from bft.generals import exhaustive_signed
from bft.generals.algorithms import SIGNED
from bft.generals.crimes import CRIME_NAMES, crime_named, flip, silent
from bft.generals.crimes_signed import forge, late, too_late, two_orders
from bft.generals.ids import GeneralId
from bft.generals.plan import Plan, choice
from bft.generals.run import fight
from bft.generals.seam import Fault

G = GeneralId


@pytest.mark.parametrize(("n", "runs"), [(3, 256), (4, 4096)])
def test_sm_1_holds_in_every_run(n: int, runs: int) -> None:
    """Theorem 2 for m = 1: no behaviour of a traitorous commander violates IC1, with three generals already.

    [LSP82 4, Theorem 2]
    """
    found = exhaustive_signed.brute_force(n, 1, 1)
    assert found.holds
    assert found.runs == runs


def test_sm_2_holds_with_two_traitors_among_four() -> None:
    """Theorem 2 for m = 2, n = 4: none of 16 777 216 behaviours of the commander and a lieutenant violates
    IC1.

    [LSP82 4, Theorem 2]
    """
    found = exhaustive_signed.search(Plan(n=4, m=2), 2)
    assert found.holds
    assert found.runs == 16_777_216


def test_sm_1_fails_with_two_traitors() -> None:
    """m must bound the traitors: 7 680 of 65 536 behaviours of two traitors break SM(1) with n = 4.

    [LSP82 4, Theorem 2]
    """
    found = exhaustive_signed.search(Plan(n=4, m=1), 2)
    assert (found.ic1_violations, found.runs) == (7_680, 65_536)
    assert found.counterexample is not None
    assert not exhaustive_signed.refight(found.counterexample).verdict.ic1


def test_three_generals_cope_with_one_traitor() -> None:
    """The example of the paper: the commander signs two orders, and both lieutenants see that he is a
    traitor.

    [LSP82 4, Figure 5]
    """
    outcome = fight(SIGNED, Plan(n=3, m=1), {G(0): two_orders()}, notary=Ed25519Notary.from_seed(bytes(32), 3))
    assert outcome.verdict.holds
    for lieutenant in outcome.loyal_lieutenants:
        assert sorted(outcome.collected(lieutenant)) == ["attack", "retreat"]


def test_loyal_signature_cannot_be_forged() -> None:
    """A4(a): a lieutenant cannot put the loyal commander's name under another order.

    [LSP82 4, A4]
    """
    outcome = fight(SIGNED, Plan(n=3, m=1), {G(2): forge()}, notary=Ed25519Notary.from_seed(bytes(32), 3))
    assert outcome.verdict.holds
    assert [flight.fault for flight in outcome.flights if flight.fault] == [Fault.BAD_SIGNATURE]


def test_traitors_may_forge_each_other() -> None:
    """Traitors may sign for each other, and SM(m) still holds.

    [LSP82 4]
    """
    outcome = fight(SIGNED, Plan(n=5, m=2), {G(0): late(), G(4): late()})
    chains = [flight for flight in outcome.flights if flight.sender == 4 and flight.round == 2 and not flight.truthful]
    assert any(flight.path == (0, 4) and flight.fault is None for flight in chains)
    assert outcome.verdict.holds


def test_late_chain_reaches_everybody() -> None:
    """Proof of Theorem 2: an order accepted in a round up to m is passed on in time.

    [LSP82 4, Theorem 2]
    """
    outcome = fight(SIGNED, Plan(n=5, m=2), {G(0): late(), G(4): silent()})
    assert outcome.verdict.ic1
    assert len(dict.fromkeys(len(outcome.collected(i)) for i in outcome.loyal_lieutenants)) == 1


def test_too_late_chain_is_refused() -> None:
    """A chain with fewer signatures than rounds have passed came too late to be passed on, and is not
    accepted.

    [LSP82 4]
    """
    outcome = fight(SIGNED, Plan(n=4, m=1), {G(0): too_late()})
    assert outcome.verdict.ic1
    assert Fault.WRONG_ROUND in [flight.fault for flight in outcome.flights]


def test_choice_of_one_is_that_one_and_of_none_retreat() -> None:
    """choice({v}) = v and choice(empty) = RETREAT.

    [LSP82 4]
    """
    plan = Plan(n=3, m=1)
    assert choice(["attack"], plan) == "attack"
    assert choice([], plan) == "retreat"
    assert choice(["attack", "retreat"], plan) == choice(["retreat", "attack"], plan)


@pytest.mark.parametrize("crime", CRIME_NAMES)
@pytest.mark.parametrize("traitors", [(0, 1), (2, 3), (0, 4)])
def test_sm_2_survives_every_named_crime(crime: str, traitors: tuple[int, ...]) -> None:
    """SM(2) holds for any n: here five generals, of whom two betray, with either order.

    [LSP82 4, Theorem 2]
    """
    for order in ("attack", "retreat"):
        plan = Plan(n=5, m=2, order=order)
        assert fight(SIGNED, plan, {G(i): crime_named(crime, plan) for i in traitors}).verdict.holds


def test_vacuous_when_hardly_anybody_is_loyal() -> None:
    """With fewer than m + 2 generals there is nothing to prove.

    [LSP82 4]
    """
    assert fight(SIGNED, Plan(n=3, m=3), {G(0): flip(), G(1): flip()}).verdict.holds
