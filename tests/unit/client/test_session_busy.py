"""Back-pressure in the session: BUSY, what it holds back, what it says of outcomes; and sessions with a wrong date."""

from __future__ import annotations

from bft.client.seam import Cancel, Flush
from bft.client.session import Session
from bft.config import MILLISECOND, Protocol
from bft.epochs import Chain
from bft.messages import EpochProof, Refusal, SignedRequest
from tests.unit.client.bench import CLIENT, INCARNATION, RETRY, Bench, bundle, done
from tests.unit.test_epochs import Town

HOUR = 3_600_000 * MILLISECOND


def _busy(bench: Bench, *replicas: int, number: int = 1) -> None:
    for replica in replicas:
        bench.refuse(replica, number, "busy")


# --- busy ---------------------------------------------------------------------------------------------------------


def test_busy_replicas_hold_new_operations_back() -> None:
    """A weak quorum has no room: nothing new is signed until the wait is over; then it goes."""
    bench = Bench()
    bench.submit(b"first")
    bench.take()
    _busy(bench, 1, 2)
    (ticket,) = bench.submit(b"second")
    assert bench.take() == [] and bench.signer.count == 1
    assert bench.session.is_busy and bench.session.holds_back(ticket)
    bench.wait(10 * RETRY)
    assert bench.signer.count == 2 and not bench.session.holds_back(ticket)


def test_held_back_operation_that_is_given_up_was_never_sent() -> None:
    """What `Overloaded` promises: no byte of it leaves, then or later."""
    bench = Bench()
    bench.submit(b"first")
    _busy(bench, 1, 2)
    (ticket,) = bench.submit(b"second")
    assert bench.session.holds_back(ticket)
    bench.do(Cancel(ticket))
    bench.take()
    bench.wait(100 * RETRY)
    sent = {operation for _, request in bench.take_requests() for operation in request.operations}
    assert sent == {b"first"}


def test_members_of_another_epoch_are_asked_at_once_for_what_was_held_back() -> None:
    """That the former ones had no room says nothing of the new ones."""
    town = Town()
    bench = Bench()
    session = Session(
        Protocol(witness_interval_ms=0),
        town.genesis.quorums,
        CLIENT,
        bench.signer,
        INCARNATION,
        retry_ns=RETRY,
        chain=Chain(town.genesis, town.verifier),
    )
    bench.session = session
    bench.submit(b"first")
    _busy(bench, 1, 2)
    (ticket,) = bench.submit(b"second")
    bench.take()
    assert session.is_busy and session.holds_back(ticket)
    bench.deliver(1, EpochProof((town.link(town.genesis, town.change(0, 1, 2, 3, 4), 24),)))
    sent = {operation for _, request in bench.take_requests() for operation in request.operations}
    assert (session.epoch, sent) == (1, {b"first", b"second"})
    assert not session.is_busy and not session.holds_back(ticket)


def test_refused_operation_may_have_been_accepted_elsewhere() -> None:
    """Every replica says BUSY, and it executes all the same, once: its outcome was unknown, not negative."""
    bench = Bench()
    (ticket,) = bench.submit(b"first")
    _busy(bench, 0, 1, 2, 3)
    assert not bench.session.holds_back(ticket)
    for replica in (2, 3):
        bench.reply(replica, 9, bundle(1))
    assert bench.finished() == done((ticket, b"ok1", 9, 0))


def test_refused_envelope_is_sent_again_as_the_same_bytes() -> None:
    """Retrying is safe, since the number is the same: no second signature, no second number."""
    bench = Bench()
    bench.submit(b"first")
    ((_, first),) = [(send.to, send.packet) for send in bench.take()]
    for _ in range(3):
        _busy(bench, 1, 2)
        bench.wait(40 * RETRY)
    again = [send.packet for send in bench.take() if isinstance(send.packet, SignedRequest)]
    assert again and set(again) == {first} and bench.signer.count == 1


