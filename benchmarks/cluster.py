"""Real clusters for benchmarks: n processes over TLS on this machine, with keys and stores in a temporary folder."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bft.config import Cluster, Durability, Protocol, ReplicaEntry, load_cluster
from bft.crypto.keys import KeyPair, save_key

NULL = "bft.services.null:Null"
KEY_VALUE = "bft.services.kv:KeyValue"
"""Services, as a cluster file names them."""
STOP_SECONDS = 10


@dataclass
class BenchmarkCluster:
    """A running cluster.

    Attributes:
        config: what clients need.
        folder: where its files are.
        processes: one per replica; None where it was killed.
        arguments: of every replica's program, beside its configuration.
        adversaries: replica -> what it does wrong, as `bft replica run --adversary` takes it.
    """

    config: Cluster
    folder: Path
    processes: list[subprocess.Popen[bytes] | None] = field(default_factory=list)
    arguments: tuple[str, ...] = ()
    adversaries: dict[int, str] = field(default_factory=dict)

    def start(self, replica: int) -> None:
        """Start (again) the process of one replica."""
        log = (self.folder / f"r{replica}.log").open("ab")
        config = str(self.folder / f"r{replica}.toml")
        command = [sys.executable, "-m", "benchmarks.replica", config, *self.arguments]
        if replica in self.adversaries:
            run = ["replica", "run", config, "--adversary", self.adversaries[replica], "--log-level", "error"]
            command = [sys.executable, "-m", "bft.cli.main", *run]
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=Path(__file__).parent.parent)
        self.processes[replica] = process

    def kill(self, replica: int) -> None:
        """kill -9."""
        process = self.processes[replica]
        if process is not None:
            process.kill()
            process.wait()
            self.processes[replica] = None

    def memory_mb(self) -> list[int]:
        """Resident memory of every replica process now, in MiB; 0 where none runs."""
        return [_resident_mb(process.pid) if process is not None else 0 for process in self.processes]

    def cpu_seconds(self) -> list[float]:
        """CPU seconds that every replica process has used so far."""
        return [_cpu_seconds(process.pid) if process is not None else 0.0 for process in self.processes]

    def stop(self) -> None:
        """End all processes."""
        for process in self.processes:
            if process is not None:
                process.terminate()
        for process in self.processes:
            if process is not None:
                try:
                    process.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


@contextmanager
def running_cluster(
    *,
    n: int = 4,
    durability: Durability = "memory",
    service: str,
    protocol: Protocol | None = None,
    arguments: tuple[str, ...] = (),
    adversaries: dict[int, str] | None = None,
) -> Iterator[BenchmarkCluster]:
    """Start a cluster, and stop it at the end."""
    with tempfile.TemporaryDirectory(prefix="bft-benchmark-") as name:
        folder = Path(name)
        config = _write_files(folder, n, durability, service, protocol or Protocol())
        cluster = BenchmarkCluster(config, folder, [None] * n, arguments, adversaries or {})
        try:
            for replica in range(n):
                cluster.start(replica)
            yield cluster
        finally:
            cluster.stop()


def _write_files(folder: Path, n: int, durability: Durability, service: str, protocol: Protocol) -> Cluster:
    keys = [KeyPair.generate() for _ in range(n)]
    ports = free_ports(n)
    for replica in range(n):
        save_key(folder / f"r{replica}.pem", keys[replica])
        (folder / f"r{replica}.toml").write_text(
            f'id = {replica}\ncluster = "cluster.toml"\nkey = "r{replica}.pem"\n'
            f'data = "data-r{replica}"\ndurability = "{durability}"\n'
        )
    entries = tuple(ReplicaEntry(index, "127.0.0.1", ports[index], keys[index].public_hex) for index in range(n))
    lines = ['name = "benchmark"', f'service = "{service}"', "[protocol]"]
    lines += [f"{name} = {getattr(protocol, name)}" for name in protocol.__struct_fields__]
    for entry in entries:
        lines += ["[[replica]]", f"id = {entry.id}", f'host = "{entry.host}"', f"port = {entry.port}"]
        lines.append(f'key = "{entry.key}"')
    (folder / "cluster.toml").write_text("\n".join(lines) + "\n")
    return load_cluster(folder / "cluster.toml")


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [item.getsockname()[1] for item in sockets]
    for item in sockets:
        item.close()
    return ports


def _resident_mb(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // (1 << 20)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
