"""The client that people import: connections to all replicas around one pure session; trio and asyncio through anyio.

    async with bft.connect("cluster.toml", key="keys/alice.pem") as client:
        bank = client.service(Bank)
        await bank.deposit("alice", 5)

A call ends in a result, in a `ServiceError` that the service declares, or in an `OutcomeUnknown`; it executes at most
once whatever happens. All calls made in one turn of the event loop share one signed envelope. Cancelling a call stops
the waiting, not the operation: once it was sent, it may still execute.
"""

from __future__ import annotations

import operator
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Literal, TypeVar, get_args

import anyio

from bft.client.links import Links
from bft.client.probes import Probes
from bft.client.proxy import ServiceProxy
from bft.client.receipts import Receipt, Receipts
from bft.client.result import Result as Result
from bft.client.result import Waiter
from bft.client.session import (
    Ask,
    Cancel,
    Completed,
    EpochEntered,
    EventArrived,
    EventsMissed,
    Flush,
    Lost,
    Session,
    SessionInput,
    Submit,
    Unreachable,
)
from bft.config import Cluster, load_cluster
from bft.core.evidence import EvidenceFile, file_of
from bft.crypto.keys import KeyPair, load_key
from bft.crypto.signatures import Ed25519Signer, Ed25519Verifier
from bft.epochs import Configuration
from bft.errors import ClientClosed, EvidenceError, OutcomeUnknown, Overloaded, SessionExpired, TransportError
from bft.events import Deliver, Send, SetTimer, Tick
from bft.ids import ClientId, ReplicaId
from bft.messages import OPERATION_BYTES_MAX, EpochLink, EpochProof, FetchEpochs, ProbeReply, SignedReply
from bft.services.outcome import require_ok
from bft.transport.discovery import KnownChain, save_links
from bft.wire.codec import Malformed, decode_packet

Consistency = Literal["linearizable", "weak"]
CONSISTENCIES: tuple[Consistency, ...] = get_args(Consistency)
OnDone = Callable[[Completed | Lost], None]
T = TypeVar("T")

NAMES_APART_NS = 1_000_000
SECONDS = 1e-9
"""Per nanosecond."""


