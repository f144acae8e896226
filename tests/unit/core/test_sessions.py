"""The exactly-once table: windows, lanes, incarnations, eviction, kept replies, checkpoints."""

from __future__ import annotations

import msgspec

from bft.config import Protocol
from bft.core.clients import AHEAD_SHARE, CLOCK_SLACK_NS, SessionTable, envelope_flaw
from bft.core.session import Session
from bft.core.tablepages import Kept
from bft.messages import Request
from bft.wire.codec import decode_bundle

NOW = 1_700_000_000_000_000_000
SECOND = 1_000_000_000
"""Of agreed time, which each slot of a test takes."""
A = b"a" * 32
B = b"b" * 32


def _table(**protocol: int) -> SessionTable:
    return SessionTable(msgspec.convert(protocol, Protocol))


def _request(number: int, *operations: bytes, session: int = NOW, acknowledged: int = 1, after: tuple[int, ...] = ()):
    return Request(session, number, acknowledged, operations or (b"op",), after)


def _run(table: SessionTable, seq: int, *requests: tuple[bytes, Request]) -> list[tuple[int, bytes]]:
    calls = table.select(requests, seq, NOW + seq * SECOND)
    table.record(seq, calls, [(0, call.operation) for call in calls], [])
    return [(call.number, call.operation) for call in calls]


def test_each_operation_executes_once():
    """Ordered twice, executed once."""
    table = _table()
    assert _run(table, 1, (A, _request(1, b"x", b"y"))) == [(1, b"x"), (2, b"y")]
    assert _run(table, 2, (A, _request(1, b"x", b"y")), (A, _request(2, b"y", b"z"))) == [(3, b"z")]


def test_later_numbers_do_not_make_earlier_ones_stale():
    """A primary that orders 2 before 1 cannot censor 1 (mutant M19)."""
    table = _table()
    assert _run(table, 1, (A, _request(2, b"two"))) == [(2, b"two")]
    assert _run(table, 2, (A, _request(1, b"one"))) == [(1, b"one")]


def test_only_the_clients_own_acknowledgement_forgets():
    """Numbers below the acknowledgement are finished; they never execute again."""
    table = _table()
    _run(table, 1, (A, _request(1, b"one")))
    _run(table, 2, (A, _request(3, b"three", acknowledged=3)))
    assert _run(table, 3, (A, _request(1, b"one")), (A, _request(2, b"two"))) == []


def test_two_processes_use_one_key_through_sessions_of_their_own():
    """Numbers are per session: equal numbers of two live sessions are different operations."""
    table = _table(sessions_per_client=2)
    assert _run(table, 1, (A, _request(1, b"first"))) == [(1, b"first")]
    assert _run(table, 2, (A, _request(1, b"second", session=NOW + 1))) == [(1, b"second")]
    assert _run(table, 3, (A, _request(1, b"first")), (A, _request(2, b"more"))) == [(2, b"more")]


def test_one_session_too_many_ends_the_lowest_for_good():
    """A client key has a bounded number of live sessions; the oldest process's requests are void from then on."""
    table = _table(sessions_per_client=2)
    for incarnation in (NOW, NOW + 1, NOW + 2):
        assert _run(table, 1, (A, _request(1, session=incarnation))) != []
    assert table.is_expired(A, NOW)
    assert _run(table, 2, (A, _request(2, session=NOW))) == []
    assert _run(table, 3, (A, _request(2, b"lives", session=NOW + 1))) == [(2, b"lives")]


def test_ended_session_does_not_come_back_when_others_are_evicted():
    """Below the limit again, an ended session stays ended: eviction lifted the floor above it."""
    table = _table(sessions_per_client=2, sessions_max=3)
    for seq, incarnation in enumerate((NOW, NOW + 1, NOW + 2), 1):
        _run(table, seq, (A, _request(1, session=incarnation)))
    _run(table, 4, (B, _request(1, session=NOW + 3)))
    _run(table, 5, (b"c" * 32, _request(1, session=NOW + 4)))
    assert table.is_expired(A, NOW + 1), "evicted"
    assert table.is_expired(A, NOW), "ended before"
    assert _run(table, 6, (A, _request(2, session=NOW))) == []


