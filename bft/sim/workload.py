"""Correct clients of a simulated cluster: the production session on the key-value service's operations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from bft.adversary.clients import Hostile, hostile_behaviour
from bft.client.receipts import Receipts
from bft.client.session import Ask, Completed, Flush, Lost, Submit
from bft.config import MILLISECOND
from bft.ids import Peer
from bft.messages import SignedReply, SignedRequest
from bft.ports import Signer
from bft.sim.history import Operation
from bft.sim.session_host import SessionHost

if TYPE_CHECKING:
    from bft.sim.world import World

LANES = 3
CLIENTS_FROM = 1000
"""A client that reports evidence counts from here in the history."""


class ClientHost(SessionHost):
    """The process of one correct client: keeps some calls open until it has made all of them."""

    def __init__(self, world: World, index: int) -> None:
        self._begins = world.now + index * world.scenario.workload.stagger_ms * MILLISECOND
        super().__init__(world, index, self._begins + index)
        self._index = index
        self._random = world.stream(f"client/{index}")
        self._left = world.scenario.workload.operations
        self._ticket = 0
        self._has_written = False
        self._open: dict[int, Operation] = {}
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

    def examine(self, source: Peer, signed: SignedReply) -> None:
        """Hold it against what others have signed; report who has contradicted them."""
        if isinstance(source, int):
            for evidence in self.receipts.add(source, signed):
                self._world.note_evidence(CLIENTS_FROM + self._index, evidence)

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

    def ended(self, effect: Completed | Lost) -> None:
        """Note the outcome, and go on."""
        record = self._open.pop(effect.ticket)
        if isinstance(effect, Completed):
            record.completed = self._world.now
            record.status = effect.status
            record.value = effect.value
            record.position = (effect.seq, effect.index)
            record.is_query = record.is_query and effect.index < 0
        self._go_on()


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
