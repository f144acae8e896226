"""Reads without ordering: quorums, floors, and the ordered read behind them [CL99 5.1]."""

from __future__ import annotations

from bft.client.seam import Ask, Cancel, Completed, Flush, Lost
from bft.digests import bundle_digest
from bft.ids import ReplicaId
from bft.messages import QUERY_OPERATIONS_MAX, QueryReply, ReadAnswer, Refusal, Reply
from tests.unit.client.bench import INCARNATION, RETRY, Bench, bundle, nonce


def ordered(bench: Bench, ticket: int, number: int = 1, seq: int = 50) -> Completed:
    """The read was ordered; answer it."""
    requests = bench.take_requests()
    assert [request.operations for _, request in requests] == [(b"q",)]
    for replica in (0, 1):
        bench.reply(replica, seq, bundle(number))
    return Completed(ticket, 0, b"ok%d" % number, seq, 0)


def test_linearizable_read_needs_a_strong_quorum_of_equal_answers() -> None:
    """2f + 1 of one epoch; the slots may differ, the position is one that all have passed."""
    bench = Bench()
    ticket = bench.ask()
    queries = bench.take_queries()
    assert [to for to, _ in queries] == [0, 1, 2, 3]
    assert all(query.wait and query.operations == (b"q",) and query.floor == 0 for _, query in queries)
    bench.answer(0, 1, b"v", seq=7)
    bench.answer(0, 1, b"v", seq=7)
    bench.answer(1, 1, b"v", seq=9)
    assert bench.finished() == []
    bench.answer(3, 1, b"v", seq=8)
    assert bench.finished() == [Completed(ticket, 0, b"v", 7, -1)]
    bench.answer(2, 1, b"w")
    assert bench.finished() == [] and bench.session.seq == 7


def test_strong_quorum_is_the_general_one() -> None:
    """n = 5 needs 4, not 2f + 1 = 3."""
    bench = Bench(n=5)
    bench.ask()
    for replica in (0, 1, 2):
        bench.answer(replica, 1, b"v")
    assert bench.finished() == []
    bench.answer(4, 1, b"v")
    assert len(bench.finished()) == 1


def test_weak_read_needs_a_weak_quorum() -> None:
    """f + 1 equal answers."""
    bench = Bench()
    ticket = bench.ask(wait=False)
    assert not bench.take_queries()[0][1].wait
    bench.answer(2, 1, b"lie")
    bench.answer(1, 1, b"v", seq=5)
    bench.answer(0, 1, b"v", seq=6)
    assert bench.finished() == [Completed(ticket, 0, b"v", 5, -1)]


def test_answers_of_different_epochs_or_status_do_not_match() -> None:
    """A quorum is of one epoch."""
    bench = Bench()
    bench.ask(wait=False)
    bench.answer(0, 1, b"v", epoch=0)
    bench.answer(1, 1, b"v", epoch=1)
    bench.answer(2, 1, b"v", status=1)
    assert bench.finished() == []


def test_read_is_ordered_when_answers_cannot_agree_any_more() -> None:
    """At once, not at the timeout; the ticket is the same."""
    bench = Bench()
    ticket = bench.ask()
    bench.take()
    bench.answer(0, 1, b"v")
    bench.answer(1, 1, b"w")
    assert bench.take() == []
    bench.answer(2, 1, b"w")
    assert bench.take() == [], "three w are still possible"
    bench.answer(3, 1, b"x")
    outcome = ordered(bench, ticket)
    assert bench.finished() == [outcome]


def test_read_is_ordered_after_its_timeout() -> None:
    """Silent replicas cannot hold it up."""
    bench = Bench()
    ticket = bench.ask()
    bench.take()
    bench.answer(0, 1, b"v")
    bench.wait(RETRY)
    outcome = ordered(bench, ticket)
    assert bench.finished() == [outcome]
    for replica in (1, 2, 3):
        bench.answer(replica, 1, b"v")
    assert bench.finished() == []


def test_busy_replicas_count_as_silent_ones() -> None:
    """A refusal ends its sender's say, and only its own."""
    bench = Bench()
    ticket = bench.ask()
    bench.take()
    bench.refuse(0, 1, "busy", session=0)
    bench.refuse(0, 1, "busy", session=0)
    bench.answer(0, 1, b"v")
    assert bench.take() == []
    bench.refuse(1, 1, "busy", session=0)
    outcome = ordered(bench, ticket)
    assert bench.finished() == [outcome]


