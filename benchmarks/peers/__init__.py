"""Other systems under the same loads, each behind a small adapter.

An adapter starts its system on this machine, in a temporary folder, drives it through its documented interface, and
stops it. Nothing of these systems is part of this repository; one that is not installed is skipped with a line that
says how to provide it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Protocol, cast

from benchmarks.case import Case

MODULES = {
    "single-server": "single_server",
    "pysyncobj": "pysyncobj_peer",
    "etcd": "etcd",
    "zookeeper": "zookeeper",
    "bft-smart": "bft_smart",
}


class Absent(Exception):
    """The system is not installed here; the text says how to provide it."""


class Adapter(Protocol):
    """A module of this package."""

    def measure(self, case: Case, seconds: float) -> dict[str, float]:
        """One run: at least `op_s`, `p50_ms` and `p99_ms`.

        Raises:
            Absent: the system is not installed.
            RunFailed: it gave no figures.
        """
        ...


def adapter(system: str) -> Adapter:
    """The adapter of a system."""
    return cast("Adapter", import_module(f"benchmarks.peers.{MODULES[system]}"))
