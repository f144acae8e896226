"""The session against refusals, floods and replays, and the events that it passes on."""

from __future__ import annotations

import pytest

from bft.client.inbox import EventVotes
from bft.client.seam import EventArrived, EventsMissed, Lost
from bft.digests import bundle_digest
from bft.membership import Quorums
from bft.messages import Event, EventBodies
from tests.unit.client.bench import INCARNATION, RETRY, Bench, bundle, done

# --- refusals -----------------------------------------------------------------------------------------------------


def test_expiry_is_believed_from_a_weak_quorum_only() -> None:
    """Then everything is lost, and so is what comes later; never silently retried."""
    bench = Bench(protocol={"session_window": 2})
    tickets = bench.submit(b"a", b"b", b"c")
    for _ in range(3):
        bench.refuse(3, 1, "session-expired")
    bench.refuse(2, 2, "session-expired")
    bench.refuse(2, 1, "session-expired", session=INCARNATION + 1)
    bench.refuse(2, 1, "whatever")
    assert bench.finished() == [] and not bench.session.expired
    bench.refuse(2, 1, "session-expired")
    assert bench.finished() == [Lost(ticket, "session-expired") for ticket in tickets]
    assert bench.session.expired
    bench.take()
    (late,) = bench.submit(b"d")
    assert bench.finished() == [Lost(late, "session-expired")] and bench.take() == []


def test_unavailable_results_are_lost_at_the_deadline() -> None:
    """What of the envelope still comes until then counts; the numbers behind are free again."""
    bench = Bench()
    first, second = bench.submit(b"a", b"b")
    bench.refuse(2, 1, "result-unavailable")
    bench.refuse(3, 1, "result-unavailable")
    assert bench.finished() == []
    for replica in (0, 1):
        bench.reply(replica, 4, bundle(2))
    bench.wait(RETRY)
    assert bench.finished() == [*done((second, b"ok2", 4, 0)), Lost(first, "result-unavailable")]
    bench.submit(b"c")
    assert bench.take_requests()[-1][1].acknowledged == 3


def test_refusals_for_unknown_numbers_are_not_kept() -> None:
    """A flood of them costs no memory."""
    bench = Bench()
    bench.submit(b"a")
    for number in range(1000):
        bench.refuse(3, number + 2, "session-expired")
        bench.refuse(3, 1, f"reason {number}")
    envelope = bench.session._window.envelopes[1]
    assert envelope.refusals == {}


# --- floods -------------------------------------------------------------------------------------------------------


def test_flood_of_one_replica_is_bounded_and_harms_no_other() -> None:
    """It evicts its own replies only: else a liar could silence the others."""
    bench = Bench(protocol={"session_window": 64})
    (ticket,) = bench.submit(b"a")
    bench.reply(1, 7, bundle(1))
    for seq in range(10, 3000):
        bench.reply(3, seq, bundle(1, value=b"flood"))
    assert len(bench.session._tally) <= 64 + 1
    bench.reply(2, 7, bundle(1))
    assert bench.finished() == done((ticket, b"ok1", 7, 0))


def test_flood_of_bytes_is_bounded() -> None:
    """32 MiB per replica, whatever the number of replies."""
    bench = Bench()
    bench.submit(b"a")
    large = bytes(8 * 1024 * 1024)
    for seq in range(10, 30):
        bench.reply(3, seq, large)
    assert sum(bench.session._tally._bytes) <= 32 * 1024 * 1024
    assert len(bench.session._tally) <= 4


def test_replayed_old_replies_are_ignored() -> None:
    """Slots that were believed stay believed, as long as memory of them lasts; results are reported once anyway."""
    bench = Bench(protocol={"session_window": 4})
    for number in range(1, 50):
        bench.submit(b"a")
        for replica in (0, 1, 2, 3):
            bench.reply(replica, number, bundle(number))
    assert len(bench.finished()) == 49
    for seq in range(1, 50):
        for replica in (0, 1):
            bench.reply(replica, seq, bundle(seq))
    assert bench.finished() == [] and bench.session.seq == 49


# --- events -------------------------------------------------------------------------------------------------------