def test_incarnation_from_the_far_future_is_refused():
    """Else one client could push the tombstone floor beyond all others' clocks."""
    assert _run(_table(), 1, (A, _request(1, session=NOW + SECOND + CLOCK_SLACK_NS + 1))) == []


def test_lane_keeps_order_across_slots():
    """An operation waits for its lane's predecessor, and executes when that has."""
    table = _table()
    assert _run(table, 1, (A, _request(3, b"c", after=(2,)))) == []
    assert _run(table, 2, (A, _request(2, b"b", after=(1,)))) == []
    assert _run(table, 3, (A, _request(1, b"a"))) == [(1, b"a"), (2, b"b"), (3, b"c")]


def test_lanes_do_not_wait_for_each_other():
    """Only the predecessor counts."""
    table = _table()
    assert _run(table, 1, (A, _request(2, b"held", b"free", after=(1, 0)))) == [(3, b"free")]


def test_evicted_session_does_not_come_back():
    """The floor is the tombstone: an evicted session's operations never execute again."""
    table = _table(sessions_max=1)
    _run(table, 1, (A, _request(1)))
    assert _run(table, 2, (B, _request(1, b"b", session=NOW + 5))) == [(1, b"b")]
    assert table.is_expired(A, NOW)
    assert _run(table, 3, (A, _request(1))) == []


def test_kept_replies_shrink_oldest_first_but_stay_known():
    """Beyond the cap the bytes go, by a rule that reads replicated state only; the operation stays executed."""
    table = _table(session_reply_bytes_max=400)
    for seq in range(1, 5):
        _run(table, seq, (A, _request(seq, bytes(150))))
    session = table.get(A, NOW)
    assert session is not None
    assert [bool(kept.bundle) for kept in session.kept.values()] == [False, False, True, True]
    assert session.kept_bytes <= 400
    assert _run(table, 9, (A, _request(1, bytes(150)))) == []


def _kept(table: SessionTable, client: bytes) -> dict[int, int]:
    """Slot -> bytes of the bundle that the client's session keeps of it."""
    session = table.get(client, NOW)
    assert session is not None
    return {seq: len(kept.bundle) for seq, kept in session.kept.items()}


def test_kept_replies_of_all_sessions_together_are_bounded():
    """Keys cost nothing: whoever keeps most is left with digests, and a client that keeps little with its replies."""
    table = SessionTable(Protocol(), 10_000)
    _run(table, 1, (A, _request(1, b"honest")))
    for number in range(20):
        _run(table, 2 + number, (_key(number), _request(1, bytes(2000))))
    sizes = [sum(_kept(table, _key(number)).values()) for number in range(20)]
    assert sum(sizes) <= 10_000
    assert sizes[-1] > 2000, "what the last slot kept stays"
    assert sizes.count(0) >= 15
    assert sum(_kept(table, A).values()) > 0
    assert all(2 + number in _kept(table, _key(number)) for number in range(20)), "a digest is kept of every bundle"


def test_restored_table_sheds_as_the_original_does():
    """What is over the bound, and who loses most, follows from the pages: who caught up agrees with the others."""
    table = SessionTable(Protocol(), 10_000)
    for number in range(4):
        _run(table, 1 + number, (_key(number), _request(1, bytes(2000))))
    _, fresh = table.checkpoint()
    restored = SessionTable(Protocol(), 10_000)
    restored.restore(list(fresh.values()))
    for other in (table, restored):
        _run(other, 5, (_key(5), _request(1, bytes(3000))))
        _run(other, 6, (_key(0), _request(2, b"small", acknowledged=2)), (_key(6), _request(1, bytes(4000))))
    assert table.checkpoint()[0] == restored.checkpoint()[0]
    assert sum(_kept(table, _key(1)).values()) == 0


