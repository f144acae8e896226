"""Beyond f: with how many traitors does which property fall?

The library promises nothing beyond f; that its properties do fall there, and that the checkers see it, shows that the
campaigns at f are not vacuous. The traitors of a sweep hold one plan: an equivocating first primary, the missing votes
on both sides, certificates hidden when views change, one wrong answer to clients given by all alike.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from bft.sim.checkers import CHECKERS, check, decided
from bft.sim.scenario import Network, Scenario, Workload
from bft.sim.service import Registers
from bft.sim.world import World

PLANS = (
    "{split} & support() & hide_prepared()",
    "{split} & support() & wrong_reply()",
    "silent()",
    "silent() & early_reply()",
    "wrong_reply() & early_reply()",
    "support() & echo_checkpoint() & bad_manifest()",
)
"""What every traitor does in one family of runs; `{split}` proposes one value to half of the correct replicas."""
PATIENCE_MS = 8000


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One number of traitors.

    Attributes:
        fallen: checker -> runs in which it fired; only those that fired at all.
        stalled: runs that decided nothing.
    """

    n: int
    traitors: int
    runs: int
    fallen: dict[str, int]
    stalled: int


def sweep_scenario(n: int, traitors: int, seed: int) -> Scenario:
    """The scenario of one seed: the first `traitors` replicas are corrupted and follow one plan."""
    correct = list(range(traitors, n))
    groups = (tuple(correct[::2]), tuple(correct[1::2]))
    split = f"split({groups[0]}, {groups[1]})"
    plan = PLANS[seed % len(PLANS)].format(split=split)
    return Scenario(
        seed=seed,
        n=n,
        network=Network(delay_us=(100, 3000)),
        corrupted={str(replica): plan for replica in range(traitors)},
        gst_ms=200,
        patience_ms=PATIENCE_MS,
        workload=Workload(clients=2, operations=8, outstanding=2, keys=2),
        protocol={"request_timeout_ms": 100, "view_change_timeout_ms": 100, "status_interval_ms": 30},
    )


def sweep(n: int, seeds: int, first: int = 0) -> Iterator[Row]:
    """Rows for 0 .. n - 1 traitors among `n` replicas."""
    for traitors in range(n):
        fallen = dict.fromkeys(CHECKERS, 0)
        stalled = 0
        for seed in range(first, first + seeds):
            history = World(sweep_scenario(n, traitors, seed), Registers).run()
            stalled += not decided(history)
            for name in dict.fromkeys(violation.checker for violation in check(history)):
                fallen[name] += 1
        shown = {name: number for name, number in fallen.items() if number}
        yield Row(n=n, traitors=traitors, runs=seeds, fallen=shown, stalled=stalled)


def table(rows: list[Row]) -> str:
    """The rows as text: one line per number of traitors."""
    lines = []
    for row in rows:
        f = (row.n - 1) // 3
        mark = "<= f" if row.traitors <= f else "= f + 1" if row.traitors == f + 1 else "> f + 1"
        what = ", ".join(f"{name} {number}/{row.runs}" for name, number in row.fallen.items()) or "nothing falls"
        lines.append(f"n={row.n} traitors={row.traitors} ({mark:7}) stalled {row.stalled}/{row.runs}: {what}")
    return "\n".join(lines)