def test_events_arrive_in_order_and_before_the_results_of_their_bundle() -> None:
    """Also when slots are believed out of order, and when bundles repeat."""
    bench = Bench()
    bench.submit(b"a")
    late, early = bundle(1, events=((3, b"c"),)), bundle(events=((1, b"a"), (2, b"b")))
    bench.reply(0, 9, late)
    bench.reply(1, 9, late)
    assert bench.events == []
    bench.reply(0, 8, early)
    bench.reply(1, 8, early)
    assert bench.events == [EventArrived(1, b"a"), EventArrived(2, b"b"), EventArrived(3, b"c")]
    again = bundle(events=((2, b"b"), (3, b"c"), (4, b"d")))
    bench.reply(0, 10, again)
    bench.reply(1, 10, again)
    bench.wait(20 * RETRY)
    assert bench.events[3:] == [EventArrived(4, b"d")]


def test_single_replica_cannot_make_up_events() -> None:
    """Events are vouched for like results."""
    bench = Bench()
    bench.submit(b"a")
    bench.reply(3, 9, bundle(events=((1, b"made up"),)))
    assert bench.events == []


def test_missing_events_are_reported_after_a_while() -> None:
    """A gap is explicit; what comes behind it is not held back for ever."""
    bench = Bench()
    for replica in (0, 1):
        bench.reply(replica, 9, bundle(events=((3, b"c"), (6, b"f"))))
    bench.wait(4 * RETRY)
    assert bench.events == [EventsMissed(1, 2), EventArrived(3, b"c")]
    bench.wait(4 * RETRY)
    assert bench.events[2:] == [EventsMissed(4, 5), EventArrived(6, b"f")]
    for replica in (0, 1):
        bench.reply(replica, 10, bundle(events=((2, b"b"), (7, b"g"))))
    assert bench.events[4:] == [EventArrived(7, b"g")]


def test_early_events_are_bounded() -> None:
    """Beyond the limit the gap is given up at once."""
    bench = Bench()
    payloads = tuple((number, b"x") for number in range(2, 1100))
    for replica in (0, 1):
        bench.reply(replica, 9, bundle(events=payloads))
    assert bench.events[0] == EventsMissed(1, 1) and len(bench.events) == 1099


class Counted(bytes):
    """Counts how often it is hashed."""

    hashed = 0

    def __hash__(self) -> int:
        Counted.hashed += 1
        return super().__hash__()


def test_short_answers_of_a_liar_do_not_have_the_others_counted_again() -> None:
    """An answer about events costs what it is long."""
    votes = EventVotes(Quorums.of(7))
    long = tuple(Event(number, Counted(b"x")) for number in range(1, 101))
    assert votes.add(0, EventBodies(INCARNATION, 1, long)) == (0, ())
    assert votes.add(1, EventBodies(INCARNATION, 1, long)) == (0, ())
    Counted.hashed = 0
    for first in range(50):
        assert votes.add(2, EventBodies(INCARNATION, first, ())) == (min(first, 1), ())
    assert Counted.hashed == 0
    assert votes.add(2, EventBodies(INCARNATION, 1, long[:2])) == (1, long[:2])
    assert votes.add(2, EventBodies(INCARNATION, 1, long[1:3])) == (1, long[1:3])
    assert votes.add(1, EventBodies(INCARNATION, 1, long[2:])) == (1, long[2:3]), "what is taken back counts no more"


@pytest.mark.interpreted("it replaces what a module calls")
def test_wrong_bytes_of_a_right_digest_are_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often another liar says and takes back that the digest is right."""
    hashed: list[int] = []

    def digest(content: bytes) -> bytes:
        hashed.append(len(content))
        return bundle_digest(content)

    monkeypatch.setattr("bft.client.tally.bundle_digest", digest)
    bench = Bench(n=7)
    (ticket,) = bench.submit(b"a")
    bench.reply(6, 5, bundle(1), body=b"junk")
    bench.reply(0, 5, bundle(1), bare=True)
    for _ in range(20):
        bench.reply(5, 5, bundle(1), bare=True)
        bench.reply(5, 5, b"other", bare=True)
    assert hashed == [4]
    bench.reply(1, 5, bundle(1))
    assert bench.finished() == done((ticket, b"ok1", 5, 0))
