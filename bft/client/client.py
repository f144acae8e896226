"""The client that people import: connections to all replicas around one pure session; trio and asyncio through anyio.

    async with bft.connect("cluster.toml", key="keys/alice.pem") as client:
        bank = client.service(Bank)
        await bank.deposit("alice", 5)

A call ends in a result, in a `ServiceError` that the service declares, or in an `OutcomeUnknown`; it executes at most
once whatever happens. All calls made in one turn of the event loop share one signed envelope. Cancelling a call stops
the waiting, not the operation: it may still execute.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal, TypeVar

import anyio
import msgspec
from anyio.abc import TaskGroup

from bft.client.proxy import ServiceProxy
from bft.client.session import (
    Ask,
    Completed,
    EventArrived,
    Flush,
    Lost,
    Session,
    SessionInput,
    Submit,
    Unreachable,
)
from bft.config import Cluster, load_cluster
from bft.crypto.keys import KeyPair, load_key
from bft.crypto.signatures import Ed25519Signer
from bft.errors import ClientClosed, OutcomeUnknown, Overloaded, ServiceError, SessionExpired, TransportError
from bft.events import Deliver, Send, SetTimer, Tick
from bft.ids import ClientId, ReplicaId
from bft.messages import STATUS_OK, Packet, Probe, ProbeReply
from bft.transport.channel import Channel
from bft.transport.dial import dial
from bft.transport.handshake import Identity
from bft.wire.codec import Malformed, decode_packet, encode

Consistency = Literal["linearizable", "weak"]
OnDone = Callable[[Completed | Lost], None]
T = TypeVar("T")

RECONNECT_SECONDS = (0.05, 2.0)
NANOSECOND = 1e-9


@dataclass(frozen=True, slots=True)
class Result:
    """What a call returned, and where it stands in the total order.

    Attributes:
        value: the service's own bytes.
        seq, index: position of an ordered operation, a fencing token; `index` is -1 for an unordered read.
    """

    value: bytes
    seq: int
    index: int


class _Waiter:
    """Somebody who waits for one call."""

    __slots__ = ("event", "outcome")

    def __init__(self) -> None:
        self.event = anyio.Event()
        self.outcome: Completed | Lost | None = None

    def __call__(self, outcome: Completed | Lost) -> None:
        self.outcome = outcome
        self.event.set()


class Client:
    """A connected client; made by `connect`.

    Attributes:
        cluster: the configuration it was given.
        id: its public key.
        on_event: called with every event that the service emits for this session.
    """

    def __init__(self, cluster: Cluster, keys: KeyPair, tasks: TaskGroup) -> None:
        self.cluster = cluster
        self.id = keys.public
        self.on_event: Callable[[EventArrived], None] = lambda event: None
        self._quorums = cluster.quorums
        self._keys = keys
        self._signer = Ed25519Signer(cluster.id, ClientId(keys.public), keys.seed)
        self._tasks = tasks
        self._random = Random()
        self._channels: dict[int, Channel] = {}
        self._connected = anyio.Event()
        self._outbox: dict[int, list[bytes]] = {}
        self._encoded: tuple[Packet | None, bytes] = (None, b"")
        self._done: dict[int, OnDone] = {}
        self._ticket = 0
        self._flush = anyio.Event()
        self._deadline: int | None = None
        self._timer = anyio.Event()
        self._probes: dict[int, _ProbeWaiter] = {}
        self._closed = False
        self._session = self._new_session()

    # --- calls ----------------------------------------------------------------------------------------------------

    async def call(self, operation: bytes, *, lane: int = 0, timeout: float | None = None) -> Result:
        """Order an operation and return what f + 1 replicas agree it returned.

        Args:
            operation: the service's own bytes.
            lane: calls of one lane (1, 2, ...) execute in the order of submission; 0 means no order among calls.
            timeout: seconds to wait; None for as long as it takes.

        Raises:
            ServiceError: the service answered with an error.
            OutcomeUnknown: the time ran out, or the session ended first: it may or may not have executed.
            Overloaded: too many calls are waiting; it was not sent.
        """
        waiter = _Waiter()
        self.submit(operation, waiter, lane=lane)
        return await self._wait(waiter, timeout)

    async def query(
        self, operation: bytes, *, consistency: Consistency = "linearizable", timeout: float | None = None
    ) -> Result:
        """Answer a read-only operation without ordering it, if a quorum agrees; else order it.

        Args:
            operation: the service's own bytes; must not change its state.
            consistency: "linearizable" sees every operation that completed before it; "weak" may be stale, but never
                older than what this client has seen.
            timeout: seconds to wait; None for as long as it takes.

        Raises:
            ServiceError, OutcomeUnknown, Overloaded: as `call`.
        """
        waiter = _Waiter()
        ticket = self._register(waiter)
        floor = self._session.seq if consistency == "weak" else 0
        self._do(Ask(ticket, operation, floor, consistency == "linearizable"))
        self._flush.set()
        return await self._wait(waiter, timeout)

    def submit(self, operation: bytes, on_done: OnDone, *, lane: int = 0) -> None:
        """Order an operation and have `on_done` called with its outcome: no task switch per call, for those who count.

        `on_done` is called in the reading task; it may submit again, and must not block or raise.

        Raises:
            ClientClosed: the client is closed.
        """
        self._do(Submit(self._register(on_done), operation, lane))
        self._flush.set()

    def service(self, service: type[T]) -> ServiceProxy[T]:
        """A typed view of the cluster's service: its commands and queries as async methods."""
        return ServiceProxy(self, service)

    def _register(self, on_done: OnDone) -> int:
        if self._closed:
            raise ClientClosed("the client is closed")
        if self._session.expired and not self._done:
            self._session = self._new_session()
        self._ticket += 1
        self._done[self._ticket] = on_done
        return self._ticket

    async def _wait(self, waiter: _Waiter, timeout: float | None) -> Result:
        with anyio.move_on_after(timeout):
            await waiter.event.wait()
        match waiter.outcome:
            case None:
                raise OutcomeUnknown(f"no result within {timeout:g} s: {self._reachability()}")
            case Lost(reason="overloaded"):
                raise Overloaded(f"{self._session.outstanding} calls are waiting")
            case Lost(reason="session-expired"):
                raise SessionExpired("another session of this key, or eviction, ended this one")
            case Lost(reason=reason):
                raise OutcomeUnknown(f"the operation executed, but its result is gone ({reason})")
            case Completed(status=status, value=value, seq=seq, index=index):
                if status != STATUS_OK:
                    raise _service_error(value)
                return Result(value, seq, index)

    def _reachability(self) -> str:
        quorums = self._quorums
        up = len(self._channels)
        return f"{up} of {quorums.n} replicas reachable, {quorums.strong} needed to order an operation"

    # --- state ----------------------------------------------------------------------------------------------------

    @property
    def connected(self) -> tuple[int, ...]:
        """Replicas with a live connection, ascending."""
        return tuple(sorted(self._channels))

    @property
    def disagreements(self) -> dict[int, int]:
        """Per replica, how many of its replies differed from what f + 1 replicas agreed on."""
        return dict(self._session.disagreements)

    @property
    def position(self) -> int:
        """Highest slot whose effect this client has seen."""
        return self._session.seq

    async def wait_connected(self, timeout: float) -> None:
        """Wait until a quorum that can order is connected.

        Raises:
            TransportError: too few replicas answered in time.
        """
        with anyio.move_on_after(timeout):
            while len(self._channels) < self._quorums.strong:
                self._connected = anyio.Event()
                await self._connected.wait()
            return
        raise TransportError(self._reachability())

    async def probe(self, replica: int, timeout: float = 2.0) -> dict[str, object]:
        """A replica's own account of itself.

        Raises:
            TransportError: it is not connected or does not answer in time.
        """
        channel = self._channels.get(replica)
        if channel is None:
            raise TransportError(f"replica {replica} is not connected")
        self._ticket += 1
        nonce = self._ticket
        waiter = self._probes[nonce] = _ProbeWaiter(replica)
        channel.send([encode(Probe(nonce))])
        with anyio.move_on_after(timeout):
            await waiter.event.wait()
        del self._probes[nonce]
        if waiter.report is None:
            raise TransportError(f"replica {replica} did not answer within {timeout:g} s")
        return waiter.report

    def _new_session(self) -> Session:
        return Session(self.cluster.protocol, self._quorums, self.id, self._signer, time.time_ns())

    # --- the session's world ---------------------------------------------------------------------------------------

    def _do(self, event: SessionInput) -> None:
        """Step the session; packets wait in the outbox until the flusher's turn."""
        for effect in self._session.step(event, time.monotonic_ns()):
            match effect:
                case Send():
                    self._outbox.setdefault(int(str(effect.to)), []).append(self._encode(effect.packet))
                case Completed() | Lost():
                    on_done = self._done.pop(effect.ticket, None)
                    if on_done is not None:
                        on_done(effect)
                case SetTimer():
                    self._deadline = effect.at_ns
                    self._timer.set()
                case EventArrived():
                    self.on_event(effect)

    def _encode(self, packet: Packet) -> bytes:
        """Encode once what goes to several replicas."""
        if self._encoded[0] is not packet:
            self._encoded = (packet, encode(packet))
        return self._encoded[1]

    def _send_outbox(self) -> None:
        for replica, frames in self._outbox.items():
            channel = self._channels.get(replica)
            if channel is not None:
                channel.send(frames)
        self._outbox.clear()

    async def run_flusher(self) -> None:
        """Send what the calls of this turn of the event loop have put together."""
        while True:
            await self._flush.wait()
            self._flush = anyio.Event()
            self._do(Flush())
            self._send_outbox()

    async def run_timer(self) -> None:
        """Tick the session while it waits for something."""
        while True:
            await self._timer.wait()
            self._timer = anyio.Event()
            while self._deadline is not None:
                pause = (self._deadline - time.monotonic_ns()) * NANOSECOND
                self._deadline = None
                await anyio.sleep(max(pause, 0))
                self._do(Tick())
                self._send_outbox()

    async def run_link(self, replica: int) -> None:
        """Keep a connection to one replica, for ever."""
        entry = self.cluster.replica[replica]
        identity = Identity(self.cluster.id, ClientId(self.id), self._keys)
        pause = RECONNECT_SECONDS[0]
        while True:
            try:
                channel = await dial(
                    entry.host,
                    entry.port,
                    server=ReplicaId(replica),
                    server_key=self.cluster.replica_keys[replica],
                    identity=identity,
                )
            except TransportError:
                await anyio.sleep(pause * (0.5 + self._random.random()))
                pause = min(pause * 2, RECONNECT_SECONDS[1])
                continue
            pause = RECONNECT_SECONDS[0]
            await self._use(replica, channel)
            await anyio.sleep(pause * (0.5 + self._random.random()))

    async def _use(self, replica: int, channel: Channel) -> None:
        self._channels[replica] = channel
        self._connected.set()
        self._do(Unreachable(replica))
        self._flush.set()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(channel.run_writer)
                await self._read(replica, channel)
                tasks.cancel_scope.cancel()
        finally:
            del self._channels[replica]
            channel.close()
        self._do(Unreachable(replica))
        self._send_outbox()

    async def _read(self, replica: int, channel: Channel) -> None:
        while True:
            try:
                frames = await channel.receive()
            except TransportError:
                return
            for frame in frames:
                try:
                    packet = decode_packet(frame)
                except Malformed:
                    continue
                if isinstance(packet, ProbeReply):
                    self._on_probe_reply(replica, packet)
                else:
                    self._do(Deliver(replica, packet))
            self._flush.set()

    def _on_probe_reply(self, replica: int, reply: ProbeReply) -> None:
        waiter = self._probes.get(reply.nonce)
        if waiter is None or waiter.replica != replica:
            return
        try:
            waiter.report = msgspec.json.decode(reply.report, type=dict[str, object])
        except msgspec.DecodeError:
            return
        waiter.event.set()

    def close(self) -> None:
        """End every waiting call."""
        self._closed = True
        for ticket, on_done in list(self._done.items()):
            on_done(Lost(ticket, "closed"))
        self._done.clear()


