"""The pool is fair: deficit round robin between clients, and who holds most makes room for others."""

from __future__ import annotations

from collections import Counter

from bft.core.pool import (
    BACKLOG_ENVELOPES,
    CLIENT_ENVELOPES_MAX,
    ENVELOPE_WORK,
    HOLD_NS,
    HOLD_NS_MAX,
    QUANTUM,
    RIDE_SHARE,
    URGENT_MAX,
    Pending,
    Pool,
)
from bft.core.shares import RECENT_SLOTS, SLOT_WORK, WORK_NS
from bft.messages import Request, SignedRequest

BATCH_OPERATIONS = 2048
BATCH_BYTES = 1 << 20
SETTLED = 100
"""Steps after which it no longer matters who came first."""


def _pending(client: int, number: int, operations: int = 1, payload: int = 0) -> Pending:
    packet = SignedRequest(bytes([client]) * 32, bytes(payload), bytes(64))
    return Pending(packet, Request(1, number, 1, (b"",) * operations, ()), 0)


def _fill(pool: Pool, client: int, envelopes: int, operations: int = 1, payload: int = 0) -> None:
    for number in range(envelopes):
        assert pool.add(_pending(client, 1 + number * operations, operations, payload))


def _batches(pool: Pool, count: int, operations_max: int = BATCH_OPERATIONS) -> list[list[Pending]]:
    return [_take(pool, seq, operations_max, is_idle=seq == 1) for seq in range(1, count + 1)]


def _take(
    pool: Pool, seq: int, operations_max: int = BATCH_OPERATIONS, *, is_idle: bool = False, now: int = 0
) -> list[Pending]:
    return pool.take(seq, now, operations_max, BATCH_BYTES, is_idle=is_idle)


def _is_due(pool: Pool, *, is_idle: bool = False) -> bool:
    """As `bft.core.ordering` decides it, when nothing has waited long."""
    return pool.due_work(1) > 0 or (is_idle and pool.open_work > 0 and pool.may_go_alone)


def _shares(batches: list[list[Pending]]) -> Counter[int]:
    shares: Counter[int] = Counter()
    for batch in batches:
        for pending in batch:
            shares[pending.signed.client[0]] += pending.work
    return shares


# --- shares -------------------------------------------------------------------------------------------------------


def test_clients_that_wait_share_alike_whatever_the_size_of_their_envelopes() -> None:
    """One sends single operations, one eights, one 200 at a time, one the largest envelopes there are."""
    pool = Pool()
    _fill(pool, 1, 4000)
    _fill(pool, 2, 4000, operations=8)
    _fill(pool, 3, 200, operations=200)
    _fill(pool, 4, 20, operations=4096)
    shares = _shares(_batches(pool, 16))
    mean = sum(shares.values()) / 4
    assert all(abs(share - mean) <= 4096 + QUANTUM + ENVELOPE_WORK for share in shares.values()), shares
    assert min(shares.values()) > 0.5 * mean


def test_large_payloads_count_too() -> None:
    """Bytes cost as operations do: a client of 32 KiB envelopes gets no more than one of small ones."""
    pool = Pool()
    _fill(pool, 1, 4000)
    _fill(pool, 2, 400, payload=32 * 1024)
    shares = _shares(_batches(pool, 12))
    assert shares[2] <= 1.1 * shares[1] + QUANTUM


def test_small_client_is_in_the_next_batch_however_much_another_waits() -> None:
    """A flood of thousands delays an honest envelope by one turn, not by the flood."""
    pool = Pool()
    _fill(pool, 9, CLIENT_ENVELOPES_MAX, operations=4)
    _batches(pool, 2)
    pool.add(_pending(1, 1))
    assert any(pending.signed.client[0] == 1 for pending in _batches(pool, 1)[0])


def test_a_lone_client_gets_everything() -> None:
    """Fairness costs nothing where nobody else waits: the batch is full, in order."""
    pool = Pool()
    _fill(pool, 1, 100, operations=64)
    (batch,) = _batches(pool, 1)
    assert sum(len(pending.request.operations) for pending in batch) == BATCH_OPERATIONS
    assert [pending.request.number for pending in batch] == [1 + 64 * place for place in range(32)]


