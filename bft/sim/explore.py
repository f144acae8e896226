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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from hashlib import blake2b

import msgspec

from bft.adversary.strategy import opened_message
from bft.compiled import compiled_modules
from bft.config import MILLISECOND
from bft.core.replica import Replica
from bft.digests import batch_digest
from bft.engine import Engine
from bft.errors import ConfigError
from bft.events import Broadcast, Committed, Effect, Execute, Input, Progress, Recovered, Rejected, Send, Start, Tick
from bft.ids import Nanos, Peer
from bft.messages import (
    Batch,
    Commit,
    Message,
    Packet,
    Prepare,
    PrePrepare,
    Proposal,
    Signed,
    SignedRequest,
    Status,
    Suspect,
)
from bft.ports import Node
from bft.sim.lockstep import CLIENT, Lockstep
from bft.sim.scenario import SIMULATED
from bft.sim.service import Registers
from bft.sim.trace import described
from bft.sim.world import EPOCH_NS
from bft.storage.memory import MemoryStore
from bft.wire.codec import decode_packet, decode_replica_message, encode

TIMEOUT_NS = 2 * (SIMULATED["request_timeout_ms"] + SIMULATED["view_change_timeout_ms"]) * MILLISECOND
STATES_MAX = 100_000
TIMER = -1
"""The message number that stands for the replica's timer."""
SOMETIMES = (
    "a slot commits",
    "all correct replicas commit",
    "two proposals get votes",
    "suspect",
    "view-change",
    "new-view",
)
CONSTANT = frozenset(("signer", "protocol", "_protocol", "rules", "quorums", "_store"))
"""Attributes that are the same in every state, or that the protocol never reads back while it runs."""

State = tuple[int, ...]
"""The local state of every correct replica; what is in the network follows from it."""


