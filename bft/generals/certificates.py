"""Say what an exhaustive or sampled search found: the same form for every algorithm.

A certificate counts in two units. `runs` are behaviours of the traitors: every choice of traitors, orders and
lies, counted one by one as if nothing had been reduced. `evaluated` are the cases that were really computed;
each stands for many runs that are equal by symmetry or that differ only in lies which cannot meet (see
`exhaustive`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from bft.generals.ids import GeneralId, Order, Path
from bft.generals.plan import Plan

Slot: TypeAlias = tuple[Path, GeneralId]
"""Where an oral lie can be told: the path of the words, ending at the traitor who speaks, and the loyal
receiver."""

Lies: TypeAlias = Mapping[Slot, Order | None]
"""What is said at each slot; None is silence."""


class Method(Enum):
    """Say how sure a certificate is."""

    EXHAUSTIVE = "exhaustive"
    SAMPLED = "sampled"
    FOUND = "counterexample"


@dataclass(frozen=True, slots=True)
class Counterexample:
    """Hold one violation: enough to fight the battle again and watch it happen."""

    plan: Plan
    traitors: tuple[GeneralId, ...]
    lies: tuple[tuple[Slot, Order | None], ...]
    decisions: tuple[tuple[GeneralId, Order], ...]
    condition: str  # "IC1" or "IC2"


@dataclass(frozen=True, slots=True)
class Certificate:
    """Report a search over one algorithm at one size."""

    algorithm: str
    n: int
    m: int
    method: Method
    runs: int
    evaluated: int
    ic1_violations: int
    ic2_violations: int
    counterexample: Counterexample | None = None

    @property
    def holds(self) -> bool:
        """Say whether no violation was found."""
        return self.ic1_violations == 0 and self.ic2_violations == 0


def combine(algorithm: str, n: int, m: int, parts: Sequence[Certificate]) -> Certificate:
    """Add up certificates of one size; the weakest method names the whole."""
    methods = [part.method for part in parts]
    weakest = next(
        (method for method in (Method.FOUND, Method.SAMPLED) if method in methods), Method.EXHAUSTIVE
    )
    return Certificate(
        algorithm=algorithm,
        n=n,
        m=m,
        method=weakest,
        runs=sum(part.runs for part in parts),
        evaluated=sum(part.evaluated for part in parts),
        ic1_violations=sum(part.ic1_violations for part in parts),
        ic2_violations=sum(part.ic2_violations for part in parts),
        counterexample=next((part.counterexample for part in parts if part.counterexample is not None), None),
    )
