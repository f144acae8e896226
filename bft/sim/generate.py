"""Random scenarios: uniform ones, and round-structured ones in the manner of Twins and ByzzFuzz.

A seed is a scenario. The adversary holds at most f keys; crashes with an intact disk are free, as the model allows.
`directed` adds the fixed schedules of `bft.sim.directed`, one per entry where random search would be hopeless.
"""

from __future__ import annotations

from random import Random

from bft.adversary.clients import HOSTILE
from bft.sim.directed import catalogue
from bft.sim.scenario import QUICK, Fault, FaultKind, Network, Rule, Scenario, Workload, stop

CRIMES = (
    "bad_batch_body()",
    "bad_checkpoint()",
    "bad_client_signature()",
    "bad_client_signature(tampered=True)",
    "bad_manifest()",
    "bad_pages()",
    'bad_quorum("few")',
    'bad_quorum("forged")',
    'bad_quorum("repeated")',
    "censor()",
    "commit_other()",
    "contradict_new_view()",
    "deaf()",
    "depose()",
    "double_vote()",
    "early_checkpoint()",
    "early_reply()",
    "echo_checkpoint()",
    "envelope_twice()",
    "equivocate()",
    "false_proofs()",
    "false_request()",
    "far_sequence()",
    "far_sequence(-9)",
    "flip()",
    "forge()",
    'forged_certificate("invented")',
    'forged_certificate("mixed")',
    'forged_certificate("repeated")',
    'forged_certificate("stable")',
    "frozen_time()",
    "future_spam()",
    "hide_prepared()",
    "hoard()",
    "hoard_certificate()",
    "ignore_forwarded()",
    "impersonate()",
    "in_the_dark(1)",
    "in_the_dark(2)",
    "keep_requests()",
    "least_new_view()",
    "malformed_batch()",
    "mutate()",
    "mutate(1000)",
    "no_help()",
    "old_certificate()",
    "outside_window()",
    "partial_new_view(0)",
    "partial_new_view(1)",
    "primary_prepares()",
    "propose_twice((1,), (2, 3))",
    'puppet((300, "suspect", 0, 0, 0, ()), (400, "commit", 0, 1, 0, ()), (600, "view-change", 1, 0, 0, ()))',
    "reflect()",
    "refuse_clients()",
    "reorder()",
    "repeat()",
    "replay()",
    "replay_batch()",
    "silent()",
    "silent_after()",
    "silent_after(12)",
    "skip_sequence()",
    "slow()",
    "slow(50, 400)",
    "slow_primary()",
    "split()",
    "split((1, 2), (0, 3))",
    "split() & support()",
    "equivocate() & support()",
    "stale_read()",
    "stale_read(False)",
    "stale_stable()",
    "status_lie()",
    "status_storm()",
    "support()",
    "support(False)",
    "suspect_storm()",
    "time_warp()",
    "time_warp(900)",
    "time_warp(-40000)",
    "twins()",
    "twins((1,))",
    "twins((1, 2), (3,))",
    "two_new_views()",
    "two_view_changes()",
    "view_change_spam()",
    "view_lie()",
    "withhold_body()",
    "withhold_results()",
    'wrong_proposals("drop")',
    'wrong_proposals("extra")',
    'wrong_proposals("null")',
    'wrong_proposals("other")',
    'wrong_proposals("swap")',
    "wrong_reply()",
    "wrong_view()",
    "wrong_view(1)",
)
"""What a generated adversary does unless the caller names other strategies."""
SERVICE_CRIMES = (
    "creep()",
    "delay_requests()",
    "one_at_a_time()",
    "pad_batches()",
    "starve()",
    'suspect_storm("slow-primary")',
)
"""Primaries that serve badly. Drawn apart from the others, so that those of a seed stay what they were."""
WATCHFUL = {"witness_interval_ms": 10, "slow_floor_ms": 60, "fair_slack_ms": 30, "skips_max": 8}
"""Short patience with them."""
STOPS: tuple[FaultKind, ...] = ("crash", "power-loss")
RESTRICTIONS = (
    "",
    "",
    "",
    ' & to("odd")',
    ' & to("even")',
    " & during(view=0)",
    " & during(view=1)",
    " & sometimes(500)",
    " & sometimes(100)",
    " & as_primary()",
    " & as_backup()",
)
PHASES = (("PrePrepare",), ("Prepare",), ("Commit", "CommitCertificate"), ("ViewChange",), ("NewView",))
"""What a round's delivery matrices are about."""
"""Short patience, so that several views pass before the stabilisation time."""