class _ProbeWaiter:
    __slots__ = ("event", "replica", "report")

    def __init__(self, replica: int) -> None:
        self.replica = replica
        self.event = anyio.Event()
        self.report: dict[str, object] | None = None


def _service_error(value: bytes) -> ServiceError:
    try:
        code, detail = msgspec.msgpack.decode(value, type=tuple[str, str])
    except msgspec.DecodeError:
        return ServiceError("Failed", value.decode(errors="replace"))
    return ServiceError(code, detail)


@asynccontextmanager
async def connect(
    cluster: Cluster | str | Path, *, key: KeyPair | str | Path, passphrase: bytes | None = None
) -> AsyncIterator[Client]:
    """Connect to a cluster as the holder of a key, under trio or asyncio.

    Args:
        cluster: the cluster file, or what it holds.
        key: a private key file (made by `bft keys new`), or a key pair.
        passphrase: of the key file, if it has one.

    Raises:
        ConfigError: the cluster file is missing or malformed.
        KeyFileError: the key file cannot be used.
    """
    config = cluster if isinstance(cluster, Cluster) else load_cluster(Path(cluster))
    keys = key if isinstance(key, KeyPair) else load_key(Path(key), passphrase)
    async with anyio.create_task_group() as tasks:
        client = Client(config, keys, tasks)
        tasks.start_soon(client.run_flusher)
        tasks.start_soon(client.run_timer)
        for replica in range(config.quorums.n):
            tasks.start_soon(client.run_link, replica)
        try:
            yield client
        finally:
            client.close()
            tasks.cancel_scope.cancel()