def test_turn_that_a_full_batch_cut_short_goes_on_in_the_next() -> None:
    """Nobody loses its turn to the end of a batch, and nobody gains another by it."""
    pool = Pool()
    for client in (1, 2, 3):
        _fill(pool, client, 64, operations=100)
    shares = _shares(_batches(pool, 9, operations_max=300))
    assert max(shares.values()) - min(shares.values()) <= QUANTUM + ENVELOPE_WORK + 100, "a turn and an envelope"


def test_idle_client_saves_nothing_up() -> None:
    """Turns that a client did not need do not add up to a burst later."""
    pool = Pool()
    _fill(pool, 2, 2000, operations=8)
    for seq in range(1, 20):
        pool.add(_pending(1, seq))
        _take(pool, seq, 64)
    _fill(pool, 1, 400, operations=8)
    shares = _shares(_batches(pool, 4))
    assert shares[1] <= shares[2] + 2 * QUANTUM + SLOT_WORK + 2 * ENVELOPE_WORK


def test_client_without_end_gets_no_more_than_the_others_use() -> None:
    """Three callers with one envelope open each, and a flood: what they leave while they wait is not the flood's.

    A slot executes per step; up to four are in flight. Slots are counted at what they cost.
    """
    pool = Pool()
    _fill(pool, 9, 4000, operations=8)
    flying: list[list[Pending]] = []
    rounds, slots, alone = 0, 0, 0
    shares: Counter[int] = Counter()
    waiting = [1, 2, 3]
    for seq in range(1, 600):
        rounds += len(waiting) == 3 and seq > SETTLED
        for client in waiting:
            pool.add(_pending(client, 40 * seq, operations=40))
        waiting = []
        if len(flying) < 4 and _is_due(pool, is_idle=not flying):
            batch = _take(pool, seq, is_idle=not flying)
            assert batch, "a due pool has something"
            flying.append(batch)
        if flying and (len(flying) > 1 or not _is_due(pool)):
            done = flying.pop(0)
            waiting = [pending.signed.client[0] for pending in done if pending.signed.client[0] != 9]
            for pending in done:
                pool.remove(pending.key, 0)
            if seq > SETTLED:
                slots += 1
                shares.update(_shares([done]))
                alone += not waiting
    assert rounds >= 0.7 * (slots - alone), "they come back as if nobody else were there"
    assert alone < slots // 4, "a slot of its own now and then"
    share = (shares[9] + alone * SLOT_WORK) / (shares.total() + slots * SLOT_WORK)
    assert 0.15 <= share <= 0.26, "a quarter of the work, slots included, or what is left of it between theirs"


def test_flood_gets_everything_when_nobody_else_comes() -> None:
    """Others that were served lately are forgotten after some slots, and until then it is served when all is idle."""
    pool = Pool()
    _fill(pool, 1, 1)
    _fill(pool, 9, 4000)
    slots = waited = 0
    while len(pool) and slots < 4000:
        slots += 1
        waited += not _is_due(pool, is_idle=True)
        for pending in _take(pool, slots, is_idle=True):
            pool.remove(pending.key, 0)
    assert len(pool) == 0
    assert waited <= RECENT_SLOTS, "a while each, with nothing in flight"


def test_who_does_most_of_the_work_need_not_wait_for_the_others() -> None:
    """A bulk load beside a single caller goes on in the gaps, and so do several; a flood beside three others waits."""
    pool = Pool()
    for seq in range(RECENT_SLOTS):
        _charged(pool, seq, (9, 1 + 400 * seq, 400), (1, 1 + seq, 1))
    assert pool.add(_pending(9, 9001, 400))
    assert pool.due_work(1) == 0 and pool.may_go_alone
    for seq in range(RECENT_SLOTS):
        _charged(pool, 50 + seq, *((client, 1 + 400 * seq, 400) for client in (2, 3, 4)))
    assert not pool.may_go_alone
    for client in (2, 3):
        assert pool.add(_pending(client, 9001, 400))
    assert pool.may_go_alone


