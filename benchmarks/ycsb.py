"""`python -m benchmarks ycsb`: the core workloads A to F of YCSB on the replicated key-value service.

    A  half reads, half updates            zipfian
    B  95 % reads, 5 % updates             zipfian
    C  reads only                          zipfian
    D  95 % reads of the latest, 5 % inserts
    E  95 % scans of 1 to 100, 5 % inserts zipfian
    F  half reads, half read-modify-write  zipfian

The generators are YCSB's (scrambled zipfian with constant 0.99; "latest" is zipfian by age), written anew and seeded:
each caller draws from a stream of its own, so two runs with one seed ask the same questions in the same order. A record
is one value of 1000 characters; YCSB's ten fields of 100 are one value here. As in YCSB, a read-modify-write is a read
and a write, not a transaction.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal

import click
import trio
from rich.console import Console

from benchmarks import results
from benchmarks.cluster import KEY_VALUE, running_cluster
from benchmarks.load import TaskLoop
from benchmarks.measures import READY_SECONDS, WARM_UP_SECONDS, metrics_of
from benchmarks.options import durability_option, file_options, repeat_option, seconds_option
from benchmarks.statistics import show_spread
from bft.client.client import connect
from bft.config import Durability
from bft.crypto.keys import KeyPair
from bft.errors import BFTError
from bft.services.kv import KeyValue
from bft.services.kv_client import KeyValueClient

ZIPFIAN_CONSTANT = 0.99
SCAN_LENGTH_MAX = 100
VALUE = "x" * 1000
LOADERS = 200
CALL_SECONDS = 30.0
FNV_OFFSET = 0xCBF29CE484222325
FNV_PRIME = 1099511628211
Kind = Literal["read", "update", "insert", "scan", "read-modify-write"]


@dataclass(frozen=True, slots=True)
class Workload:
    """Shares of kinds of operations, in percent, and how keys are drawn."""

    shares: tuple[tuple[Kind, int], ...]
    latest: bool = False


WORKLOADS = {
    "A": Workload((("read", 50), ("update", 50))),
    "B": Workload((("read", 95), ("update", 5))),
    "C": Workload((("read", 100),)),
    "D": Workload((("read", 95), ("insert", 5)), latest=True),
    "E": Workload((("scan", 95), ("insert", 5))),
    "F": Workload((("read", 50), ("read-modify-write", 50))),
}


class Zipfian:
    """Ranks 0, 1, 2 ... below a growing count, rank r with weight 1 / (r + 1)^0.99 (the method of Gray et al. 1994)."""

    def __init__(self, count: int, random: Random) -> None:
        self._random = random
        self._count = 0
        self._zeta = 0.0
        self._zeta_two = 1.0 + 0.5**ZIPFIAN_CONSTANT
        self._alpha = 1.0 / (1.0 - ZIPFIAN_CONSTANT)
        self._grow(count)

    def _grow(self, count: int) -> None:
        for rank in range(self._count, count):
            self._zeta += 1.0 / (rank + 1) ** ZIPFIAN_CONSTANT
        self._count = count
        self._eta = (1.0 - (2.0 / count) ** (1.0 - ZIPFIAN_CONSTANT)) / (1.0 - self._zeta_two / self._zeta)

    def draw(self, count: int) -> int:
        """A rank below `count`, which may only grow."""
        if count > self._count:
            self._grow(count)
        point = self._random.random()
        scaled = point * self._zeta
        if scaled < 1.0:
            return 0
        if scaled < self._zeta_two:
            return 1
        return min(int(count * (self._eta * point - self._eta + 1.0) ** self._alpha), count - 1)


def scrambled(rank: int, count: int) -> int:
    """Spread popular ranks over all keys (FNV-1a of 64 bits, as YCSB does)."""
    value = FNV_OFFSET
    for shift in range(0, 64, 8):
        value = ((value ^ (rank >> shift & 0xFF)) * FNV_PRIME) & 0xFFFFFFFFFFFFFFFF
    return value % count


def key_of(number: int) -> str:
    """The key of the `number`-th record, in an order that says nothing of its age."""
    return f"user{scrambled(number, 1 << 63):019d}"


class Records:
    """How many records there are; inserts of all callers add to it.

    Attributes:
        count: records that surely exist.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._given = count
        self._done: set[int] = set()

    def take(self) -> int:
        """The number of a new record."""
        self._given += 1
        return self._given - 1

    def inserted(self, number: int) -> None:
        """A record exists now; `count` follows when all before it do."""
        self._done.add(number)
        while self.count in self._done:
            self._done.remove(self.count)
            self.count += 1


