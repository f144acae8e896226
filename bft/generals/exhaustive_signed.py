"""Try every behaviour of every set of traitors in SM(m), and count the violations of IC1 and IC2.

A traitor's freedom: in every round, to every loyal lieutenant, for every order and every length that the
coalition has signatures for, send the chain or not: one bit each. `brute_force` runs the real generals
through all of them.

*First arrival.* Of all these bits a loyal lieutenant reacts to one thing per order: the first round in which
a chain of fitting length comes. A later one is not new, a chain of other length is refused. Chains through
loyal hands add nothing either: a loyal general passes a new order on to all, so each of the others has it
before a traitor can bring it back. And he passes it on to *all* loyal ones, since the first chain carries
traitors' names only. `search` therefore enumerates first rounds (for interchangeable lieutenants, multisets
of them) and weighs each with the number of bit patterns it stands for. That this counts what the unreduced
runs count is checked by `test_first_arrival_counts_what_the_unreduced_runs_count`.

With a loyal commander there is nothing to enumerate but silence: no other order can be signed for him. One
run of the real generals with silent and one with forging traitors stand for those.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, combinations_with_replacement, product
from math import comb, factorial, prod

from bft.generals.algorithms import SIGNED, Algorithm
from bft.generals.certificates import Certificate, Counterexample, Method, combine
from bft.generals.crimes import silent
from bft.generals.crimes_signed import forge
from bft.generals.ids import GeneralId, Order, Path
from bft.generals.plan import Plan, choice
from bft.generals.run import Outcome, fight
from bft.generals.seam import Chain, Send
from bft.generals.signed import endorse
from bft.generals.traitors import Crime, View

BUDGET = 400_000

_Arrivals = tuple[
    int, ...
]  # by order: the first round in which traitors bring it, one beyond the last for never
Bit = tuple[int, GeneralId, Order, int]
"""A chain that may be sent: round, receiver, order, number of signatures."""


def _weights(m: int, t: int) -> tuple[int, list[int]]:
    """Return the last round that traitors alone can fill, and how many bit patterns each first round stands
    for."""
    last = min(t, m + 1)
    idle = (m + 1) * t - last  # chains whose length does not fit their round: refused, sent or not
    return last, [2 ** (idle + last - first) for first in range(1, last + 1)] + [2**idle]


def collected(arrivals: Sequence[_Arrivals], me: int, plan: Plan, last: int) -> list[Order]:
    """Return the set V of one loyal lieutenant: what traitors brought him, and what others could still pass
    on."""
    orders: list[Order] = []
    for place, order in enumerate(plan.orders):
        own = arrivals[me][place]
        earliest = min(row[place] for row in arrivals)
        # Passing on takes one round and must end by round m + 1.
        if own <= last or (earliest <= last and earliest <= plan.m):
            orders.append(order)
    return orders


def search(plan: Plan, t: int, *, weight: int = 1) -> Certificate:
    """Count the violations of all sets of t traitors with the commander among them."""
    last, weights = _weights(plan.m, t)
    loyal = plan.n - t
    kinds = list(product(range(1, last + 2), repeat=len(plan.orders)))
    patterns = {kind: prod(weights[first - 1] for first in kind) for kind in kinds}
    violations = evaluated = 0
    found: Counterexample | None = None
    for arrivals in combinations_with_replacement(kinds, loyal):
        evaluated += 1
        decisions = [choice(collected(arrivals, me, plan, last), plan) for me in range(loyal)]
        if len(dict.fromkeys(decisions)) > 1:
            times = factorial(loyal)
            for kind in dict.fromkeys(arrivals):
                times //= factorial(arrivals.count(kind))
            violations += weight * times * prod(patterns[kind] for kind in arrivals)
            found = found or _describe(plan, t, arrivals, decisions)
    runs = weight * 2 ** (len(plan.orders) * loyal * (plan.m + 1) * t)
    return Certificate(SIGNED.name, plan.n, plan.m, Method.EXHAUSTIVE, runs, evaluated, violations, 0, found)


def _describe(
    plan: Plan, t: int, arrivals: Sequence[_Arrivals], decisions: Sequence[Order]
) -> Counterexample:
    loyal = plan.generals[1 : plan.n - t + 1]
    traitors = (plan.commander, *plan.generals[plan.n - t + 1 :])
    lies: list[tuple[tuple[Path, GeneralId], Order | None]] = []
    for receiver, row in zip(loyal, arrivals, strict=True):
        for order, first in zip(plan.orders, row, strict=True):
            if first <= min(t, plan.m + 1):
                lies.append(((traitors[:first], receiver), order))
    return Counterexample(plan, traitors, tuple(lies), tuple(zip(loyal, decisions, strict=True)), "IC1")


def search_loyal_commander(plan: Plan, t: int) -> Certificate:
    """Check that no set of t traitorous lieutenants can turn anybody from a loyal commander's order."""
    members = plan.generals[plan.n - t :]
    bits = t * (plan.n - 1 - t)
    broken = 0
    crimes = (silent(), forge()) if t else (silent(),)
    for crime in crimes:
        outcome = fight(SIGNED, plan, dict.fromkeys(members, crime))
        broken += not outcome.verdict.holds
    runs = comb(plan.n - 1, t) * 2**bits
    return Certificate(SIGNED.name, plan.n, plan.m, Method.EXHAUSTIVE, runs, len(crimes), 0, broken)


