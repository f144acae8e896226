"""ZooKeeper (crash faults only, fsync): three servers of Debian's `zookeeper`, the leader driven by `kazoo` (Python).

One client process keeps `callers` asynchronous `set` calls open over one connection, as this library's client does with
its sessions. Client and servers share the machine's cores; a Java client would cost less than kazoo's.
"""

from __future__ import annotations

import logging
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Any

from benchmarks.case import Case
from benchmarks.cluster import free_ports
from benchmarks.load import Recorder
from benchmarks.measures import WARM_UP_SECONDS, metrics_of
from benchmarks.peers import Absent, RunFailed, stop_processes, wait_until

CLASSPATH = ("/etc/zookeeper/conf", "/usr/share/java/zookeeper.jar")
MAIN = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
CONNECT_SECONDS = 20.0
DRAIN_SECONDS = 1.0


def measure(case: Case, seconds: float) -> dict[str, float]:
    """See `benchmarks.peers.Adapter`."""
    java = shutil.which("java")
    if java is None or not Path(CLASSPATH[1]).exists():
        raise Absent("apt-get install zookeeper brings ZooKeeper and a Java runtime")
    if find_spec("kazoo") is None:
        raise Absent("pip install 'bft[benchmarks]' brings kazoo, the client for ZooKeeper")
    if case.durability != "power" or case.load != "sessions" or case.rate or case.reads_percent or case.reply_bytes:
        raise Absent("ZooKeeper is driven with fsync, by closed-loop callers of one client that write")
    with tempfile.TemporaryDirectory(prefix="bft-zookeeper-") as name:
        ports = free_ports(3 * case.replicas)
        processes = [_start(java, Path(name), index, ports) for index in range(case.replicas)]
        try:
            clients = ports[: case.replicas]
            wait_until(lambda: all(_mode(port) in ("leader", "follower") for port in clients), "no ZooKeeper quorum")
            leader = next((port for port in clients if _mode(port) == "leader"), None)
            if leader is None:
                raise RunFailed("no ZooKeeper server says that it leads")
            return _load(leader, case, seconds)
        finally:
            stop_processes(processes)


def _start(java: str, folder: Path, index: int, ports: list[int]) -> Popen[bytes]:
    count = len(ports) // 3
    clients, quorum, election = ports[:count], ports[count : 2 * count], ports[2 * count :]
    data = folder / str(index)
    data.mkdir()
    (data / "myid").write_text(f"{index + 1}\n")
    lines = [
        "tickTime=2000",
        "initLimit=10",
        "syncLimit=5",
        f"dataDir={data}",
        f"clientPort={clients[index]}",
        "clientPortAddress=127.0.0.1",
        "admin.enableServer=false",
        "4lw.commands.whitelist=srvr",
    ]
    lines += [f"server.{other + 1}=127.0.0.1:{quorum[other]}:{election[other]}" for other in range(count)]
    config = data / "zoo.cfg"
    config.write_text("\n".join(lines) + "\n")
    command = [java, "-Xmx512m", "-cp", ":".join(CLASSPATH), "-Dzookeeper.log.dir=" + str(data), MAIN, str(config)]
    return Popen(command, stdout=DEVNULL, stderr=DEVNULL, cwd=data)


def _mode(port: int) -> str | None:
    """What a server says it is, by the documented command `srvr`; None while it does not answer."""
    answer = b""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
        connection.sendall(b"srvr")
        while data := connection.recv(4096):
            answer += data
    for line in answer.decode(errors="replace").splitlines():
        if line.startswith("Mode:"):
            return line.partition(":")[2].strip()
    return None


def _load(port: int, case: Case, seconds: float) -> dict[str, float]:
    from kazoo.client import KazooClient  # type: ignore[import-untyped]  # it ships no types

    logging.getLogger("kazoo").setLevel(logging.CRITICAL)
    client: Any = KazooClient(hosts=f"127.0.0.1:{port}", timeout=CONNECT_SECONDS)
    try:
        client.start(timeout=CONNECT_SECONDS)
        for caller in range(case.callers):
            client.create(f"/k{caller}", b"")
        callers = _Callers(client.set_async, case)
        return callers.run(seconds)
    except client.handler.timeout_exception as error:
        raise RunFailed(f"ZooKeeper did not answer: {error}") from error
    finally:
        client.stop()
        client.close()


class _Callers:
    """Each sets its own node again in the callback of the call before."""

    def __init__(self, set_async: Callable[[str, bytes], Any], case: Case) -> None:
        self._set = set_async
        self._value = bytes(case.request_bytes)
        self._count = case.callers
        self._recorder = Recorder()
        self._running = True
        self._lock = threading.Lock()

    def run(self, seconds: float) -> dict[str, float]:
        """Warm up, measure, let the last calls end."""
        for caller in range(self._count):
            self._call(caller)
        time.sleep(WARM_UP_SECONDS)
        with self._lock:
            self._recorder.begin()
        time.sleep(seconds)
        with self._lock:
            measured = self._recorder.end()
        self._running = False
        time.sleep(DRAIN_SECONDS)
        return metrics_of(measured)

    def _call(self, caller: int) -> None:
        since = time.perf_counter_ns()

        def on_done(result: Any) -> None:
            with self._lock:
                self._recorder.note(since, failed=not result.successful())
            if self._running and result.successful():
                self._call(caller)

        self._set(f"/k{caller}", self._value).rawlink(on_done)
