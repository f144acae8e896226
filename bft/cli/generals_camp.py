"""Be the process of one general: `python -m bft.cli.generals_camp`, started by `generals_sockets` and by
nobody else.

Reads its post and then the start signal from standard input, a line of JSON each; fights over TCP; reports on
standard output. A peer's bytes are never trusted: frames are bounded, a peer that sends too many is cut off,
what cannot be read counts as nothing said, and nobody waits for a peer that does not read.
"""

from __future__ import annotations

import random
import secrets
import sys
import time
from collections.abc import Sequence

import msgspec
import trio

from bft.crypto.generals_keys import Ed25519Notary
from bft.generals.algorithms import algorithm_named
from bft.generals.crimes import crime_named
from bft.generals.graphs import parse_graph
from bft.generals.ids import GeneralId, Order
from bft.generals.plan import Plan
from bft.generals.run import Flight, make_member
from bft.generals.scripts import Lie, scripted
from bft.generals.seam import (
    Decide,
    Deliver,
    Event,
    General,
    Message,
    Report,
    RoundEnds,
    RoundStarts,
    Send,
    Withheld,
)
from bft.generals.signatures import signers_of
from bft.generals.traitors import Coalition, Crime

HOST = "127.0.0.1"
FRAME_BYTES_MAX = 65_536
PEER_FRAMES_MAX = 20_000  # from one peer in one battle; a peer that sends more is cut off
QUEUE_FRAMES_MAX = 4_096
HEAD_BYTES = 4
MILLISECOND_NS = 1_000_000


class Post(msgspec.Struct, frozen=True):
    """Tell one process who it is. `seeds` are the private keys it may hold, `tokens` what it shares with each
    peer."""

    me: GeneralId
    n: int
    m: int
    order: Order
    orders: tuple[Order, ...]
    graph: str | None
    hops: int | None
    instance: str
    algorithm: str
    crime: str | None
    lies: tuple[Lie, ...]
    traitors: tuple[GeneralId, ...]
    seeds: dict[GeneralId, bytes]
    public: dict[GeneralId, bytes]
    tokens: dict[GeneralId, bytes]
    round_ms: int
    seed: int

    def plan(self) -> Plan:
        """Return the plan of the battle."""
        graph = None if self.graph is None else parse_graph(self.graph, self.n)
        return Plan(
            n=self.n,
            m=self.m,
            order=self.order,
            orders=self.orders,
            graph=graph,
            hops=self.hops,
            instance=self.instance,
        )

    def make(self) -> General:
        """Make the general of this post."""
        plan, notary = self.plan(), Ed25519Notary(self.seeds, self.public)
        crime = crime_of(self.crime, self.lies, plan)
        dice = random.Random(f"{self.seed}/{self.me}")
        coalition = Coalition(self.traitors, signers_of(notary, self.traitors if crime else ()), dice)
        return make_member(algorithm_named(self.algorithm), self.me, plan, crime, coalition, notary)


class Start(msgspec.Struct, frozen=True):
    """Tell all processes where the others listen, and when round 1 starts (nanoseconds of `time.time_ns`)."""

    ports: dict[GeneralId, int]
    start_ns: int


class Diary(msgspec.Struct, frozen=True):
    """Report what one process did and received."""

    decision: Order | None
    sent: tuple[Flight, ...]
    received: tuple[Flight, ...]
    late: int


class Listening(msgspec.Struct, frozen=True):
    """Report the port on which a process listens."""

    port: int


class _Hello(msgspec.Struct, frozen=True, array_like=True):
    general: GeneralId
    token: bytes


class Frame(msgspec.Struct, frozen=True, array_like=True):
    """Carry a message with the round that it belongs to."""

    round: int
    message: Message


def crime_of(name: str | None, lies: Sequence[Lie], plan: Plan) -> Crime | None:
    if lies:
        return scripted(lies)
    return None if name is None else crime_named(name, plan)


async def read_frame(stream: trio.abc.ReceiveStream) -> bytes | None:
    """Read one frame; None when the peer closed or announces more than `FRAME_BYTES_MAX`."""
    head = await _read_exactly(stream, HEAD_BYTES)
    if head is None:
        return None
    size = int.from_bytes(head, "big")
    return None if size > FRAME_BYTES_MAX else await _read_exactly(stream, size)


async def _read_exactly(stream: trio.abc.ReceiveStream, size: int) -> bytes | None:
    held = bytearray()
    while len(held) < size:
        try:
            some = await stream.receive_some(size - len(held))
        except trio.BrokenResourceError:
            return None
        if not some:
            return None
        held += some
    return bytes(held)


def frame(body: bytes) -> bytes:
    """Return the bytes of one frame."""
    assert len(body) <= FRAME_BYTES_MAX, f"frame of {len(body)} bytes, at most {FRAME_BYTES_MAX}"
    return len(body).to_bytes(HEAD_BYTES, "big") + body