def verify(
    n: int,
    m: int,
    *,
    traitors: Sequence[int] | None = None,
    orders: tuple[Order, ...] = ("retreat", "attack"),
) -> Certificate:
    """Search SM(m) with n generals against every number of traitors up to m (or those given)."""
    parts: list[Certificate] = []
    for t in range(min(m, n) + 1) if traitors is None else traitors:
        if 1 <= t <= n - 1:
            plan = Plan(n=n, m=m, orders=orders, order=orders[-1])
            parts.append(search(plan, t, weight=comb(n - 1, t - 1)))
        if t <= n - 1:
            parts.extend(
                search_loyal_commander(Plan(n=n, m=m, orders=orders, order=order), t) for order in orders
            )
    return combine(SIGNED.name, n, m, parts)


def bits_of(plan: Plan, traitors: Sequence[GeneralId]) -> list[Bit]:
    """List every chain of traitors' signatures that may or may not be sent, fitting its round or not."""
    loyal = [general for general in plan.lieutenants if general not in traitors]
    return [
        (round_, receiver, order, length)
        for round_ in range(1, plan.m + 2)
        for receiver in loyal
        for order in plan.orders
        for length in range(1, len(traitors) + 1)
    ]


def senders(plan: Plan, traitors: Sequence[GeneralId], sent: Sequence[Bit]) -> dict[GeneralId, Crime]:
    """Turn chosen chains into crimes for the real generals: the commander sends them all, nothing else is
    said."""
    signers = (plan.commander, *(traitor for traitor in traitors if traitor != plan.commander))

    def invent(view: View) -> Iterator[Send]:
        for round_, receiver, order, length in sent:
            if round_ == view.round and view.me == plan.commander:
                chain = Chain(order, ())
                for general in signers[:length]:
                    chain = endorse(plan, chain, general, view.coalition.signers[general])
                yield Send(receiver, chain)

    crime = Crime("chosen chains", lambda send, view: (), lambda view: list(invent(view)))
    return dict.fromkeys(traitors, crime)


def refight(counterexample: Counterexample) -> Outcome:
    """Fight a counterexample again with the real generals."""
    sent = [
        (len(path), receiver, order, len(path))
        for (path, receiver), order in counterexample.lies
        if order is not None
    ]
    plan, traitors = counterexample.plan, counterexample.traitors
    return fight(SIGNED, plan, senders(plan, traitors, sent))


def brute_force(n: int, m: int, t: int, algorithm: Algorithm = SIGNED) -> Certificate:
    """Run the real generals through every bit pattern of every set of t traitors with the commander among
    them."""
    plan = Plan(n=n, m=m)
    runs = broken = 0
    for rest in combinations(plan.lieutenants, t - 1):
        traitors = (plan.commander, *rest)
        bits = bits_of(plan, traitors)
        for pattern in product((False, True), repeat=len(bits)):
            sent = [bit for bit, is_sent in zip(bits, pattern, strict=True) if is_sent]
            outcome = fight(algorithm, plan, senders(plan, traitors, sent))
            runs += 1
            broken += not outcome.verdict.ic1
    return Certificate(algorithm.name, n, m, Method.EXHAUSTIVE, runs, runs, broken, 0)
