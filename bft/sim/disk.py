"""The simulated disk of one replica: the memory store behind a cache that a crash or power loss can empty.

Records handed over are in the operating system's hands at once and on the platter when `sync` says so. A killed process
loses nothing that it handed over; power loss loses what was not synced. A torn write is lost whole, since the port
promises atomic writes (the SQLite store's journal sees to it). Rot changes a stored byte: like the real store, this one
checks digests when it is loaded and refuses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from bft.digests import page_digest
from bft.errors import StorageError
from bft.events import Record, Recovered
from bft.storage.memory import MemoryStore


class SimulatedDisk:
    """What survives a replica's process."""

    def __init__(self) -> None:
        self.durable = MemoryStore()
        self._cached: list[list[Record]] = []
        self.fails = False
        self.rotten = False

    def hand_over(self, records: Sequence[Record]) -> None:
        """Give records to the operating system; they are not safe from power loss yet."""
        self._cached.append(list(records))

    def sync(self) -> None:
        """The oldest records handed over reach the platter."""
        self.durable.write(self._cached.pop(0))

    def crash(self, *, lose_unsynced: bool) -> None:
        """The process ends; with `lose_unsynced` the machine's power does too."""
        self.cut("unsynced" if lose_unsynced else "nothing")

    def cut(self, loses: Literal["nothing", "unsynced", "last"]) -> list[Record]:
        """Everything ends at once: see `CrashPoint.loses`; returns what is kept although it was not synced."""
        kept = {"nothing": len(self._cached), "unsynced": 0, "last": max(0, len(self._cached) - 1)}[loses]
        saved = [record for records in self._cached[:kept] for record in records]
        self.durable.write(saved)
        self._cached = []
        return saved

    def wipe(self) -> None:
        """The disk is replaced by an empty one."""
        self.durable = MemoryStore()
        self._cached = []

    def rot(self) -> None:
        """A byte of the newest snapshot's pages changes silently, if there is one."""
        self.rotten = True

    def load(self) -> Recovered:
        """What a new process finds.

        Raises:
            StorageError: a page of the snapshot is not what its digest says.
        """
        recovered = self.durable.load()
        snapshot = recovered.snapshot
        if self.rotten and snapshot is not None:
            digest = min(snapshot.pages)
            page = snapshot.pages[digest]
            snapshot.pages[digest] = page[:-1] + bytes([page[-1] ^ 1])
        for digest, page in snapshot.pages.items() if snapshot is not None else ():
            if page_digest(page) != digest:
                raise StorageError(f"page {digest.hex()[:8]} is corrupt")
        return recovered
