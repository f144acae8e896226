"""Hold the claims of [LSP82 5]: missing communication paths."""

from __future__ import annotations

from itertools import product

import pytest

from bft.generals.algorithms import ORAL, ORAL_GRAPH, SIGNED, road_map
from bft.generals.crimes import CRIME_NAMES, crime_named, flip, silent
from bft.generals.graphs import is_regular, loyal_diameter, make_graph, named_graph
from bft.generals.ids import GeneralId, GeneralsError
from bft.generals.plan import Plan
from bft.generals.run import fight
from bft.generals.seam import Courier, Oral, Send
from bft.generals.traitors import Crime, View, say

G = GeneralId
REGULAR = [("complete", 4), ("complete", 5), ("k33", 6), ("cube", 8), ("prism", 6)]


@pytest.mark.parametrize(("name", "n"), REGULAR)
def test_graph_is_3_regular(name: str, n: int) -> None:
    """These graphs are 3-regular in the sense of the paper.

    [LSP82 5]
    """
    assert is_regular(named_graph(name, n), 3)


@pytest.mark.parametrize(("name", "n"), [("wheel", 6), ("ring", 6), ("line", 4)])
def test_graph_is_not_3_regular(name: str, n: int) -> None:
    """These graphs are not 3-regular in the sense of the paper.

    [LSP82 5, Figure 6 and 7]
    """
    assert not is_regular(named_graph(name, n), 3)
    with pytest.raises(GeneralsError):
        fight(ORAL_GRAPH, Plan(n=n, m=1, graph=named_graph(name, n)))


def _liar(choices: dict[tuple[object, ...], str]) -> Crime:
    """Say at each (kind, path, receiver) what was chosen."""

    def corrupt(send: Send, view: View) -> list[Send]:
        message = send.message
        key = (message.path, message.destination if isinstance(message, Courier) else send.to)  # type: ignore[union-attr]
        return list(say(send, choices.get(key, message.value), view))

    return Crime("table", corrupt)


def _exhaust(name: str, n: int) -> tuple[int, int]:
    """Run OM(1, 3) with every behaviour of every traitor, for both orders of a loyal commander 0."""
    graph = named_graph(name, n)
    runs = broken = 0
    for traitor in range(n):
        for order in ("attack",) if traitor == 0 else ("attack", "retreat"):
            plan = Plan(n=n, m=1, graph=graph, order=order)
            loyal = fight(ORAL_GRAPH, plan)
            slots = [
                (f.message.path, f.message.destination if isinstance(f.message, Courier) else f.receiver)
                for f in loyal.flights
                if f.sender == traitor and isinstance(f.message, Courier | Oral)
            ]
            for said in product(plan.orders, repeat=len(slots)):
                outcome = fight(ORAL_GRAPH, plan, {G(traitor): _liar(dict(zip(slots, said, strict=True)))})
                runs += 1
                broken += not outcome.verdict.holds
    return runs, broken


@pytest.mark.parametrize(
    ("name", "n", "expected"), [("complete", 4, 32), ("k33", 6, 136), ("prism", 6, 136), ("cube", 8, 520)]
)
def test_om_1_3_holds_in_every_run(name: str, n: int, expected: int) -> None:
    """Theorem 3 for m = 1: on a 3-regular graph no traitor, on a route or not, violates a condition.

    [LSP82 5, Theorem 3]
    """
    assert _exhaust(name, n) == (expected, 0)


@pytest.mark.parametrize("crime", ["flip", "silent", "deep", "split", "tie"])
@pytest.mark.parametrize("traitor", range(8))
def test_om_1_3_holds_on_the_cube(crime: str, traitor: int) -> None:
    """Theorem 3 on the 3-cube: named crimes of each general.

    [LSP82 5, Theorem 3]
    """
    plan = Plan(n=8, m=1, graph=named_graph("cube", 8))
    assert fight(ORAL_GRAPH, plan, {G(traitor): crime_named(crime, plan)}).verdict.holds


def test_om_2_6_on_a_complete_graph_holds() -> None:
    """Theorem 3 for m = 2: a complete graph of seven is 6-regular.

    [LSP82 5, Theorem 3]
    """
    for crime in CRIME_NAMES:
        for traitors in ((0, 1), (2, 5)):
            plan = Plan(n=7, m=2, graph=named_graph("complete", 7))
            assert fight(ORAL_GRAPH, plan, {G(i): crime_named(crime, plan) for i in traitors}).verdict.holds


def test_om_m_3m_on_a_complete_graph_is_om_m() -> None:
    """A complete graph of 3m + 1 is 3m-regular and OM(m, 3m) is OM(m): the same decisions and as many
    messages.

    [LSP82 5]
    """
    for n, m in ((4, 1), (7, 2)):
        graph = named_graph("complete", n)
        for crimes in ({}, {G(1): flip()}, {G(0): silent()}):
            on_graph = fight(ORAL_GRAPH, Plan(n=n, m=m, graph=graph), crimes)
            plain = fight(ORAL, Plan(n=n, m=m), crimes)
            assert on_graph.messages == plain.messages
            assert on_graph.decisions == plain.decisions


def test_routes_to_one_general_are_disjoint() -> None:
    """Two paths of a regular set to the same general share only their end, so a traitor spoils one of them.

    [LSP82 5]
    """
    plan = Plan(n=8, m=1, graph=named_graph("cube", 8))
    routes = road_map(plan).routes
    for receiver in plan.lieutenants:
        inner = [general for (_, to), route in routes.items() if to == receiver for general in route[:-1]]
        assert len(inner) == len(dict.fromkeys(inner))
        assert plan.commander not in inner


def test_signed_messages_work_wherever_the_loyal_are_connected() -> None:
    """The corollary: SM(n - 2) holds when the loyal generals form a connected subgraph.

    [LSP82 5, Corollary of Theorem 4]
    """
    for name, traitors in (("ring", (2,)), ("wheel", (1, 3)), ("line", (5,)), ("prism", (0, 4))):
        plan = Plan(n=6, m=len(traitors), graph=named_graph(name, 6))
        assert plan.graph is not None
        assert loyal_diameter(plan.graph, [G(i) for i in traitors]) is not None
        for crime in ("two-orders", "silent", "flip", "late"):
            outcome = fight(SIGNED, plan, {G(i): crime_named(crime, plan) for i in traitors})
            assert outcome.verdict.holds, (name, crime)


def test_sm_on_a_graph_needs_m_plus_d_minus_1() -> None:
    """Theorem 4: SM(m + d - 1) holds where the loyal subgraph has diameter d, and on a line fewer rounds do
    not suffice.

    [LSP82 5, Theorem 4]
    """
    line = make_graph("line", 5, [(i, i + 1) for i in range(4)])
    d = loyal_diameter(line, [])
    assert d == 4
    assert fight(SIGNED, Plan(n=5, m=0, graph=line, hops=d - 1)).verdict.holds
    assert not fight(SIGNED, Plan(n=5, m=0, graph=line, hops=d - 2)).verdict.holds


def test_loyal_connectivity_is_the_weakest_condition() -> None:
    """Where traitors separate the loyal, nothing helps: the far lieutenant never hears the order.

    [LSP82 5]
    """
    line = named_graph("line", 4)
    assert loyal_diameter(line, [G(1)]) is None
    assert not fight(SIGNED, Plan(n=4, m=1, graph=line), {G(1): silent()}).verdict.holds
