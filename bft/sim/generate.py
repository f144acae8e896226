"""Random scenarios: uniform ones, and round-structured ones in the manner of Twins and ByzzFuzz.

A seed is a scenario. The adversary holds at most f keys; crashes with an intact disk are free, as the model allows.
"""

from __future__ import annotations

from random import Random

from bft.sim.scenario import Fault, FaultKind, Network, Scenario, Workload

CRIMES = ("equivocate()", "silent()", "wrong_reply()", "forge()")
"""What a generated adversary does unless the caller names other strategies."""
STOPS: tuple[FaultKind, ...] = ("crash", "power-loss")
RESTRICTIONS = (
    "",
    "",
    ' & to("odd")',
    ' & to("even")',
    " & during(view=0)",
    " & during(view=1)",
    " & sometimes(500)",
    " & sometimes(100)",
    " & during(after_ms=0)",
)


def scenario(seed: int, n: int = 4, crimes: tuple[str, ...] = CRIMES) -> Scenario:
    """The scenario of a seed: network, faults, adversary and workload all drawn from it."""
    random = Random(f"scenario/{seed}/{n}")
    f = (n - 1) // 3
    gst_ms = random.choice((0, 500, 2000, 4000))
    corrupted = _corrupted(random, n, f, crimes)
    return Scenario(
        seed=seed,
        n=n,
        network=_network(random),
        corrupted=corrupted,
        faults=tuple(sorted(_faults(random, n, gst_ms), key=lambda fault: fault.at_ms)),
        gst_ms=gst_ms,
        workload=Workload(
            clients=random.randint(1, 3),
            operations=random.choice((5, 20, 40)),
            outstanding=random.choice((1, 2, 6)),
            keys=random.choice((1, 3, 8)),
            lanes=random.random() < 0.3,
        ),
    )


def _network(random: Random) -> Network:
    return Network(
        delay_us=random.choice(((100, 500), (100, 5000), (1000, 60_000), (100, 200_000))),
        loss_permille=random.choice((0, 0, 20, 150)),
        duplicate_permille=random.choice((0, 0, 50)),
        slow_permille=random.choice((0, 0, 20)),
        slow_ms=random.choice((300, 900)),
        regions=random.random() < 0.1,
    )


def _corrupted(random: Random, n: int, f: int, crimes: tuple[str, ...]) -> dict[str, str]:
    count = random.choice((0, f, f, f)) if crimes else 0
    chosen = sorted(random.sample(range(n), count))
    if count and random.random() < 0.5:
        chosen = list(range(count))  # the first primaries
    expressions = {}
    for replica in chosen:
        expression = random.choice(crimes) + random.choice(RESTRICTIONS)
        if random.random() < 0.3:
            expression = f"({expression}) & ({random.choice(crimes)}{random.choice(RESTRICTIONS)})"
        expressions[str(replica)] = expression
    return expressions


def _faults(random: Random, n: int, gst_ms: int) -> list[Fault]:
    faults: list[Fault] = []
    if not gst_ms:
        return faults
    for _ in range(random.choice((0, 0, 1, 2, 4))):
        at_ms = random.randrange(gst_ms)
        length = random.choice((50, 300, 900))
        match random.randrange(4):
            case 0:
                members = list(range(n))
                random.shuffle(members)
                cut = random.randrange(1, n)
                groups = (tuple(sorted(members[:cut])), tuple(sorted(members[cut:])))
                faults.append(Fault(at_ms=at_ms, kind="partition", groups=groups))
                faults.append(Fault(at_ms=at_ms + length, kind="heal"))
            case 1:
                source, target = random.sample(range(n), 2)
                faults.append(Fault(at_ms=at_ms, kind="one-way", groups=((source,), (target,))))
                faults.append(Fault(at_ms=at_ms + length, kind="heal"))
            case 2:
                replica = random.randrange(n)
                kind: FaultKind = random.choice(STOPS)
                faults.append(Fault(at_ms=at_ms, kind=kind, replica=replica))
                faults.append(Fault(at_ms=at_ms + length, kind="restart", replica=replica))
            case _:
                kind = random.choice(STOPS)
                faults.extend(Fault(at_ms=at_ms, kind=kind, replica=replica) for replica in range(n))
                faults.extend(Fault(at_ms=at_ms + length, kind="restart", replica=replica) for replica in range(n))
    return faults
