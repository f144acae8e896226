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
from bft.messages import Query, QueryReply, Refusal

WAITING_MAX = 8192
WAITING_BYTES_MAX = 64 * 1024 * 1024
CLIENT_SHARE = 2
"""A client may fill this part of the queue, half or less of it: a hostile one leaves room for the others."""


def on_query(state: State, peer: Peer, message: Query) -> None:
    """Answer now or when the needed slot is executed; refuse beyond the queue's bounds."""
    needed = max(state.max_commit_sent if message.wait else 0, message.floor)
    if needed <= state.executed and _stands_still(state):
        state.out.append(AnswerQuery(peer, message.nonce, state.executed, message.operation))
        return
    count, size = state.waiting_load.get(peer, (0, 0))
    size += len(message.operation)
    everything = sum(bytes_ for _, bytes_ in state.waiting_load.values()) + len(message.operation)
    if (
        len(state.waiting_queries) >= WAITING_MAX
        or count >= WAITING_MAX // CLIENT_SHARE
        or everything > WAITING_BYTES_MAX
        or size > WAITING_BYTES_MAX // CLIENT_SHARE
        or needed > state.executed + state.log.window
    ):
        state.send(peer, Refusal(0, message.nonce, "busy"))
        return
    state.waiting_load[peer] = (count + 1, size)
    state.waiting_queries.append((needed, AnswerQuery(peer, message.nonce, 0, message.operation)))


def _stands_still(state: State) -> bool:
    """False while the service is between two states, or the epoch between two memberships."""
    return state.executing is None and state.fetching is None and not reconfig.is_over(state)


def serve_waiting(state: State) -> None:
    """Answer every query whose slot is executed; none while the service is between two states."""
    if not state.waiting_queries or not _stands_still(state):
        return
    later = []
    load: dict[Peer, tuple[int, int]] = {}
    for needed, query in state.waiting_queries:
        if needed > state.executed:
            later.append((needed, query))
            count, size = load.get(query.client, (0, 0))
            load[query.client] = (count + 1, size + len(query.operation))
            continue
        state.out.append(AnswerQuery(query.client, query.nonce, state.executed, query.operation))
    state.waiting_queries = later
    state.waiting_load = load


def on_query_answered(state: State, event: QueryAnswered) -> None:
    """Pass the service's answer to the client."""
    state.send(event.client, QueryReply(event.nonce, event.seq, state.epoch, event.status, event.value))
