"""Correct clients of a simulated cluster: the production session on the key-value service's operations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from bft.adversary.clients import Hostile, hostile_behaviour
from bft.client.receipts import Receipts
from bft.client.session import Ask, Completed, Flush, Lost, Session, SessionEffect, Submit
from bft.config import MILLISECOND
from bft.epochs import Chain, genesis
from bft.events import Deliver, Send, SetTimer, Tick
from bft.ids import Peer
from bft.messages import SignedReply, SignedRequest
from bft.ports import Signer
from bft.sim.history import Operation
from bft.wire.codec import Malformed, decode_packet, decode_request

if TYPE_CHECKING:
    from bft.sim.world import World

LANES = 3
CLIENTS_FROM = 1000
"""A client that reports evidence counts from here in the history."""


def make_session(
    world: World, client: bytes, signer: Signer, incarnation: int, chain: Chain | None = None
) -> Session:
    """A session that knows the cluster file and follows the cluster from there."""
    chain = chain or Chain(genesis(world.cluster), world.vault)
    return Session(world.cluster.protocol, world.quorums, client, signer, incarnation, chain=chain)


class ClientHost:
    """The process of one correct client: keeps some calls open until it has made all of them."""

    def __init__(self, world: World, index: int) -> None:
        self._world = world
        self.client = world.vault.client_key(index)
        self._random = world.stream(f"client/{index}")
        self._left = world.scenario.workload.operations
        self._ticket = 0
        self._has_written = False
        self._open: dict[int, Operation] = {}
        self._begins = world.now + index * world.scenario.workload.stagger_ms * MILLISECOND
        signer = world.vault.client_signer(self.client)
        self._index = index
        self._chain = Chain(genesis(world.cluster), world.vault)
        self._session = make_session(world, self.client, signer, self._begins + index, self._chain)
        self.receipts = Receipts(world.cluster, world.vault.verifier(world.scenario.n), self.client, self._chain)

    @property
    def is_done(self) -> bool:
        """True when every call has ended."""
        return not self._left and not self._open

    def start(self) -> None:
        """Make the first calls, of the run or of a burst; now or when it is this client's time to come."""
        if self._begins > self._world.now:
            self._world.at(self._begins, self.start)
            return
        for _ in range(self._world.scenario.workload.outstanding):
            self._call()
        self._do(Flush())

    def deliver(self, source: Peer, frame: bytes) -> None:
        """A frame from a replica; hostile until decoded."""
        try:
            packet = decode_packet(frame)
        except Malformed:
            return
        if isinstance(packet, SignedReply) and isinstance(source, int):
            for evidence in self.receipts.add(source, packet):
                self._world.note_evidence(CLIENTS_FROM + self._index, evidence)
            packet = packet.reply
        self._do(Deliver(source, packet))
        self._do(Flush())

    def _call(self) -> None:
        if not self._left:
            return
        self._left -= 1
        self._ticket += 1
        workload = self._world.scenario.workload
        random = self._random
        key = f"k{random.randrange(workload.keys)}"
        value = f"{self.client[:2].hex()}-{self._ticket}"
        is_query = random.randrange(1000) < workload.query_permille
        if is_query and not self._left and not self._has_written and workload.query_permille < 1000:
            is_query = False  # a run of reads alone would decide nothing, and show nothing
        self._has_written = self._has_written or not is_query
        match random.randrange(4):
            case _ if is_query:
                call: list[object] = ["get", key]
            case 0:
                call = ["cas", key, None, value]
            case _:
                call = ["put", key, value]
        operation = msgspec.msgpack.encode(call)
        lane = random.randint(1, LANES) if workload.lanes and not is_query else 0
        record = Operation(self.client, self._ticket, operation, is_query, self._world.now, lane=lane)
        self._open[self._ticket] = record
        self._world.history.operations.append(record)
        self._do(Ask(self._ticket, operation) if is_query else Submit(self._ticket, operation, lane))

    def _go_on(self) -> None:
        """One call has ended: make the next one, or wait for the next burst when it was the last of this one."""
        world = self._world
        pause_ms = world.scenario.workload.pause_ms
        if not pause_ms:
            self._call()
        elif not self._open:
            world.at(world.now + pause_ms * MILLISECOND, self.start)

    def _do(self, event: Submit | Ask | Flush | Deliver | Tick) -> None:
        for effect in self._session.step(event, self._world.now):
            self._carry_out(effect)

    def _carry_out(self, effect: SessionEffect) -> None:
        world = self._world
        match effect:
            case Send():
                if isinstance(effect.packet, SignedRequest):
                    request = decode_request(effect.packet.payload)
                    world.history.issued[self.client, request.session, request.number] = effect.packet.payload
                world.send(self.client, effect.to, effect.packet)
            case SetTimer():
                world.at(max(effect.at_ns, world.now + MILLISECOND), lambda: self._do(Tick()))
            case Completed():
                record = self._open.pop(effect.ticket)
                record.completed = world.now
                record.status = effect.status
                record.value = effect.value
                record.position = (effect.seq, effect.index)
                record.is_query = record.is_query and effect.index < 0
                self._go_on()
            case Lost():
                self._open.pop(effect.ticket)
                self._go_on()
            case _:
                pass


HOSTILE_PAUSE_MS = 25
HOSTILE_ROUNDS = 24
HOSTILE_INDEX = 1000
"""Keys of hostile clients are numbered from here, those of correct ones from 0."""
MINTED_INDEX = 10_000
"""Further keys of a hostile client are numbered from a multiple of this."""


class HostileClientHost:
    """The process of a hostile client: misbehaves at intervals for a while, and ignores every answer.

    Args:
        name: tells it from others that do the same.
        behaviour: what it does, a name of `bft.adversary.clients`.
    """

    is_done = True

    def __init__(self, world: World, name: str, behaviour: str) -> None:
        self._world = world
        index = sorted(world.scenario.hostile_clients).index(name)
        self.client = world.vault.client_key(HOSTILE_INDEX + index)
        self._behaviour = hostile_behaviour(behaviour)
        signer = world.vault.client_signer(self.client)
        stream = world.stream(f"hostile/{name}")
        window = world.cluster.protocol.session_window
        self._hostile = Hostile(
            self.client, signer, world.scenario.n, stream, world.now, world.now, window=window, mint=self._mint
        )
        self._minted = MINTED_INDEX * (1 + index)
        self._own_keys = {self.client}
        self._rounds = 0

    def _mint(self) -> tuple[bytes, Signer]:
        """A key that nobody has seen before."""
        self._minted += 1
        key = self._world.vault.client_key(self._minted)
        self._own_keys.add(key)
        return key, self._world.vault.client_signer(key)

    def start(self) -> None:
        """Do it once, and again later."""
        world = self._world
        self._hostile.now = world.now
        for replica, packet in self._behaviour(self._hostile):
            source = self.client
            if isinstance(packet, SignedRequest) and packet.client in self._own_keys:
                source = packet.client  # who holds many keys has connections for each of them
            world.send(source, replica, packet)
        self._rounds += 1
        if self._rounds < HOSTILE_ROUNDS:
            world.at(world.now + HOSTILE_PAUSE_MS * MILLISECOND, self.start)

    def deliver(self, source: Peer, frame: bytes) -> None:
        """It does not listen."""