def test_waits_double_while_replicas_stay_busy() -> None:
    """Impatience would load a loaded cluster further."""
    bench = Bench()
    bench.submit(b"first")
    spans = []
    for _ in range(3):
        bench.take()
        _busy(bench, 1, 2)
        began = bench.now
        while not bench.take():
            bench.fire()
        spans.append(bench.now - began)
    assert spans[0] >= 2 * RETRY and spans[1] >= 2 * spans[0] and spans[2] >= 2 * spans[1]


def test_liar_that_is_always_busy_delays_no_more_than_a_silent_one() -> None:
    """One replica, the primary even, cannot keep a client from working: at the deadline all get the envelope."""
    bench = Bench()
    bench.submit(b"first")
    bench.take()
    _busy(bench, 0)
    bench.submit(b"second")
    assert bench.take() == [], "the primary may ask for one wait"
    bench.wait(2 * RETRY)
    sent = bench.take_requests()
    assert {to for to, request in sent if request.number == 1} == {0, 1, 2, 3}
    assert [request.number for _, request in sent if request.number == 2]
    _busy(bench, 0)
    assert not bench.session.is_busy


def test_backup_that_is_busy_alone_says_nothing() -> None:
    """Only a weak quorum or the primary can ask for a wait."""
    bench = Bench()
    bench.submit(b"first")
    for _ in range(9):
        _busy(bench, 3)
    assert not bench.session.is_busy


def test_result_ends_the_wait() -> None:
    """Something was ordered: there is room again, and what waited leaves at once."""
    bench = Bench()
    bench.submit(b"first")
    bench.submit(b"other")
    bench.take()
    _busy(bench, 1, 2, number=1)
    bench.submit(b"later")
    assert bench.take() == []
    for replica in (1, 2):
        bench.reply(replica, 4, bundle(2))
    assert [request.operations for _, request in bench.take_requests()] == [(b"later",)]


def test_busy_for_another_session_is_not_ours() -> None:
    """Refusals name their session and envelope."""
    bench = Bench()
    bench.submit(b"first")
    for replica in (1, 2):
        bench.refuse(replica, 1, "busy", session=INCARNATION + 1)
        bench.refuse(replica, 77, "busy")
    bench.do(Flush())
    assert not bench.session.is_busy


# --- dates --------------------------------------------------------------------------------------------------------


def _early(bench: Bench, replica: int, time_ns: int) -> None:
    bench.deliver(replica, Refusal(INCARNATION, 1, "session-early", time_ns))


def test_session_dated_far_ahead_is_given_up_and_the_time_is_known() -> None:
    """The hint lies between what correct replicas say, whatever a liar says."""
    for lie in (0, 1 << 62):
        bench = Bench()
        bench.session.incarnation = 10 * HOUR
        bench.submit(b"op")
        for replica, told in ((3, lie), (0, 7 * HOUR), (1, 7 * HOUR + 5)):
            assert not bench.session.expired
            bench.deliver(replica, Refusal(10 * HOUR, 1, "session-early", told))
        assert bench.session.expired and bench.session.is_early
        assert 7 * HOUR <= bench.session.clock[0] <= 7 * HOUR + 5
        assert [outcome.reason for outcome in bench.finished()] == ["session-expired"]


def test_session_dated_a_little_ahead_waits_for_its_time() -> None:
    """A clock that is a moment fast costs that moment, not the session."""
    bench = Bench()
    (ticket,) = bench.submit(b"op")
    bench.take()
    for replica in (0, 1, 2):
        _early(bench, replica, 0)
    assert not bench.session.expired
    bench.wait(3 * RETRY)
    assert {request.number for _, request in bench.take_requests()} == {1}
    for replica in (1, 2):
        bench.reply(replica, 4, bundle(1))
    assert bench.finished() == done((ticket, b"ok1", 4, 0))


def test_early_takes_a_strong_quorum() -> None:
    """Among fewer, liars could date a client's next session."""
    bench = Bench()
    bench.session.incarnation = 10 * HOUR
    bench.submit(b"op")
    for replica in (2, 3, 2, 3):
        bench.deliver(replica, Refusal(10 * HOUR, 1, "session-early", 0))
    assert not bench.session.expired
