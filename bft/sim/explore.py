"""Bounded-exhaustive exploration: every order in which messages can arrive at a small cluster of real replicas.

The network is a set: a message once sent stays there and may arrive at any time, again and again, or never. That is at
least as strong as loss, duplication and reordering together, and it makes a state small: where each replica stands and
what has been said. Replicas are deterministic, so a replica's step is computed once per (local state, message) and
remembered; a state of the whole is then a tuple of numbers, and the search runs over those.

A local state is known by the hash of all the replica knows, tables in a canonical order. Timers may fire a bounded
number of times per replica, each time after the timeouts have passed. A Byzantine primary, if asked for, is an
alphabet instead of a replica: two proposals for the first slot and votes for both, all in the network from the start.
STATUS and replies are left out: they only trigger sends of what the network still holds.
"""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from hashlib import blake2b

import msgspec

from bft.config import MILLISECOND
from bft.digests import batch_digest
from bft.engine import Engine
from bft.events import Broadcast, Committed, Effect, Execute, Input, Progress, Send, Tick
from bft.messages import Batch, Commit, Message, Packet, PrePrepare, Proposal, Reply, Signed, SignedRequest, Status
from bft.ports import Node
from bft.sim.lockstep import CLIENT, Lockstep
from bft.sim.scenario import SIMULATED
from bft.sim.world import EPOCH_NS
from bft.wire.codec import decode_packet, encode

TIMEOUT_NS = 2 * (SIMULATED["request_timeout_ms"] + SIMULATED["view_change_timeout_ms"]) * MILLISECOND
TIMER = -1
"""The message number that stands for the replica's timer."""

State = tuple[tuple[int, ...], frozenset[tuple[int, int]]]
"""(local state of every correct replica, (target, message) pairs in the network)."""


class _Node:
    """A replica as the engine sees it, remembering what it decided: picklable, unlike the observer of a cluster."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.executed: list[tuple[int, bytes]] = []
        self.transitions: list[str] = []
        self.timers = 0
        self._digest = b""

    def wants(self, peer: int | bytes, packet: Packet, message: Message | None, /) -> bool:
        return self.node.wants(peer, packet, message)

    def step(self, event: Input, now: int, /) -> list[Effect]:
        effects = list(self.node.step(event, now))
        for effect in effects:
            match effect:
                case Committed():
                    self._digest = effect.certificate.digest
                case Execute():
                    self.executed.append((effect.seq, self._digest))
                case Progress():
                    self.transitions.append(effect.what)
                case _:
                    pass
        return effects


@dataclass(slots=True)
class Local:
    """What is known of one local state of one replica.

    Attributes:
        executed: (slot, digest) pairs, for agreement.
        facts: names of what has happened on the way here, for `sometimes`.
    """

    blob: bytes
    executed: tuple[tuple[int, bytes], ...]
    facts: frozenset[str]
    timers: int


@dataclass(slots=True)
class Exploration:
    """What an exploration found.

    Attributes:
        states: distinct states of the whole visited; `local_states` those of single replicas.
        transitions: steps between states, including to states already known.
        complete: nothing was left to visit within the bounds on timers; False if a budget ended the search.
        sometimes: what happened in at least one state, and in how many.
        violations: what broke, with the arrivals that lead there.
    """

    states: int = 0
    local_states: int = 0
    transitions: int = 0
    depth: int = 0
    complete: bool = True
    sometimes: dict[str, int] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)


SOMETIMES = ("a slot commits", "all correct replicas commit", "two proposals are accepted", "suspect", "new-view")


class Explorer:
    """One configuration and its search.

    Args:
        byzantine: replica 0, the first primary, equivocates.
        timers: how often each replica's timer may fire.
    """

    def __init__(self, *, byzantine: bool = False, timers: int = 0, n: int = 4) -> None:
        self._timers = timers
        self._cluster = Lockstep(range(n))
        self._cluster.start()
        self._cluster.flights.clear()
        self._admissions = [self._cluster.admission() for _ in range(n)]
        self._correct = tuple(range(1, n)) if byzantine else tuple(range(n))
        self._frames: list[tuple[int | bytes, bytes]] = []
        self._numbers: dict[tuple[int | bytes, bytes], int] = {}
        self._locals: list[list[Local]] = [[] for _ in range(n)]
        self._known: list[dict[bytes, int]] = [{} for _ in range(n)]
        self._steps: dict[tuple[int, int, int], tuple[int, frozenset[tuple[int, int]]] | None] = {}
        self._start = self._first_state(byzantine)

    # --- beginning ------------------------------------------------------------------------------------------------

    def _first_state(self, byzantine: bool) -> State:
        instances = [self._cluster.instances[replica] for replica in self._correct]
        locals_ = tuple(
            self._intern(item.identity, Engine(_Node(item.watched.node), item.engine_service(), item.store))
            for item in instances
        )
        request = self._cluster.request(1, ["put", "k", "1"])
        network = {(replica, self._number(CLIENT, request)) for replica in self._correct}
        if byzantine:
            other = self._cluster.request(1, ["put", "k", "2"])
            for frame in self._alphabet([request, other]):
                network |= {(replica, self._number(0, frame)) for replica in self._correct}
        return locals_, frozenset(network)

    def _alphabet(self, requests: list[bytes]) -> Iterator[bytes]:
        """What an equivocating primary of view 0 can usefully say about the first slot."""
        signer = self._cluster.vault.replica_signer(0)
        for frame in requests:
            packet = decode_packet(frame)
            assert isinstance(packet, SignedRequest), "made as a request"
            body = encode(Batch(EPOCH_NS, (packet,)))
            digest = batch_digest(body)
            proposal, commit = (encode(kind(0, 0, 1, digest)) for kind in (PrePrepare, Commit))
            yield encode(Proposal(Signed(0, proposal, signer.sign(proposal)), body))
            yield encode(Signed(0, commit, signer.sign(commit)))

    # --- local steps ----------------------------------------------------------------------------------------------

    def _number(self, source: int | bytes, frame: bytes) -> int:
        known = self._numbers.setdefault((source, frame), len(self._frames))
        if known == len(self._frames):
            self._frames.append((source, frame))
        return known

    def _intern(self, replica: int, engine: Engine) -> int:
        node = engine.node
        assert isinstance(node, _Node), "engines here drive watched replicas"
        digest = fingerprint(engine)
        known = self._known[replica].setdefault(digest, len(self._locals[replica]))
        if known == len(self._locals[replica]):
            facts = frozenset(node.transitions) | ({"a slot commits"} if node.executed else frozenset())
            self._locals[replica].append(Local(pickle.dumps(engine), tuple(node.executed), facts, node.timers))
        return known
