"""Run OM(m, p), oral messages on a p-regular graph [LSP82 5].

    0. choose a regular set N of p neighbours of the commander;
    1. the commander sends his order to N;
    2. each i in N (the default if nothing came) passes what he received to every other lieutenant k:
       m = 1: along the path from i to k of the regular set;  m > 1: as commander of OM(m-1, p-1) without the
       old commander;
    3. k uses the majority of the p values he so obtained, his own copy being one of them when k is in N.

Solves the problem with at most m traitors if p >= 3m [LSP82 5, Theorem 3]. With p = n - 1 it is OM(m) itself.

Rounds 1 to m carry direct messages; from round m + 1 on couriers walk the routes, one road a round, so the
longest route sets the number of rounds. All generals compute the same `RoadMap`, hence a receiver knows who
must bring him which word when, and a traitor on a route can alter or drop only what passes through him.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from bft.generals.graphs import Graph, disjoint_paths, regular_set, regularity
from bft.generals.ids import GeneralId, GeneralsError, Order, Path
from bft.generals.plan import Plan, Vote, majority
from bft.generals.seam import (
    Courier,
    Decide,
    Deliver,
    Effect,
    Event,
    Fault,
    Oral,
    Report,
    RoundEnds,
    RoundStarts,
    Send,
    dispatch,
)


@dataclass(frozen=True, slots=True)
class RoadMap:
    """Hold what is public: who passes on the words of a path, and along which routes the last words travel.

    `seats[path]` is the regular set of the path's last general; `routes[path, k]` the route, ends included,
    by which the word of a path of length m + 1 reaches k. `rounds` counts all rounds.
    """

    seats: dict[Path, tuple[GeneralId, ...]]
    routes: dict[tuple[Path, GeneralId], Path]
    rounds: int


def make_road_map(plan: Plan) -> RoadMap:
    """Compute the map of a plan, for the largest p that its graph has.

    Raises:
        GeneralsError: the plan has no graph, m is 0, or some general has no regular set where one is needed.
    """
    graph = plan.graph
    if graph is None or plan.m < 1:
        raise GeneralsError(f"OM(m, p) needs a graph and m >= 1, found m = {plan.m}")
    p = regularity(graph)
    if p < 3 * plan.m:
        raise GeneralsError(
            f"OM(m, p) needs a {3 * plan.m}-regular graph for m = {plan.m}, found {graph.name!r} with p = {p}"
        )
    seats: dict[Path, tuple[GeneralId, ...]] = {}
    routes: dict[tuple[Path, GeneralId], Path] = {}
    _survey(graph, plan, (plan.commander,), p, seats, routes)
    longest = max((len(route) - 1 for route in routes.values()), default=1)
    return RoadMap(seats, routes, plan.m + longest)


def _survey(
    graph: Graph,
    plan: Plan,
    path: Path,
    p: int,
    seats: dict[Path, tuple[GeneralId, ...]],
    routes: dict[tuple[Path, GeneralId], Path],
) -> None:
    """Enter the seats and routes of one instance, whose commander is the last general of the path."""
    earlier, removed = frozenset(path[:-1]), frozenset(path)
    chosen = regular_set(graph, path[-1], p, earlier)
    if chosen is None:
        raise GeneralsError(
            f"general {path[-1]} has no regular set of {p} neighbours without {sorted(earlier)}"
        )
    seats[path] = chosen
    if len(path) < plan.m:
        for seat in chosen:
            _survey(graph, plan, (*path, seat), p - 1, seats, routes)
        return
    for receiver in plan.others(*path):
        found = disjoint_paths(graph, chosen, receiver, removed)
        assert found is not None, f"regular set {chosen} of {path} has no disjoint paths to {receiver}"
        for seat, route in zip(chosen, found, strict=True):
            if seat != receiver:
                routes[(*path, seat), receiver] = route


class GraphOralGeneral:
    """Be one loyal general of OM(m, p)."""

    def __init__(self, me: GeneralId, plan: Plan, road_map: RoadMap, *, vote: Vote = majority) -> None:
        """Take part as `me`."""
        self.me = me
        self.plan = plan
        self.map = road_map
        self.vote = vote
        self.round = 0
        self.heard: dict[Path, Order] = {}
        self.pouch: dict[
            tuple[Path, GeneralId], Order
        ] = {}  # words on their way through me, or arrived at me

    def step(self, event: Event, now: int, /) -> Sequence[Effect]:
        """Take one event; time plays no part, the runner keeps the rounds."""
        return dispatch(self, event)

    def on_round_starts(self, event: RoundStarts, /) -> Sequence[Effect]:
        """Send to the regular set (rounds 1..m), then send or carry words along the routes."""
        assert event.round == self.round + 1, f"round {event.round} starts after round {self.round}"
        self.round = event.round
        return self._tell() if self.round <= self.plan.m else self._carry()

    def on_deliver(self, event: Deliver, /) -> Sequence[Effect]:
        """Remember a word told to me, or one that I must carry on."""
        message = event.message
        fault = self._oral_fault(event) if isinstance(message, Oral) else self._courier_fault(event)
        if fault is not None:
            return [Report(event.sender, fault)]

        if isinstance(message, Oral):
            self.heard[message.path] = message.value
        elif isinstance(message, Courier):
            self.pouch[message.path, message.destination] = message.value
        return []

    def on_round_ends(self, event: RoundEnds, /) -> Sequence[Effect]:
        """Fill in the default for what my commanders did not say; decide after the last round."""
        assert event.round == self.round, f"round {event.round} ends within round {self.round}"
        for path, seats in self.map.seats.items():
            if len(path) == self.round and self.me in seats:
                self.heard.setdefault(path, self.plan.default)

        if self.round < self.map.rounds:
            return []
        return [Decide(self.decision())]

    def decision(self) -> Order:
        """Return the order to obey."""
        root = (self.plan.commander,)
        return self.plan.order if self.me == self.plan.commander else self._resolve(root)

    def _tell(self) -> list[Effect]:
        """As commander of an instance, send my word to its regular set."""
        effects: list[Effect] = []
        for path, seats in self.map.seats.items():
            if len(path) == self.round and path[-1] == self.me:
                message = Oral(path, self._word(path))
                effects.extend(Send(seat, message) for seat in seats)
        return effects

    def _carry(self) -> list[Effect]:
        """Send my own words on their way, and carry others' words one road further."""
        effects: list[Effect] = []
        place = self.round - self.plan.m - 1  # in round m + 1 the first general of a route sends
        for (path, destination), route in self.map.routes.items():
            if place >= len(route) - 1 or route[place] != self.me:
                continue
            # A word that did not reach me is not carried on: at its destination it is absent.
            word = self._word(path) if place == 0 else self.pouch.get((path, destination))
            if word is not None:
                effects.append(Send(route[place + 1], Courier(path, destination, word)))
        return effects

    def _word(self, path: Path) -> Order:
        """Return what I, the last of the path, pass on: what I heard along the path up to me."""
        return self.plan.order if len(path) == 1 else self.heard[path[:-1]]

    def _resolve(self, path: Path) -> Order:
        if len(path) > self.plan.m:
            return self.pouch.get((path, self.me), self.plan.default)
        values = [
            self.heard[path] if seat == self.me else self._resolve((*path, seat))
            for seat in self.map.seats[path]
        ]
        return self.vote(values, self.plan)

    def _oral_fault(self, event: Deliver) -> Fault | None:
        message = event.message
        assert isinstance(message, Oral), f"{message} is not oral"
        if not message.path or message.path[-1] != event.sender:
            return Fault.WRONG_SENDER
        if len(message.path) != self.round:
            return Fault.WRONG_ROUND
        if self.me not in self.map.seats.get(message.path, ()):
            return Fault.WRONG_PATH
        if message.value not in self.plan.orders:
            return Fault.UNKNOWN_ORDER
        return Fault.REPEATED if message.path in self.heard else None

    def _courier_fault(self, event: Deliver) -> Fault | None:
        message = event.message
        if not isinstance(message, Courier):
            return Fault.WRONG_KIND
        road = (event.sender, self.me)
        route = self.map.routes.get((message.path, message.destination), ())
        if road not in pairwise(route):
            return Fault.WRONG_PATH
        if route.index(self.me) != self.round - self.plan.m:
            return Fault.WRONG_ROUND
        if message.value not in self.plan.orders:
            return Fault.UNKNOWN_ORDER
        return Fault.REPEATED if (message.path, message.destination) in self.pouch else None
