"""The record of one run for people: every message, every transition, every crime, and where each replica stood.

Recording runs the scenario again with its strategies wrapped by `watched`, which notes what a strategy changed on the
coalition's blackboard. The wrapping draws no chance, so the recorded run is the original one, and `record` checks it
by the trace digest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import msgspec

from bft.adversary.parse import parse
from bft.adversary.strategy import Context, Strategy
from bft.events import Deliver, Input
from bft.ids import Nanos, Peer
from bft.messages import Packet, Proposal, Request, Signed, SignedRequest
from bft.sim.checkers import CHECKERS, Violation, check
from bft.sim.history import History
from bft.sim.scenario import Scenario
from bft.sim.service import Registers
from bft.sim.world import EPOCH_NS, World
from bft.wire.codec import Malformed, decode_packet, decode_replica_message, decode_request, encode

BLACKBOARD = "bft.sim.trace"
LOST: Nanos = -1
CONTENT_MAX = 400
"""Characters of a message's content that are kept."""
SHOWN = ("view", "active", "executed", "stable", "pending", "slots", "backoff", "fetching", "up")
"""What of a replica's summary is kept at every step."""


@dataclass(slots=True)
class Hop:
    """One message on its way.

    Attributes:
        arrived: virtual nanoseconds since the beginning, as `sent`; `LOST` if it never arrived at a running process.
        kind: what it says: the signed message's type if there is one, else the packet's.
        is_lie: a strategy changed or invented it.
    """

    source: Peer
    target: Peer
    sent: Nanos
    kind: str
    content: str
    arrived: Nanos = LOST
    is_lie: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened at one node: `execute`, `commit`, `crime`, `crash`, `power-loss`, `restart`, ..."""

    at: Nanos
    node: int
    kind: str
    text: str


@dataclass(slots=True)
class Trace:
    """A recorded run.

    Attributes:
        states: per replica, (time, values as in `SHOWN`) whenever one of them changed.
        clients: in order of their lanes.
        focus: when the first violation can be seen; the end of the run if that is not known.
        dropped: messages that the bound on the diagram's size left out.
    """

    scenario: Scenario
    history: History
    hops: list[Hop] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    states: dict[int, list[tuple[Nanos, tuple[object, ...]]]] = field(default_factory=dict)
    clients: list[bytes] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    focus: Nanos = 0
    dropped: int = 0


# --- crimes -------------------------------------------------------------------------------------------------------


class _Watched(Strategy):
    """Another strategy, watched: whatever it does differently from an honest node goes on the blackboard."""

    def __init__(self, inner: Strategy) -> None:
        self._inner = inner

    def outgoing(self, context: Context, target: Peer, packet: Packet) -> Iterable[tuple[Peer, Packet]]:
        sent = list(self._inner.outgoing(context, target, packet))
        if sent != [(target, packet)]:
            self._note(context, target, "withheld" if not sent else "changed", packet)
            self._lies(context, [item for item in sent if item != (target, packet)])
        return sent

    def incoming(self, context: Context, event: Deliver) -> Iterable[Input]:
        let_in = list(self._inner.incoming(context, event))
        if let_in != [event]:
            self._note(context, event.peer, "ignored" if not let_in else "misheard", event.packet)
        return let_in

    def unprompted(self, context: Context) -> Iterable[tuple[Peer, Packet]]:
        sent = list(self._inner.unprompted(context))
        for target, packet in sent:
            self._note(context, target, "invented", packet)
        self._lies(context, sent)
        return sent

    @staticmethod
    def _note(context: Context, target: Peer, what: str, packet: Packet) -> None:
        _blackboard(context.coalition.notes).crimes.append((context.now, context.me, what, packet, target))

    @staticmethod
    def _lies(context: Context, sent: Iterable[tuple[Peer, Packet]]) -> None:
        _blackboard(context.coalition.notes).lies |= {(context.me, target, encode(packet)) for target, packet in sent}


@dataclass(slots=True)
class _Blackboard:
    crimes: list[tuple[Nanos, int, str, Packet, Peer]] = field(default_factory=list)
    lies: set[tuple[Peer, Peer, bytes]] = field(default_factory=set)


def _blackboard(notes: dict[str, object]) -> _Blackboard:
    board = notes.setdefault(BLACKBOARD, _Blackboard())
    assert isinstance(board, _Blackboard), "nobody else writes under this name"
    return board


def watched(expression: str) -> Strategy:
    """The strategy of an expression, watched; for `use("bft.sim.trace:watched", ...)`."""
    return _Watched(parse(expression))


# --- recording ----------------------------------------------------------------------------------------------------


class _Recorder:
    """Listens to a world and asks its replicas where they stand."""

    def __init__(self, scenario: Scenario) -> None:
        self._flying: dict[tuple[Peer, Peer, bytes], deque[Hop]] = {}
        self.world = World(scenario, Registers, self._on_event)
        self.trace = Trace(scenario, self.world.history)

    def _on_event(self, now: Nanos, what: str, source: Peer, target: Peer, frame: bytes) -> None:
        at = now - EPOCH_NS
        key = (source, target, frame)
        if what == "send":
            kind, content = described(frame)
            hop = Hop(source, target, at, kind, content, is_lie=key in _blackboard(self.world.coalition.notes).lies)
            self._flying.setdefault(key, deque()).append(hop)
            self.trace.hops.append(hop)
        elif what == "deliver":
            self._land(key, at)
        for peer in (source, target):
            if isinstance(peer, int):
                self._note_state(peer, at)

    def _land(self, key: tuple[Peer, Peer, bytes], at: Nanos) -> None:
        """Match an arrival with the oldest equal message under way; one too many is a duplicate of the last."""
        flying = self._flying[key]
        waiting = next((hop for hop in flying if hop.arrived == LOST), None)
        if waiting is None:
            waiting = replace(flying[-1])
            self.trace.hops.append(waiting)
        waiting.arrived = at
        if len(flying) > 1 and flying[0] is waiting:
            flying.popleft()

    def _note_state(self, replica: int, at: Nanos) -> None:
        summary = self.world.replicas[replica].summary()
        values = tuple(summary.get(name) for name in SHOWN)
        states = self.trace.states.setdefault(replica, [])
        if not states or states[-1][1] != values:
            states.append((at, values))

    def finish(self) -> Trace:
        """Run, then gather what is known only at the end."""
        history = self.world.run()
        trace = self.trace
        for replica in range(trace.scenario.n + trace.scenario.spares):
            self._note_state(replica, history.end - EPOCH_NS)
        trace.violations = check(history)
        trace.clients = list(self.world.clients)
        trace.marks = sorted(_marks(self.world), key=lambda mark: (mark.at, mark.node))
        trace.focus = _focus(history, trace.violations)
        return trace


def record(scenario: Scenario) -> Trace:
    """Run a scenario and keep everything that a diagram shows."""
    wrapped = {replica: f'use("bft.sim.trace:watched", {text!r})' for replica, text in scenario.corrupted.items()}
    trace = _Recorder(msgspec.structs.replace(scenario, corrupted=wrapped)).finish()
    plain = World(scenario, Registers).run()
    if trace.history.trace_digest != plain.trace_digest:
        # A strategy that the host treats in a way of its own cannot be wrapped: show the run without its crimes.
        trace = _Recorder(scenario).finish()
    trace.scenario = scenario
    return trace


def described(frame: bytes) -> tuple[str, str]:
    """(kind, content) of a frame, in words."""
    try:
        packet = decode_packet(frame)
    except Malformed:
        return "Garbage", f"{len(frame)} bytes that are no packet: {frame[:16].hex()}"
    signed = packet.signed if isinstance(packet, Proposal) else packet
    try:
        if isinstance(signed, Signed):
            message = decode_replica_message(signed.payload)
            return type(message).__name__, f"{_words(message)} signed by r{signed.sender}"[:CONTENT_MAX]
        if isinstance(signed, SignedRequest):
            request = decode_request(signed.payload)
            return "Request", f"{_words(request)} signed by {signed.client[:4].hex()}"[:CONTENT_MAX]
    except Malformed:
        return "Garbage", "an unreadable payload under a signature"
    return type(packet).__name__, _words(packet)[:CONTENT_MAX]


def _words(value: msgspec.Struct) -> str:
    fields = [(name, getattr(value, name)) for name in value.__struct_fields__]
    return " ".join(f"{name}={_word(item)}" for name, item in fields if not isinstance(value, Request) or item != ())


def _word(value: object) -> str:
    match value:
        case bytes():
            return value[:4].hex() if value else "-"
        case Signed():
            return f"r{value.sender}:{described_payload(value)}"
        case msgspec.Struct():
            return f"({_words(value)})"
        case tuple():
            return "[" + ", ".join(_word(item) for item in value[:8]) + (", ..." if len(value) > 8 else "") + "]"
        case _:
            return str(value)


def described_payload(signed: Signed) -> str:
    """What a signed message inside another one says."""
    try:
        message = decode_replica_message(signed.payload)
    except Malformed:
        return "unreadable"
    return f"{type(message).__name__}({_words(message)})"


# --- marks --------------------------------------------------------------------------------------------------------


def _marks(world: World) -> Iterable[Mark]:
    history = world.history
    for fault in world.scenario.faults:
        at = fault.at_ms * 1_000_000
        if fault.kind in ("partition", "one-way"):
            yield Mark(at, -1, fault.kind, " | ".join(str(list(group)) for group in fault.groups))
        else:
            yield Mark(at, -1 if fault.kind == "heal" else fault.replica, fault.kind, "")
    for execution in history.executions:
        calls = len(execution.effect.calls)
        digest = execution.digest[:4].hex()
        text = f"slot {execution.effect.seq}, batch {digest}, {calls} operations"
        yield Mark(execution.at - EPOCH_NS, execution.replica, "execute", text)
    for now, replica, what, packet, peer in _blackboard(world.coalition.notes).crimes:
        kind, content = described(encode(packet))
        name = f"r{peer}" if isinstance(peer, int) else "a client"
        yield Mark(now - EPOCH_NS, replica, "crime", f"{what} {kind} ({name}): {content}"[:CONTENT_MAX])
    yield Mark(max(history.gst - EPOCH_NS, 0), -1, "gst", "global stabilisation time")


def _focus(history: History, violations: list[Violation]) -> Nanos:
    """When the first violation shows: the fewest executions with which its checker fires."""
    end = history.end - EPOCH_NS
    if not violations or not history.executions:
        return end
    checker = CHECKERS[violations[0].checker]

    def fires(count: int) -> bool:
        return next(iter(checker(replace(history, executions=history.executions[:count]))), None) is not None

    if fires(0) or not fires(len(history.executions)):
        return end
    low, high = 0, len(history.executions)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fires(middle) else (middle, high)
    return history.executions[high - 1].at - EPOCH_NS