def _emit(table: SessionTable, seq: int, client: bytes, *payloads: bytes) -> None:
    calls = table.select(((client, _request(1, b"subscribe")),), seq, NOW)
    table.record(seq, calls, [(0, b"")] * len(calls), [(client, NOW, payload) for payload in payloads])


def _events(table: SessionTable, client: bytes) -> list[int]:
    """Numbers of the events that are kept for the client."""
    session = table.get(client, NOW)
    assert session is not None
    return [event.number for event in session.events_after(0).events]


def test_events_of_all_sessions_together_are_bounded():
    """Whoever lets most be kept is left with none, and numbers that show the gap; nobody else loses any."""
    table = SessionTable(Protocol(), 10_000)
    _emit(table, 1, A, b"one", b"two", b"three")
    for number in range(20):
        _emit(table, 2 + number, _key(number), *[bytes(500)] * 3)
    kept = [_events(table, _key(number)) for number in range(20)]
    assert _events(table, A) == [1, 2, 3]
    assert kept.count([]) >= 15 and kept.count([]) + kept.count([1, 2, 3]) == 20
    assert sum(600 * len(numbers) for numbers in kept) <= 10_000
    lost = _key(kept.index([]))
    assert table.get(lost, NOW).events_after(0).first == 4
    _emit(table, 40, lost, b"later")
    assert _events(table, lost) == [4]


def test_a_session_that_ends_leaves_its_room_to_others():
    """Of replies, of held operations and of events alike: what nobody keeps takes no room."""
    table = SessionTable(msgspec.convert({"sessions_max": 1}, Protocol), 10_000)
    for number in range(4):
        client, seq = _key(number), 10 * number
        held = _request(2, bytes(6000), after=(1,), session=NOW + number)
        calls = table.select(((client, held),), seq + 1, NOW + number)
        table.record(seq + 1, calls, [], [(client, NOW + number, bytes(6000))])
        _run(table, seq + 2, (client, _request(3, bytes(3000), session=NOW + number)))
        _run(table, seq + 3, (client, _request(4, bytes(3000), session=NOW + number)))
        session = table.get(client, NOW + number)
        assert len(session.events) == 1 and len(session.held) == 1 and session.kept_bytes > 6000


def test_what_has_executed_is_bounded_over_all_sessions():
    """It cannot be forgotten while the session lives, so the one that has most ends; nothing of it executes again."""
    table = SessionTable(Protocol(), operations_max=10)
    _run(table, 1, (A, _request(1, b"honest", session=NOW + 1)))
    _run(table, 2, (_key(1), _request(1, *[b"x"] * 6)))
    _run(table, 3, (_key(2), _request(1, *[b"y"] * 4)))
    assert table.get(_key(1), NOW) is None and table.is_expired(_key(1), NOW)
    assert _run(table, 4, (_key(1), _request(1, *[b"x"] * 6)), (_key(1), _request(7, b"z"))) == []
    assert len(table) == 2, "who has least stays, and there is room again"
    assert _run(table, 5, (_key(2), _request(5, *[b"y"] * 5))) == [(number, b"y") for number in range(5, 10)]


def test_full_window_in_use_does_not_end_for_those_just_below():
    """Who has most may be an honest client that goes on; who executed and fell silent has to give way."""
    table = SessionTable(Protocol(), operations_max=40)
    for number in range(4):
        _run(table, 1 + number, (_key(number), _request(1, *[b"x"] * 9)))
    for seq in range(5, 10):
        first = 1 + 10 * (seq - 5)
        _run(table, seq, (A, _request(first, *[b"y"] * 10, acknowledged=first)))
    assert table.get(A, NOW) is not None
    assert [table.get(_key(number), NOW) is None for number in range(4)] == [True, True, False, False]


def test_session_with_no_more_than_its_share_does_not_end():
    """However long it was idle: the others are over the bound without it."""
    table = SessionTable(Protocol(), operations_max=40)
    _run(table, 1, (A, _request(1, *[b"x"] * 5)))
    for number in range(6):
        _run(table, 2 + number, (_key(number), _request(1, *[b"x"] * 20)))
        assert table.get(A, NOW) is not None


