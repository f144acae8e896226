"""Walk through every state that King can reach, with every ballot, proposal and crown that traitors can cast.

A phase is a function from what the loyal hold to what they can hold after it. What the traitors say to one
general in a round reaches nobody else, so each general's outcome is enumerated apart and the joint outcomes
are their product. The rules counted are the very functions that `king.KingGeneral` calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from bft.generals.certificates import Certificate, Method
from bft.generals.ids import Order
from bft.generals.king import adopt, crowned, proposal_of
from bft.generals.plan import Plan

_State = tuple[Order, ...]  # what each loyal general holds


def _heard(loyal: Sequence[Order], t: int, plan: Plan) -> Iterator[list[Order]]:
    """Yield all boxes of one general: what the loyal said, and anything or nothing from each traitor."""
    for said in product((*plan.orders, None), repeat=t):
        yield [*loyal, *(order for order in said if order is not None)]


def after_phase(state: _State, t: int, plan: Plan, *, king: int | None) -> tuple[list[_State], int]:
    """Return the states after one phase, and the number of cases; `king` is a loyal general's place, None for
    a traitor."""
    cases = 0
    proposals = [
        list(dict.fromkeys(proposal_of(ballots, plan) for ballots in _heard(state, t, plan))) for _ in state
    ]
    reached: dict[_State, None] = {}
    for proposed in product(*proposals):
        loyal = [order for order in proposed if order is not None]
        outcomes = [
            list(dict.fromkeys(adopt(held, box, plan) for box in _heard(loyal, t, plan))) for held in state
        ]
        for adopted in product(*outcomes):
            words: list[tuple[Order | None, ...]]
            if king is None:
                words = list(product((*plan.orders, None), repeat=len(state)))
            else:
                words = [(adopted[king][0],) * len(state)]
            for word in words:
                cases += 1
                after = tuple(
                    held if place == king else crowned(held, firm=firm, king=said, plan=plan)
                    for place, ((held, firm), said) in enumerate(zip(adopted, word, strict=True))
                )
                reached[after] = None
    return list(reached), cases


def verify(n: int, m: int) -> Certificate:
    """Check validity, persistence and agreement of King with m traitors, in all states and all orders of
    kings."""
    plan = Plan(n=n, m=m)
    states = list(product(plan.orders, repeat=n - m))
    cases = broken_agreement = broken_validity = 0
    for loyal_king_phase in range(m + 1):
        reachable = states
        for phase in range(m + 1):
            onward: dict[_State, None] = {}
            for state in reachable:
                after, count = after_phase(state, m, plan, king=0 if phase == loyal_king_phase else None)
                cases += count
                onward.update(dict.fromkeys(after))
                if len(dict.fromkeys(state)) == 1:
                    broken_validity += sum(1 for result in after if result != state)
            reachable = list(onward)
        broken_agreement += sum(1 for state in reachable if len(dict.fromkeys(state)) > 1)
    return Certificate("king", n, m, Method.EXHAUSTIVE, cases, cases, broken_agreement, broken_validity)
