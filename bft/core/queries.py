"""Read-only operations without ordering: the commit-wait rule [CL99 4.1; CL02 5.1.3].

A replica answers only after executing every slot for which it had sent COMMIT when the query arrived. If any correct
replica executed slot s before the read began, a strong quorum had sent COMMIT for s; the read's strong quorum of equal
answers shares a correct member with it, which waited for s. So no read misses a write that was complete before it,
though writes complete with a weak quorum of replies (mutant M25, `test_query_waits_for_slots_it_sent_commit_for`).

Weak reads skip the wait; both honour a floor, so that one client's reads never go backwards.
"""

from __future__ import annotations

from bft.core import reconfig
from bft.core.state import State
from bft.events import AnswerQuery, QueryAnswered
from bft.ids import Peer
from bft.messages import Query, QueryReply, ReadAnswer, Refusal

WAITING_MAX = 8192
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
    size += own
    if (
        count >= WAITING_MAX // CLIENT_SHARE
        or size > WAITING_BYTES_MAX // CLIENT_SHARE
        or needed > state.executed + state.log.window
        or not _make_room(state, count, size, own)
    ):
        state.send(peer, Refusal(0, message.nonce, "busy", state.time_ns))
        return
    state.waiting_load[peer] = (count + 1, size)
    state.waiting_bytes += own
    state.waiting_queries.append((needed, AnswerQuery(peer, message.nonce, 0, message.operations)))


def size_of(operations: tuple[bytes, ...]) -> int:
    """Bytes that a waiting query takes here, as many empty operations do, too."""
    return sum(map(len, operations)) + OPERATION_OVERHEAD_BYTES * (len(operations) - 1)


def _make_room(state: State, count: int, size: int, needed: int) -> bool:
    """Evict the newest queries of whoever waits with most, while the queue is full and that is more than the asker."""
    while len(state.waiting_queries) >= WAITING_MAX or state.waiting_bytes + needed > WAITING_BYTES_MAX:
        by_count = len(state.waiting_queries) >= WAITING_MAX
        largest = max(state.waiting_load, key=lambda peer: state.waiting_load[peer][0 if by_count else 1], default=None)
        if largest is None:
            return False
        theirs = state.waiting_load[largest]
        if theirs[0 if by_count else 1] <= (count + 1 if by_count else size):
            return False
        _evict(state, largest, theirs[0] // 2 + 1)
    return True


def _evict(state: State, peer: Peer, count: int) -> None:
    """Refuse the newest `count` waiting queries of a client; in bulk, since each takes a look at all."""
    kept = []
    for needed, query in reversed(state.waiting_queries):
        if count and query.client == peer:
            count -= 1
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
        load[query.client] = (count + 1, size + size_of(query.operations))
    state.waiting_queries = kept
    state.waiting_load = load
    state.waiting_bytes = sum(size for _, size in load.values())


def _stands_still(state: State) -> bool:
    """False while the service is between two states, or the epoch between two memberships."""
    return state.executing is None and state.fetching is None and not reconfig.is_over(state)


def serve_waiting(state: State) -> None:
    """Answer every query whose slot is executed; none while the service is between two states."""
    if not state.waiting_queries or not _stands_still(state):
        return
    later = []
    for needed, query in state.waiting_queries:
        if needed > state.executed:
            later.append((needed, query))
            continue
        state.out.append(AnswerQuery(query.client, query.nonce, state.executed, query.operations))
    _replace(state, later)


def on_query_answered(state: State, event: QueryAnswered) -> None:
    """Pass the service's answers to the client, large ones in several parts."""
    part: list[ReadAnswer] = []
    size = first = 0
    for place, (status, value) in enumerate(event.answers):
        size += len(value)
        if part and size > REPLY_BYTES:
            state.send(event.client, QueryReply(event.nonce, event.seq, state.epoch, first, tuple(part)))
            part, size, first = [], len(value), place
        part.append(ReadAnswer(status, value))
    state.send(event.client, QueryReply(event.nonce, event.seq, state.epoch, first, tuple(part)))
