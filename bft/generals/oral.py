"""Run OM(m), oral messages, in its unfolded form: one tree of paths instead of nested instances [LSP82 3].

    OM(0): the commander sends his order; a lieutenant uses what he receives, or the default if nothing comes.
    OM(m): 1. the commander sends his order to every lieutenant;
           2. each lieutenant acts as commander of OM(m-1) to tell what he received (or the default) to the
              others;
           3. each lieutenant uses the majority of what he received himself and what he obtained from each
              other's OM(m-1).

Unfolded: in round r + 1 a lieutenant tells everybody outside a path of length r what he was told along that
path. After round m + 1 he resolves his tree from the leaves up (`resolve`). The two are the same function;
the test `test_unfolded_tree_equals_the_recursion_of_the_paper` holds this against the recursion.

Solves the problem if and only if n > 3m with at most m traitors [LSP82 3, Theorem 1]; costs about n^m
messages (`counts`).

Deviation: a value outside the agreed orders counts as absent. The paper has no such messages; a traitor gains
nothing, since it may be silent anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bft.generals.ids import GeneralId, Order, Path
from bft.generals.plan import Plan, Vote, majority
from bft.generals.seam import (
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


def rounds(plan: Plan) -> int:
    """Return m + 1, the rounds of OM(m)."""
    return plan.m + 1


def paths(plan: Plan, me: GeneralId, length: int) -> Iterator[Path]:
    """Yield, in lexicographic order, the paths of different generals that start at the commander and avoid
    `me`."""

    def extend(path: Path) -> Iterator[Path]:
        if len(path) == length:
            yield path
            return
        for general in plan.others(me, *path):
            yield from extend((*path, general))

    if me != plan.commander and length >= 1:
        yield from extend((plan.commander,))


def resolve(
    value: Callable[[Path], Order], path: Path, me: GeneralId, plan: Plan, vote: Vote = majority
) -> Order:
    """Return what `me` takes the last general of the path to have said, with everything heard below the path.

    `value(path)` is what `me` heard along a path. My own copy takes my seat in the vote, so that a commander
    of k lieutenants is judged by k values [LSP82 3, step 3].
    """
    if len(path) > plan.m:
        return value(path)
    heard = [value(path)]
    for general in plan.others(me, *path):
        heard.append(resolve(value, (*path, general), me, plan, vote))
    return vote(heard, plan)


class OralGeneral:
    """Be one loyal general of OM(m). `heard` is the tree of what was said; `absent` lists the paths that
    defaulted."""

    def __init__(self, me: GeneralId, plan: Plan, *, vote: Vote = majority) -> None:
        """Take part as `me`."""
        self.me = me
        self.plan = plan
        self.vote = vote
        self.round = 0
        self.heard: dict[Path, Order] = {}
        self.absent: list[Path] = []

    def step(self, event: Event, now: int, /) -> Sequence[Effect]:
        """Take one event; time plays no part, the runner keeps the rounds."""
        return dispatch(self, event)

    def on_round_starts(self, event: RoundStarts, /) -> Sequence[Effect]:
        """Send the order (commander, round 1) or pass on what was heard in the round before."""
        assert event.round == self.round + 1, f"round {event.round} starts after round {self.round}"
        self.round = event.round

        if self.me == self.plan.commander:
            order = Oral((self.me,), self.plan.order)
            return [Send(to, order) for to in self.plan.others(self.me)] if self.round == 1 else []
        effects: list[Effect] = []
        for path in paths(self.plan, self.me, self.round - 1):
            # What was received is passed on, never what was resolved: the others must judge the same words.
            message = Oral((*path, self.me), self.heard[path])
            effects.extend(Send(to, message) for to in self.plan.others(*message.path))
        return effects

    def on_deliver(self, event: Deliver, /) -> Sequence[Effect]:
        """Remember what was said along a path, once."""
        message = event.message
        fault = self._fault(event)
        if fault is not None:
            return [Report(event.sender, fault)]

        assert isinstance(message, Oral)
        self.heard[message.path] = message.value
        return []

    def on_round_ends(self, event: RoundEnds, /) -> Sequence[Effect]:
        """Fill in the default for what was not said; decide after round m + 1."""
        assert event.round == self.round, f"round {event.round} ends within round {self.round}"
        for path in paths(self.plan, self.me, self.round):
            if path not in self.heard:
                self.heard[path] = self.plan.default
                self.absent.append(path)

        if self.round < rounds(self.plan):
            return []
        return [Decide(self.decision())]

    def decision(self) -> Order:
        """Return the order to obey: the commander his own, a lieutenant the majority of his tree."""
        if self.me == self.plan.commander:
            return self.plan.order
        return resolve(self.heard.__getitem__, (self.plan.commander,), self.me, self.plan, self.vote)

    def _fault(self, event: Deliver) -> Fault | None:
        message = event.message
        if not isinstance(message, Oral):
            return Fault.WRONG_KIND
        if not message.path or message.path[-1] != event.sender:
            return Fault.WRONG_SENDER
        if len(message.path) != self.round:
            return Fault.WRONG_ROUND
        if not is_path(message.path, self.me, self.plan):
            return Fault.WRONG_PATH
        if message.value not in self.plan.orders:
            return Fault.UNKNOWN_ORDER
        return Fault.REPEATED if message.path in self.heard else None


def is_path(path: Path, me: GeneralId, plan: Plan) -> bool:
    """Say whether a path is one that `me` can be told along: different generals, from the commander, not
    through me."""
    return (
        path[0] == plan.commander
        and me not in path
        and all(0 <= general < plan.n for general in path)
        and all(general not in path[:place] for place, general in enumerate(path))
    )


@dataclass(frozen=True, slots=True)
class Branch:
    """Show one node of a lieutenant's tree: what was heard along the path, what it resolves to, and the nodes
    below.

    `heard` is None where nothing came and the default stood in.
    """

    path: Path
    heard: Order | None
    resolved: Order
    branches: tuple[Branch, ...]


def grow(
    plan: Plan, me: GeneralId, heard: dict[Path, Order], path: Path | None = None, vote: Vote = majority
) -> Branch:
    """Build the tree of `me` from what was heard, for people to look at."""
    here = (plan.commander,) if path is None else path

    def value(at: Path) -> Order:
        return heard.get(at, plan.default)

    below = () if len(here) > plan.m else plan.others(me, *here)
    return Branch(
        here,
        heard.get(here),
        resolve(value, here, me, plan, vote),
        tuple(grow(plan, me, heard, (*here, general), vote) for general in below),
    )
