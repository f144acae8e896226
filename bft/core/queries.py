"""Read-only operations without ordering: the commit-wait rule [CL99 5.1; CL02 5.1.3].

A replica answers only after executing every slot for which it had sent COMMIT when the query arrived. If any correct
replica executed slot s before the read began, a strong quorum had sent COMMIT for s; the read's strong quorum of equal
answers shares a correct member with it, which waited for s. So no read misses a write that was complete before it,
though writes complete with a weak quorum of replies (mutant M25, `test_query_waits_for_slots_it_sent_commit_for`).

Weak reads skip the wait; both honour a floor, so that one client's reads never go backwards.
"""

from __future__ import annotations

from bft.core import budget, reconfig
from bft.core.state import State
from bft.events import AnswerQuery, QueryAnswered
from bft.ids import Peer
from bft.messages import Query, QueryReply, ReadAnswer, Refusal

WAITING_MAX = 8192
"""Operations; a query has up to 64."""
SERVED_AT_ONCE = 512
"""Operations that are answered in one go: the rest waits for the next slot or tick, so that no pile of reads keeps the
replica from voting."""
WAITING_BYTES_MAX = 64 * 1024 * 1024
OPERATION_OVERHEAD_BYTES = 64
REPLY_BYTES = 256 * 1024
"""One answer may be larger; several together are not."""
CLIENT_SHARE = 2
"""A client may fill this part of the queue, half or less of it: a hostile one leaves room for the others.

Beyond that the queue is shared by need: when it is full, the newest query of whoever holds most gives its place to a
client that holds less, so that any number of hostile keys leaves an honest client its share.
"""


def on_query(state: State, peer: Peer, message: Query) -> None:
    """Answer now or when the needed slot is executed; refuse beyond the queue's bounds."""
    needed = max(state.max_commit_sent if message.wait else 0, message.floor)
    if needed <= state.executed and _stands_still(state):
        state.out.append(AnswerQuery(peer, message.nonce, state.executed, message.operations))
        return
    count, size = state.waiting_load.get(peer, (0, 0))
    own = size_of(message.operations)
    count += len(message.operations)
    size += own
    if (
        count > WAITING_MAX // CLIENT_SHARE
        or size > WAITING_BYTES_MAX // CLIENT_SHARE
        or needed > state.executed + state.log.window
        or not _make_room(state, count, size, len(message.operations), own)
    ):
        state.send(peer, Refusal(0, message.nonce, "busy", state.time_ns))
        return
    state.waiting_load[peer] = (count, size)
    state.waiting_operations += len(message.operations)
    state.waiting_bytes += own
    state.waiting_queries.append((needed, AnswerQuery(peer, message.nonce, 0, message.operations)))


def size_of(operations: tuple[bytes, ...]) -> int:
    """Bytes that a waiting query takes here, as many empty operations do, too."""
    return sum(map(len, operations)) + OPERATION_OVERHEAD_BYTES * (len(operations) - 1)


def _make_room(state: State, count: int, size: int, operations: int, needed: int) -> bool:
    """Evict the newest queries of whoever waits with most, while the queue is full and that is more than the asker."""
    while True:
        by_count = state.waiting_operations + operations > WAITING_MAX
        if not by_count and state.waiting_bytes + needed <= WAITING_BYTES_MAX:
            return True
        largest = max(state.waiting_load, key=lambda peer: state.waiting_load[peer][0 if by_count else 1], default=None)
        if largest is None:
            return False
        theirs = state.waiting_load[largest]
        if theirs[0 if by_count else 1] <= (count if by_count else size):
            return False
        _evict(state, largest, theirs[0] // 2 + 1)


def _evict(state: State, peer: Peer, count: int) -> None:
    """Refuse the newest queries of a client, `count` operations or more; in bulk, since each takes a look at all."""
    kept = []
    for needed, query in reversed(state.waiting_queries):
        if count > 0 and query.client == peer:
            count -= len(query.operations)
            state.send(peer, Refusal(0, query.nonce, "busy", state.time_ns))
        else:
            kept.append((needed, query))
    kept.reverse()
    _replace(state, kept)


def _replace(state: State, kept: list[tuple[int, AnswerQuery]]) -> None:
    """These queries wait from now on, and nothing else."""
    load: dict[Peer, tuple[int, int]] = {}
    for _, query in kept:
        count, size = load.get(query.client, (0, 0))
        load[query.client] = (count + len(query.operations), size + size_of(query.operations))
    state.waiting_queries = kept
    state.waiting_load = load
    state.waiting_operations = sum(count for count, _ in load.values())
    state.waiting_bytes = sum(size for _, size in load.values())


def _stands_still(state: State) -> bool:
    """False while the service is between two states, or the epoch between two memberships."""
    return state.executing is None and state.fetching is None and not reconfig.is_over(state)


def serve_waiting(state: State) -> None:
    """Answer queries whose slot is executed, in order; none while the service is between two states."""
    if not state.waiting_queries or not _stands_still(state):
        return
    later = []
    room = SERVED_AT_ONCE
    for needed, query in state.waiting_queries:
        if needed > state.executed or room <= 0:
            later.append((needed, query))
            continue
        room -= len(query.operations)
        state.out.append(AnswerQuery(query.client, query.nonce, state.executed, query.operations))
    _replace(state, later)


def on_query_answered(state: State, event: QueryAnswered) -> None:
    """Pass the service's answers to the client, large ones in parts, within what it may have until the next tick.

    What is beyond that, or was too much for one query, is refused, and comes back as ordinary operations, which the
    client's share of the slots bounds.
    """
    part: list[ReadAnswer] = []
    size = first = 0
    for place, (status, value) in enumerate(event.answers):
        size += len(value)
        if part and size > REPLY_BYTES:
            if not _answer(state, event, first, part, size - len(value)):
                return
            part, size, first = [], len(value), place
        part.append(ReadAnswer(status, value))
    if _answer(state, event, first, part, size) and not event.is_all:
        state.send(event.client, Refusal(0, event.nonce, "busy", state.time_ns))


def _answer(state: State, event: QueryAnswered, first: int, part: list[ReadAnswer], size: int) -> bool:
    if not budget.may_answer(state, event.client, size):
        state.send(event.client, Refusal(0, event.nonce, "busy", state.time_ns))
        return False
    state.send(event.client, QueryReply(event.nonce, event.seq, state.epoch, first, tuple(part)))
    return True
