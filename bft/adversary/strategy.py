"""What a corrupt node is: an honest one behind a strategy that may drop, delay, change, repeat and invent messages.

The honest `Replica` has no flag or hook for this: `Corrupted` wraps the node seam. A strategy's power is bounded by
the keys it holds: it signs with the corrupted identities' signers, hence cannot forge for an honest replica.

Strategies compose: `a & b` does both crimes in turn, `a & to("odd")`, `a & during(view=0)` narrow where a crime is
committed, `a | b` picks one of them by the dice per message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from bft.config import MILLISECOND
from bft.epochs import Configuration
from bft.events import Broadcast, Deliver, Effect, EpochEntered, Input, Send
from bft.ids import Nanos, Peer
from bft.membership import Quorums
from bft.messages import Message, Packet, Proposal, ReplicaMessage, Signed, SignedRequest
from bft.ports import Node, Signer
from bft.wire.codec import Malformed, decode_replica_message, encode

if TYPE_CHECKING:
    from bft.engine import Engine
    from bft.ports import Store

HEARD_MAX = 256
OUTBOX_MAX = 4096
VIEW_STEP_MAX = 8
SEQ_STEP_MAX = 64
"""Jumps beyond these are another liar's invention, not the state of the cluster."""


@dataclass(slots=True)
class Coalition:
    """What colluding nodes share: their signing keys, and a blackboard.

    Attributes:
        signers: replica id -> signer, for corrupted replicas only.
        notes: anything the members want to tell each other.
    """

    signers: dict[int, Signer] = field(default_factory=dict)
    notes: dict[str, object] = field(default_factory=dict)


@dataclass(slots=True)
class Context:
    """What a strategy knows and can do at one moment.

    Attributes:
        me: the corrupted replica.
        view: highest view seen in what the honest node sent or received.
        seq: highest sequence number seen, likewise.
        heard: packets received lately (bounded), newest last: material for replays.
        crimes: how often the strategy changed, dropped or invented something.
        make_twin: a second honest replica of this identity with a service and an empty store, if the host offers it.
    """

    me: int
    quorums: Quorums
    random: Random
    coalition: Coalition
    now: Nanos = 0
    view: int = 0
    seq: int = 0
    epoch: int = 0
    configuration: Configuration | None = None
    heard: list[tuple[Peer, Packet]] = field(default_factory=list)
    crimes: int = 0
    make_twin: Callable[[], tuple[Engine, Store]] | None = None
    _outbox: list[tuple[Nanos, Peer, Packet]] = field(default_factory=list)

    def send(self, target: Peer, packet: Packet, after_ms: int = 0) -> None:
        """Send something of one's own, at once or (at the first step) after `after_ms`; dropped beyond a bound."""
        if len(self._outbox) < OUTBOX_MAX:
            self._outbox.append((self.now + after_ms * MILLISECOND, target, packet))
            self.crimes += 1

    def due(self) -> list[tuple[Peer, Packet]]:
        """What `send` was asked for and whose time has come, in order of asking; it leaves the outbox."""
        if not self._outbox:
            return []
        ready = [(target, packet) for at, target, packet in self._outbox if at <= self.now]
        self._outbox = [entry for entry in self._outbox if entry[0] > self.now]
        return ready

    @property
    def is_primary(self) -> bool:
        """True if this replica is the primary of the highest view seen."""
        return self.quorums.primary(self.view) == self.me

    def sign(self, message: ReplicaMessage, sender: int | None = None) -> Signed:
        """Sign as a member of the coalition.

        Raises:
            KeyError: `sender` is not corrupted: its key is not here.
        """
        who = self.me if sender is None else sender
        payload = encode(message)
        return Signed(who, payload, self.coalition.signers[who].sign(payload))

    def others(self) -> list[int]:
        """All other replicas, ascending."""
        return [replica for replica in self.quorums.members if replica != self.me]