class _Node:
    """A replica as the engine sees it, with what it has done so far."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.executed: list[tuple[int, bytes]] = []
        self.facts: set[str] = set()
        self.sent: set[tuple[int, int]] = set()
        self.timers = 0
        self._digest = b""

    def wants(self, peer: Peer, packet: Packet, message: Message | None, /) -> bool:
        return self.node.wants(peer, packet, message)

    def step(self, event: Input, now: Nanos, /) -> Sequence[Effect]:
        effects = self.node.step(event, now)
        for effect in effects:
            match effect:
                case Committed():
                    self._digest = effect.certificate.digest
                case Execute():
                    self.executed.append((effect.seq, self._digest))
                case Progress():
                    self.facts.add(effect.what)
                case _:
                    pass
        return effects


@dataclass(frozen=True, slots=True)
class Local:
    """One state of one replica.

    Attributes:
        blob: the pickled (node, engine).
        executed: slot -> digest.
        sent: per target, numbers of the messages sent on the way here.
        votes: digests for which it has sent PREPARE.
    """

    blob: bytes
    executed: dict[int, bytes]
    facts: frozenset[str]
    sent: dict[int, frozenset[int]]
    votes: frozenset[bytes]
    timers: int


@dataclass(slots=True)
class Exploration:
    """What an exploration found.

    Attributes:
        states: distinct states of the whole visited; `local_states` those of single replicas.
        transitions: steps between states, those to known states included.
        depth: most arrivals on a shortest way to a state.
        complete: False if a budget ended the search before all was visited.
        sometimes: in how many states something has happened; a zero says that the search was vacuous there.
        violations: what broke, with the arrivals that lead there.
    """

    states: int = 0
    local_states: int = 0
    transitions: int = 0
    depth: int = 0
    complete: bool = True
    sometimes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SOMETIMES, 0))
    violations: list[str] = field(default_factory=list)


class Explorer:
    """One configuration and its search.

    Args:
        byzantine: replica 0, the first primary, equivocates.
        timers: how often each replica's timer may fire.
        view_changes: let complaints about the primary through; without them (and without timers) all stays in view 0,
            which can be searched to its end.
    """

    def __init__(self, *, byzantine: bool = False, timers: int = 0, view_changes: bool = False, n: int = 4) -> None:
        if compiled_modules():
            raise ConfigError("the explorer pickles replicas, which compiled ones do not allow: `make pure` first")
        self._timers = timers
        self._unsent: tuple[type[Message], ...] = (Status,) if view_changes or timers else (Status, Suspect)
        self._cluster = Lockstep(range(n))
        self._admissions = [self._cluster.admission() for _ in range(n)]
        self._correct = tuple(range(1, n)) if byzantine else tuple(range(n))
        self._frames: list[tuple[Peer, bytes]] = []
        self._numbers: dict[tuple[Peer, bytes], int] = {}
        self._locals: dict[int, list[Local]] = {replica: [] for replica in self._correct}
        self._known: dict[int, dict[bytes, int]] = {replica: {} for replica in self._correct}
        self._steps: dict[tuple[int, int, int], int] = {}
        self._moves: dict[tuple[int, int, int, int], tuple[tuple[int, int], ...]] = {}
        given = self._given(byzantine)
        # The request reaches the primary only: backups learn of it from the proposal, and relaying is not explored.
        self._from_start = {replica: given if byzantine or replica == 0 else frozenset() for replica in self._correct}
        self.bugs: list[str] = []

    def _given(self, byzantine: bool) -> frozenset[int]:
        """What is in the network from the start: a client's request, or what the traitor says."""
        request = self._cluster.request(1, ["put", "k", "1"])
        if not byzantine:
            return frozenset((self._number(CLIENT, request),))
        other = self._cluster.request(1, ["put", "k", "2"])
        return frozenset(self._number(0, frame) for frame in self._alphabet([request, other]))

    def _alphabet(self, requests: list[bytes]) -> Iterator[bytes]:
        """What an equivocating primary of view 0 can usefully say about the first slot."""
        signer = self._cluster.vault.replica_signer(0)
        for frame in requests:
            packet = decode_packet(frame)
            assert isinstance(packet, SignedRequest), "made as a request"
            body = encode(Batch(EPOCH_NS, (packet,)))
            digest = batch_digest(body)
            proposal, commit = encode(PrePrepare(0, 0, 1, digest)), encode(Commit(0, 0, 1, digest))
            yield encode(Proposal(Signed(0, proposal, signer.sign(proposal)), body))
            yield encode(Signed(0, commit, signer.sign(commit)))

    # --- one replica ----------------------------------------------------------------------------------------------

    def _number(self, source: Peer, frame: bytes) -> int:
        known = self._numbers.setdefault((source, frame), len(self._frames))
        if known == len(self._frames):
            self._frames.append((source, frame))
        return known

    def _first(self, replica: int) -> int:
        signer = self._cluster.vault.replica_signer(replica)
        node = _Node(Replica(self._cluster.config, replica, signer, Recovered()))
        engine = Engine(node, Registers(), MemoryStore())
        engine.step(Start(), EPOCH_NS)
        return self._intern(replica, node, engine)

    def _intern(self, replica: int, node: _Node, engine: Engine) -> int:
        known = self._known[replica]
        locals_ = self._locals[replica]
        number = known.setdefault(fingerprint(engine), len(locals_))
        if number == len(locals_):
            sent = {target: frozenset(message for to, message in node.sent if to == target) for target in self._correct}
            votes = frozenset(filter(None, (_voted(self._frames[message][1]) for _, message in node.sent)))
            executed = dict(node.executed)
            facts = frozenset(node.facts)
            locals_.append(Local(pickle.dumps((node, engine)), executed, facts, sent, votes, node.timers))
        return number

    def _step(self, replica: int, local: int, message: int) -> int:
        """The local state after a message or the timer; the same one if that changes nothing."""
        key = (replica, local, message)
        known = self._steps.get(key)
        if known is not None:
            return known
        node, engine = pickle.loads(self._locals[replica][local].blob)
        try:
            effects = self._effects(replica, node, engine, message)
        except AssertionError as error:  # the edge of this driver, as in the simulated host: a bug of ours is a finding
            self.bugs.append(f"no-crash: r{replica} failed an assertion: {error}")
            effects = None
        after = local
        if effects is not None:
            self._send(replica, node, effects)
            after = self._intern(replica, node, engine)
        self._steps[key] = after
        return after

    def _effects(self, replica: int, node: _Node, engine: Engine, message: int) -> list[Effect] | None:
        if message == TIMER:
            node.timers += 1
            return engine.step(Tick(), EPOCH_NS + node.timers * TIMEOUT_NS)
        source, frame = self._frames[message]
        admitted = self._admissions[replica].admit(frame, source, engine.wants)
        if admitted is None or isinstance(admitted, Rejected):
            return None
        return engine.step(admitted, EPOCH_NS + node.timers * TIMEOUT_NS)

    def _send(self, replica: int, node: _Node, effects: list[Effect]) -> None:
        for effect in effects:
            if not isinstance(effect, Send | Broadcast) or self._is_unsent(effect.packet):
                continue
            targets = self._correct if isinstance(effect, Broadcast) else (effect.to,)
            number = self._number(replica, encode(effect.packet))
            node.sent |= {(target, number) for target in targets if isinstance(target, int) and target in self._correct}
            node.sent.discard((replica, number))

    def _is_unsent(self, packet: Packet) -> bool:
        return isinstance(packet, self._unsent) or isinstance(opened_message(packet), self._unsent)

    # --- the whole ------------------------------------------------------------------------------------------------

    def run(self, *, states_max: int = STATES_MAX, depth_max: int | None = None) -> Exploration:
        """Search breadth first, so that what is found is found by a shortest way."""
        found = Exploration()
        first = tuple(self._first(replica) for replica in self._correct)
        parents: dict[State, State | None] = {first: None}
        frontier = deque([(first, 0)])
        while frontier:
            state, depth = frontier.popleft()
            found.states += 1
            found.depth = max(found.depth, depth)
            self._look(state, parents, found)
            if found.violations:
                break
            if depth_max is not None and depth >= depth_max:
                found.complete = False
                continue
            for after, _ in self._successors(state):
                found.transitions += 1
                if after in parents:
                    continue
                if len(parents) >= states_max:
                    found.complete = False
                    continue
                parents[after] = state
                frontier.append((after, depth + 1))
        found.local_states = sum(map(len, self._locals.values()))
        return found

    def _successors(self, state: State) -> Iterator[tuple[State, tuple[int, int]]]:
        """(state, (replica, message)) after every arrival that changes something."""
        for place, replica in enumerate(self._correct):
            local = state[place]
            for other, local_other in enumerate(state):
                for message, after in self._moves_from(place, local, other, local_other):
                    yield (*state[:place], after, *state[place + 1 :]), (replica, message)

    def _moves_from(self, place: int, local: int, other: int, local_other: int) -> tuple[tuple[int, int], ...]:
        """(message, local state after it) for what `other` sent; for its own place, what was given and the timer."""
        key = (place, local, other, local_other)
        known = self._moves.get(key)
        if known is None:
            replica = self._correct[place]
            if place == other:
                messages = sorted(self._from_start[replica])
                if self._locals[replica][local].timers < self._timers:
                    messages.append(TIMER)
            else:
                messages = sorted(self._locals[self._correct[other]][local_other].sent[replica])
            steps = [(message, self._step(replica, local, message)) for message in messages]
            known = self._moves[key] = tuple((message, after) for message, after in steps if after != local)
        return known

    def _look(self, state: State, parents: dict[State, State | None], found: Exploration) -> None:
        """Judge one state."""
        locals_ = [self._locals[replica][local] for replica, local in zip(self._correct, state, strict=True)]
        log: dict[int, bytes] = {}
        for replica, local in zip(self._correct, locals_, strict=True):
            for seq, digest in local.executed.items():
                if log.setdefault(seq, digest) != digest:
                    what = f"agreement: slot {seq}: r{replica} executed another batch than a replica before it"
                    found.violations.append(what + "\n" + self._way(state, parents))
                    return
        if self.bugs:
            found.violations.append(self.bugs[0] + "\n" + self._way(state, parents))
        facts = reduce(frozenset.union, (local.facts for local in locals_))
        reached = {
            "a slot commits": bool(log),
            "all correct replicas commit": all(local.executed for local in locals_),
            "two proposals get votes": len(reduce(frozenset.union, (local.votes for local in locals_))) > 1,
        }
        for name in SOMETIMES:
            found.sometimes[name] += reached.get(name, name in facts)

    def _way(self, state: State, parents: dict[State, State | None]) -> str:
        """The arrivals that lead to a state, one per line."""
        lines: list[str] = []
        parent = parents[state]
        while parent is not None:
            replica, message = next(move for after, move in self._successors(parent) if after == state)
            if message == TIMER:
                lines.append(f"  r{replica}: the timer fires")
            else:
                source, frame = self._frames[message]
                kind, content = described(frame)
                name = f"r{source}" if isinstance(source, int) else "client"
                lines.append(f"  {name} -> r{replica}: {kind} {content[:100]}")
            state, parent = parent, parents[parent]
        return "\n".join(reversed(lines))