class Client:
    """A connected client; made by `connect`. All methods belong to the event loop that it runs in.

    Attributes:
        cluster: the configuration it was given.
        id: its public key.
        on_event: called with every event that the service emits for this session, in order; must not raise, else the
            client ends with what it raised.
        on_events_missed: called where events were lost; the service knows how to catch up. Must not raise either.
    """

    def __init__(self, cluster: Cluster, keys: KeyPair, chain: Path | None = None) -> None:
        self.cluster = cluster
        self.id = keys.public
        self.on_event: Callable[[EventArrived], None] = lambda event: None
        self.on_events_missed: Callable[[EventsMissed], None] = lambda event: None
        self._known = KnownChain.of(cluster, chain if cluster.admin else None)
        self._chain_file = chain
        self._chain = self._known.chain if cluster.admin else None
        self._signer = Ed25519Signer(cluster.id, ClientId(keys.public), keys.seed)
        self._links = Links(
            cluster.id,
            keys,
            self._known.configuration,
            on_frames=self._on_frames,
            on_change=self._on_change,
            on_links=self._on_links,
            after_round=self._send,
        )
        self._connected = anyio.Event()
        self._done: dict[int, OnDone] = {}
        self._ticket = 0
        self._flush = anyio.Event()
        self._in_round = False
        self._timer = anyio.Event()
        self._probes = Probes()
        verifier = Ed25519Verifier(cluster.id, cluster.replica_keys, None)
        self._receipts = Receipts(cluster, verifier, keys.public, self._chain) if cluster.signed_replies else None
        self._stated = anyio.Event()
        self._evidence: list[EvidenceFile] = []
        self._closed = False
        self._clock_shift = 0
        self._dice = Random()
        self._session = self._new_session(above=0)

    # --- calls ----------------------------------------------------------------------------------------------------

    async def call(self, operation: bytes, *, lane: int = 0, timeout: float | None = None) -> Result:
        """Order an operation and return what f + 1 replicas agree it returned.

        Args:
            operation: the service's own bytes, at most 1 MiB.
            lane: calls of one lane (1, 2, ...) execute in the order of submission; 0 means no order among calls.
            timeout: seconds to wait; None for as long as it takes.

        Raises:
            ServiceError: the service answered with an error.
            OutcomeUnknown: the time ran out, or the session ended first: it may or may not have executed.
            Overloaded: the replicas or this client have too much to do, now or until the time ran out; it was not
                sent and will not execute. An operation that replicas refused once it was sent ends as OutcomeUnknown:
                others may have accepted it.
            ClientClosed: the client is closed.
            ValueError: the operation is too long, or the lane negative.
        """
        waiter = Waiter()
        self.submit(operation, waiter, lane=lane)
        return await self._wait(self._ticket, waiter, timeout)

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
            ServiceError, OutcomeUnknown, Overloaded, ClientClosed, ValueError: as `call`.
        """
        waiter = Waiter()
        self.submit_query(operation, waiter, consistency=consistency)
        return await self._wait(self._ticket, waiter, timeout)

    def submit(self, operation: bytes, on_done: OnDone, *, lane: int = 0) -> None:
        """Order an operation and have `on_done` called with its outcome: no task switch per call, for those who count.

        `on_done` is called in the reading task; it may submit again, and must not block or raise.

        Raises:
            ClientClosed: the client is closed.
            ValueError: the operation is too long, or the lane negative.
        """
        if operator.index(lane) < 0:
            raise ValueError(f"lanes are 0, 1, 2, ..., found {lane}")
        self._do(Submit(self._register(operation, on_done), operation, lane))
        self._send_soon()

    def submit_query(self, operation: bytes, on_done: OnDone, *, consistency: Consistency = "linearizable") -> None:
        """Answer a read-only operation as `query` does, and have `on_done` called with its outcome, as `submit` does.

        Raises:
            ClientClosed: the client is closed.
            ValueError: the operation is too long, or the consistency none of the two.
        """
        if consistency not in CONSISTENCIES:
            raise ValueError(f"consistency is one of {', '.join(CONSISTENCIES)}, found {consistency!r}")
        self._do(Ask(self._register(operation, on_done), operation, 0, consistency == "linearizable"))
        self._send_soon()

    def service(self, service: type[T]) -> ServiceProxy[T]:
        """A typed view of the cluster's service: its commands and queries as async methods."""
        return ServiceProxy(self, service)

    def _register(self, operation: bytes, on_done: OnDone) -> int:
        if self._closed:
            raise ClientClosed("the client is closed")
        if len(operation) > OPERATION_BYTES_MAX:
            raise ValueError(f"an operation has at most {OPERATION_BYTES_MAX} bytes, found {len(operation)}")
        if not self._ticket:
            self._session = self._new_session(above=0)  # dated when it is first used, lest it be overtaken unused
        elif self._session.expired:
            self._session = self._new_session(above=self._session.incarnation)
        self._ticket += 1
        self._done[self._ticket] = on_done
        return self._ticket

    async def _wait(self, ticket: int, waiter: Waiter, timeout: float | None) -> Result:
        is_unsent = False
        try:
            with anyio.move_on_after(timeout):
                await waiter.event.wait()
        finally:
            if waiter.outcome is None:  # out of time, or cancelled
                is_unsent = self._session.holds_back(ticket)
                self._done.pop(ticket, None)
                self._do(Cancel(ticket))
        match waiter.outcome:
            case None if is_unsent:
                why = "the replicas are busy" if self._session.is_busy else f"{self.outstanding} calls are waiting"
                raise Overloaded(f"not sent within {timeout:g} s: {why}: {self._reachability()}")
            case None:
                raise OutcomeUnknown(f"no result within {timeout:g} s: {self._reachability()}")
            case Lost(reason="overloaded"):
                raise Overloaded(f"{self._session.outstanding} calls are waiting: {self._reachability()}")
            case Lost(reason="session-expired"):
                raise SessionExpired("another session of this key, or eviction, ended this one")
            case Lost(reason="result-unavailable"):
                raise OutcomeUnknown("it was ordered, but no replica keeps its result any more")
            case Lost():
                raise OutcomeUnknown("the client was closed before the result came")
            case Completed(status=status, value=value, seq=seq, index=index):
                return Result(require_ok(status, value), seq, index)

    def _needed(self, consistency: Consistency) -> int:
        quorums = self.configuration.quorums
        return quorums.weak if consistency == "weak" else quorums.strong

    def _reachability(self, consistency: Consistency = "linearizable") -> str:
        up, needed = len(self._links.channels), self._needed(consistency)
        why = "for a weak read" if consistency == "weak" else "to order an operation"
        return f"{up} of {self.configuration.quorums.n} replicas reachable, {needed} needed {why}"

    # --- state ----------------------------------------------------------------------------------------------------

    @property
    def configuration(self) -> Configuration:
        """The newest epoch of the cluster that is proven to this client."""
        return self._known.configuration

    def ask_for_epochs(self) -> None:
        """Ask all connected replicas for later epochs; `configuration` changes when one is proven."""
        if self._chain is None:
            return
        question = FetchEpochs(self.configuration.epoch)
        for replica in self.connected:
            self._links.post(replica, question)
        self._links.flush()

    @property
    def connected(self) -> tuple[int, ...]:
        """Replicas with a live connection, ascending."""
        return tuple(sorted(self._links.channels))

    @property
    def failures(self) -> dict[int, str]:
        """Why replicas cannot be reached, by replica; no entry for one that is connected or not yet tried."""
        return dict(sorted(self._links.failures.items()))

    @property
    def disagreements(self) -> dict[int, int]:
        """Per replica, how many of its replies differed from what f + 1 replicas agreed on."""
        return dict(self._session.disagreements)

    @property
    def position(self) -> int:
        """Highest slot whose effect this client has seen."""
        return self._session.seq

    @property
    def outstanding(self) -> int:
        """Calls without an outcome."""
        return self._session.outstanding

    async def wait_connected(self, timeout: float, consistency: Consistency = "linearizable") -> None:
        """Wait until a quorum is connected: one that can order, or, for weak reads, f + 1 that can answer.

        Raises:
            TransportError: too few replicas answered within `timeout` seconds.
        """
        with anyio.move_on_after(timeout):
            while len(self._links.channels) < self._needed(consistency):
                self._connected = anyio.Event()
                await self._connected.wait()
            return
        raise TransportError(self._reachability(consistency))

    async def receipt(self, result: Result, timeout: float = 5.0) -> Receipt:
        """A proof for others of what the slot of an ordered result returned to this client (`bft.Receipt.verify`).

        Ask soon: statements about the last 1024 slots are kept.

        Raises:
            EvidenceError: the cluster does not sign replies, the result was read without ordering, or fewer than f + 1
                replicas have signed it within `timeout` seconds.
        """
        if self._receipts is None:
            raise EvidenceError("the cluster file does not ask for signed_replies")
        if result.index < 0:
            raise EvidenceError("a read that was not ordered has no receipt")
        with anyio.move_on_after(timeout):
            while (found := self._receipts.receipt(self._session.incarnation, result.seq)) is None:
                self._stated = anyio.Event()
                await self._stated.wait()
            return found
        weak = self.configuration.quorums.weak
        raise EvidenceError(f"fewer than {weak} replicas have signed the results of slot {result.seq}")

    @property
    def evidence(self) -> tuple[EvidenceFile, ...]:
        """What replicas signed to this client and should not have; one of each kind per replica."""
        return tuple(self._evidence)

    async def probe(self, replica: int, timeout: float = 2.0) -> dict[str, object]:
        """A replica's own account of itself: for people and tools, vouched for by nobody else.

        Raises:
            TransportError: it is not connected or does not answer within `timeout` seconds.
        """
        channel = self._links.channels.get(replica)
        if channel is None:
            raise TransportError(f"replica {replica} is not connected")
        return await self._probes.ask(replica, channel, timeout)

    def _new_session(self, *, above: int) -> Session:
        """A session that follows the one with incarnation `above`, and takes over its unfinished reads."""
        incarnation = self._incarnation(above)
        quorums = self.configuration.quorums
        session = Session(self.cluster.protocol, quorums, self.id, self._signer, incarnation, chain=self._chain)
        if above:
            session.succeed(self._session)
        self._timer.set()
        return session

    def _incarnation(self, above: int) -> int:
        """The name of a session: by the own clock, corrected where replicas know better.

        Chance keeps two processes of one key apart that were told the same time.
        """
        clock = time.time_ns() + self._clock_shift
        if not above:
            return clock
        agreed, told = self._session.clock
        agreed += time.monotonic_ns() - told + self._dice.randrange(NAMES_APART_NS)
        if self._session.is_early:
            self._clock_shift += agreed - clock
            return agreed
        return max(clock, agreed, above + 1)

    # --- the session's world --------------------------------------------------------------------------------------

    def _do(self, event: SessionInput) -> None:
        """Step the session; packets wait for the flusher's turn."""
        for effect in self._session.step(event, time.monotonic_ns()):
            match effect:
                case Completed() | Lost():
                    on_done = self._done.pop(effect.ticket, None)
                    if on_done is not None:
                        on_done(effect)
                case Send():
                    assert isinstance(effect.to, int), f"a client sends to replicas, not to {effect.to!r}"
                    self._links.post(effect.to, effect.packet)
                case SetTimer():
                    self._timer.set()
                case EventArrived():
                    self.on_event(effect)
                case EventsMissed():
                    self.on_events_missed(effect)
                case EpochEntered():
                    self._enter()

    def _enter(self) -> None:
        """The session has proven a later epoch: connect to its members, and keep the proof."""
        self._links.follow(self.configuration)
        self._connected.set()
        self._send_soon()
        if self._chain_file is not None:
            save_links(self._chain_file, self._known.links)

    def _on_links(self, replica: int, links: tuple[EpochLink, ...]) -> None:
        self._do(Deliver(ReplicaId(replica), EpochProof(links)))
        self._send_soon()

    def _on_frames(self, replica: int, frames: list[bytes]) -> None:
        self._in_round = True
        for frame in frames:
            try:
                packet = decode_packet(frame)
            except Malformed:
                continue
            if isinstance(packet, ProbeReply):
                self._probes.on_reply(replica, packet)
            elif isinstance(packet, SignedReply):
                self._on_signed_reply(replica, packet)
            else:
                self._do(Deliver(ReplicaId(replica), packet))

    def _on_signed_reply(self, replica: int, packet: SignedReply) -> None:
        if self._receipts is not None:
            found = self._receipts.add(replica, packet)
            self._evidence += [file_of(evidence, self.cluster.id) for evidence in found]
            self._stated.set()
        self._do(Deliver(ReplicaId(replica), packet.reply))

    def _on_change(self, replica: int) -> None:
        self._connected.set()
        if self._chain is not None and replica in self._links.channels:
            self._links.post(replica, FetchEpochs(self.configuration.epoch))
        self._do(Unreachable(replica))
        self._send_soon()

    async def run(self) -> None:
        """Keep connections, send and tick, until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._run_flusher)
            tasks.start_soon(self._run_timer)
            tasks.start_soon(self._links.run)

    async def _run_flusher(self) -> None:
        """Send what the calls of this turn of the event loop have put together."""
        while True:
            await self._flush.wait()
            self._flush = anyio.Event()
            self._send()

    def _send_soon(self) -> None:
        if not self._in_round:  # whose end sends
            self._flush.set()

    def _send(self) -> None:
        self._in_round = False
        self._do(Flush())
        lost = self._links.flush()
        if self._session.primary in lost and len(self._links.channels) >= self.configuration.quorums.weak:
            # The session need not wait to learn that the primary cannot be reached: the others pass it on.
            self._do(Unreachable(self._session.primary))
            self._links.flush()

    async def _run_timer(self) -> None:
        """Tick the session when it wants it. Whoever sets the event has a new time for it, or another session."""
        while True:
            at = self._session.timer_at
            pause = None if at is None else max((at - time.monotonic_ns()) * SECONDS, 0.0)
            with anyio.move_on_after(pause):
                await self._timer.wait()
                self._timer = anyio.Event()
            if at is not None and at <= time.monotonic_ns():
                self._do(Tick())
                self._send_soon()

    def close(self) -> None:
        """Refuse further calls, and end every waiting one."""
        self._closed = True
        done, self._done = self._done, {}
        for ticket, on_done in done.items():
            on_done(Lost(ticket, "closed"))


@asynccontextmanager
async def connect(
    cluster: Cluster | str | Path,
    *,
    key: KeyPair | str | Path,
    passphrase: bytes | None = None,
    chain: Path | None = None,
) -> AsyncIterator[Client]:
    """Connect to a cluster as the holder of a key, under trio or asyncio.

    Returns at once: calls wait for connections (`Client.wait_connected` tells whether there are any).

    Args:
        cluster: the cluster file, or what it holds.
        key: a private key file (made by `bft keys new`), or a key pair.
        passphrase: of the key file, if it has one.
        chain: a file that keeps what is proven about later members (`bft.transport.discovery.chain_file`): with it the
            cluster is found even when all the members that the cluster file names are gone.

    Raises:
        ConfigError: the cluster file is missing or malformed.
        KeyFileError: the key file cannot be used.
    """
    config = cluster if isinstance(cluster, Cluster) else load_cluster(Path(cluster))
    keys = key if isinstance(key, KeyPair) else load_key(Path(key), passphrase)
    failure: BaseException | None = None
    async with anyio.create_task_group() as tasks:
        client = Client(config, keys, chain)
        tasks.start_soon(client.run)
        try:
            yield client
        except (Exception, KeyboardInterrupt, SystemExit) as error:
            failure = error  # raised below, where the task group does not wrap it into an exception group
        finally:
            client.close()
            tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