class Camp:
    """Be the process of one general: sockets on one side, the state machine on the other."""

    def __init__(self, post: Post, start: Start) -> None:
        """Take a post."""
        self.post = post
        self.start = start
        self.plan = post.plan()
        self.rounds = algorithm_named(post.algorithm).rounds(self.plan)
        self.general = post.make()
        self.round = 0
        self.waiting: dict[int, list[tuple[GeneralId, Message]]] = {}
        self.queues: dict[GeneralId, trio.MemorySendChannel[bytes]] = {}
        self.sent: list[Flight] = []
        self.received: list[Flight] = []
        self.decision: Order | None = None
        self.late = 0

    async def fight(self, listener: trio.SocketListener) -> Diary:
        """Keep the rounds until the last is over."""
        peers = [peer for peer in self.plan.generals if self.plan.has_road(self.post.me, peer)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, self._accept, [listener])
            for peer in peers:
                send_queue, receive_queue = trio.open_memory_channel[bytes](QUEUE_FRAMES_MAX)
                self.queues[peer] = send_queue
                nursery.start_soon(self._write, peer, receive_queue)
            for round_ in range(1, self.rounds + 1):
                await self._sleep_until(round_ - 1)
                self._open_round(round_)
                await self._sleep_until(round_)
                self._step(RoundEnds(round_))
            nursery.cancel_scope.cancel()
        return Diary(self.decision, tuple(self.sent), tuple(self.received), self.late)

    async def _sleep_until(self, rounds_over: int) -> None:
        deadline_ns = self.start.start_ns + rounds_over * self.post.round_ms * MILLISECOND_NS
        await trio.sleep(max(0.0, (deadline_ns - time.time_ns()) / 1e9))

    def _open_round(self, round_: int) -> None:
        self.round = round_
        self._step(RoundStarts(round_))
        for sender, message in self.waiting.pop(round_, []):
            self._receive(sender, message)

    def _receive(self, sender: GeneralId, message: Message) -> None:
        fault = next(
            (
                effect.fault
                for effect in self._effects(Deliver(sender, message))
                if isinstance(effect, Report)
            ),
            None,
        )
        self.received.append(Flight(self.round, sender, self.post.me, message, fault=fault))

    def _step(self, event: Event) -> None:
        for effect in self._effects(event):
            match effect:
                case Send() if self.plan.has_road(self.post.me, effect.to):
                    body = msgspec.msgpack.encode(Frame(self.round, effect.message))
                    self.sent.append(
                        Flight(self.round, self.post.me, effect.to, effect.message, truthful=effect.truthful)
                    )
                    self._enqueue(effect.to, frame(body))
                case Withheld():
                    self.sent.append(
                        Flight(
                            self.round, self.post.me, effect.to, effect.message, truthful=False, sent=False
                        )
                    )
                case Decide():
                    self.decision = effect.order
                case _:
                    pass

    def _effects(self, event: Event) -> Sequence[Send | Withheld | Decide | Report]:
        return self.general.step(event, time.time_ns())

    def _enqueue(self, peer: GeneralId, data: bytes) -> None:
        try:
            self.queues[peer].send_nowait(data)
        except (trio.WouldBlock, trio.BrokenResourceError):
            self.late += 1  # a peer that does not read loses messages; nobody waits for him

    async def _write(self, peer: GeneralId, queue: trio.MemoryReceiveChannel[bytes]) -> None:
        try:
            stream = await trio.open_tcp_stream(HOST, self.start.ports[peer])
            hello = _Hello(self.post.me, self.post.tokens[peer])
            await stream.send_all(frame(msgspec.msgpack.encode(hello)))
            async with queue, stream:
                async for data in queue:
                    await stream.send_all(data)
        except (OSError, trio.BrokenResourceError):
            self.late += 1  # the peer is gone: to us he is silent from here on

    async def _accept(self, stream: trio.SocketStream) -> None:
        async with stream:
            sender = await self._greet(stream)
            if sender is None:
                return
            for _ in range(PEER_FRAMES_MAX):
                body = await read_frame(stream)
                if body is None:
                    return
                try:
                    found = msgspec.msgpack.decode(body, type=Frame)
                except msgspec.MsgspecError:
                    continue  # not a message: as if nothing had been sent
                self._sort(sender, found)

    async def _greet(self, stream: trio.SocketStream) -> GeneralId | None:
        """Return who is calling, None when he cannot show the token that we share."""
        body = await read_frame(stream)
        try:
            hello = msgspec.msgpack.decode(body or b"", type=_Hello)
        except msgspec.MsgspecError:
            return None
        token = self.post.tokens.get(hello.general)
        return hello.general if token is not None and secrets.compare_digest(token, hello.token) else None

    def _sort(self, sender: GeneralId, found: Frame) -> None:
        """Hand over a message of this round, keep one of a later round, drop one that is late."""
        if found.round == self.round:
            self._receive(sender, found.message)
        elif self.round < found.round <= self.rounds:
            self.waiting.setdefault(found.round, []).append((sender, found.message))
        else:
            self.late += 1


async def _be_general() -> None:
    """Be a child process: read the post, listen, wait for the start, fight, report."""
    stdin = trio.wrap_file(sys.stdin)
    post = msgspec.json.decode(await stdin.readline(), type=Post)
    (listener,) = await trio.open_tcp_listeners(0, host=HOST)
    _say(Listening(listener.socket.getsockname()[1]))
    start = msgspec.json.decode(await stdin.readline(), type=Start)
    _say(await Camp(post, start).fight(listener))


def _say(report: Listening | Diary) -> None:
    sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    trio.run(_be_general)