def test_those_dated_ahead_may_all_come_due_at_once():
    """Then there is far too much, and one slot makes room."""
    table = SessionTable(Protocol(sessions_max=64), operations_max=40)
    for number in range(16):
        _run(table, 1, (_key(number), _request(1, *[b"x"] * 20, session=NOW + 9 * SECOND)))
    _run(table, 2, (A, _request(1, *[b"x"] * 3, session=NOW + 1)))
    _run(table, 9, (B, _request(1)))
    assert table.get(A, NOW + 1) is not None and table.get(B, NOW) is not None
    assert len(table) == 3


def test_what_is_acknowledged_does_not_count():
    """A client that takes its answers may go on for ever, and so may those beside it."""
    table = SessionTable(Protocol(), operations_max=10)
    for seq in range(1, 40):
        requests = [(client, _request(5 * seq, *[b"x"] * 5, acknowledged=5 * seq)) for client in (A, B)]
        assert len(_run(table, seq, *requests)) == 10


def test_sessions_dated_ahead_do_not_end_for_what_they_executed():
    """A floor above the agreed time would lock everybody out; there is room for few of them."""
    table = SessionTable(Protocol(), operations_max=10)
    ahead = NOW + 1000 * SECOND
    _run(table, 1, (_key(1), _request(1, *[b"x"] * 20, session=ahead)), (B, _request(1)))
    assert table.get(_key(1), ahead) is not None
    assert _run(table, 2, (A, _request(1, session=NOW + 1))) == [(1, b"op")]


def test_sessions_dated_ahead_end_nobody_elses():
    """They count when the agreed time has passed them: then the one of them that is too large ends, and no other."""
    table = SessionTable(Protocol(), operations_max=10)
    ahead = NOW + 5 * SECOND
    _run(table, 1, (A, _request(1)), (B, _request(1, *[b"x"] * 20, session=ahead)))
    _, fresh = table.checkpoint()
    restored = SessionTable(Protocol(), operations_max=10)
    restored.restore(list(fresh.values()))
    for other in (table, restored):
        _run(other, 4, (A, _request(2)))
        assert other.get(A, NOW) is not None and other.get(B, ahead) is not None
        _run(other, 5, (A, _request(3)))
        assert other.get(A, NOW) is not None and other.get(B, ahead) is None
    assert table.checkpoint()[0] == restored.checkpoint()[0]


def test_session_dated_ahead_leaves_nothing_behind():
    """One that its key replaces by another has never counted, and does not when it ends."""
    table = SessionTable(Protocol(sessions_per_client=1), operations_max=10)
    _run(table, 1, (A, _request(1, *[b"x"] * 8)))
    for number in range(3):
        _run(table, 2 + number, (B, _request(1, *[b"x"] * 8, session=NOW + (100 + number) * SECOND)))
    _run(table, 5, (_key(1), _request(1, *[b"y"] * 3)))
    assert table.get(A, NOW) is None, "eleven are one too many"


def test_restored_table_ends_the_same_sessions():
    """As for replies, it follows from the pages."""
    table = SessionTable(Protocol(), operations_max=10)
    for number in range(4):
        _run(table, 1 + number, (_key(number), _request(1, b"x", b"x", session=NOW + number)))
    _, fresh = table.checkpoint()
    restored = SessionTable(Protocol(), operations_max=10)
    restored.restore(list(fresh.values()))
    for other in (table, restored):
        _run(other, 9, (A, _request(1, *[b"x"] * 2, session=NOW + 9)), (B, _request(1, b"x", session=NOW + 9)))
    assert table.checkpoint()[0] == restored.checkpoint()[0]
    assert len(table) == 5