class Caller:
    """One caller of a workload."""

    def __init__(self, kv: KeyValueClient, workload: Workload, records: Records, random: Random) -> None:
        self._kv = kv
        self._workload = workload
        self._records = records
        self._random = random
        self._zipfian = Zipfian(records.count, random)

    def kind(self) -> Kind:
        """What to do next."""
        point = self._random.randrange(100)
        for kind, share in self._workload.shares:
            point -= share
            if point < 0:
                return kind
        raise AssertionError(f"shares sum up to less than 100: {self._workload.shares}")

    def number(self) -> int:
        """Which record to do it to."""
        count = self._records.count
        rank = self._zipfian.draw(count)
        return count - 1 - rank if self._workload.latest else scrambled(rank, count)

    async def call(self) -> None:
        """One operation."""
        kv = self._kv
        match self.kind():
            case "read":
                await kv.get(key_of(self.number()))
            case "update":
                await kv.put(key_of(self.number()), VALUE)
            case "insert":
                number = self._records.take()
                await kv.put(key_of(number), VALUE)
                self._records.inserted(number)
            case "scan":
                await kv.scan(start=key_of(self.number()), limit=self._random.randint(1, SCAN_LENGTH_MAX))
            case "read-modify-write":
                key = key_of(self.number())
                await kv.get(key)
                await kv.put(key, VALUE)


async def measure_ycsb(
    workload: str, *, records: int, callers: int, durability: Durability, seconds: float, seed: int = 1
) -> dict[str, float]:
    """Load the records into a new cluster and run one workload."""
    with running_cluster(durability=durability, service=KEY_VALUE) as cluster:
        async with connect(cluster.config, key=KeyPair.generate()) as client:
            await client.wait_connected(READY_SECONDS)
            kv = KeyValueClient(client.service(KeyValue).within(CALL_SECONDS))
            await _load(kv, records)
            known = Records(records)
            calls: list[Callable[[], Awaitable[None]]] = [
                Caller(kv, WORKLOADS[workload], known, Random(f"{seed}/{caller}")).call for caller in range(callers)
            ]
            return metrics_of(await TaskLoop(calls, (BFTError,)).run(warm_up=WARM_UP_SECONDS, seconds=seconds))


async def _load(kv: KeyValueClient, records: int) -> None:
    numbers = iter(range(records))

    async def work() -> None:
        for number in numbers:  # one iterator, shared by all
            await kv.put(key_of(number), VALUE)

    async with trio.open_nursery() as nursery:
        for _ in range(LOADERS):
            nursery.start_soon(work)


@click.command("ycsb", epilog="Example: python -m benchmarks ycsb -w A -w C --durability power")
@click.option("--workload", "-w", type=click.Choice(sorted(WORKLOADS)), multiple=True, default=tuple(WORKLOADS))
@click.option("--records", type=click.IntRange(2, 1_000_000), default=10_000, show_default=True)
@click.option("--callers", type=click.IntRange(1, 1024), default=200, show_default=True)
@durability_option("memory")
@seconds_option(5.0)
@repeat_option(3)
@file_options("ycsb")
def ycsb(
    workload: tuple[str, ...],
    records: int,
    callers: int,
    durability: Durability,
    seconds: float,
    repeat: int,
    output: Path,
    name: str,
    as_json: bool,
) -> None:
    """YCSB's workloads A to F on four replicas of the key-value service, callers sharing one client.

    Reads and scans are linearizable queries, updates and inserts are ordered.
    """
    runs: dict[str, list[dict[str, float]]] = {letter: [] for letter in workload}
    for seed in range(1, repeat + 1):
        for letter in workload:

            async def one(letter: str = letter, seed: int = seed) -> dict[str, float]:
                return await measure_ycsb(
                    letter, records=records, callers=callers, durability=durability, seconds=seconds, seed=seed
                )

            runs[letter].append(trio.run(one))
    base = {"durability": durability, "records": records, "callers": callers}
    rows = [{"workload": letter, **base, **results.spreads(several)} for letter, several in runs.items()]
    path = results.write(name, rows, output, about="YCSB's core workloads on the replicated key-value service.")
    if as_json:
        click.echo(json.dumps(rows))
        return
    console = Console()
    for row in rows:
        console.print(f"{row['workload']}  op_s {show_spread(row['op_s'])}  p99_ms {show_spread(row['p99_ms'])}")
    console.print(f"written to {path}")
