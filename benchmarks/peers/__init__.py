"""Other systems under the same loads, each behind a small adapter.

An adapter starts its system on this machine, in a temporary folder, drives it through its documented interface, and
stops it. Nothing of these systems is part of this repository; one that is not installed is skipped with a line that
says how to provide it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from importlib import import_module
from subprocess import Popen, TimeoutExpired
from typing import Any, Protocol, cast

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


class RunFailed(Exception):
    """A run that gave no figures; the text says why."""


class Adapter(Protocol):
    """A module of this package."""

    def measure(self, case: Case, seconds: float) -> dict[str, float]:
        """One run: at least `op_s`, and latencies under the names of `benchmarks.latency` where the system tells them.

        Raises:
            Absent: the system is not installed.
            RunFailed: it gave no figures.
        """
        ...


def adapter(system: str) -> Adapter:
    """The adapter of a system."""
    return cast("Adapter", import_module(f"benchmarks.peers.{MODULES[system]}"))


def wait_until(is_ready: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    """Ask again and again until it is so.

    Raises:
        RunFailed: it never was.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if is_ready():
            return
        time.sleep(0.1)
    raise RunFailed(f"{what} within {seconds:g} s")


def stop_processes(processes: Sequence[Popen[Any]], seconds: float = 10.0) -> None:
    """Terminate processes that this adapter started; kill those that do not listen."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(seconds)
        except TimeoutExpired:
            process.kill()
            process.wait()
