"""Describe one battle: how many generals, how many traitors to survive, which orders, which roads.

Decides the limits, and the three rules that turn many orders into one: `majority`, `median`, `choice`. It
does not decide who is a traitor (no general knows that; see `traitors`) or how many rounds an algorithm takes
(see `algorithms`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from bft.generals.graphs import Graph
from bft.generals.ids import ATTACK, RETREAT, GeneralId, GeneralsError, Order

GENERALS_MAX = 64
FIRST = GeneralId(0)
ORDERS_MAX = 16
ORDER_CHARS_MAX = 32
MESSAGES_MAX = 500_000  # in one run; OM(4) with 13 generals sends 108 384


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Say what all generals know before the battle.

    `m` is the number of traitors that the algorithm is built for, which need not be the number that there
    are. `orders` is ordered; its first element is the *default*, obeyed when an order is absent [LSP82 3].
    `order` is what a loyal commander sends. `hops` overrides the parameter of SM on a graph [LSP82 5, Theorem
    4]. `instance` names the battle, so that signatures of another one are worthless.

    Raises:
        GeneralsError: a number is out of its limits, or the order is not one of the orders.
    """

    n: int
    m: int
    order: Order = ATTACK
    orders: tuple[Order, ...] = (RETREAT, ATTACK)
    commander: GeneralId = FIRST
    graph: Graph | None = None
    hops: int | None = None
    instance: str = "battle"

    def __post_init__(self) -> None:
        """Refuse what is out of limits."""
        if not 1 <= self.n <= GENERALS_MAX:
            raise GeneralsError(f"n = {self.n} generals, expected 1 to {GENERALS_MAX}")
        if not 0 <= self.m <= GENERALS_MAX:
            raise GeneralsError(f"m = {self.m} traitors, expected 0 to {GENERALS_MAX}")
        if not 0 <= self.commander < self.n:
            raise GeneralsError(f"commander {self.commander} is not one of the generals 0..{self.n - 1}")
        if not 2 <= len(self.orders) <= ORDERS_MAX or len(dict.fromkeys(self.orders)) != len(self.orders):
            raise GeneralsError(f"orders {self.orders}, expected 2 to {ORDERS_MAX} different ones")
        if not all(0 < len(order) <= ORDER_CHARS_MAX for order in self.orders):
            raise GeneralsError(f"orders {self.orders}, expected 1 to {ORDER_CHARS_MAX} characters each")
        if self.order not in self.orders:
            raise GeneralsError(f"order {self.order!r} is not one of {', '.join(self.orders)}")
        if self.graph is not None and self.graph.n != self.n:
            raise GeneralsError(f"graph {self.graph.name!r} has {self.graph.n} generals, found n = {self.n}")
        if self.hops is not None and not 0 <= self.hops <= GENERALS_MAX:
            raise GeneralsError(f"hops = {self.hops}, expected 0 to {GENERALS_MAX}")

    @property
    def default(self) -> Order:
        """Return the order that stands in for an absent one."""
        return self.orders[0]

    @property
    def generals(self) -> tuple[GeneralId, ...]:
        """Return all generals."""
        return tuple(GeneralId(i) for i in range(self.n))

    @property
    def lieutenants(self) -> tuple[GeneralId, ...]:
        """Return all generals but the commander."""
        return tuple(general for general in self.generals if general != self.commander)

    def others(self, *excluded: GeneralId) -> tuple[GeneralId, ...]:
        """Return the generals that are not excluded, in increasing order."""
        return tuple(general for general in self.generals if general not in excluded)

    def opposite(self, order: Order) -> Order:
        """Return the next order of the set, around the corner: with two orders, the other one."""
        return self.orders[(self.orders.index(order) + 1) % len(self.orders)]

    def has_road(self, one: GeneralId, other: GeneralId) -> bool:
        """Say whether a messenger can walk between two generals."""
        return one != other and (self.graph is None or self.graph.is_edge(one, other))


Vote: TypeAlias = Callable[[Sequence[Order], Plan], Order]
"""Turn the orders that a lieutenant holds into one."""


def majority(orders: Sequence[Order], plan: Plan) -> Order:
    """Return the order that a strict majority holds, else the default: ties retreat [LSP82 3]."""
    for order in plan.orders:
        if 2 * orders.count(order) > len(orders):
            return order
    return plan.default


def median(orders: Sequence[Order], plan: Plan) -> Order:
    """Return the lower median in the order of `plan.orders`: the other rule that [LSP82 3] allows."""
    if not orders:
        return plan.default
    ranks = sorted(plan.orders.index(order) for order in orders)
    return plan.orders[ranks[(len(ranks) - 1) // 2]]


def choice(collected: Sequence[Order], plan: Plan) -> Order:
    """Return the only order collected, else the default: the simplest `choice` of [LSP82 4]."""
    return collected[0] if len(collected) == 1 else plan.default
