"""The pool is fair: deficit round robin between clients, and who holds most makes room for others."""

from __future__ import annotations

from collections import Counter

from bft.core.pool import (
    CLIENT_ENVELOPES_MAX,
    ENVELOPE_WORK,
    QUANTUM,
    RECENT_SLOTS,
    RIDE_SHARE,
    SLOT_WORK,
    URGENT_MAX,
    Pending,
    Pool,
)
from bft.messages import Request, SignedRequest

BATCH_OPERATIONS = 2048
BATCH_BYTES = 1 << 20


def _pending(client: int, number: int, operations: int = 1, payload: int = 0) -> Pending:
    packet = SignedRequest(bytes([client]) * 32, bytes(payload), bytes(64))
    return Pending(packet, Request(1, number, 1, (b"",) * operations, ()), 0)


def _fill(pool: Pool, client: int, envelopes: int, operations: int = 1, payload: int = 0) -> None:
    for number in range(envelopes):
        assert pool.add(_pending(client, 1 + number * operations, operations, payload))


def _batches(pool: Pool, count: int, operations_max: int = BATCH_OPERATIONS) -> list[list[Pending]]:
    return [pool.take(seq, operations_max, BATCH_BYTES) for seq in range(1, count + 1)]


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
    assert max(shares.values()) - min(shares.values()) <= QUANTUM


def test_idle_client_saves_nothing_up() -> None:
    """Turns that a client did not need do not add up to a burst later."""
    pool = Pool()
    _fill(pool, 2, 2000, operations=8)
    for seq in range(1, 20):
        pool.add(_pending(1, seq))
        pool.take(seq, 64, BATCH_BYTES)
    _fill(pool, 1, 400, operations=8)
    shares = _shares(_batches(pool, 4))
    assert shares[1] <= shares[2] + 2 * QUANTUM + SLOT_WORK


def test_client_without_end_gets_no_more_than_the_others_use() -> None:
    """Three callers with one envelope open each, and a flood: what they leave while they wait is not the flood's.

    A slot executes per step; up to four are in flight.
    """
    pool = Pool()
    _fill(pool, 9, 4000, operations=8)
    flying: list[list[Pending]] = []
    calls = dict.fromkeys((1, 2, 3), 0)
    shares: Counter[int] = Counter()
    waiting = [1, 2, 3]
    alone = 0
    for seq in range(1, 400):
        for client in waiting:
            calls[client] += 1
            pool.add(_pending(client, 40 * calls[client], operations=40))
        waiting = []
        if len(flying) < 4 and pool.is_due:
            batch = pool.take(seq, BATCH_OPERATIONS, BATCH_BYTES)
            assert batch, "a due pool has something"
            flying.append(batch)
        if len(flying) > 1 or not pool.is_due:
            done = flying.pop(0)
            shares.update(_shares([done]))
            alone += {pending.signed.client[0] for pending in done} == {9}
            for pending in done:
                pool.remove(pending.key, 0)
                if pending.signed.client[0] != 9:
                    waiting.append(pending.signed.client[0])
    assert min(calls.values()) > 300, "they come back as if nobody else were there"
    assert alone < 100, "a slot of its own now and then"
    assert shares[9] <= sum(calls.values()) // 3 * (QUANTUM // RIDE_SHARE) + 100 * QUANTUM
    assert shares[9] >= 0.3 * min(shares[client] for client in calls), "it has its share"


def test_flood_gets_everything_when_nobody_else_comes() -> None:
    """Others that were served lately are forgotten after some slots, and until then it is served when all is idle."""
    pool = Pool()
    _fill(pool, 1, 1)
    _fill(pool, 9, 4000)
    slots = 0
    while pool.is_due:
        slots += 1
        for pending in pool.take(slots, BATCH_OPERATIONS, BATCH_BYTES):
            pool.remove(pending.key, 0)
    assert len(pool) == 0
    assert slots <= RECENT_SLOTS + 4


def test_busy_client_beside_idle_ones_rides_in_their_slots() -> None:
    """A bulk load next to a few single calls is not held to their average: it adds to every slot."""
    pool = Pool()
    for number in range(400):
        pool.add(_pending(9, 1 + 100 * number, operations=100))
    carried = 0
    for seq in range(1, 100):
        pool.add(_pending(1 + seq % 3, seq))
        batch = pool.take(seq, BATCH_OPERATIONS, BATCH_BYTES)
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
    assert not pool.is_due


def test_new_view_proposes_everything_again() -> None:
    """What a slot of the old view held waits again, oldest first."""
    pool = Pool()
    _fill(pool, 1, 5)
    pool.take(1, 3, BATCH_BYTES)
    pool.mark_proposed((bytes([1]) * 32, 1, 4), 2)
    pool.reset()
    assert [pending.request.number for pending in pool.take(1, 99, BATCH_BYTES)] == [1, 2, 3, 4, 5]


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
    pool.take(2, BATCH_OPERATIONS, BATCH_BYTES)
    assert pool.open_work == 0
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
        in_flight.append(pool.take(turn, 256, 1 << 20))
        if waiting[0] in in_flight[-1]:
            longest = max(longest, turn - waiting[1])
            waiting = None
        for done in in_flight.pop(0) if len(in_flight) > 4 else []:
            pool.remove(done.key, 1)
    assert number > 20
    assert longest < 60
    assert len(pool._recent) + len(pool._debtors) <= 2 * (RECENT_SLOTS + 1) * 256


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


def test_what_a_slot_holds_is_not_evicted() -> None:
    """It must be there if the view fails, to be proposed again."""
    pool = Pool(bytes_max=100 * 1024)
    _fill(pool, 9, 100)
    pool.take(1, 100, BATCH_BYTES)
    assert not pool.add(_pending(1, 1))
    assert len(pool) == 100


def test_what_a_backup_waits_for_goes_first_but_little_of_it() -> None:
    """A client that shows a backup first what it shows the primary last does not make the primary look slow."""
    pool = Pool()
    _fill(pool, 9, 1000)
    for number in range(1000, 1000 - 2 * URGENT_MAX, -1):
        pool.promote((bytes([9]) * 32, 1, number), 2)
    first = [pending.request.number for pending in pool.take(1, 10, BATCH_BYTES)]
    assert first == [1000, 1, 999, 2, 3, 4, 5, 6, 7, 8], "every other one: neither order starves"
