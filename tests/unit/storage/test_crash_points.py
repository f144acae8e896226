"""The real store is killed at every call into SQLite and the file system, and loses power in every write."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

import msgspec
import pytest

from bft.events import Record, Recovered
from bft.sim.crashpoints import base
from bft.sim.disk import SimulatedDisk
from bft.sim.service import Registers
from bft.sim.world import World
from bft.storage.memory import MemoryStore
from bft.storage.sqlite import SqliteStore

CLUSTER = b"c" * 32
CALLS = {"execute", "executemany", "fsync", "rename", "open", "write", "close", "mkdir", "flock"}
"""Functions written in C at whose beginning and end the process is killed."""
EVERY = 11
"""Of the boundaries in the middle of the work every so many-th; opening and closing are tried whole."""
WAL_FRAME_BYTES = 24 + 16384


class _Recording(SimulatedDisk):
    """Keeps what is handed over."""

    def __init__(self) -> None:
        super().__init__()
        self.transactions: list[list[Record]] = []

    def hand_over(self, records: Sequence[Record]) -> None:
        self.transactions.append(list(records))
        super().hand_over(records)


def _transactions(family: str, replica: int) -> list[list[Record]]:
    """What one replica writes in a simulated run."""
    world = World(msgspec.structs.replace(base(family), one_by_one=False), Registers)
    disk = world.replicas[replica]._disk = _Recording()
    world.run()
    return disk.transactions


def _references(transactions: list[list[Record]]) -> list[Recovered]:
    """What must be found after none, one, two, ... of the transactions."""
    store = MemoryStore()
    found = [store.load()]
    for records in transactions:
        store.write(records)
        found.append(store.load())
    return found


@pytest.fixture(scope="module", params=[("transfer", 2), ("two-views", 1)], ids=["transfer", "views"])
def transactions(request: pytest.FixtureRequest) -> list[list[Record]]:
    """Real streams of records: with a state transfer, and with view changes and checkpoints."""
    return _transactions(*request.param)


def _open(folder: Path, boot: str = "one") -> SqliteStore:
    return SqliteStore(folder / "data" / "replica.db", CLUSTER, 1, "process", folder / "r1.pem.used", boot)


def _live(folder: Path, transactions: list[list[Record]], tell: Callable[[bytes], object]) -> None:
    """One whole life of a store; tells of every write that has returned."""
    store = _open(folder)
    tell(b"o")
    for records in transactions:
        store.write(records)
        tell(b"w")
    store.close()
    tell(b"c")


def _killed_at(number: int, folder: Path, transactions: list[list[Record]]) -> tuple[str, int]:
    """Run a life in a child that is killed at its `number`-th boundary.

    Returns:
        What it told before, and how many boundaries there were.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        count = 0

        def watch(frame: FrameType, event: str, argument: object) -> None:
            nonlocal count
            if event in ("c_call", "c_return") and getattr(argument, "__name__", "") in CALLS:
                count += 1
                if count == number:
                    os.kill(os.getpid(), signal.SIGKILL)

        def tell(what: bytes) -> None:
            os.writev(writing, [what + count.to_bytes(4, "big")])

        sys.setprofile(watch)
        try:
            _live(folder, transactions, tell)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    os.waitpid(pid, 0)
    words = [told[at : at + 5] for at in range(0, len(told), 5)]
    return "".join(chr(word[0]) for word in words), int.from_bytes(words[-1][1:], "big") if words else 0


def test_killed_store_loses_nothing_and_raises_no_false_alarm(
    tmp_path: Path, transactions: list[list[Record]]
) -> None:
    """At any call: what had been written is there, the transaction under way is there whole or not at all, and neither
    the guard beside the key nor the checks of the content refuse the store.
    """
    references = _references(transactions)
    whole, total = _killed_at(0, tmp_path / "whole", transactions)
    assert whole == "o" + "w" * len(transactions) + "c"
    _, opening = _killed_at(0, tmp_path / "opening", [])
    points = [*range(1, opening), *range(opening, total - opening, EVERY), *range(max(opening, total - 60), total + 1)]
    for number in points:
        folder = tmp_path / str(number)
        told, _ = _killed_at(number, folder, transactions)
        store = _open(folder)
        found = store.load()
        store.close()
        done = told.count("w")
        assert found in references[done : done + 2], f"boundary {number}: after {told!r} another state was found"
        shutil.rmtree(folder)


def test_store_killed_again_and_again_raises_no_false_alarm(tmp_path: Path) -> None:
    """The guard and the store are counted on in every opening; kills in a row between the two do no harm."""
    _killed_at(0, tmp_path, [])
    _, opening = _killed_at(0, tmp_path / "other", [])
    for number in [*range(1, opening + 1), *range(opening, 0, -1)]:
        _killed_at(number, tmp_path, [])
    _open(tmp_path).close()


def test_store_that_loses_power_in_a_write_has_all_of_it_or_nothing(
    tmp_path: Path, transactions: list[list[Record]]
) -> None:
    """The log is cut in, before and after every frame that a write added, or its last frame is torn."""
    references = _references(transactions)
    path = tmp_path / "live" / "replica.db"
    store = SqliteStore(path, CLUSTER, 1, "power")
    before = 0
    for number, records in enumerate(transactions):
        size = path.with_name("replica.db-wal").stat().st_size
        store.write(records)
        log = path.with_name("replica.db-wal").read_bytes()
        before, after = size, len(log)
        cuts = {*range(before, after + 1, WAL_FRAME_BYTES), after - 1, after - WAL_FRAME_BYTES // 2}
        for cut in sorted(cuts):
            copy = tmp_path / "copy" / "replica.db"
            shutil.rmtree(copy.parent, ignore_errors=True)
            copy.parent.mkdir()
            shutil.copy(path, copy)
            copy.with_name("replica.db-wal").write_bytes(log[:cut] + bytes(after - cut if cut % 2 else 0))
            again = SqliteStore(copy, CLUSTER, 1, "power")
            assert again.load() in references[number : number + 2], f"write {number} cut at {cut} of {after}"
            again.close()
    store.close()
