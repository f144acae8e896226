"""The price of replication: one server with this library's transport, signatures, codec, service and client, and no
protocol.

It checks the client's signature under every envelope, executes, makes the envelopes durable with one transaction per
turn (level `power` syncs it), and answers with the same bundles. It has no exactly-once table and no checkpoints, so
what it lacks beside agreement is small, and in its favour.
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import PIPE, Popen
from typing import cast

import trio

from benchmarks.case import Case
from benchmarks.measures import WARM_UP_SECONDS, make_load, metrics_of
from benchmarks.peers import stop_processes
from bft.client.client import Client
from bft.config import Cluster, Protocol, ReplicaEntry
from bft.crypto.keys import KeyPair, load_key, save_key
from bft.crypto.signatures import Ed25519Verifier
from bft.crypto.tls import server_context
from bft.digests import bundle_digest, payload_digest
from bft.events import Execute, OperationCall
from bft.ids import Peer, ReplicaId
from bft.membership import Quorums
from bft.messages import (
    ENVELOPE_BYTES_MAX,
    Bundle,
    Query,
    QueryReply,
    ReadAnswer,
    Reply,
    Request,
    Result,
    SignedRequest,
)
from bft.services.null import Null
from bft.state.executor import Executor
from bft.transport.channel import Channel, ChannelClosed
from bft.transport.frames import ReceiveBudget
from bft.transport.handshake import Host, welcome
from bft.transport.listener import Listener, listen
from bft.wire.codec import Malformed, decode_packet, decode_request, encode

CLUSTER_ID = bytes(32)
BUDGET_BYTES = 256 * 1024 * 1024
READY_SECONDS = 20.0


# --- the server ---------------------------------------------------------------------------------------------------


class SingleServer:
    """Executes whatever a client has signed, in the order of arrival."""

    def __init__(self, folder: Path, durability: str) -> None:
        self._keys = load_key(folder / "server.pem", None)
        self._verifier = Ed25519Verifier(CLUSTER_ID, [self._keys.public], None)
        self._executor = Executor(Null())
        self._store = None if durability == "memory" else _open_store(folder / "server.db", durability)
        self._is_synced = durability == "power"
        self._waiting: list[tuple[Channel, SignedRequest, Request]] = []
        self._arrived = trio.Event()
        self._context = server_context(self._keys, folder / "server.pem", "r0")

    async def run(self) -> None:
        """Serve until cancelled; prints the port."""
        sockets = listen("127.0.0.1", 0)
        print(sockets[0].getsockname()[1], flush=True)
        host = Host(CLUSTER_ID, ReplicaId(0), self._context, self._verifier)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Listener(sockets, host, budget=ReceiveBudget(BUDGET_BYTES)).run, self._serve)
            nursery.start_soon(self._work)

    async def _serve(self, channel: Channel, peer: Peer) -> None:
        welcome(channel, ENVELOPE_BYTES_MAX + 4096)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.run_writer)
            try:
                while True:
                    for frame in await channel.receive():
                        self._take(channel, frame)
            except ChannelClosed:
                nursery.cancel_scope.cancel()

    def _take(self, channel: Channel, frame: bytes) -> None:
        try:
            packet = decode_packet(frame)
            if isinstance(packet, Query):
                query = self._executor.machine.query
                answers = tuple(ReadAnswer(*query(operation)) for operation in packet.operations)
                channel.send([encode(QueryReply(packet.nonce, self._executor.seq, 0, 0, answers))])
            elif isinstance(packet, SignedRequest):
                request = decode_request(packet.payload)
                if self._verifier.verify_client(packet.client, payload_digest(packet.payload), packet.signature):
                    self._waiting.append((channel, packet, request))
                    self._arrived.set()
        except Malformed:
            return

    async def _work(self) -> None:
        """Make durable and answer everything that has come meanwhile, in one transaction."""
        while True:
            await self._arrived.wait()
            await trio.lowlevel.checkpoint()  # let the other readers that are ready hand over theirs
            self._arrived = trio.Event()
            batch, self._waiting = self._waiting, []
            replies = [(channel, self._execute(packet.client, request)) for channel, packet, request in batch]
            if self._store is not None and self._is_synced:
                await trio.to_thread.run_sync(_write, self._store, [packet for _, packet, _ in batch])
            elif self._store is not None:
                _write(self._store, [packet for _, packet, _ in batch])
            frames: dict[Channel, list[bytes]] = {}
            for channel, reply in replies:
                frames.setdefault(channel, []).append(encode(reply))
            for channel, several in frames.items():
                channel.send(several)

    def _execute(self, client: bytes, request: Request) -> Reply:
        seq = self._executor.seq + 1
        calls = [
            OperationCall(client, request.session, request.number + index, index, operation)
            for index, operation in enumerate(request.operations)
        ]
        executed = self._executor.execute(Execute(seq, seq, seq, bytes(32), calls, False))
        results = tuple(
            Result(call.number, call.index, status, value)
            for call, (status, value) in zip(calls, executed.results, strict=True)
        )
        bundle = encode(Bundle(results, ()))
        return Reply(request.session, seq, 0, 0, bundle_digest(bundle), bundle)


def _open_store(path: Path, durability: str) -> sqlite3.Connection:
    store = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    store.execute("pragma journal_mode = wal")
    store.execute(f"pragma synchronous = {'full' if durability == 'power' else 'normal'}")
    store.execute("create table log (number integer primary key, client blob, payload blob, signature blob)")
    return store


def _write(store: sqlite3.Connection, packets: list[SignedRequest]) -> None:
    store.execute("begin")
    store.executemany(
        "insert into log (client, payload, signature) values (?, ?, ?)",
        [(packet.client, packet.payload, packet.signature) for packet in packets],
    )
    store.execute("commit")


# --- the client ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _OneServer:
    """What `Client` needs of a cluster, for a "cluster" of one: no configuration file could say it."""

    replica: tuple[ReplicaEntry, ...]
    protocol: Protocol = field(default_factory=Protocol)
    quorums: Quorums = field(default_factory=lambda: Quorums.of(1))
    id: bytes = CLUSTER_ID
    admin: tuple[()] = ()
    admin_keys: frozenset[bytes] = frozenset()
    admin_threshold: int = 1
    signed_replies: bool = False

    @property
    def replica_keys(self) -> tuple[bytes, ...]:
        return tuple(bytes.fromhex(entry.key) for entry in self.replica)


@asynccontextmanager
async def _clients(cluster: _OneServer, count: int) -> AsyncIterator[list[Client]]:
    clients = [Client(cast("Cluster", cluster), KeyPair.generate()) for _ in range(count)]
    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(client.run)
        for client in clients:
            await client.wait_connected(READY_SECONDS)
        yield clients
        for client in clients:
            client.close()
        nursery.cancel_scope.cancel()


def measure(case: Case, seconds: float) -> dict[str, float]:
    """See `benchmarks.peers.Adapter`; always present."""
    with tempfile.TemporaryDirectory(prefix="bft-single-server-") as name:
        keys = KeyPair.generate()
        save_key(Path(name) / "server.pem", keys)
        command = [sys.executable, "-m", "benchmarks.peers.single_server", name, case.durability]
        process = Popen(command, stdout=PIPE, cwd=Path(__file__).parent.parent.parent)
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            cluster = _OneServer((ReplicaEntry(0, "127.0.0.1", port, keys.public_hex),))
            return trio.run(_measure, cluster, case, seconds)
        finally:
            stop_processes([process])


async def _measure(cluster: _OneServer, case: Case, seconds: float) -> dict[str, float]:
    async with _clients(cluster, case.callers if case.load == "clients" else 1) as clients:
        return metrics_of(await make_load(case, clients).run(warm_up=WARM_UP_SECONDS, seconds=seconds))


if __name__ == "__main__":
    trio.run(SingleServer(Path(sys.argv[1]), sys.argv[2]).run)