class Strategy:
    """A crime. Subclasses override what they corrupt; the default is honest.

    `outgoing` gets every packet that the honest node wants to send, one destination at a time.
    """

    def outgoing(self, context: Context, target: Peer, packet: Packet) -> Iterable[tuple[Peer, Packet]]:
        """What is sent instead; empty to drop it."""
        return ((target, packet),)

    def incoming(self, context: Context, event: Deliver) -> Iterable[Input]:
        """What the honest node is told instead; empty to hide it."""
        return (event,)

    def unprompted(self, context: Context) -> Iterable[tuple[Peer, Packet]]:
        """What is sent on every tick of the honest node's timer."""
        return ()

    def __and__(self, other: Strategy | Guard) -> Strategy:
        if isinstance(other, Guard):
            return _Guarded(self, other)
        return _Both(self, other)

    def __or__(self, other: Strategy) -> Strategy:
        return _Either(self, other)


@dataclass(frozen=True, slots=True)
class Guard:
    """Where a crime is committed: a predicate over (context, target or sender, packet)."""

    holds: Callable[[Context, Peer, Packet | None], bool]

    def __and__(self, other: Guard) -> Guard:
        return Guard(
            lambda context, peer, packet: self.holds(context, peer, packet) and other.holds(context, peer, packet)
        )


class _Guarded(Strategy):
    def __init__(self, crime: Strategy, guard: Guard) -> None:
        self._crime = crime
        self._guard = guard

    def outgoing(self, context: Context, target: Peer, packet: Packet) -> Iterable[tuple[Peer, Packet]]:
        if self._guard.holds(context, target, packet):
            return self._crime.outgoing(context, target, packet)
        return ((target, packet),)

    def incoming(self, context: Context, event: Deliver) -> Iterable[Input]:
        if self._guard.holds(context, event.peer, event.packet):
            return self._crime.incoming(context, event)
        return (event,)

    def unprompted(self, context: Context) -> Iterable[tuple[Peer, Packet]]:
        for target, packet in self._crime.unprompted(context):
            if self._guard.holds(context, target, packet):
                yield target, packet


class _Both(Strategy):
    def __init__(self, first: Strategy, second: Strategy) -> None:
        self._first = first
        self._second = second

    def outgoing(self, context: Context, target: Peer, packet: Packet) -> Iterable[tuple[Peer, Packet]]:
        for peer, changed in self._first.outgoing(context, target, packet):
            yield from self._second.outgoing(context, peer, changed)

    def incoming(self, context: Context, event: Deliver) -> Iterable[Input]:
        for changed in self._first.incoming(context, event):
            if isinstance(changed, Deliver):
                yield from self._second.incoming(context, changed)
            else:
                yield changed

    def unprompted(self, context: Context) -> Iterable[tuple[Peer, Packet]]:
        yield from self._first.unprompted(context)
        yield from self._second.unprompted(context)


class _Either(Strategy):
    def __init__(self, first: Strategy, second: Strategy) -> None:
        self._choices = (first, second)

    def _pick(self, context: Context) -> Strategy:
        return self._choices[context.random.randrange(2)]

    def outgoing(self, context: Context, target: Peer, packet: Packet) -> Iterable[tuple[Peer, Packet]]:
        return self._pick(context).outgoing(context, target, packet)

    def incoming(self, context: Context, event: Deliver) -> Iterable[Input]:
        return self._pick(context).incoming(context, event)

    def unprompted(self, context: Context) -> Iterable[tuple[Peer, Packet]]:
        return self._pick(context).unprompted(context)


