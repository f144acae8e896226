"""The simulated disk of one replica: the memory store behind a cache that a crash or power loss can empty.

Records handed to `write_later` are in the operating system's hands at once and on the platter when `sync` says so.
A killed process loses nothing that it handed over; power loss loses what was not synced.
"""

from __future__ import annotations

from collections.abc import Sequence

from bft.events import Record, Recovered
from bft.storage.memory import MemoryStore


class SimulatedDisk:
    """What survives a replica's process."""

    def __init__(self) -> None:
        self.durable = MemoryStore()
        self._cached: list[list[Record]] = []
        self.fails = False

    def hand_over(self, records: Sequence[Record]) -> None:
        """Give records to the operating system; they are not safe from power loss yet."""
        self._cached.append(list(records))

    def sync(self) -> None:
        """The oldest records handed over reach the platter."""
        self.durable.write(self._cached.pop(0))

    def crash(self, *, lose_unsynced: bool) -> None:
        """The process ends; with `lose_unsynced` the machine's power does too."""
        if not lose_unsynced:
            for records in self._cached:
                self.durable.write(records)
        self._cached = []

    def load(self) -> Recovered:
        """What a new process finds."""
        return self.durable.load()
