"""The demo's data and load: Unicode's character names through many concurrent calls, each one timed.

The data ship with Python (`unicodedata`): every named code point, ascending, as `hex -> name;category`.
"""

from __future__ import annotations

import sys
import time
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from bft.client.client import Client
from bft.services.kv import KeyValue

Record = tuple[str, str]
SOURCE = f"the names of Unicode {unicodedata.unidata_version}, from Python's unicodedata"


def unicode_records() -> Iterator[Record]:
    """Every named code point, ascending."""
    for point in range(sys.maxunicode + 1):
        name = unicodedata.name(chr(point), "")
        if name:
            yield f"{point:06X}", f"{name};{unicodedata.category(chr(point))}"


def write_records(path: Path) -> int:
    """Write the data as a tab-separated file; returns how many records there are."""
    lines = [f"{key}\t{value}\n" for key, value in unicode_records()]
    path.write_text("".join(lines), encoding="ascii")
    return len(lines)


def read_records(path: Path) -> list[Record]:
    """Read the file back."""
    pairs = (line.split("\t", 1) for line in path.read_text(encoding="ascii").splitlines())
    return [(key, value) for key, value in pairs]


@dataclass(slots=True)
class Load:
    """Stores records from a list until enough are stored and whoever disturbs the cluster is done.

    Where replicas are so fast that the list ends before the faults do, it begins again from its first record.

    Attributes:
        records: all there are, in order.
        at_least: store this many whatever happens.
        released: set when no more load is needed for the faults to meet.
        latencies: seconds per call, in order of completion.
        longest_stall_s: longest time between two completions.
        taken: records handed to workers, all of which are stored in the end.
    """

    records: Sequence[Record]
    at_least: int
    released: bool = False
    latencies: list[float] = field(default_factory=list)
    longest_stall_s: float = 0.0
    taken: int = 0
    started: float = 0.0
    ended: float = 0.0
    _last: float = 0.0

    @property
    def done(self) -> int:
        """Records stored."""
        return len(self.latencies)

    @property
    def goal(self) -> int:
        """How many will be stored, as far as is known now."""
        if self.done < self.at_least:
            return self.at_least
        return self.taken if self.released else max(self.taken, len(self.records))

    @property
    def stored(self) -> Sequence[Record]:
        """The records of which at least one copy was taken."""
        return self.records[: self.taken]

    async def run(self, client: Client, concurrency: int) -> None:
        """Store records through `concurrency` calls at a time."""
        self.started = self._last = time.perf_counter()
        async with anyio.create_task_group() as workers:
            for _ in range(concurrency):
                workers.start_soon(self._work, client)
        self.ended = time.perf_counter()

    async def _work(self, client: Client) -> None:
        service = client.service(KeyValue)
        while not (self.released and self.taken >= self.at_least):
            key, value = self.records[self.taken % len(self.records)]
            self.taken += 1
            began = time.perf_counter()
            await service.put(key, value)
            now = time.perf_counter()
            self.latencies.append(now - began)
            self.longest_stall_s = max(self.longest_stall_s, now - self._last)
            self._last = now