class Corrupted:
    """A node under a strategy. Itself a node: whoever drives it cannot tell.

    Args:
        honest: the node that the strategy hides behind.
        strategy: the crimes.
        context: identity, keys and dice of the corrupted node.
    """

    def __init__(self, honest: Node, strategy: Strategy, context: Context) -> None:
        self._honest = honest
        self._strategy = strategy
        self.context = context

    def wants(self, peer: Peer, packet: Packet, message: Message | None, /) -> bool:
        """A criminal listens to everything."""
        return True

    def step(self, event: Input, now: Nanos, /) -> Sequence[Effect]:
        """Step the honest node with what the strategy lets in, and send what it lets out."""
        context = self.context
        context.now = now
        inputs: Iterable[Input] = (event,)
        if isinstance(event, Deliver):
            self._note(event)
            inputs = list(self._strategy.incoming(context, event))
            context.crimes += inputs != [event]
        out: list[Effect] = []
        for allowed in inputs:
            for effect in self._honest.step(allowed, now):
                self._corrupt(effect, out)
        if not isinstance(event, Deliver):
            invented = list(self._strategy.unprompted(context))
            context.crimes += len(invented)
            out.extend(Send(target, packet) for target, packet in invented)
        out.extend(Send(target, packet) for target, packet in context.due())
        return out

    def _note(self, event: Deliver) -> None:
        context = self.context
        message = event.message
        if message is not None and not isinstance(event.packet, SignedRequest):
            self._see(message)
        context.heard.append((event.peer, event.packet))
        if len(context.heard) > HEARD_MAX:
            del context.heard[: HEARD_MAX // 2]

    def _see(self, message: Message) -> None:
        context = self.context
        view = getattr(message, "view", 0)
        if context.view < view <= context.view + VIEW_STEP_MAX:
            context.view = view
        seq = getattr(message, "seq", 0)
        if context.seq < seq <= context.seq + SEQ_STEP_MAX:
            context.seq = seq

    def _corrupt(self, effect: Effect, out: list[Effect]) -> None:
        context = self.context
        match effect:
            case Send():
                targets: list[Peer] = [effect.to]
            case Broadcast():
                targets = list(context.others())
            case EpochEntered():
                context.configuration = effect.configuration
                context.quorums, context.epoch = effect.configuration.quorums, effect.configuration.epoch
                context.view = 0
                out.append(effect)
                return
            case _:
                out.append(effect)
                return
        opened = opened_message(effect.packet)
        if opened is not None:
            self._see(opened)
        for target in targets:
            sent = list(self._strategy.outgoing(context, target, effect.packet))
            if sent != [(target, effect.packet)]:
                context.crimes += 1
            out.extend(Send(peer, packet) for peer, packet in sent)


def opened_message(packet: Packet) -> ReplicaMessage | None:
    """The replica message that a packet carries under a signature, if it does."""
    signed = packet.signed if isinstance(packet, Proposal) else packet
    if not isinstance(signed, Signed):
        return None
    try:
        return decode_replica_message(signed.payload)
    except Malformed:
        return None


def to(which: str | Iterable[int]) -> Guard:
    """Only towards these replicas: `"odd"`, `"even"`, `"replicas"`, `"clients"`, or ids."""
    if which == "odd":
        return Guard(lambda context, peer, packet: isinstance(peer, int) and peer % 2 == 1)
    if which == "even":
        return Guard(lambda context, peer, packet: isinstance(peer, int) and peer % 2 == 0)
    if which == "replicas":
        return Guard(lambda context, peer, packet: isinstance(peer, int))
    if which == "clients":
        return Guard(lambda context, peer, packet: isinstance(peer, bytes))
    assert not isinstance(which, str), f"to() knows odd, even, replicas, clients, not {which!r}"
    chosen = frozenset(which)
    return Guard(lambda context, peer, packet: peer in chosen)


def during(*, view: int | None = None, after_ms: int = 0, until_ms: int = 1 << 62) -> Guard:
    """Only in this view, and within this span of (virtual) time."""
    return Guard(
        lambda context, peer, packet: (
            (view is None or context.view == view) and after_ms * 1_000_000 <= context.now < until_ms * 1_000_000
        )
    )


def only(*kinds: type[Message]) -> Guard:
    """Only for these kinds of packet or signed message."""
    return Guard(
        lambda context, peer, packet: (
            packet is not None and (isinstance(packet, kinds) or isinstance(opened_message(packet), kinds))
        )
    )


def as_primary() -> Guard:
    """Only while this replica is the primary of the view."""
    return Guard(lambda context, peer, packet: context.is_primary)


def as_backup() -> Guard:
    """Only while another replica is the primary of the view."""
    return Guard(lambda context, peer, packet: not context.is_primary)


def sometimes(permille: int) -> Guard:
    """With this chance per message."""
    return Guard(lambda context, peer, packet: context.random.randrange(1000) < permille)
