"""Try every behaviour of every set of traitors in OM(m), and count the violations of IC1 and IC2.

What a traitor says matters only where a loyal general listens: at the *slots* (path ending at a traitor,
loyal receiver). All runs = all ways to fill the slots, for all sets of traitors and, with a loyal commander,
all orders. Two reductions make that feasible:

*Factoring.* A word of the last round influences its receiver only. So the slots of rounds 1..m (shared) are
enumerated, and for each filling every lieutenant's own last-round slots (private) apart; the number of joint
fillings in which all decide alike is then a product of counts. For n = 7, m = 2 this turns 2^40 runs into 262
144 evaluations an order.

*Symmetry.* Lieutenants are interchangeable. So of all sets of t traitors two remain (commander in it, or
not), with their number as weight; and where no shared path names a loyal lieutenant (always for m <= 2), only
the multiset of what the loyal lieutenants are told matters. That both are harmless is checked by unreduced
runs through the real generals, `brute_force`: `test_reduced_search_counts_what_the_unreduced_runs_count`.

Where even this is too much, the search samples and says so. The search first tries a few lies that usually
suffice, so that impossible sizes are refuted at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, combinations_with_replacement, product
from math import comb, factorial, prod

from bft.generals.algorithms import ORAL
from bft.generals.certificates import Certificate, Counterexample, Lies, Method, Slot, combine
from bft.generals.conditions import judge
from bft.generals.ids import Dice, GeneralId, Order, Path
from bft.generals.oral import paths, resolve
from bft.generals.plan import Plan, Vote, majority
from bft.generals.run import Outcome, fight
from bft.generals.scripts import words_of
from bft.generals.seam import Send
from bft.generals.traitors import Crime, View, say

BUDGET = 400_000  # evaluations of one pattern, beyond which it is sampled
SAMPLES = 200
ABSENT_UP_TO = (
    5  # generals up to which silence is enumerated as a third symbol; beyond, it equals the default
)

_Filling = tuple[Order | None, ...]


@dataclass(frozen=True, slots=True)
class Space:
    """Hold all behaviours of one set of traitors: the slots, shared and private, and the symbols that fill
    them."""

    plan: Plan
    traitors: tuple[GeneralId, ...]
    loyal: tuple[GeneralId, ...]
    shared: tuple[tuple[Slot, ...], ...]  # by loyal lieutenant
    private: tuple[tuple[Slot, ...], ...]
    symbols: _Filling

    @property
    def runs(self) -> int:
        """Return the number of ways to fill all slots."""
        slots = sum(len(row) for row in self.shared) + sum(len(row) for row in self.private)
        return int(len(self.symbols) ** slots)

    @property
    def is_symmetric(self) -> bool:
        """Say whether no shared path names a loyal lieutenant, so that the loyal are interchangeable."""
        return all(general not in self.loyal for row in self.shared for path, _ in row for general in path)

    def shared_fillings(self, *, reduced: bool) -> Iterator[tuple[dict[Slot, Order | None], int]]:
        """Yield each filling of the shared slots with the number of fillings it stands for."""
        kinds = [list(product(self.symbols, repeat=len(row))) for row in self.shared]
        if not (reduced and self.is_symmetric and kinds):
            for chosen in product(*kinds):
                yield self._fill(chosen), 1
            return
        for chosen in combinations_with_replacement(kinds[0], len(kinds)):
            weight = factorial(len(chosen))
            for kind in dict.fromkeys(chosen):
                weight //= factorial(chosen.count(kind))
            yield self._fill(chosen), weight

    def evaluations(self, *, reduced: bool) -> int:
        """Return how many decisions must be computed."""
        kinds = [len(self.symbols) ** len(row) for row in self.shared]
        if reduced and self.is_symmetric and kinds:
            shared = comb(kinds[0] + len(kinds) - 1, len(kinds))
        else:
            shared = prod(kinds)
        return int(shared * sum(len(self.symbols) ** len(row) for row in self.private))

    def _fill(self, chosen: Sequence[_Filling]) -> dict[Slot, Order | None]:
        return {
            slot: said
            for row, kind in zip(self.shared, chosen, strict=True)
            for slot, said in zip(row, kind, strict=True)
        }


def make_space(plan: Plan, traitors: Sequence[GeneralId]) -> Space:
    """Find the slots of one set of traitors."""
    loyal = tuple(general for general in plan.lieutenants if general not in traitors)
    rows: list[tuple[tuple[Slot, ...], tuple[Slot, ...]]] = []
    last = min(plan.m + 1, plan.n - 1)
    for receiver in loyal:
        slots = [
            (path, receiver)
            for length in range(1, last + 1)
            for path in paths(plan, receiver, length)
            if path[-1] in traitors
        ]
        # Nobody passes on a word of the last round: it is private to its receiver.
        early = tuple(slot for slot in slots if len(slot[0]) <= plan.m)
        late = tuple(slot for slot in slots if len(slot[0]) > plan.m)
        rows.append((early, late))
    symbols: _Filling = (*plan.orders, None) if plan.n <= ABSENT_UP_TO else plan.orders
    return Space(
        plan,
        tuple(traitors),
        loyal,
        tuple(early for early, _ in rows),
        tuple(late for _, late in rows),
        symbols,
    )


def decide(space: Space, me: GeneralId, lies: Lies, vote: Vote = majority) -> Order:
    """Return what a loyal lieutenant of OM(m) decides when the traitors tell exactly these lies."""
    plan = space.plan

    def word(path: Path) -> Order:
        # Loyal generals pass on what they heard: walk back to a traitor's mouth or to the loyal commander.
        receiver = me
        while path[-1] not in space.traitors:
            if len(path) == 1:
                return plan.order
            receiver, path = path[-1], path[:-1]
        said = lies[path, receiver]
        return plan.default if said is None else said

    return resolve(word, (plan.commander,), me, plan, vote)


def search(space: Space, *, weight: int = 1, reduced: bool = True, vote: Vote = majority) -> Certificate:
    """Count all violations of one set of traitors; `weight` is the number of sets that it stands for."""
    plan = space.plan
    ic1 = ic2 = evaluated = 0
    found: Counterexample | None = None
    for shared, times in space.shared_fillings(reduced=reduced):
        tallies: list[dict[Order, tuple[int, dict[Slot, Order | None]]]] = []
        for receiver, slots in zip(space.loyal, space.private, strict=True):
            tally: dict[Order, tuple[int, dict[Slot, Order | None]]] = {}
            for filling in product(space.symbols, repeat=len(slots)):
                own = dict(zip(slots, filling, strict=True))
                decided = decide(space, receiver, {**shared, **own}, vote)
                count, first = tally.get(decided, (0, own))
                tally[decided] = (count + 1, first)
                evaluated += 1
            tallies.append(tally)
        total = prod(sum(count for count, _ in tally.values()) for tally in tallies)
        alike = {order: prod(tally.get(order, (0, {}))[0] for tally in tallies) for order in plan.orders}
        bad1 = total - sum(alike.values()) if tallies else 0
        bad2 = 0 if plan.commander in space.traitors else total - alike[plan.order]
        ic1, ic2 = ic1 + bad1 * times * weight, ic2 + bad2 * times * weight
        if found is None and (bad1 or bad2):
            found = _pick(space, shared, tallies)
    return Certificate(
        ORAL.name, plan.n, plan.m, Method.EXHAUSTIVE, space.runs * weight, evaluated, ic1, ic2, found
    )


def _pick(
    space: Space,
    shared: dict[Slot, Order | None],
    tallies: Sequence[dict[Order, tuple[int, dict[Slot, Order | None]]]],
) -> Counterexample:
    """Choose private lies that make the violation show: a disobedient lieutenant, or two who differ."""
    lies = dict(shared)
    wanted = None if space.plan.commander in space.traitors else space.plan.order
    for tally in tallies:
        order = next((order for order in tally if order != wanted), None) or next(iter(tally))
        lies.update(tally[order][1])
        wanted = order if wanted is None else wanted
    return make_counterexample(space, lies)


def make_counterexample(space: Space, lies: Lies, vote: Vote = majority) -> Counterexample:
    """Write down a violation with everybody's decision."""
    decisions = {me: decide(space, me, lies, vote) for me in space.loyal}
    verdict = judge(space.plan, space.traitors, decisions)
    return Counterexample(
        space.plan,
        space.traitors,
        tuple(lies.items()),
        tuple(decisions.items()),
        "IC1" if verdict.ic2 else "IC2",
    )


