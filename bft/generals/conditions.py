"""Check the two conditions of interactive consistency on a finished battle [LSP82 1].

    IC1  all loyal lieutenants obey the same order;
    IC2  if the commander is loyal, every loyal lieutenant obeys the order he sent.

The check knows who the traitors are and what everybody decided, and nothing of any algorithm: it owns the
truth.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from bft.generals.ids import GeneralId, Order
from bft.generals.plan import Plan


@dataclass(frozen=True, slots=True)
class Verdict:
    """Say whether each condition held; IC2 holds vacuously when the commander is a traitor.

    `apart` are two loyal lieutenants who obey different orders, `disobedient` those who disobey a loyal
    commander.
    """

    ic1: bool
    ic2: bool
    apart: tuple[GeneralId, ...]
    disobedient: tuple[GeneralId, ...]

    @property
    def holds(self) -> bool:
        """Say whether both conditions held."""
        return self.ic1 and self.ic2


def judge(plan: Plan, traitors: Collection[GeneralId], decisions: Mapping[GeneralId, Order]) -> Verdict:
    """Judge the decisions of the loyal lieutenants; one who never decided obeys nothing and breaks both
    conditions."""
    loyal = [lieutenant for lieutenant in plan.lieutenants if lieutenant not in traitors]
    obeyed = {lieutenant: decisions.get(lieutenant) for lieutenant in loyal}
    undecided = tuple(lieutenant for lieutenant in loyal if obeyed[lieutenant] is None)
    apart = undecided or next(
        ((loyal[0], other) for other in loyal[1:] if obeyed[other] != obeyed[loyal[0]]),
        (),
    )
    disobedient: tuple[GeneralId, ...] = ()
    if plan.commander not in traitors:
        disobedient = tuple(lieutenant for lieutenant in loyal if obeyed[lieutenant] != plan.order)
    return Verdict(not apart, not disobedient, apart, disobedient)


def vector_agrees(vectors: Mapping[GeneralId, tuple[Order, ...]], held: Mapping[GeneralId, Order]) -> bool:
    """Judge interactive consistency: loyal generals have equal vectors, right in the entries of the loyal
    [PSL80].

    `vectors` are those of the loyal generals only; `held` what each of them held at the start.
    """
    first = next(iter(vectors.values()))
    same = all(vector == first for vector in vectors.values())
    return same and all(first[general] == order for general, order in held.items())