def test_a_key_that_replaces_its_session_dated_ahead_leaves_nothing_behind():
    """Each would wait for its time, up to an hour, at whatever rate the key makes new ones."""
    table = _table(sessions_max=8, sessions_per_client=1)
    for number in range(1000):
        _run(table, 1 + number, (A, _request(1, session=NOW + 3_000 * SECOND + number)))
    assert len(table) == 1 and len(table._future) <= 2 * 2 + 64
    _run(table, 4000, (B, _request(1)))
    assert not table._future and not table._ahead


def test_small_events_count_too():
    """An empty payload takes memory as well."""
    table = SessionTable(Protocol(), 10_000)
    for number in range(30):
        _emit(table, 1 + number, _key(number), *[b""] * 40)
    assert sum(len(_events(table, _key(number))) for number in range(30)) <= 100


def test_restored_table_forgets_events_as_the_original_does():
    """As for replies, it follows from the pages."""
    table = SessionTable(Protocol(), 10_000)
    for number in range(5):
        _emit(table, 1 + number, _key(number), *[bytes(300)] * 4)
    _, fresh = table.checkpoint()
    restored = SessionTable(Protocol(), 10_000)
    restored.restore(list(fresh.values()))
    for other in (table, restored):
        for number in (7, 8):
            _emit(other, 2 + number, _key(number), *[bytes(300)] * 3)
    assert table.checkpoint()[0] == restored.checkpoint()[0]
    assert [] in [_events(table, _key(number)) for number in range(5)]


def test_what_lanes_hold_back_is_bounded_over_all_sessions():
    """Beyond the bound an operation is skipped as if it had not been ordered; room comes back when lanes move on."""
    table = SessionTable(Protocol(), 10_000)
    for number in range(8):
        _run(table, 1 + number, (_key(number), _request(2, bytes(2000), after=(1,))))
    held = [table.get(_key(number), NOW).held for number in range(8)]
    assert [len(one) for one in held] == [1] * 5 + [0] * 3
    assert _run(table, 9, (_key(0), _request(1, b"first")))[0] == (1, b"first")
    _run(table, 10, (_key(7), _request(2, bytes(2000), after=(1,))))
    assert len(table.get(_key(7), NOW).held) == 1


def test_events_are_numbered_in_replicated_state():
    """Events of a slot ride in the owner's bundle, numbered 1, 2, 3 over all slots."""
    table = _table()
    for seq in (1, 2):
        calls = table.select(((A, _request(seq)),), seq, NOW)
        ((_, _, bundle),) = table.record(seq, calls, [(0, b"")], [(A, NOW, b"event")])
        assert [event.number for event in decode_bundle(bundle).events] == [seq]


def test_restored_table_goes_on_like_the_original():
    """Everything that decides later execution is in the pages (mutant M18)."""
    table = _table()
    _run(table, 1, (A, _request(1, b"x")), (B, _request(5, b"held", after=(4,))))
    _run(table, 2, (A, _request(2, b"y", acknowledged=2)))
    digests, pages = table.checkpoint()
    other = _table()
    other.restore([pages[digest] for digest in digests])
    suffix = [(A, _request(1, b"x")), (A, _request(2, b"y")), (B, _request(4, b"before")), (A, _request(3, b"z"))]
    for seq, request in enumerate(suffix, 3):
        assert _run(table, seq, request) == _run(other, seq, request)
        assert table.checkpoint()[0] == other.checkpoint()[0]


def test_session_is_in_its_page_whole():
    """Also what bounds it: counts that a replica which caught up had otherwise would make it forget something else."""
    session = Session(A, NOW, used=9, low=2, done={3: 4, 7: 8})
    for seq, bundle in ((4, b"one"), (8, b"three")):
        session.keep(Kept(seq, seq - 1, bytes(32), bundle), 1000)
    session.hold(6, 5, b"waits")
    session.hold(9, 5, b"waits too")
    session.hold(10, 9, b"for that")
    for payload in (b"x", b"yz"):
        session.emit(payload, 1000)
    assert (session.kept_bytes, session.held_bytes, session.event_bytes, session.next_event) == (8, 22, 3, 3)
    assert Session.decoded(session.encoded()) == session