def test_weak_reads_never_go_backwards() -> None:
    """The floor is the latest slot that a correct replica may have answered from, or that the session has seen."""
    bench = Bench()
    bench.submit(b"a")
    for replica in (0, 1):
        bench.reply(replica, 30, bundle(1))
    bench.take()
    bench.ask(wait=False)
    assert bench.take_queries()[0][1].floor == 30
    bench.answer(0, 1, b"v", seq=40)
    bench.answer(1, 1, b"v", seq=33)
    bench.ask(wait=False)
    assert bench.take_queries()[0][1].floor == 40
    bench.ask(wait=False, floor=60)
    assert bench.take_queries()[0][1].floor == 60
    bench.ask()
    assert bench.take_queries()[0][1].floor == 0, "a linearizable read needs none"


def test_liar_that_inflates_the_floor_costs_one_ordered_read() -> None:
    """Then the floor is what ordered operations have reached."""
    bench = Bench()
    bench.ask(wait=False)
    bench.answer(0, 1, b"v", seq=10)
    bench.answer(3, 1, b"v", seq=2**62)
    assert bench.session.seq == 10
    bench.finished()
    ticket = bench.ask(wait=False)
    assert bench.take_queries()[-1][1].floor == 2**62
    bench.wait(RETRY)
    outcome = ordered(bench, ticket)
    assert bench.finished() == [outcome]
    bench.ask(wait=False)
    assert bench.take_queries()[0][1].floor == 50


def test_reads_are_bounded() -> None:
    """As many as the session's window."""
    bench = Bench(protocol={"session_window": 3})
    for _ in range(3):
        bench.ask()
    assert bench.finished() == []
    ticket = bench.ask()
    assert bench.finished() == [Lost(ticket, "overloaded")]


def test_cancelled_read_is_forgotten() -> None:
    """Its answers and its timeout have no effect."""
    bench = Bench()
    ticket = bench.ask()
    bench.take()
    bench.do(Cancel(ticket))
    for replica in range(3):
        bench.answer(replica, 1, b"v")
    bench.wait(2 * RETRY)
    assert bench.finished() == [] and bench.take() == [] and bench.session.outstanding == 0


def test_answers_to_unknown_nonces_are_ignored() -> None:
    """A flood of made-up answers keeps nothing."""
    bench = Bench()
    for query in range(1000):
        bench.answer(3, query, b"v")
        bench.refuse(3, query, "busy", session=0)
    assert bench.session.outstanding == 0 and bench.finished() == []


def test_answers_to_another_process_of_the_same_key_are_not_ones_own() -> None:
    """Replicas answer to the key: every process hears what the others asked, and what those before it asked."""
    mine, theirs = Bench(), Bench(incarnation=INCARNATION + 1)
    ticket = mine.ask(b"mine")
    theirs.ask(b"theirs")
    (_, asked), *_ = theirs.take_queries()
    for replica in range(4):
        reply = QueryReply(asked.nonce, 5, 0, 0, (ReadAnswer(0, b"for them"),))
        mine.deliver(ReplicaId(replica), reply)
        mine.deliver(ReplicaId(replica), Refusal(0, asked.nonce, "busy"))
        theirs.deliver(ReplicaId(replica), reply)
    assert mine.finished() == [] and len(theirs.finished()) == 1
    for replica in range(3):
        mine.answer(replica, 1, b"for me")
    assert mine.finished() == [Completed(ticket, 0, b"for me", 5, -1)]


