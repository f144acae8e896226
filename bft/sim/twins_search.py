"""Twins: two honest processes with one key, and every way to partition the cluster round by round [BSMCAL20].

A twin is all that a corrupt replica needs to equivocate, forget and vote twice, without a line of malicious code. A
round is a span of time in which messages pass only within a group of the partition; at its end all other messages are
lost and the timeouts pass, so that replicas without a working primary change the view. The search enumerates the
partitions of the instances for every round, up to the twins' symmetry, then heals and asks for progress.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice, product

from bft.sim.checkers import Violation, check
from bft.sim.lockstep import Lockstep

GROUPS_MAX = 2
ROUND_MS = 500
"""Longer than the simulated request timeout: a group without a primary suspects it within a round."""
STEP_MS = 100
HEAL_MS = 8000
SAFETY = (
    "agreement",
    "total-order",
    "validity",
    "exactly-once",
    "checkpoint-consistency",
    "certificates",
    "no-false-accusation",
    "no-honest-rejection",
)

Partition = tuple[int, ...]
"""Per instance, its group."""


@dataclass(slots=True)
class TwinsReport:
    """What an enumeration found.

    Attributes:
        sometimes: how many schedules reached something; a zero says that the search was vacuous there.
        stuck: schedules after whose healing the requests did not all execute.
    """

    schedules: int = 0
    violations: list[tuple[tuple[Partition, ...], Violation]] = field(default_factory=list)
    stuck: list[tuple[Partition, ...]] = field(default_factory=list)
    sometimes: dict[str, int] = field(default_factory=dict)


def partitions(instances: int, groups_max: int = GROUPS_MAX) -> Iterator[Partition]:
    """All ways to split instances into at most so many groups, each once: groups are numbered by first appearance."""

    def extend(prefix: Partition) -> Iterator[Partition]:
        if len(prefix) == instances:
            yield prefix
            return
        for group in range(min(max(prefix, default=-1) + 2, groups_max)):
            yield from extend((*prefix, group))

    return extend(())


def schedules(n: int, rounds: int, twin: int, groups_max: int = GROUPS_MAX) -> Iterator[tuple[Partition, ...]]:
    """All sequences of partitions, those that differ only by the twins' exchange once."""
    single = list(partitions(n + 1, groups_max))
    for schedule in product(single, repeat=rounds):
        mirrored = tuple(_mirrored(partition, twin) for partition in schedule)
        if schedule <= mirrored:
            yield schedule


def _mirrored(partition: Partition, twin: int) -> Partition:
    """The partition with the twins exchanged, its groups numbered anew."""
    exchanged = list(partition)
    exchanged[twin], exchanged[-1] = exchanged[-1], exchanged[twin]
    names: dict[int, int] = {}
    return tuple(names.setdefault(group, len(names)) for group in exchanged)


def search(*, n: int = 4, rounds: int = 3, twin: int = 0, limit: int | None = None, stride: int = 1) -> TwinsReport:
    """Run every schedule, or the first `limit` of every `stride`-th.

    Args:
        twin: the replica that exists twice; 0 is the first primary.
    """
    report = TwinsReport(sometimes={"commits": 0, "changes view": 0, "equivocation is proven": 0, "commits late": 0})
    chosen = islice(schedules(n, rounds, twin), 0, None if limit is None else limit * stride, stride)
    for schedule in chosen:
        _judge(run_schedule(n, twin, schedule), schedule, report)
    return report


def run_schedule(n: int, twin: int, schedule: tuple[Partition, ...]) -> Lockstep:
    """Run one schedule: per round one request that each twin hears in its own version of the order, then a calm end."""
    correct = tuple(replica for replica in range(n) if replica != twin)
    cluster = Lockstep([*range(n), twin], correct=correct)
    cluster.start()
    for number, partition in enumerate(schedule, start=1):
        _round(cluster, number, partition)
    cluster.flights.clear()
    cluster.submit(cluster.request(2 * len(schedule) + 1, ["put", "k", "last"]))
    cluster.settle(HEAL_MS, STEP_MS)
    return cluster


def _round(cluster: Lockstep, number: int, partition: Partition) -> None:
    # The twins hear two requests in opposite order, hence propose different batches for one slot.
    first, second = (cluster.request(2 * number - place, ["put", "k", f"{number}/{place}"]) for place in (1, 0))
    other = len(partition) - 1
    cluster.submit(first, range(other))
    cluster.submit(second, [other])
    for _ in range(0, ROUND_MS, STEP_MS):
        _deliver_within(cluster, partition)
        for instance in cluster.instances:
            cluster.tick(instance, STEP_MS // len(partition))
    _deliver_within(cluster, partition)
    cluster.submit(first, [other])
    cluster.submit(second, range(other))


def _deliver_within(cluster: Lockstep, partition: Partition) -> None:
    """Deliver what stays within a group; the rest is lost."""
    while cluster.flights:
        flight = cluster.flights.pop(0)
        if flight.origin < 0 or partition[flight.origin] == partition[flight.target]:
            cluster.deliver(flight)


def _judge(cluster: Lockstep, schedule: tuple[Partition, ...], report: TwinsReport) -> None:
    history = cluster.history
    report.schedules += 1
    report.violations += [(schedule, found) for found in check(history, SAFETY)]
    executed = {cluster.instances[replica].summary()["executed"] for replica in history.correct}
    last = 2 * len(schedule) + 1
    if len(executed) > 1 or not any(call.number == last for item in history.executions for call in item.effect.calls):
        report.stuck.append(schedule)
    reached = {
        "commits": bool(history.committed),
        "changes view": history.transitions.get("new-view", 0) > 0,
        "equivocation is proven": bool(history.accusations),
        "commits late": any(item.certificate.view > 0 for _, item in history.committed),
    }
    for name, happened in reached.items():
        report.sometimes[name] += happened
