"""Strategies: power bounded by keys, guards, late messages, expressions."""

from __future__ import annotations

from random import Random

import pytest

from bft.adversary.clients import hostile_behaviour
from bft.adversary.parse import parse
from bft.adversary.strategy import Coalition, Context, Corrupted, Strategy, opened_message
from bft.errors import ConfigError
from bft.events import Broadcast, Effect, Input, Send, Tick
from bft.ids import Nanos, Peer
from bft.membership import Quorums
from bft.messages import Commit, Message, Packet, Prepare, Signed
from bft.sim.keys import KeyVault

VAULT = KeyVault(7)
MS = 1_000_000


class _Talkative:
    """A node that broadcasts one vote on every tick."""

    def __init__(self) -> None:
        payload = context().sign(Prepare(0, 0, 1, bytes(32)))
        self._vote = payload

    def wants(self, peer: Peer, packet: Packet, message: Message | None, /) -> bool:
        return False

    def step(self, event: Input, now: Nanos, /) -> list[Effect]:
        return [Broadcast(self._vote)]


def context() -> Context:
    """That of corrupted replica 3."""
    return Context(3, Quorums.of(4), Random(1), Coalition({3: VAULT.replica_signer(3)}))


def said(strategy: Strategy, times: tuple[int, ...] = (0,)) -> list[Send]:
    """What a corrupted talkative node sends, ticked at these milliseconds."""
    node = Corrupted(_Talkative(), strategy, context())
    effects = [effect for at_ms in times for effect in node.step(Tick(), at_ms * MS)]
    return [effect for effect in effects if isinstance(effect, Send)]


def test_coalition_cannot_sign_for_a_correct_replica() -> None:
    """No key, no signature."""
    with pytest.raises(KeyError):
        context().sign(Commit(0, 0, 1, bytes(32)), 0)


def test_forged_signatures_do_not_verify() -> None:
    """A forger's messages in other names are worth nothing."""
    verifier = VAULT.verifier(4)
    forged = [send.packet for send in said(parse("forge(4)")) if isinstance(send.packet, Signed)]
    false = [signed for signed in forged if signed.sender != 3]
    assert false
    assert not any(verifier.verify_replica(item.sender, item.payload, item.signature) for item in false)


def test_silence_towards_some_only() -> None:
    """Guards narrow a crime."""
    assert [send.to for send in said(parse('silent() & to("odd")'))] == [0, 2]
    assert [send.to for send in said(parse("silent() & as_primary()"))] == [0, 1, 2]
    assert said(parse("silent() & as_backup() & during(until_ms=5)"), (0,)) == []


def test_slow_sends_later_what_was_said() -> None:
    """Nothing leaves before its time, and nothing is lost."""
    assert said(parse("slow(50)"), (0, 20)) == []
    assert len(said(parse("slow(50)"), (0, 20, 60))) == 3


def test_double_vote_says_two_things_to_one_receiver() -> None:
    """Two digests, properly signed."""
    digests = {}
    for send in said(parse("double_vote()")):
        message = opened_message(send.packet)
        assert isinstance(message, Prepare)
        digests.setdefault(send.to, []).append(message.digest)
    assert all(len(set(seen)) == 2 for seen in digests.values())


def test_crimes_are_counted() -> None:
    """A strategy that did nothing is told from one that did."""
    node = Corrupted(_Talkative(), parse("silent()"), context())
    node.step(Tick(), 0)
    assert node.context.crimes == 3


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("nonsense()", "no crime or condition named"),
        ('to("odd")', "only a condition"),
        ('wrong_proposals("nothing")', "wrong_proposals knows"),
        ('forged_certificate("no")', "forged_certificate knows"),
        ('puppet((1, "sing", 0, 0, 0, ()))', "puppet step"),
        ("silent(", "strategy"),
    ],
)
def test_expression_error_says_what_is_wrong(expression: str, reason: str) -> None:
    """The text names the mistake."""
    with pytest.raises(ConfigError, match=reason):
        parse(expression)


def test_unknown_hostile_client_is_an_error_with_the_names() -> None:
    """Likewise."""
    with pytest.raises(ConfigError, match="two_faces"):
        hostile_behaviour("polite")