def _voted(frame: bytes) -> bytes | None:
    packet = decode_packet(frame)
    message = decode_replica_message(packet.payload) if isinstance(packet, Signed) else None
    return message.digest if isinstance(message, Prepare) else None


# --- fingerprints -------------------------------------------------------------------------------------------------


def fingerprint(value: object) -> bytes:
    """Hash of everything that `value` is made of; tables and sets in a canonical order."""
    return blake2b(_canonical(value), digest_size=16).digest()


def _canonical(value: object) -> bytes:
    match value:
        case None | bool() | int() | str():
            return repr(value).encode()
        case bytes():
            return b"b%d:" % len(value) + value
        case list() | tuple() | deque():
            return b"(" + b",".join(map(_canonical, value)) + b")"
        case dict():
            items = sorted((_canonical(key), _canonical(item)) for key, item in value.items())
            return b"{" + b",".join(key + b"=" + item for key, item in items) + b"}"
        case set() | frozenset():
            return b"<" + b",".join(sorted(map(_canonical, value))) + b">"
        case msgspec.Struct():
            return type(value).__name__.encode() + encode(value)
        case _:
            parts = [name.encode() + b"=" + _canonical(getattr(value, name)) for name in _attributes(value)]
            return type(value).__name__.encode() + b"[" + b",".join(parts) + b"]"


def _attributes(value: object) -> list[str]:
    names = set(getattr(value, "__dict__", ()))
    for kind in type(value).__mro__:
        slots = getattr(kind, "__slots__", ())
        names |= {slots} if isinstance(slots, str) else set(slots)
    return sorted(name for name in names if name not in CONSTANT and hasattr(value, name))
