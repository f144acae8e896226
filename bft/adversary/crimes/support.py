"""Collusion by votes: the coalition votes for whatever anybody seems to hold (X02, B02, B03, P19).

Every correct replica gets the missing votes for the very value that it saw. With an equivocating primary this is the
strongest attack on agreement; it must be masked, quorum intersection allowing one value at most.
"""

from __future__ import annotations

from collections.abc import Iterable

from bft.adversary.strategy import Context, Strategy, opened_message
from bft.adversary.tools import is_colleague, other_digest, own_message, own_proposal, votes
from bft.events import Deliver, Input
from bft.ids import Peer
from bft.messages import Commit, Packet, Prepare, PrePrepare, Proposal

GIVEN_MAX = 128


class _Support(Strategy):
    """`early`: COMMITs at once; otherwise only when the receiver itself shows that it is prepared."""

    def __init__(self, early: bool) -> None:
        self._early = early
        self._given: dict[tuple[int, int, bytes, int, bool], None] = {}

    def incoming(self, context: Context, event: Deliver) -> Iterable[Input]:
        message = event.message
        if is_colleague(context, event) or not isinstance(message, PrePrepare | Prepare | Commit):
            return (event,)
        assert isinstance(event.peer, int), "clients send no votes"
        wanted = Commit if isinstance(message, Commit) else (Prepare, Commit) if self._early else Prepare
        key = (message.view, message.seq, message.digest, event.peer, isinstance(message, Commit))
        if key in self._given or (isinstance(message, PrePrepare) and not self._early):
            return (event,)
        self._given = {**dict(list(self._given.items())[-GIVEN_MAX:]), key: None}
        for vote in votes(context, message.view, message.seq, message.digest):
            if isinstance(opened_message(vote), wanted):
                for target in context.others() if isinstance(message, PrePrepare) else (event.peer,):
                    context.send(target, vote)
        return (event,)

    def outgoing(self, context: Context, target: Peer, packet: Packet) -> Iterable[tuple[Peer, Packet]]:
        yield target, packet
        message = own_message(context, packet)
        if isinstance(packet, Proposal) and isinstance(message, PrePrepare) and isinstance(target, int):
            for vote in votes(context, message.view, message.seq, message.digest):
                yield target, vote


class _DoubleVote(Strategy):
    def outgoing(self, context: Context, target: Peer, packet: Packet) -> Iterable[tuple[Peer, Packet]]:
        message = own_message(context, packet)
        if isinstance(message, Prepare | Commit):
            other = type(message)(message.epoch, message.view, message.seq, other_digest(context))
            pair = [(target, context.sign(other)), (target, packet)]
            return pair if context.random.randrange(2) else reversed(pair)
        return ((target, packet),)


class _CommitOther(Strategy):
    def incoming(self, context: Context, event: Deliver) -> Iterable[Input]:
        if isinstance(event.message, PrePrepare):
            for target in context.others():
                digest = other_digest(context)
                context.send(target, context.sign(Commit(context.epoch, event.message.view, event.message.seq, digest)))
        return (event,)


class _PrimaryPrepares(Strategy):
    def outgoing(self, context: Context, target: Peer, packet: Packet) -> Iterable[tuple[Peer, Packet]]:
        yield target, packet
        proposed = own_proposal(context, packet)
        if proposed is not None:
            message = proposed[0]
            yield target, context.sign(Prepare(context.epoch, message.view, message.seq, message.digest))
            yield target, context.sign(Commit(context.epoch, message.view, message.seq, message.digest))


def support(early: bool = True) -> Strategy:
    """Give everybody the coalition's votes for the value they see (X02)."""
    return _Support(early)


def double_vote() -> Strategy:
    """Vote twice, for two digests, to the same receivers (B02). Expected: masked, E2."""
    return _DoubleVote()


def commit_other() -> Strategy:
    """COMMIT what nobody proposed, before anything is prepared (B03). Expected: masked."""
    return _CommitOther()


def primary_prepares() -> Strategy:
    """As primary, vote PREPARE beside the PRE-PREPARE (P19). Expected: refused as prepare-by-primary."""
    return _PrimaryPrepares()
