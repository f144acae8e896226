"""BFT-SMaRt (Byzantine faults, Java), from a directory with a built copy that the environment names.

    BFT_SMART_HOME=~/library/build/install/library python -m benchmarks run --suite peers --only bft-smart

Nothing of it is in this repository. The directory is what BFT-SMaRt's own build installs: `lib/*.jar` and `config/`.
Its documented demo programs are run, `ThroughputLatencyServer` and `ThroughputLatencyClient` of
`bftsmart.demo.microbenchmarks`, unsigned requests, in a copy of the configuration with n servers on free ports.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from statistics import median
from subprocess import DEVNULL, STDOUT, Popen

from benchmarks.case import Case
from benchmarks.cluster import free_ports
from benchmarks.measures import WARM_UP_SECONDS
from benchmarks.peers import Absent, RunFailed, stop_processes, wait_until

HOME = "BFT_SMART_HOME"
PACKAGE = "bftsmart.demo.microbenchmarks"
INTERVAL = 1000
"""Operations between two lines of the server's account."""
CLIENT_IDS_FROM = 1001
ENDLESS = 100_000_000
START_SECONDS = 60.0


def measure(case: Case, seconds: float) -> dict[str, float]:
    """See `benchmarks.peers.Adapter`."""
    home, java = os.environ.get(HOME), shutil.which("java")
    if not home or java is None:
        raise Absent(f"build BFT-SMaRt, install a Java runtime, and set {HOME} to the directory with lib/ and config/")
    jars = sorted(Path(home, "lib").glob("*.jar")) + sorted(Path(home, "bin").glob("*.jar"))
    if not jars or not Path(home, "config", "system.config").exists():
        raise Absent(f"{HOME} is {home}: it has no lib/*.jar or no config/system.config")
    if case.durability != "memory" or case.load != "sessions" or case.rate or case.reads_percent:
        raise Absent("BFT-SMaRt is driven in memory, by closed-loop callers that write")
    with tempfile.TemporaryDirectory(prefix="bft-smart-") as name:
        folder = Path(name)
        configure(Path(home, "config"), folder / "config", case.n)
        command = [java, "-cp", ":".join(map(str, jars)), "-Dlogback.configurationFile=./config/logback.xml"]
        processes: list[Popen[bytes]] = []
        try:
            return _run(command, folder, case, seconds, processes)
        finally:
            stop_processes(processes)


def configure(source: Path, target: Path, n: int) -> None:
    """A copy of the configuration for `n` servers on this machine, with f = (n - 1) / 3."""
    shutil.copytree(source, target)
    (target / "currentView").unlink(missing_ok=True)  # a view of another run would win over the configuration
    hosts = [f"{index} 127.0.0.1 {port} {port + 1}" for index, port in enumerate(_free_pairs(n))]
    (target / "hosts.config").write_text("\n".join(hosts) + "\n")
    wanted = {
        "system.servers.num": str(n),
        "system.servers.f": str((n - 1) // 3),
        "system.initial.view": ",".join(map(str, range(n))),
    }
    lines = (target / "system.config").read_text().splitlines()
    kept = [line for line in lines if line.split("=")[0].strip() not in wanted]
    (target / "system.config").write_text("\n".join([*kept, *(f"{k} = {v}" for k, v in wanted.items())]) + "\n")


def _free_pairs(count: int) -> list[int]:
    """Ports that are free together with their successors: older versions take the successor without asking."""
    pairs: list[int] = []
    while len(pairs) < count:
        (port,) = free_ports(1)
        with suppress(OSError), socket.create_server(("127.0.0.1", port + 1)):
            if not {port - 1, port, port + 1} & set(pairs):
                pairs.append(port)
    return pairs


def _run(
    command: list[str], folder: Path, case: Case, seconds: float, processes: list[Popen[bytes]]
) -> dict[str, float]:
    logs = [folder / f"server{index}.log" for index in range(case.n)]
    for index, log in enumerate(logs):
        arguments = [str(index), str(INTERVAL), str(case.reply_bytes), "0", "false", "nosig"]
        processes.append(_start([*command, f"{PACKAGE}.ThroughputLatencyServer", *arguments], folder, log))
    wait_until(lambda: all("Ready to process operations" in _text(log) for log in logs), "no BFT-SMaRt", START_SECONDS)
    client = folder / "client.log"
    arguments = [str(CLIENT_IDS_FROM), str(case.callers), str(ENDLESS), str(case.request_bytes), "0", "false", "true"]
    processes.append(_start([*command, f"{PACKAGE}.ThroughputLatencyClient", *arguments, "nosig"], folder, client))
    wait_until(lambda: bool(throughputs(_text(logs[0]))), "BFT-SMaRt's client did nothing", START_SECONDS)
    time.sleep(WARM_UP_SECONDS)
    before = len(throughputs(_text(logs[0])))
    time.sleep(seconds)
    rates = throughputs(_text(logs[0]))[before:]
    if not rates:
        raise RunFailed(f"the server measured nothing: fewer than {INTERVAL} operations in {seconds:g} s")
    rate = median(rates)
    # The programs print latencies at their end only, which a measured stretch does not reach: Little's law instead.
    return {"op_s": rate, "mean_ms": case.callers / rate * 1000}


def _start(command: list[str], folder: Path, log: Path) -> Popen[bytes]:
    with log.open("wb") as output:
        return Popen(command, cwd=folder, stdin=DEVNULL, stdout=output, stderr=STDOUT)


def throughputs(log: str) -> list[float]:
    """Operations a second in a server's lines `Throughput = 1234.5 operations/sec (Maximum observed: ...)`."""
    return [float(found) for found in re.findall(r"Throughput = ([0-9.]+) operations/sec", log)]


def _text(log: Path) -> str:
    return log.read_text(errors="replace") if log.exists() else ""