def scenario(seed: int, n: int = 4, crimes: tuple[str, ...] = CRIMES) -> Scenario:
    """The scenario of a seed: network, faults, adversary and workload all drawn from it."""
    random = Random(f"scenario/{seed}/{n}")
    f = (n - 1) // 3
    gst_ms = random.choice((0, 500, 2000, 4000))
    corrupted = _corrupted(random, n, f, crimes)
    serving = Random(f"service/{seed}/{n}")
    is_watchful = crimes is CRIMES and serving.random() < 0.15
    if is_watchful:
        corrupted = {name: f"({crime}) & {serving.choice(SERVICE_CRIMES)}" for name, crime in corrupted.items()}
    return Scenario(
        seed=seed,
        n=n,
        protocol=WATCHFUL if is_watchful else {},
        network=_network(random),
        corrupted=corrupted,
        hostile_clients=_hostile_clients(random),
        faults=tuple(sorted(_faults(random, n, gst_ms), key=lambda fault: fault.at_ms)),
        gst_ms=gst_ms,
        workload=Workload(
            clients=random.randint(1, 3),
            operations=random.choice((5, 20, 40)),
            outstanding=random.choice((1, 2, 6)),
            keys=random.choice((1, 3, 8)),
            lanes=random.random() < 0.3,
        ),
        signed_replies=seed % 4 == 3,
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


def _hostile_clients(random: Random) -> dict[str, str]:
    if random.random() < 0.85:
        return {}
    return {"mallory": random.choice(sorted(HOSTILE))}


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
                faults.extend(stop(random.choice(STOPS), replica, at_ms, at_ms + length))
            case _:
                kind: FaultKind = random.choice(STOPS)
                faults.extend(Fault(at_ms=at_ms, kind=kind, replica=replica) for replica in range(n))
                faults.extend(Fault(at_ms=at_ms + length, kind="restart", replica=replica) for replica in range(n))
    return faults


# --- round-structured ---------------------------------------------------------------------------------------------


def structured(seed: int, n: int = 4) -> Scenario:
    """A scenario of a few views: per view who proposes what to whom, and which messages of each phase arrive where.

    Small in every number, since that is where violations show: few requests, few views, matrices mostly full.
    """
    random = Random(f"structured/{seed}/{n}")
    f = (n - 1) // 3
    views = random.choice((2, 2, 3, 3, 4))
    corrupted = sorted(random.sample(range(n), f))
    if random.random() < 0.5:
        first = random.choice((0, 0, 1))
        corrupted = sorted((first + step) % n for step in range(f))
    gst_ms = views * random.choice((200, 300))
    return Scenario(
        seed=seed,
        n=n,
        network=Network(delay_us=random.choice(((100, 500), (100, 2000), (100, 20_000)))),
        rules=tuple(rule for view in range(views) for rule in _round(random, n, view)),
        corrupted={str(replica): _conspirator(random, n, replica, views) for replica in corrupted},
        faults=tuple(sorted(_stops(random, n, gst_ms), key=lambda fault: fault.at_ms)),
        gst_ms=gst_ms,
        workload=Workload(
            clients=random.choice((1, 2)),
            operations=random.choice((3, 6, 12)),
            outstanding=random.choice((1, 1, 3)),
            keys=random.choice((1, 2)),
        ),
        protocol=QUICK,
    )


def _round(random: Random, n: int, view: int) -> list[Rule]:
    """The delivery matrices of one view; two phases in three are left alone."""
    rules = []
    for kinds in PHASES:
        if random.random() < 0.6:
            continue
        seqs = random.choice(((), (), (1, 1), (1, 2), (2, 4)))
        for target in range(n):
            chance = random.random()
            if chance < 0.45:
                continue
            sources: tuple[int, ...] = ()
            if chance < 0.8:
                sources = tuple(sorted(random.sample(range(n), random.randint(1, n - 1))))
            late_ms = random.choice((None, None, 60, 250))
            carries_seq = kinds[0] in ("PrePrepare", "Prepare", "Commit")
            rules.append(
                Rule(
                    kinds=kinds,
                    view=view,
                    seqs=seqs if carries_seq else (),
                    sources=sources,
                    targets=(target,),
                    late_ms=late_ms,
                )
            )
    return rules


def _groups(random: Random, n: int, replica: int) -> str:
    """Literal groups of backups, two or three values, somebody left out at times."""
    groups: list[list[int]] = [[] for _ in range(random.choice((2, 2, 3)))]
    for other in range(n):
        if other != replica and random.random() < 0.9:
            random.choice(groups).append(other)
    return ", ".join(str(tuple(group)) for group in groups)


def _conspirator(random: Random, n: int, replica: int, views: int) -> str:
    """What one member of the coalition does: as primary, as voter, and when views change."""
    groups = _groups(random, n, replica)
    proposing = random.choice(
        (
            f"split({groups})",
            f"split({groups})",
            f"propose_twice({groups})",
            f"in_the_dark({random.randint(1, n - 1)})",
            "primary_prepares()",
            "skip_sequence()",
            f"twins({groups})",
            "silent() & during(view=0)",
        )
    )
    voting = random.choice(("support()", "support()", "support(False)", "double_vote()", "equivocate()", ""))
    changing = random.choice(
        (
            "hide_prepared()",
            "hide_prepared()",
            "old_certificate()",
            "old_certificate()",
            "hoard_certificate()",
            'forged_certificate("repeated")',
            'forged_certificate("mixed")',
            'forged_certificate("invented")',
            "least_new_view()",
            "two_new_views()",
            'wrong_proposals("null")',
            'wrong_proposals("other")',
            'wrong_proposals("swap")',
            'bad_quorum("few")',
            'bad_quorum("repeated")',
            "hoard()",
            "wrong_reply()",
            "",
        )
    )
    parts = [part for part in (proposing, voting, changing) if part and random.random() < 0.85]
    if parts and random.random() < 0.2:
        parts[0] = f"({parts[0]} & during(view={random.randrange(views)}))"
    return " & ".join(f"({part})" for part in parts) or "support()"


def _stops(random: Random, n: int, gst_ms: int) -> list[Fault]:
    faults: list[Fault] = []
    for _ in range(random.choice((0, 0, 0, 1, 2))):
        replica = random.randrange(n)
        at_ms = random.randrange(gst_ms)
        faults.extend(stop(random.choice(STOPS), replica, at_ms, at_ms + random.choice((5, 50, 200))))
    return faults


def directed() -> dict[str, Scenario]:
    """The fixed schedules, one or more per entry of the catalogue, by name."""
    return catalogue()
