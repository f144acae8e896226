"""List the algorithms, how many rounds each takes, and how its loyal generals are made.

Read next: `run`, which drives them, and the file of each algorithm for what it does and promises.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from bft.generals import bracha, king, oral, oral_graph, signed
from bft.generals.counts import oral_messages
from bft.generals.dolev_strong import DolevStrongGeneral
from bft.generals.ids import GeneralId, GeneralsError
from bft.generals.plan import MESSAGES_MAX, Plan
from bft.generals.seam import General
from bft.generals.signatures import Notary, Signer, Verifier


@dataclass(frozen=True, slots=True)
class Algorithm:
    """Describe one algorithm. `is_signed` ones use the signer and the verifier, `is_general_graph` ones need
    no complete graph."""

    name: str
    title: str
    rounds: Callable[[Plan], int]
    make: Callable[[GeneralId, Plan, Signer, Verifier], General]
    is_signed: bool
    is_general_graph: bool


@lru_cache(maxsize=16)
def road_map(plan: Plan) -> oral_graph.RoadMap:
    """Return the public map of a plan, computed once."""
    return oral_graph.make_road_map(plan)


def _make_oral(me: GeneralId, plan: Plan, signer: Signer, verifier: Verifier) -> General:
    return oral.OralGeneral(me, plan)


def _make_oral_graph(me: GeneralId, plan: Plan, signer: Signer, verifier: Verifier) -> General:
    return oral_graph.GraphOralGeneral(me, plan, road_map(plan))


def _make_king(me: GeneralId, plan: Plan, signer: Signer, verifier: Verifier) -> General:
    return king.KingGeneral(me, plan)


def _make_bracha(me: GeneralId, plan: Plan, signer: Signer, verifier: Verifier) -> General:
    return bracha.BrachaGeneral(me, plan)


def _graph_rounds(plan: Plan) -> int:
    return road_map(plan).rounds


ORAL = Algorithm("om", "OM(m), oral messages", oral.rounds, _make_oral, False, False)
ORAL_GRAPH = Algorithm(
    "om-graph", "OM(m, p), oral messages on a graph", _graph_rounds, _make_oral_graph, False, True
)
SIGNED = Algorithm("sm", "SM(m), signed messages", signed.rounds, signed.SignedGeneral, True, True)
DOLEV_STRONG = Algorithm(
    "dolev-strong", "Dolev-Strong, signed messages", signed.rounds, DolevStrongGeneral, True, True
)
KING = Algorithm("king", "King, oral messages, polynomial", king.rounds, _make_king, False, False)
BRACHA = Algorithm("bracha", "Bracha's reliable broadcast", bracha.rounds, _make_bracha, False, False)
ALGORITHMS = (ORAL, SIGNED, ORAL_GRAPH, DOLEV_STRONG, KING, BRACHA)


def algorithm_named(name: str) -> Algorithm:
    """Return the algorithm of this name.

    Raises:
        GeneralsError: there is none.
    """
    for algorithm in ALGORITHMS:
        if algorithm.name == name:
            return algorithm
    raise GeneralsError(
        f"algorithm {name!r} is unknown, expected one of {', '.join(a.name for a in ALGORITHMS)}"
    )


def require_feasible(algorithm: Algorithm, plan: Plan) -> None:
    """Refuse a run that the algorithm is not made for, or that is too large to hold.

    Raises:
        GeneralsError: what is wrong, and what to do about it.
    """
    if plan.graph is not None and not algorithm.is_general_graph:
        raise GeneralsError(
            f"{algorithm.name} needs a complete graph, found {plan.graph.name!r}; try om-graph or sm"
        )
    if algorithm is ORAL_GRAPH and plan.graph is None:
        raise GeneralsError("om-graph needs a graph, found none; try --graph cube")
    messages = oral_messages(plan.n, plan.m) if algorithm is ORAL else 0
    if messages > MESSAGES_MAX:
        raise GeneralsError(
            f"OM({plan.m}) with n = {plan.n} sends {messages} messages, expected at most {MESSAGES_MAX}"
        )
    if algorithm is ORAL_GRAPH:
        road_map(plan)


def make_general(algorithm: Algorithm, me: GeneralId, plan: Plan, notary: Notary) -> General:
    """Make one loyal general, who holds no signer but his own."""
    return algorithm.make(me, plan, notary.signer(me), notary)