def patterns(
    n: int, t: int, orders: tuple[Order, ...], m: int
) -> Iterator[tuple[Plan, tuple[GeneralId, ...], int]]:
    """Yield the sets of t traitors up to renaming lieutenants, with the orders to try and the number of sets
    meant."""
    highest = tuple(GeneralId(general) for general in range(n - 1, -1, -1))
    if 1 <= t <= n:
        traitors = (GeneralId(0), *sorted(highest[: t - 1]))
        yield Plan(n=n, m=m, orders=orders, order=orders[-1]), traitors, comb(n - 1, t - 1)
    if t <= n - 1:
        for order in reversed(orders):
            yield Plan(n=n, m=m, orders=orders, order=order), tuple(sorted(highest[:t])), comb(n - 1, t)


def usual_lies(space: Space) -> Iterator[Lies]:
    """Yield a few behaviours that break what can be broken: all say one thing, or one thing to each half."""
    slots = [slot for rows in (space.shared, space.private) for row in rows for slot in row]
    for order in space.plan.orders:
        yield dict.fromkeys(slots, order)
    half = space.loyal[: len(space.loyal) // 2]
    first, last = space.plan.orders[0], space.plan.orders[-1]
    for one, other in ((first, last), (last, first)):
        yield {slot: one if slot[1] in half else other for slot in slots}
        yield {slot: one if (slot[1] in half) == (len(slot[0]) % 2 == 1) else other for slot in slots}


def sample(space: Space, tries: Iterator[Lies], *, method: Method) -> Certificate:
    """Try some behaviours and count those that violate a condition, up to the first."""
    evaluated = 0
    for lies in tries:
        evaluated += 1
        decisions = {me: decide(space, me, lies) for me in space.loyal}
        verdict = judge(space.plan, space.traitors, decisions)
        if not verdict.holds:
            found = make_counterexample(space, lies)
            counts = (int(not verdict.ic1), int(not verdict.ic2))
            return Certificate(
                ORAL.name, space.plan.n, space.plan.m, Method.FOUND, evaluated, evaluated, *counts, found
            )
    return Certificate(ORAL.name, space.plan.n, space.plan.m, method, evaluated, evaluated, 0, 0)


def random_lies(space: Space, dice: Dice, samples: int) -> Iterator[Lies]:
    """Draw behaviours by the dice."""
    slots = [slot for rows in (space.shared, space.private) for row in rows for slot in row]
    for _ in range(samples):
        yield {slot: space.symbols[dice.randrange(len(space.symbols))] for slot in slots}


def verify(
    n: int,
    m: int,
    dice: Dice,
    *,
    traitors: Sequence[int] | None = None,
    orders: tuple[Order, ...] = ("retreat", "attack"),
    budget: int = BUDGET,
    samples: int = SAMPLES,
    stop_at_first: bool = False,
) -> Certificate:
    """Search OM(m) with n generals against every number of traitors up to m (or those given).

    With `stop_at_first` the search ends at the first violation; otherwise it counts them all where the budget
    allows.
    """
    sizes = range(min(m, n) + 1) if traitors is None else traitors
    spaces = [
        (make_space(plan, members), weight)
        for t in sizes
        for plan, members, weight in patterns(n, t, orders, m)
    ]
    if stop_at_first:
        for space, _ in spaces:
            quick = sample(space, usual_lies(space), method=Method.SAMPLED)
            if not quick.holds:
                return quick
    parts: list[Certificate] = []
    for space, weight in spaces:
        if space.evaluations(reduced=True) <= budget:
            parts.append(search(space, weight=weight))
        else:
            parts.append(sample(space, random_lies(space, dice, samples), method=Method.SAMPLED))
        if stop_at_first and not parts[-1].holds:
            return replace(parts[-1], method=Method.FOUND)
    return combine(ORAL.name, n, m, parts)


def liars(traitors: Sequence[GeneralId], lies: Lies) -> dict[GeneralId, Crime]:
    """Turn a table of lies into crimes for the real generals."""

    def corrupt(send: Send, view: View) -> Sequence[Send]:
        slot = ((*words_of(send.message), view.me), send.to)
        return say(send, lies[slot], view) if slot in lies else (send,)

    return {traitor: Crime("table of lies", corrupt) for traitor in traitors}


def refight(counterexample: Counterexample) -> Outcome:
    """Fight a counterexample again with the real generals."""
    return fight(ORAL, counterexample.plan, liars(counterexample.traitors, dict(counterexample.lies)))


def brute_force(n: int, m: int, t: int, orders: tuple[Order, ...] = ("retreat", "attack")) -> Certificate:
    """Run the real generals through every behaviour of every set of t traitors, with no reduction
    whatever."""
    runs = ic1 = ic2 = 0
    found: Counterexample | None = None
    for members in combinations([GeneralId(general) for general in range(n)], t):
        for order in orders[-1:] if GeneralId(0) in members else orders:
            plan = Plan(n=n, m=m, orders=orders, order=order)
            space = make_space(plan, members)
            slots = [slot for rows in (space.shared, space.private) for row in rows for slot in row]
            for filling in product(space.symbols, repeat=len(slots)):
                lies = dict(zip(slots, filling, strict=True))
                outcome = fight(ORAL, plan, liars(members, lies))
                runs += 1
                ic1 += not outcome.verdict.ic1
                ic2 += not outcome.verdict.ic2
                if found is None and not outcome.verdict.holds:
                    found = make_counterexample(space, lies)
    return Certificate(ORAL.name, n, m, Method.EXHAUSTIVE, runs, runs, ic1, ic2, found)
