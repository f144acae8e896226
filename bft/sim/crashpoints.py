"""Crash points: stop a replica at every boundary between two effects, restart it, and see whether anybody notices.

A family is one small scenario. It runs once to count the boundaries of every replica: before a record is handed over,
before it is synced, after it is synced, after a message has left. Then it runs once per boundary and way to stop; up to
there the run is the very same, since all chance comes from the seed. Small families are enumerated whole; of the large
ones, and of pairs of stops (the second while it recovers from the first), a sample is drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from random import Random
from typing import Literal

import msgspec

from bft.errors import ConfigError
from bft.membership import Quorums
from bft.sim.scenario import QUICK, CrashPoint, Fault, Network, Rule, Scenario, Workload
from bft.sim.service import Registers
from bft.sim.world import World

Loss = Literal["nothing", "unsynced", "last"]
Way = tuple[Loss, Literal["one", "all"], Literal["restart", "refuse", "forget"]]
WAYS: dict[str, Way] = {
    "kill": ("nothing", "one", "restart"),
    "power": ("unsynced", "one", "restart"),
    "torn": ("last", "one", "restart"),
    "kill-all": ("nothing", "all", "restart"),
    "power-all": ("unsynced", "all", "restart"),
    "wiped": ("unsynced", "one", "refuse"),
    "amnesia": ("unsynced", "one", "forget"),
}
"""What happens at a crash point, by name. `wiped` loses the disk but not the guard beside the key, so that the replica
stays away; `amnesia` goes on with an empty disk, as a replica without stable storage does: it counts as faulty."""
HONEST_BUT_FAULTY = "silent() & during(view=9999)"
"""A strategy that never does anything: the replica counts as one of the f faulty ones, for what it will forget."""
SECOND_AFTER = 24
"""The second stop of a pair comes within so many boundaries of the first: while the replica still recovers."""
TINY = {**QUICK, "status_interval_ms": 20, "checkpoint_interval": 4, "window": 8, "pipeline": 2}
DOWN_MS_SHORT = 5
DOWN_MS = {"decided-once": 250}
"""How long a replica stays away; elsewhere it is too short for the others to leave the view."""

small = partial(
    Scenario,
    seed=1,
    network=Network(delay_us=(100, 900)),
    gst_ms=0,
    patience_ms=20_000,
    protocol=TINY,
    one_by_one=True,
)
"""What the families have in common."""


def families() -> dict[str, Scenario]:
    """The scenarios that are enumerated, by name; nothing in them ends before the work is done."""
    few = Workload(clients=1, operations=9, outstanding=2, keys=2, query_permille=100)
    return {
        # Orders, checkpoints and garbage collection: the normal case with every kind of record.
        "ordering": small(workload=Workload(clients=2, operations=18, outstanding=2, keys=2, query_permille=100)),
        # The primary goes silent in the middle: VIEW-CHANGEs, a NEW-VIEW, slots proposed again.
        "view-change": small(workload=few, corrupted={"0": "silent_after(3)"}),
        # Two view changes in a row: the second primary is mute, so what was chosen once must be chosen again.
        "two-views": small(
            workload=Workload(clients=1, operations=5, outstanding=1, keys=1, query_permille=0),
            rules=(Rule(kinds=("Commit", "CommitCertificate"), view=0), Rule(kinds=("NewView",), view=1)),
            gst_ms=450,
        ),
        # A slot is decided at r0 alone; beside it r1 alone could tell of it, for r3 hides what it prepared, and the
        # first new view fails. Whatever r1 forgets is lost.
        "decided-once": small(
            workload=Workload(clients=1, operations=3, outstanding=1, keys=1, query_permille=0),
            corrupted={"3": "support() & hide_prepared()"},
            rules=(
                Rule(kinds=("Prepare",), view=0, targets=(2,)),
                Rule(kinds=("Commit", "CommitCertificate"), view=0, targets=(1, 2, 3)),
                Rule(kinds=("ViewChange",), sources=(0,)),
                Rule(kinds=("NewView",), view=1),
            ),
            gst_ms=900,
        ),
        # The primary's proposals come when everybody has left its view: a vote for them would be a step back.
        "late-primary": small(
            workload=Workload(clients=2, operations=5, outstanding=3, keys=2, query_permille=0),
            corrupted={"0": "slow(60, 400)"},
            rules=(Rule(kinds=("NewView",), view=1),),
            gst_ms=700,
            protocol={**TINY, "pipeline": 4, "batch_operations_max": 1},
        ),
        # A liar proposes two values and repeats itself: whoever forgets its vote gives the other one too.
        "equivocation": small(
            workload=few,
            corrupted={"0": "propose_twice((1,), (2, 3)) & repeat(8, 12) & support()"},
            network=Network(delay_us=(100, 4000)),
        ),
        # A replica is cut off for more than a window and fetches the state, while others stop.
        "transfer": small(
            workload=Workload(clients=1, operations=30, outstanding=2, keys=3, query_permille=0),
            faults=(
                Fault(at_ms=8, kind="partition", groups=((2,), (0, 1, 3))),
                Fault(at_ms=90, kind="heal"),
            ),
            gst_ms=95,
        ),
        # Seven replicas, two of which lie: for sampling.
        "seven": small(
            workload=few,
            n=7,
            corrupted={"0": "silent_after(4)", "1": "hide_prepared() & support()"},
        ),
        # Seven replicas that tell the truth: two of them lose their disks.
        "seven-honest": small(workload=few, n=7),
    }


class Point(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """One run: where a replica of a family stops, and how.

    Attributes:
        second: where it stops again, counted on over the restart; 0 if it stops once.
        seed: of the family's scenario.
    """

    family: str
    way: str
    replica: int
    boundary: int
    second: int = 0
    seed: int = 1

    def __str__(self) -> str:
        boundary = f"{self.boundary}+{self.second}" if self.second else str(self.boundary)
        return f"{self.family}/{self.way}/{self.seed}/{self.replica}/{boundary}"

    @staticmethod
    def parse(text: str) -> Point:
        """The point that `str` gave.

        Raises:
            ConfigError: it is none.
        """
        try:
            family, way, seed, replica, boundary = text.split("/")
            first, _, second = boundary.partition("+")
            return Point(
                family=family,
                way=way,
                seed=int(seed),
                replica=int(replica),
                boundary=int(first),
                second=int(second or 0),
            )
        except ValueError as error:
            raise ConfigError(f"{text!r} is no crash point: expected FAMILY/WAY/SEED/REPLICA/BOUNDARY") from error


def base(family: str, seed: int = 1, forgetful: tuple[int, ...] = ()) -> Scenario:
    """A family's scenario without any stop.

    Args:
        forgetful: replicas that will forget, hence count as faulty from the beginning.

    Raises:
        ConfigError: no such family.
    """
    known = families()
    if family not in known:
        raise ConfigError(f"no family {family!r}; there are {', '.join(known)}")
    scenario = msgspec.structs.replace(known[family], seed=seed)
    faulty = {str(replica): HONEST_BUT_FAULTY for replica in forgetful}
    return msgspec.structs.replace(scenario, corrupted={**scenario.corrupted, **faulty})


def scenario_of(point: Point) -> Scenario:
    """The scenario of one point.

    Raises:
        ConfigError: no such family or way.
    """
    if point.way not in WAYS:
        raise ConfigError(f"no way to stop {point.way!r}; there are {', '.join(WAYS)}")
    loses, strikes, then = WAYS[point.way]
    losing = losers(point.family, point.replica) if then != "restart" else (point.replica,)
    scenario = base(point.family, point.seed, losing if then == "forget" else ())
    stops = tuple(
        CrashPoint(
            replica=replica,
            boundary=boundary,
            loses=loses,
            strikes=strikes,
            then=then,
            down_ms=DOWN_MS.get(point.family, DOWN_MS_SHORT),
        )
        for replica in losing
        for boundary in (point.boundary, point.second)
        if boundary
    )
    return msgspec.structs.replace(scenario, crash_points=stops)


@cache
def boundaries(family: str, seed: int = 1, forgetful: tuple[int, ...] = ()) -> dict[int, tuple[str, ...]]:
    """What stands at each boundary of each correct replica in the run without stops; the first is boundary 1."""
    history = World(base(family, seed, forgetful), Registers).run()
    counted = history.boundaries
    return {replica: tuple(counted.get(replica, ())) for replica in (*history.correct, *forgetful)}


def losers(family: str, replica: int) -> tuple[int, ...]:
    """Who loses its disk for good when `replica` does: f less those that lie, itself first; nobody if f lie already."""
    scenario = base(family)
    room = Quorums.of(scenario.n).f - len(scenario.corrupted)
    honest = [(replica + step) % scenario.n for step in range(scenario.n)]
    return tuple([other for other in honest if str(other) not in scenario.corrupted][:room])


def points(family: str, way: str, seed: int = 1) -> Iterator[Point]:
    """Every single stop of a family: all boundaries of all correct replicas."""
    if way not in WAYS:
        raise ConfigError(f"no way to stop {way!r}; there are {', '.join(WAYS)}")
    then = WAYS[way][2]
    for replica in boundaries(family, seed):
        losing = losers(family, replica)
        if then != "restart" and not losing:
            continue
        counted = boundaries(family, seed, losing if then == "forget" else ())
        for number in range(1, len(counted[replica]) + 1):
            yield Point(family=family, way=way, replica=replica, boundary=number, seed=seed)


def chosen(
    names: tuple[str, ...], ways: tuple[str, ...], *, seeds: int = 1, sample: int = 0, pairs: int = 0
) -> list[Point]:
    """The points of some families.

    Args:
        sample: so many per family and way, evenly drawn; 0 for all of them.
        pairs: so many double stops per family and way, on top.

    Raises:
        ConfigError: no such family or way.
    """
    found: list[Point] = []
    for family in names:
        for way in ways:
            for seed in range(1, seeds + 1):
                every = list(points(family, way, seed))
                random = Random(f"crashpoints/{family}/{way}/{seed}")
                if pairs and every and WAYS[way][2] == "restart":
                    found += [_pair(random, random.choice(every)) for _ in range(pairs)]
                if sample and len(every) > sample:
                    every = sorted(random.sample(every, sample))
                found += every
    return found


def _pair(random: Random, first: Point) -> Point:
    return msgspec.structs.replace(first, second=first.boundary + random.randint(1, SECOND_AFTER))
