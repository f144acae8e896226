"""State what each algorithm costs, by formula; `run` counts what it really sends, and the tests compare.

    OM(m):  sum over k = 1..m+1 of (n-1)(n-2)...(n-k) [LSP82 7 names the last, largest term]
    SM(m):  (n-1) + (n-1)(n-2) when all are loyal and m >= 1; (n-1) + v (n-1)(n-2) when the commander signs v
            orders
    King:   (n-1) + (m+1)(2n(n-1) + (n-1)) at most: the commander's round, then m+1 phases
    PBFT:   (n-1) + (n-1)^2 + n(n-1) for one slot: pre-prepare, prepare, commit; for comparison
"""

from __future__ import annotations

from dataclasses import dataclass


def oral_messages(n: int, m: int) -> int:
    """Return the messages of OM(m): the sum of falling products."""
    total, product = 0, 1
    for k in range(1, min(m + 1, n - 1) + 1):
        product *= n - k
        total += product
    return total


def oral_messages_by_recursion(n: int, m: int) -> int:
    """Return the messages of OM(m) as the paper's recursion gives them: the commander's, then n - 1 smaller
    instances."""
    if n <= 1:
        return 0
    return n - 1 if m == 0 else (n - 1) * (1 + oral_messages_by_recursion(n - 1, m - 1))


def oral_rounds(m: int) -> int:
    """Return the rounds of OM(m)."""
    return m + 1


def signed_messages(n: int, m: int, orders_signed: int = 1) -> int:
    """Return what loyal generals send in SM(m), at most, when the commander signs so many orders (in
    time)."""
    if n <= 1:
        return 0
    return (n - 1) + (orders_signed * (n - 1) * (n - 2) if m >= 1 else 0)


def king_consensus_messages(n: int, m: int) -> int:
    """Return the messages of m + 1 phases of King, everybody proposing."""
    return (m + 1) * (2 * n * (n - 1) + (n - 1))


def king_messages(n: int, m: int) -> int:
    """Return the messages of a broadcast by King: the commander's round and the phases."""
    return (n - 1) + king_consensus_messages(n, m)


def king_rounds(m: int) -> int:
    """Return the rounds of King: the commander's, and three a phase."""
    return 1 + 3 * (m + 1)


def pbft_messages(n: int) -> int:
    """Return the messages of one PBFT slot in the normal case, replies not counted [CL99 4.2]."""
    return (n - 1) + (n - 1) ** 2 + n * (n - 1)


@dataclass(frozen=True, slots=True)
class CostRow:
    """Compare the algorithms at one size; `counted` maps an algorithm's name to what a run really sent."""

    n: int
    m: int
    oral: int
    signed: int
    signed_two_orders: int
    king: int
    pbft: int | None
    counted: tuple[tuple[str, int, int], ...] = ()  # (algorithm, messages, rounds)


def cost_row(n: int, m: int, counted: tuple[tuple[str, int, int], ...] = ()) -> CostRow:
    """Fill in the formulas for one size; PBFT only where n = 3m + 1 is its own size."""
    return CostRow(
        n=n,
        m=m,
        oral=oral_messages(n, m),
        signed=signed_messages(n, m),
        signed_two_orders=signed_messages(n, m, 2),
        king=king_messages(n, m),
        pbft=pbft_messages(n) if n == 3 * m + 1 else None,
        counted=counted,
    )


COST_SIZES = ((3, 1), (4, 1), (5, 1), (7, 1), (7, 2), (10, 2), (10, 3), (13, 4), (16, 5))
