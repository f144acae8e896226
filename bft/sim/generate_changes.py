"""Random scenarios whose membership changes: the uniform world of a seed, and what happens to its members.

The adversary's share holds in every epoch that can come about: at most f keys of any membership that the changes, done
in any order, can lead to.
"""

from __future__ import annotations

from random import Random

import msgspec

from bft.sim.generate import CRIMES, STOPS, scenario
from bft.sim.scenario import QUICK, Change, Fault, Scenario, stop


def reconfigured(seed: int, n: int = 4, crimes: tuple[str, ...] = CRIMES) -> Scenario:
    """The uniform scenario of a seed, and one to three changes of membership somewhere in it."""
    random = Random(f"reconfigured/{seed}/{n}")
    if crimes is CRIMES and Random(f"false epochs/{seed}/{n}").random() < 0.1:
        crimes = ("false_epochs()",)
    base = scenario(seed, n, crimes)
    spares = random.choice((1, 2, 3, 3))
    gst_ms = max(base.gst_ms, random.choice((200, 500, 1500)))
    corrupted = dict(base.corrupted)
    if corrupted and random.random() < 0.3:
        # The liar is one that joins.
        moved = random.choice(sorted(corrupted))
        corrupted[str(n + random.randrange(spares))] = corrupted.pop(moved)
    faults = [*base.faults, *_stops(random, n + spares, gst_ms)]
    return msgspec.structs.replace(
        base,
        spares=spares,
        changes=tuple(_changes(random, n, spares, gst_ms)),
        corrupted=corrupted,
        faults=tuple(sorted(faults, key=lambda fault: fault.at_ms)),
        gst_ms=gst_ms,
        workload=msgspec.structs.replace(base.workload, operations=random.choice((20, 40, 90))),
        protocol=random.choice((QUICK, base.protocol)),
    )


def _changes(random: Random, n: int, spares: int, gst_ms: int) -> list[Change]:
    """Growth, replacements, and from four also shrinking again; often close together."""
    joiners = list(range(n, n + spares))
    leavers = random.sample(range(n), n)
    if random.random() < 0.3:
        leavers.insert(0, leavers.pop(leavers.index(0)))  # the primary goes first
    changes = []
    at_ms = random.randrange(10, gst_ms + 200)
    while joiners:
        count = random.randint(1, len(joiners))
        add = tuple(joiners[:count])
        del joiners[:count]
        leave = random.choice((0, 0, 1, count))
        changes.append(Change(at_ms=at_ms, add=add, remove=tuple(sorted(leavers[:leave]))))
        del leavers[:leave]
        at_ms += random.choice((0, 0, 20, 100, 400))
    if n == 4 and random.random() < 0.4:
        gone = [replica for change in changes for replica in change.remove]
        present = [replica for replica in range(n + spares) if replica not in gone]
        surplus = len(present) - 4
        if surplus:
            at_ms += random.choice((100, 600))
            changes.append(Change(at_ms=at_ms, remove=tuple(sorted(random.sample(present, surplus)))))
    return changes


def _stops(random: Random, machines: int, gst_ms: int) -> list[Fault]:
    faults: list[Fault] = []
    for _ in range(random.choice((0, 0, 1, 3))):
        replica, at_ms = random.randrange(machines), random.randrange(gst_ms)
        faults.extend(stop(random.choice(STOPS), replica, at_ms, at_ms + random.choice((5, 50, 300, 1000))))
    return faults