def test_only_a_few_envelopes_of_a_client_beyond_its_share_are_let_in() -> None:
    """More would cost every replica a signature check, only to wait here."""
    pool = Pool()
    greedy, modest = bytes([9]) * 32, bytes([1]) * 32
    _fill(pool, 9, 2 * BACKLOG_ENVELOPES)
    assert pool.hold_back(greedy, 0) == (0, ""), "nobody else is there"
    for seq in range(RECENT_SLOTS):
        _charged(pool, seq, (9, 9001 + 400 * seq, 400), (1, 1 + seq, 1))
    assert pool.hold_back(greedy, 0) == (HOLD_NS, "backlog")
    assert pool.hold_back(modest, 0) == (0, "")
    for number in range(1, BACKLOG_ENVELOPES + 2):
        pool.remove(_pending(9, number).key, 0)
    assert pool.hold_back(greedy, 0) == (0, ""), "it has most of the work ordered, and nothing much of it waits"
    _fill(pool, 1, 2 * BACKLOG_ENVELOPES)
    assert pool.hold_back(modest, 0) == (0, "")


def test_what_waits_of_a_client_counts_where_more_of_it_is_to_be_read() -> None:
    """Who had no more than the others so far is left unread all the same, when its share and more waits."""
    pool = Pool()
    for seq in range(RECENT_SLOTS):
        _charged(pool, seq, (9, 1 + seq, 1), (1, 1 + seq, 1))
    _fill(pool, 1, BACKLOG_ENVELOPES)
    assert pool.hold_back(bytes([1]) * 32, 0) == (0, "")
    _fill(pool, 9, BACKLOG_ENVELOPES, operations=2 * QUANTUM)
    assert pool.hold_back(bytes([9]) * 32, 0) == (HOLD_NS, "backlog")
    assert pool.hold_back(bytes([7]) * 32, 0) == (0, ""), "nothing of it waits"


def test_reads_count_too_and_the_time_makes_up_for_them() -> None:
    """Who asks without end beside others that work gets its part of the time, and is not left unread for ever."""
    pool = Pool()
    greedy, now = bytes([9]) * 32, 0
    for seq in range(200):
        _charged(pool, seq, *((client, 1 + seq, 100) for client in (1, 2, 3)))
        for _ in range(100):
            pool.shares.note(greedy, 1)
    assert not any(pool.hold_back(bytes([client]) * 32, now)[0] for client in (1, 2, 3))
    while (held := pool.hold_back(greedy, now))[0]:
        assert HOLD_NS <= held[0] <= HOLD_NS_MAX and held[1] == "share"
        now += held[0]
    assert 4 * WORK_NS * QUANTUM <= now <= 10**9
    assert len(pool.shares._noted) <= SLOT_WORK


