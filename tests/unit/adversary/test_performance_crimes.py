"""Crimes of performance, one by one, and the expressions that the benchmark gives to real replicas."""

from __future__ import annotations

from random import Random

import pytest

from benchmarks.attacks import ATTACKS
from bft.adversary.parse import parse
from bft.adversary.strategy import Coalition, Context
from bft.config import MILLISECOND
from bft.events import Deliver
from bft.membership import Quorums
from bft.messages import Commit, Request, SignedRequest
from bft.wire.codec import encode

ALICE, BOB = b"a" * 32, b"b" * 32


def _context() -> Context:
    return Context(0, Quorums.of(4), Random(0), Coalition())


def _request(client: bytes, number: int = 1) -> Deliver:
    request = Request(1, number, 1, (b"op",), ())
    return Deliver(client, SignedRequest(client, encode(request), client + number.to_bytes(32, "big")), request)


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_of_the_benchmark_is_a_strategy(name):
    """A misspelt one would end its replica at once, and pass for a crash."""
    assert parse(ATTACKS[name].expression)


def test_starving_lets_one_client_wait_and_serves_the_other():
    """The one with the smaller key; its request comes through when its time is over."""
    context, crime = _context(), parse("starve(100)")
    first, second = _request(ALICE), _request(BOB)
    assert list(crime.incoming(context, second)) == [second]
    assert list(crime.incoming(context, first)) == []
    context.now += 99 * MILLISECOND
    assert list(crime.incoming(context, _request(BOB, 2))) == [_request(BOB, 2)]
    context.now += MILLISECOND
    assert list(crime.incoming(context, _request(BOB, 3))) == [first, _request(BOB, 3)]


def test_one_at_a_time_waits_for_two_commits_of_the_slot():
    """And shows each request once, however often it is sent."""
    context, crime = _context(), parse("one_at_a_time()")
    assert list(crime.incoming(context, _request(ALICE))) == [_request(ALICE)]
    crime._proposed = 7
    assert list(crime.incoming(context, _request(BOB))) == []
    assert list(crime.incoming(context, _request(BOB))) == []
    commit = Commit(0, 0, 7, b"d" * 32)
    votes = [Deliver(replica, _request(BOB).packet, commit) for replica in (1, 2)]
    votes = [Deliver(vote.peer, commit, commit) for vote in votes]
    assert list(crime.incoming(context, votes[0])) == [votes[0]]
    assert list(crime.incoming(context, votes[1])) == [votes[1], _request(BOB)]