def test_checkpoint_reports_changed_pages_only():
    """Idle sessions cost nothing."""
    table = _table()
    _run(table, 1, (A, _request(1)), (B, _request(1)))
    table.checkpoint()
    _run(table, 2, (A, _request(2)))
    _, fresh = table.checkpoint()
    assert len(fresh) == 2, "the table's own page and one session"


def test_static_flaws():
    """What all replicas agree on without any state."""
    assert envelope_flaw(_request(1), 10, 64) is None
    assert envelope_flaw(_request(64, acknowledged=1), 10, 64) is None
    assert envelope_flaw(_request(65, acknowledged=1), 10, 64) == "outside-session-window"
    assert envelope_flaw(_request(1, acknowledged=2), 10, 64) == "bad-numbers"
    assert envelope_flaw(_request(1, session=0), 10, 64) == "bad-numbers"
    assert envelope_flaw(_request(0, acknowledged=0), 10, 64) == "bad-numbers"
    assert envelope_flaw(_request(1, after=(0, 0)), 10, 64) == "bad-lanes"
    assert envelope_flaw(_request(5, after=(5,)), 10, 64) == "bad-lanes"
    assert envelope_flaw(_request(1), 1 << 30, 64) == "envelope-too-large"


# --- sessions dated ahead of the agreed time ----------------------------------------------------------------------


def _key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def test_sessions_dated_ahead_lock_nobody_out():
    """Any number of keys dated an hour ahead take a part of the table; who comes with the right time gets in."""
    table = _table(sessions_max=16)
    ahead = NOW + CLOCK_SLACK_NS
    _run(table, 1, *((_key(number), _request(1, session=ahead)) for number in range(40)))
    assert len(table) == 16 // AHEAD_SHARE
    for seq in range(2, 60):
        assert _run(table, seq, (_key(100 + seq), _request(1, session=NOW + seq * SECOND))) != []
    assert len(table) == 16


def test_floor_never_passes_the_agreed_time():
    """Eviction leaves those dated ahead alone until their time has come; then they go like all others, for good."""
    table = _table(sessions_max=4)
    early = NOW + 10 * SECOND
    assert _run(table, 1, (A, _request(1, session=early))) != []
    for seq in range(2, 9):
        assert _run(table, seq, (_key(seq), _request(1, session=NOW + seq * SECOND))) != []
        assert table.get(A, early) is not None
    for seq in range(11, 16):
        _run(table, seq, (_key(seq), _request(1, session=NOW + seq * SECOND)))
    assert table.get(A, early) is None and table.is_expired(A, early)
    assert _run(table, 20, (A, _request(2, session=early))) == []


def test_refusal_for_being_early_is_not_for_ever():
    """No room for more that are dated ahead: the same envelope executes once its time has come, and once only."""
    table = _table(sessions_max=8)
    early = NOW + 5 * SECOND
    _run(table, 1, *((_key(number), _request(1, session=early)) for number in range(2)))
    assert _run(table, 2, (A, _request(1, session=early))) == []
    assert not table.is_expired(A, early)
    assert _run(table, 5, (A, _request(1, session=early))) == [(1, b"op")]
    assert _run(table, 6, (A, _request(1, session=early))) == []


def test_restored_table_knows_who_is_ahead():
    """Who cannot be evicted follows from the incarnations and the agreed time, not from this process's memory."""
    table = _table(sessions_max=8)
    for seq in range(1, 12):
        shift = 6 if seq % 4 == 0 else 0
        _run(table, seq, (_key(seq), _request(1, session=NOW + (seq + shift) * SECOND)))
    digests, pages = table.checkpoint()
    other = _table(sessions_max=8)
    other.restore([pages[digest] for digest in digests])
    for seq in range(12, 40):
        shift = seq % 5 * (seq % 3)
        request = (_key(seq), _request(1, session=NOW + (seq + shift) * SECOND))
        assert _run(table, seq, request) == _run(other, seq, request)
        assert table.checkpoint()[0] == other.checkpoint()[0]