def test_floor_stays_while_answers_come_meanwhile() -> None:
    """A read that was ordered early has seen nothing of what was answered since."""
    bench = Bench()
    bench.ask(wait=False)
    bench.wait(RETRY // 2)
    for _ in range(2):
        bench.ask(wait=False)
    bench.answer(0, 2, b"a", seq=10)
    bench.answer(3, 2, b"a", seq=1000)  # the liar
    bench.wait(RETRY // 2 + 1)
    bench.take()
    bench.answer(1, 3, b"c", seq=500)
    bench.answer(3, 3, b"c", seq=20)
    for replica in (0, 1):
        bench.reply(replica, 11, bundle(1))
    assert len(bench.finished()) == 3
    bench.ask(wait=False)
    assert bench.take_queries()[0][1].floor == 1000


def together(bench: Bench, *operations: bytes, wait: bool = True) -> list[int]:
    """Reads that leave with one flush; their tickets."""
    tickets = []
    for operation in operations:
        bench.ticket += 1
        tickets.append(bench.ticket)
        bench.do(Ask(bench.ticket, operation, 0, wait))
    bench.do(Flush())
    return tickets


def answers(bench: Bench, replica: int, *values: bytes, first: int = 0, seq: int = 5) -> None:
    """One replica's answers to the first query."""
    given = tuple(ReadAnswer(0, value) for value in values)
    bench.deliver(ReplicaId(replica), QueryReply(nonce(1), seq, 0, first, given))


def test_reads_that_wait_leave_together_and_are_answered_one_by_one() -> None:
    """One query per replica; each read ends when enough answers to it agree, in however many parts they come."""
    bench = Bench()
    first, second, third = together(bench, b"a", b"b", b"c")
    queries = bench.take_queries()
    assert [(to, query.operations) for to, query in queries] == [(to, (b"a", b"b", b"c")) for to in range(4)]
    answers(bench, 0, b"A", b"B", b"C")
    answers(bench, 1, b"A", b"lie", b"C")
    answers(bench, 2, b"A", first=0)
    assert bench.finished() == [Completed(first, 0, b"A", 5, -1)]
    answers(bench, 2, b"B", b"C", first=1, seq=7)
    assert bench.finished() == [Completed(third, 0, b"C", 5, -1)]
    answers(bench, 2, b"B", b"C", first=1)
    answers(bench, 3, b"A", b"B", b"C", b"more", b"than asked", seq=9)
    assert bench.finished() == [Completed(second, 0, b"B", 5, -1)]
    assert bench.session.outstanding == 0 and bench.take_requests() == []


def test_only_the_reads_without_agreement_are_ordered() -> None:
    """A liar, and one that refuses: of three reads the one that it lies about goes on as an operation."""
    bench = Bench()
    _, second = together(bench, b"a", b"b")
    bench.take()
    answers(bench, 0, b"A", b"B")
    answers(bench, 1, b"A", b"lie")
    answers(bench, 2, b"A", b"B")
    bench.finished()
    bench.refuse(3, 1, "busy", session=0)
    assert [request.operations for _, request in bench.take_requests()] == [(b"b",)]
    for replica in (0, 1):
        bench.reply(replica, 50, bundle(1))
    assert bench.finished() == [Completed(second, 0, b"ok1", 50, 0)]


def test_cancelled_read_among_others_takes_none_of_them_along() -> None:
    """Before it is sent and afterwards."""
    bench = Bench()
    for ticket in (1, 2):
        bench.do(Ask(ticket, b"%d" % ticket))
    bench.do(Cancel(1))
    bench.do(Flush())
    assert bench.take_queries()[0][1].operations == (b"2",)
    bench.ticket = 2
    third, fourth = together(bench, b"3", b"4")
    bench.do(Cancel(third))
    for replica in (0, 1, 2):
        bench.deliver(ReplicaId(replica), QueryReply(nonce(2), 5, 0, 0, (ReadAnswer(0, b"x"), ReadAnswer(0, b"y"))))
    assert bench.finished() == [Completed(fourth, 0, b"y", 5, -1)]
    assert bench.session.outstanding == 1


def test_queries_are_bounded_in_number_and_bytes() -> None:
    """More reads than a query holds, large ones, and both consistencies leave as several."""
    bench = Bench()
    together(bench, *[b"q"] * (QUERY_OPERATIONS_MAX + 1))
    together(bench, bytes(600_000), bytes(600_000), b"q")
    together(bench, b"w", wait=False)
    sizes = [len(query.operations) for to, query in bench.take_queries() if to == 0]
    assert sizes == [QUERY_OPERATIONS_MAX, 1, 1, 2, 1]


def successor(bench: Bench) -> Bench:
    """The same client, whose session has expired, with its next one."""
    bench.submit(b"x")
    for replica in (0, 1):
        bench.refuse(replica, 1, "session-expired")
    assert bench.session.expired and isinstance(bench.finished()[-1], Lost)
    after = Bench(incarnation=INCARNATION + 1, ticket=bench.ticket, now=bench.now)
    after.session.succeed(bench.session)
    return after


def test_reads_of_an_expired_session_end_in_the_next_one() -> None:
    """Answered there, or ordered there when they are overdue."""
    bench = Bench()
    answered = bench.ask(b"p")
    overdue = bench.ask(b"q")
    bench.take()
    after = successor(bench)
    after.do(Flush())
    for replica in range(3):
        after.answer(replica, 1, b"v")
    assert after.finished() == [Completed(answered, 0, b"v", 5, -1)]
    after.take()
    after.wait(RETRY)
    assert [request.operations for to, request in after.take_requests() if to == 0] == [(b"q",)]
    for replica in (0, 1):
        after.deliver(ReplicaId(replica), Reply(INCARNATION + 1, 50, 0, 0, bundle_digest(bundle(1)), bundle(1)))
    assert after.finished() == [Completed(overdue, 0, b"ok1", 50, 0)]


def test_weak_reads_do_not_go_back_when_the_session_changes() -> None:
    """The floor is the client's: the latest state that it may have seen, not the earliest of those that agreed."""
    bench = Bench()
    bench.ask(wait=False)
    bench.answer(0, 1, b"v", seq=5)
    bench.answer(1, 1, b"v", seq=9)
    bench.take()
    after = successor(bench)
    after.ask(wait=False)
    assert {query.floor for _, query in after.take_queries()} == {9}
