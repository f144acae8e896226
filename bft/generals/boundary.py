"""Draw the boundary: for which n and m does an algorithm survive m traitors, and how was it established.

A cell is *exhaustive* where every behaviour was tried, *counterexample* where a violation was found (which
settles the cell, however few runs it took), and *sampled* where neither was feasible. Read next:
`exhaustive`, `exhaustive_signed`.
"""

from __future__ import annotations

from bft.generals import exhaustive, exhaustive_signed
from bft.generals.certificates import Certificate
from bft.generals.ids import Dice, GeneralsError

# Evaluations that are worth spending on counting all violations of a cell that fails anyway.
COUNT_BUDGET = 40_000


def cell(algorithm: str, n: int, m: int, dice: Dice, *, budget: int, samples: int) -> Certificate:
    """Settle one cell of the table.

    Raises:
        GeneralsError: there is no exhaustive search for this algorithm.
    """
    if algorithm == "sm":
        return exhaustive_signed.verify(n, m)
    if algorithm != "om":
        raise GeneralsError(f"no table for {algorithm!r}, expected om or sm")
    spaces = [
        exhaustive.make_space(plan, members)
        for t in range(min(m, n) + 1)
        for plan, members, _ in exhaustive.patterns(n, t, ("retreat", "attack"), m)
    ]
    if sum(space.evaluations(reduced=True) for space in spaces) <= COUNT_BUDGET:
        return exhaustive.verify(n, m, dice, budget=budget, samples=samples)
    return exhaustive.verify(n, m, dice, budget=budget, samples=samples, stop_at_first=True)


def expected(algorithm: str, n: int, m: int) -> bool:
    """Say what the paper proves: OM(m) needs n > 3m [LSP82 2, 3], SM(m) any n [LSP82 4]; two generals are
    trivial."""
    return algorithm == "sm" or n > 3 * m or n <= 2
