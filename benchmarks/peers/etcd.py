"""etcd (Raft in Go, crash faults only, fsync): three members of Debian's `etcd-server`, plain HTTP on the loopback.

Driven through its documented JSON gateway (`POST /v3/kv/put`, `/v3/kv/range`), one kept-alive connection per caller, to
the leader. The gateway turns JSON into gRPC inside the server, which costs it CPU that a gRPC client would spare: with
many callers on few cores its own benchmark tool shows more.
"""

from __future__ import annotations

import base64
import json
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Any

import trio

from benchmarks.case import Case
from benchmarks.cluster import free_ports
from benchmarks.load import TaskLoop
from benchmarks.measures import WARM_UP_SECONDS, metrics_of
from benchmarks.peers import Absent, RunFailed, stop_processes, wait_until

READ_BYTES = 65536


class GatewayError(Exception):
    """An answer other than 200."""


def measure(case: Case, seconds: float) -> dict[str, float]:
    """See `benchmarks.peers.Adapter`."""
    program = shutil.which("etcd")
    if program is None:
        raise Absent("apt-get install etcd-server brings etcd (or put an etcd binary on the PATH)")
    if case.durability != "power" or case.rate or case.reply_bytes:
        raise Absent("etcd is driven with fsync, by closed-loop callers")
    with tempfile.TemporaryDirectory(prefix="bft-etcd-") as name:
        ports = free_ports(2 * case.replicas)
        clients, peers = ports[: case.replicas], ports[case.replicas :]
        processes = [_start(program, Path(name), index, clients, peers) for index in range(case.replicas)]
        try:
            wait_until(lambda: all(_leader(port) is not None for port in clients), "etcd elected no leader")
            leader = next((port for port in clients if _leader(port) is True), None)
            if leader is None:
                raise RunFailed("no member of etcd says that it leads")
            return trio.run(_load, leader, case, seconds)
        finally:
            stop_processes(processes)


def _start(program: str, folder: Path, index: int, clients: list[int], peers: list[int]) -> Popen[bytes]:
    members = ",".join(f"m{other}=http://127.0.0.1:{port}" for other, port in enumerate(peers))
    command = [
        program,
        f"--name=m{index}",
        f"--data-dir={folder / str(index)}",
        f"--listen-client-urls=http://127.0.0.1:{clients[index]}",
        f"--advertise-client-urls=http://127.0.0.1:{clients[index]}",
        f"--listen-peer-urls=http://127.0.0.1:{peers[index]}",
        f"--initial-advertise-peer-urls=http://127.0.0.1:{peers[index]}",
        f"--initial-cluster={members}",
        "--initial-cluster-state=new",
    ]
    return Popen(command, stdout=DEVNULL, stderr=DEVNULL)


def _leader(port: int) -> bool | None:
    """Whether this member leads; None while there is no leader or no answer."""
    try:
        request = urllib.request.Request(f"http://127.0.0.1:{port}/v3/maintenance/status", data=b"{}", method="POST")
        with urllib.request.urlopen(request, timeout=1.0) as answer:
            status: dict[str, Any] = json.load(answer)
    except (OSError, ValueError, urllib.error.URLError):
        return None
    leader = status.get("leader", "0")
    return None if leader in ("0", None) else bool(leader == status["header"]["member_id"])


async def _load(port: int, case: Case, seconds: float) -> dict[str, float]:
    calls = [await _caller(port, case, caller) for caller in range(case.callers)]
    return metrics_of(await TaskLoop(calls, (GatewayError,)).run(warm_up=WARM_UP_SECONDS, seconds=seconds))


async def _caller(port: int, case: Case, caller: int) -> Callable[[], Awaitable[None]]:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    key = base64.b64encode(b"k%d" % caller).decode()
    value = base64.b64encode(bytes(case.request_bytes)).decode()
    put = _request("/v3/kv/put", {"key": key, "value": value})
    read = _request("/v3/kv/range", {"key": key})
    turn = caller

    async def call() -> None:
        nonlocal turn
        turn += 1
        is_read = turn * case.reads_percent // 100 > (turn - 1) * case.reads_percent // 100
        await stream.send_all(read if is_read else put)
        await _answer(stream)

    return call


def _request(path: str, body: dict[str, str]) -> bytes:
    text = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        f"Content-Length: {len(text)}",
    )
    return "\r\n".join([*head, "", ""]).encode() + text


async def _answer(stream: trio.SocketStream) -> None:
    """Read one answer with a stated length or in chunks; etcd sends both.

    Raises:
        GatewayError: it is not 200.
    """
    data = b""
    while b"\r\n\r\n" not in data:
        data += await _more(stream)
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    length = next((int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:")), None)
    while len(body) < length if length is not None else not body.endswith(b"0\r\n\r\n"):
        body += await _more(stream)
    if lines[0].split()[1] != b"200":
        raise GatewayError(lines[0].decode())


async def _more(stream: trio.SocketStream) -> bytes:
    data = bytes(await stream.receive_some(READ_BYTES))
    if not data:
        raise RunFailed("etcd closed a connection")
    return data
