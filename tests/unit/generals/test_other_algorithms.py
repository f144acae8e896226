"""Test King, Dolev-Strong and Bracha, and the exhaustive walk through King's states."""

from __future__ import annotations

from itertools import product

import pytest

from bft.generals import exhaustive_king, exhaustive_signed
from bft.generals.algorithms import ALGORITHMS, BRACHA, DOLEV_STRONG, KING, SIGNED, algorithm_named
from bft.generals.crimes import CRIME_NAMES, crime_named, silent
from bft.generals.ids import GeneralId, GeneralsError
from bft.generals.king import KingGeneral, king_of, rounds
from bft.generals.plan import Plan
from bft.generals.run import fight
from bft.generals.seam import (
    Ballot,
    Crown,
    Deliver,
    Echo,
    Fault,
    Message,
    Opening,
    Oral,
    Proposal,
    Ready,
    Report,
    RoundEnds,
    RoundStarts,
    Send,
)
from bft.generals.traitors import Crime, View

G = GeneralId


def test_king_holds_in_every_state() -> None:
    """No ballots, proposals and crowns of one traitor among four violate agreement or validity, whoever is
    king first.

    [BGP89]
    """
    found = exhaustive_king.verify(4, 1)
    assert found.holds
    assert found.runs == 5_680


@pytest.mark.parametrize("crime", CRIME_NAMES)
def test_king_and_dolev_strong_survive_every_named_crime(crime: str) -> None:
    """Two traitors among seven, with either order, commander among them or not.

    [BGP89] [DS83]
    """
    for algorithm, order, traitors in product((KING, DOLEV_STRONG), ("attack", "retreat"), ((0, 1), (2, 5))):
        plan = Plan(n=7, m=2, order=order)
        outcome = fight(algorithm, plan, {G(i): crime_named(crime, plan) for i in traitors})
        assert outcome.verdict.holds, (algorithm.name, order, traitors)


@pytest.mark.parametrize(
    ("round_", "sender", "message", "fault"),
    [
        (1, 2, Opening("attack"), Fault.WRONG_SENDER),
        (1, 0, Opening("sing"), Fault.UNKNOWN_ORDER),
        (2, 2, Opening("attack"), Fault.WRONG_ROUND),
        (2, 2, Ballot(2, "attack"), Fault.WRONG_ROUND),
        (3, 2, Ballot(1, "attack"), Fault.WRONG_ROUND),
        (4, 3, Crown(1, "attack"), Fault.WRONG_SENDER),
        (2, 2, Oral((G(0),), "attack"), Fault.WRONG_KIND),
    ],
)
def test_king_refuses_what_does_not_fit(round_: int, sender: int, message: Message, fault: Fault) -> None:
    """Each reason to refuse a message of King is reported.

    [BGP89]
    """
    general = KingGeneral(G(2) if sender != 2 else G(1), Plan(n=4, m=1))
    for number in range(1, round_):
        general.step(RoundStarts(number), 0)
        general.step(RoundEnds(number), 0)
    general.step(RoundStarts(round_), 0)
    assert general.step(Deliver(G(sender), message), 0) == [Report(G(sender), fault)]


def test_king_counts_one_message_a_sender() -> None:
    """A second proposal of the same sender is refused.

    [BGP89]
    """
    general = KingGeneral(G(1), Plan(n=4, m=1))
    for number in (1, 2):
        general.step(RoundStarts(number), 0)
        general.step(RoundEnds(number), 0)
    general.step(RoundStarts(3), 0)
    assert general.step(Deliver(G(2), Proposal(1, "attack")), 0) == []
    assert general.step(Deliver(G(2), Proposal(1, "attack")), 0) == [Report(G(2), Fault.REPEATED)]


def test_kings_take_turns_with_the_commander_last() -> None:
    """m + 1 phases have m + 1 different kings, so one is loyal.

    [BGP89]
    """
    plan = Plan(n=4, m=1)
    assert [king_of(phase, plan) for phase in (1, 2, 3, 4)] == [1, 2, 3, 0]
    assert rounds(plan) == 7


def test_dolev_strong_holds_in_every_run() -> None:
    """Dolev-Strong survives all that SM(1) survives with three generals.

    [DS83]
    """
    assert exhaustive_signed.brute_force(3, 1, 1, DOLEV_STRONG).holds


def test_dolev_strong_passes_two_orders_on_at_most() -> None:
    """With three signed orders SM relays all of them, Dolev-Strong two.

    [DS83]
    """
    plan = Plan(n=5, m=2, orders=("retreat", "wait", "attack"))
    sent = [(1, lieutenant, order, 1) for lieutenant in plan.lieutenants for order in plan.orders]
    crimes = exhaustive_signed.senders(plan, [G(0)], sent)
    relays = {
        algorithm.name: sum(1 for flight in fight(algorithm, plan, crimes).flights if flight.sender != 0)
        for algorithm in (SIGNED, DOLEV_STRONG)
    }
    assert relays == {"sm": 36, "dolev-strong": 24}


@pytest.mark.parametrize("traitor", range(4))
def test_bracha_agrees_when_the_commander_is_loyal_or_silent(traitor: int) -> None:
    """If the commander is loyal all deliver his order; if he is silent, nobody does.

    [Br87]
    """
    for crime in ("flip", "silent", "random"):
        plan = Plan(n=4, m=1)
        if traitor or crime == "silent":
            assert fight(BRACHA, plan, {G(traitor): crime_named(crime, plan)}).verdict.holds


def test_bracha_is_not_broadcast_with_a_deadline() -> None:
    """One ready in the last step splits those who deliver from those who would have, a step later.

    [Br87]
    """
    plan = Plan(n=4, m=1)

    def invent(view: View) -> list[Send]:
        # The order goes to two lieutenants, two loyal ones are ready, and the third ready comes late, to one.
        if view.round == 1:
            return [Send(G(1), Opening("attack")), Send(G(2), Opening("attack"))]
        if view.round == 2:
            return []
        return [Send(G(1), Ready("attack"))] if view.round == 4 else []

    def echo(view: View) -> list[Send]:
        late = [Send(G(1), Echo("attack")), Send(G(2), Echo("attack"))] if view.round == 3 else []
        return [*invent(view), *late]

    outcome = fight(BRACHA, plan, {G(0): Crime("late ready", lambda send, view: (), echo)})
    assert not outcome.verdict.ic1


def test_unknown_algorithm_and_unfit_plans_are_refused() -> None:
    """An algorithm that does not exist, or is not made for a graph, is the user's error.

    [LSP82 5]
    """
    with pytest.raises(GeneralsError, match="unknown"):
        algorithm_named("paxos")
    with pytest.raises(GeneralsError, match="needs a graph"):
        fight(algorithm_named("om-graph"), Plan(n=4, m=1))
    with pytest.raises(GeneralsError, match="messages"):
        fight(algorithm_named("om"), Plan(n=20, m=6))
    with pytest.raises(GeneralsError, match="not one of the generals"):
        fight(KING, Plan(n=4, m=1), {G(7): silent()})
    assert len({algorithm.name for algorithm in ALGORITHMS}) == len(ALGORITHMS)