def test_busy_client_beside_idle_ones_rides_in_their_slots() -> None:
    """A bulk load next to a few single calls is not held to their average: it adds to every slot."""
    pool = Pool()
    for number in range(400):
        pool.add(_pending(9, 1 + 100 * number, operations=100))
    carried = 0
    for seq in range(1, 100):
        pool.add(_pending(1 + seq % 3, seq))
        batch = _take(pool, seq)
        carried += sum(len(pending.request.operations) for pending in batch if pending.signed.client[0] == 9)
        if seq > 2:
            for pending in batch:
                pool.remove(pending.key, 0)
    assert carried >= 90 * (QUANTUM // RIDE_SHARE - ENVELOPE_WORK - 20)


def test_envelope_larger_than_a_batch_goes_alone() -> None:
    """Else it would wait for ever."""
    pool = Pool()
    _fill(pool, 1, 2, operations=4096)
    assert [len(batch) for batch in _batches(pool, 3)] == [1, 1, 0]
    assert not _is_due(pool, is_idle=True)


def test_new_view_proposes_everything_again() -> None:
    """What a slot of the old view held waits again, oldest first."""
    pool = Pool()
    _fill(pool, 1, 5)
    _take(pool, 1, 3)
    pool.mark_proposed((bytes([1]) * 32, 1, 4), 2)
    pool.reset()
    assert [pending.request.number for pending in _take(pool, 1, 99)] == [1, 2, 3, 4, 5]


# --- what a backup knows of it --------------------------------------------------------------------------------------


def _charged(pool: Pool, seq: int, *batch: tuple[int, int, int]) -> None:
    """Another replica's batch of (client, number, operations)."""
    pool.charge(
        seq,
        [(bytes([client]) * 32, Request(1, number, 1, (b"",) * count, ())) for client, number, count in batch],
    )


def test_backup_knows_who_has_had_more_than_its_share() -> None:
    """By the batches alone: neither client's envelopes came here before these."""
    pool = Pool()
    for seq in range(1, 12):
        _charged(pool, seq, (9, 400 * seq, 400), (1, seq, 1))
    greedy, modest = _pending(9, 9999), _pending(1, 9999)
    for pending in (greedy, modest):
        assert pool.add(pending)
    assert pool.is_beyond_share(greedy) and not pool.is_beyond_share(modest)
    assert not greedy.is_behind, "it came alone; how long it waits shows once it is proposed"
    _charged(pool, 12, (9, 9999, 1), (1, 9999, 1))
    assert pool.remove(greedy.key, 5) is greedy and greedy.is_behind
    pool.reset()
    assert not pool.is_beyond_share(_pending(9, 1)), "a new primary keeps new accounts"


def test_slots_of_its_own_make_no_client_greedy() -> None:
    """How many slots there are is the primary's choice, and no excuse for starving whom it gave them to."""
    pool = Pool()
    for turn in range(100):
        _charged(pool, 1 + 2 * turn, (9, turn, 1))
        _charged(pool, 2 + 2 * turn, (1, turn, 1), (2, turn, 1), (3, turn, 1))
    pending = _pending(9, 9999)
    assert pool.add(pending)
    assert not pool.is_beyond_share(pending)


def test_wait_behind_a_turn_of_the_clients_own_says_nothing() -> None:
    """The time since arrival of what a flood had before it is no measure of the primary, of what came first it is."""
    pool = Pool()
    pending = [_pending(9, 1 + 100 * place, 100) for place in range(9)]
    for item in pending:
        item.since = 7
        assert pool.add(item)
    assert [pool.remove(item.key, 8) for item in pending] == pending
    assert [item.is_behind for item in pending] == [False] * 5 + [True] * 4
    assert pool.remove(pending[0].key, 8) is None


def test_open_work_counts_every_envelope_once_however_it_leaves() -> None:
    """Removed, taken for a slot here, or in a slot of another replica's; a new view begins with all that is there."""
    pool = Pool()
    for client in range(9):
        pending = _pending(client, 1)
        pending.since = 5 + client
        assert pool.add(pending)
    assert (pool.open_work, pool.open_since) == (9 * (1 + ENVELOPE_WORK), 5)
    pool.remove(_pending(0, 1).key, 20)
    pool.mark_proposed(_pending(1, 1).key, 1)
    pool.mark_proposed(_pending(1, 1).key, 1)
    assert pool.open_work == 7 * (1 + ENVELOPE_WORK)
    _take(pool, 2, now=50)
    assert (pool.open_work, pool.open_since) == (0, 50)
    late = _pending(1, 2)
    late.since = 99
    assert pool.add(late)
    assert pool.open_since == 99
    pool.reset()
    assert pool.open_work == sum(pending.work for pending in pool) == 9 * (1 + ENVELOPE_WORK)


def _fresh_keys(pool: Pool, count: int, first: int) -> None:
    for name in range(first, first + count):
        pending = Pending(SignedRequest(name.to_bytes(32, "big"), b"p", b"s" * 64), Request(1, 1, 1, (b"x",), ()), 1)
        assert pool.add(pending)


def test_fresh_keys_do_not_stop_virtual_time() -> None:
    """Keys that come once each and never again make no client with a steady load wait, and are not remembered."""
    pool = Pool(quantum=64)
    steady, number, waiting, longest = 9, 0, None, 0
    in_flight: list[list[Pending]] = []
    for turn in range(1, 600):
        _fresh_keys(pool, 256, 1_000_000 + 256 * turn)
        if waiting is None:
            number += 1
            waiting = (_pending(steady, number), turn)
            assert pool.add(waiting[0])
        in_flight.append(_take(pool, turn, 256))
        if waiting[0] in in_flight[-1]:
            longest = max(longest, turn - waiting[1])
            waiting = None
        for done in in_flight.pop(0) if len(in_flight) > 4 else []:
            pool.remove(done.key, 1)
    assert number > 20
    assert longest < 60
    assert len(pool.shares._recent) + len(pool.shares._debtors) <= 2 * (RECENT_SLOTS + 1) * 256


# --- room ---------------------------------------------------------------------------------------------------------


def test_full_pool_makes_room_at_the_expense_of_whoever_holds_most() -> None:
    """A small client gets in; the newest of the largest go; the largest itself is refused."""
    pool = Pool(bytes_max=200 * 1024)
    _fill(pool, 9, 200)
    assert not pool.add(_pending(9, 999))
    assert pool.add(_pending(1, 1))
    assert {pending.signed.client[0] for pending in pool.evicted} == {9}
    assert max(pending.request.number for pending in pool if pending.signed.client[0] == 9) < 200
    assert len(pool) <= 200


def test_eviction_stops_where_all_hold_alike() -> None:
    """Clients of equal size do not push each other out in turns."""
    pool = Pool(bytes_max=100 * 1024)
    _fill(pool, 1, 50)
    _fill(pool, 2, 50)
    assert not pool.add(_pending(1, 999))
    assert not pool.evicted


def test_what_a_replica_waits_for_evicts_also_where_all_hold_alike() -> None:
    """Also of its own client: many keys that fill the memory together leave room for what backups show the primary."""
    pool = Pool(bytes_max=100 * 1024)
    _fill(pool, 9, 1, payload=98 * 1024)
    assert not pool.add(_pending(9, 2, payload=2000))
    assert pool.add(_pending(9, 2, payload=2000), 1)
    assert [pending.request.number for pending in pool.evicted] == [1]
    assert [pending.request.number for pending in pool] == [2]


def test_what_a_slot_holds_is_not_evicted() -> None:
    """It must be there if the view fails, to be proposed again."""
    pool = Pool(bytes_max=100 * 1024)
    _fill(pool, 9, 100)
    _take(pool, 1, 100)
    assert not pool.add(_pending(1, 1))
    assert len(pool) == 100


def test_what_a_backup_waits_for_goes_first_but_little_of_it() -> None:
    """A client that shows a backup first what it shows the primary last does not make the primary look slow."""
    pool = Pool()
    _fill(pool, 9, 1000)
    for number in range(1000, 1000 - 2 * URGENT_MAX, -1):
        pool.promote((bytes([9]) * 32, 1, number), 2)
    first = [pending.request.number for pending in _take(pool, 1, 10)]
    assert first == [1000, 1, 999, 2, 3, 4, 5, 6, 7, 8], "every other one: neither order starves"


def test_new_view_begins_with_new_accounts() -> None:
    """Who was beyond its share under one primary owes nothing to the next."""
    pool = Pool()
    for seq in range(RECENT_SLOTS):
        _charged(pool, seq, (9, 9001 + 400 * seq, 400), (1, 1 + seq, 1))
    _fill(pool, 9, 2 * BACKLOG_ENVELOPES)
    assert pool.hold_back(bytes([9]) * 32, 0)[1] == "backlog"
    pool.reset()
    assert pool.hold_back(bytes([9]) * 32, 0) == (0, "")


def test_starved_client_with_small_envelopes_is_still_watched() -> None:
    """A dozen of them before it are no excuse for a primary that lets it wait (`slow-primary`)."""
    pool = Pool()
    for seq in range(RECENT_SLOTS):
        _charged(pool, seq, (2, 1 + 100 * seq, 100), (3, 1 + 100 * seq, 100))
    waiting = [_pending(1, 1 + place) for place in range(40)]
    for pending in waiting:
        assert pool.add(pending)
    assert not any(pool.is_beyond_share(pending) for pending in waiting)
