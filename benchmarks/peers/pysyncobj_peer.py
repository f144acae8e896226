"""PySyncObj (Raft in Python, crash faults only, in memory), driven inside its leader: its best case, since no client
connection, no codec of a client and no signature is in the way.

Three processes; whoever is elected runs the load in its own callbacks and prints the figures.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from typing import Any

from benchmarks.case import Case
from benchmarks.cluster import free_ports
from benchmarks.latency import Latencies
from benchmarks.load import Recorder
from benchmarks.measures import WARM_UP_SECONDS
from benchmarks.peers import Absent, RunFailed, stop_processes

ELECTION_SECONDS = 20.0
REFUSED_PAUSE_SECONDS = 0.001
MANY_CALLERS = {"appendEntriesUseBatch": True, "appendEntriesPeriod": 0.001, "autoTickPeriod": 0.001}
ONE_CALLER = {"appendEntriesUseBatch": False}
"""Settings under which it was fastest here: with the defaults an operation waits for a tick of 100 ms."""


def measure(case: Case, seconds: float) -> dict[str, float]:
    """See `benchmarks.peers.Adapter`."""
    if find_spec("pysyncobj") is None:
        raise Absent("pip install 'bft[benchmarks]' brings PySyncObj")
    if case.durability != "memory" or case.load != "sessions" or case.rate or case.reads_percent or case.reply_bytes:
        raise Absent("PySyncObj is driven in memory, by closed-loop callers inside its leader that write")
    addresses = [f"127.0.0.1:{port}" for port in free_ports(case.replicas)]
    processes = [_start(addresses, index, case, seconds) for index in range(case.replicas)]
    try:
        return _figures(processes, seconds)
    finally:
        stop_processes(processes)


def _start(addresses: list[str], index: int, case: Case, seconds: float) -> Popen[str]:
    others = [address for address in addresses if address != addresses[index]]
    arguments = [addresses[index], *others, str(case.callers), str(case.request_bytes), str(seconds)]
    command = [sys.executable, "-m", "benchmarks.peers.pysyncobj_peer", *arguments]
    root = Path(__file__).parent.parent.parent
    return Popen(command, stdout=PIPE, stderr=DEVNULL, cwd=root, text=True)


def _figures(processes: list[Popen[str]], seconds: float) -> dict[str, float]:
    """What the leader prints; the others print nothing."""
    found: list[dict[str, float]] = []
    arrived = threading.Event()

    def read(process: Popen[str]) -> None:
        assert process.stdout is not None
        line = process.stdout.readline()
        if line:
            found.append(json.loads(line))
            arrived.set()

    for process in processes:
        threading.Thread(target=read, args=(process,), daemon=True).start()
    if not arrived.wait(ELECTION_SECONDS + WARM_UP_SECONDS + seconds + 10.0):
        raise RunFailed("no PySyncObj process became leader and finished its load")
    return found[0]


# --- in each of the processes -------------------------------------------------------------------------------------


class LeaderLoad:
    """Callers that submit again in the callback of the operation before."""

    def __init__(self, put: Callable[..., None], callers: int, value: bytes) -> None:
        self._put = put
        self._callers = callers
        self._value = value
        self._recorder = Recorder()
        self._running = True

    def run(self, seconds: float) -> dict[str, float]:
        """Warm up, measure, and return the figures."""
        for caller in range(self._callers):
            self._submit(caller)
        time.sleep(WARM_UP_SECONDS)
        self._recorder.begin()
        time.sleep(seconds)
        measured = self._recorder.end()
        self._running = False
        figures = {"op_s": measured.throughput, **Latencies(measured.latencies_ns).summary()}
        return {**figures, "failures": float(measured.failures), "unanswered": 0.0}

    def _submit(self, caller: int) -> None:
        since = time.perf_counter_ns()

        def on_done(result: object, error: int) -> None:
            self._recorder.note(since, failed=error != 0)
            if self._running:
                if error:
                    time.sleep(REFUSED_PAUSE_SECONDS)
                self._submit(caller)

        self._put(f"k{caller}", self._value, callback=on_done)


def main() -> None:
    """Be one replica; if elected, put load on oneself, print the figures, and wait to be stopped."""
    from pysyncobj import SyncObj, SyncObjConf, replicated  # type: ignore[import-untyped]  # it ships no types

    class Store(SyncObj):  # type: ignore[misc]  # PySyncObj's own way of defining a service
        def __init__(self, me: str, others: list[str], settings: dict[str, Any]) -> None:
            super().__init__(me, others, SyncObjConf(**settings, commandsQueueSize=1_000_000))
            self._values: dict[str, bytes] = {}

        @replicated  # type: ignore[untyped-decorator]  # as above
        def put(self, key: str, value: bytes) -> None:
            self._values[key] = value

    me, *others, callers, value_bytes, seconds = sys.argv[1:]
    store: Any = Store(me, others, MANY_CALLERS if int(callers) > 1 else ONE_CALLER)
    while not (store.isReady() and store._getLeader() is not None):
        time.sleep(0.05)
    time.sleep(0.5)  # the others hear of the leader
    if str(store._getLeader()) == me:
        figures = LeaderLoad(store.put, int(callers), bytes(int(value_bytes))).run(float(seconds))
        print(json.dumps(figures), flush=True)
    while True:
        time.sleep(60)


if __name__ == "__main__":
    main()
