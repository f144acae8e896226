"""From decided slots to replies: strictly in order, each operation at most once [CL99 4.2].

The service is outside: `Execute` asks for one slot, `Executed` brings its results; there is one at a time. Which
operations of a batch execute is decided here, by the exactly-once table.
"""

from __future__ import annotations

from bft.config import MILLISECOND
from bft.core import budget, checkpoint, ordering, queries, reconfig
from bft.core.state import State
from bft.digests import NULL_DIGEST, chain_digest, seed_digest
from bft.events import Committed, Execute, Executed, OpenedBatch, OperationCall
from bft.messages import FetchEvents, Refusal, Reply, ReplyStatement, SignedReply

REPLY_BYTES_FROM_ALL = 8192
"""A larger bundle is sent by one replica, the others send its digest; a retransmission brings it from everybody."""


def execute_ready(state: State) -> None:
    """Give the next slot to the service if it is decided, its batch is here, and none is being executed."""
    if state.executing is not None or state.fetching is not None:
        return
    seq = state.executed + 1
    slot = state.log.slots.get(seq)
    if slot is None or slot.committed is None or not state.log.has_batch(slot.committed.digest):
        return
    digest = slot.committed.digest
    batch = None if digest == NULL_DIGEST else state.log.batch(digest)
    if batch is not None:
        step_ns = max(batch.time_ns - state.time_ns, 1)
        state.time_ns += step_ns
        state.lease_ns += min(step_ns, state.protocol.lease_step_max_ms * MILLISECOND)
    calls: list[OperationCall] = []
    if batch is not None:
        _note_fresh(state, batch)
        selected = state.sessions.select(batch.requests, seq, state.time_ns)
        calls, state.system_calls = reconfig.split(state, batch.requests, selected)
    effect = Execute(
        seq=seq,
        time_ns=state.time_ns,
        lease_ns=state.lease_ns,
        seed=seed_digest(state.chain, digest),
        calls=calls,
        checkpoint=seq % state.protocol.checkpoint_interval == 0,
    )
    state.executing = (effect, digest, batch)
    state.out.append(Committed(slot.committed))
    state.out.append(effect)


def _note_fresh(state: State, batch: OpenedBatch) -> None:
    """Tell the monitor which envelopes are executed, and the first operation that each finishes."""
    if not state.monitor.is_on:
        return
    state.monitor.note_slot()
    for client, request in batch.requests:
        session = state.sessions.get(client, request.session)
        numbers = range(request.number, request.number + len(request.operations))
        first = next((number for number in numbers if session is None or not session.finished(number)), 0)
        if first:
            state.monitor.note_fresh((client, request.session, request.number), first)


def on_executed(state: State, event: Executed) -> None:
    """Record the results, answer the clients, and go on with the next slot."""
    assert state.executing is not None, f"slot {event.seq} executed without being asked for"
    effect, digest, batch = state.executing
    assert event.seq == effect.seq == state.executed + 1, f"executed {event.seq} after {state.executed}"
    assert len(event.results) == len(effect.calls), f"{len(event.results)} results for {len(effect.calls)} calls"
    state.executing = None
    state.executed = event.seq
    state.chain = chain_digest(state.chain, event.seq, digest)
    state.timing.progressed = state.now
    if event.seq == state.timing.timed[0]:
        state.timing.slot_ns = state.now - state.timing.timed[1]
    calls, results = effect.calls, event.results
    if state.system_calls:
        calls, results = _with_system_calls(state, effect, event)
    for session, bundle_digest, bundle in state.sessions.record(event.seq, calls, results, event.events):
        due = len(bundle) <= REPLY_BYTES_FROM_ALL or state.quorums.primary(event.seq) == state.me
        _reply(state, session.client, session.incarnation, event.seq, bundle_digest, bundle if due else b"")
    if batch is not None:
        oldest = state.now
        for client, request in batch.requests:
            pending = state.pool.remove((client, request.session, request.number), state.now)
            since = state.monitor.waited_since(pending, state.now) if pending is not None else 0
            if since and since < oldest:
                oldest = since
            if state.sessions.get(client, request.session) is None:
                expired = state.sessions.is_expired(client, request.session)
                refuse(state, client, request.session, request.number, EXPIRED if expired else EARLY)
        if state.active and _is_of_this_view(state, event.seq):
            state.monitor.note_executed(oldest if oldest < state.now else 0, len(effect.calls), state.now)
    if effect.checkpoint:
        assert event.pages is not None, f"a checkpoint at {event.seq} needs the service's pages"
        checkpoint.take(state, event.pages, event.fresh)
    queries.serve_waiting(state)
    execute_ready(state)
    ordering.propose(state)


def _with_system_calls(
    state: State, effect: Execute, event: Executed
) -> tuple[list[OperationCall], list[tuple[int, bytes]]]:
    """The slot's calls and results, those that are not for the service in their places."""
    outcomes = [(call, reconfig.execute(state, call, event.seq)) for call in state.system_calls]
    outcomes += zip(effect.calls, event.results, strict=True)
    state.system_calls = []
    outcomes.sort(key=lambda outcome: outcome[0].index)
    return [call for call, _ in outcomes], [result for _, result in outcomes]


def _is_of_this_view(state: State, seq: int) -> bool:
    """Proposed by the present primary; what came as a proof of an older decision says nothing of it."""
    slot = state.log.slots.get(seq)
    return slot is not None and state.view in slot.accepted


def _reply(state: State, client: bytes, session: int, seq: int, digest: bytes, bundle: bytes) -> None:
    reply = Reply(session, seq, state.epoch, state.view, digest, bundle)
    if not state.signs_replies or not state.is_member or seq <= state.doubted:
        # Clients count members only, and only those can be held to it. Nor is anything signed of a slot whose results
        # were wrong here before: two statements of one slot would convict a replica whose memory once failed.
        state.send(client, reply)
        return
    # Safe to sign again after a crash: what is decided is durable, and executing it again gives the same bundle.
    statement = state.sign(ReplyStatement(state.epoch, client, session, seq, digest))
    state.send(client, SignedReply(reply, statement.signature))


EXPIRED = "session-expired"
EARLY = "session-early"
BUSY = "busy"


def refuse(state: State, client: bytes, session: int, number: int, reason: str = EXPIRED) -> None:
    """Tell a client that operations were not executed, and the agreed time; hints, believed from a weak quorum only.

    Args:
        reason: `EXPIRED`: the session is over; `EARLY`: it is dated ahead of the agreed time, and there is no room for
            more of those; `BUSY`: nothing is wrong with the envelope, but there was no room for it here.
    """
    state.send(client, Refusal(session, number, reason, state.time_ns))


def send_events(state: State, client: bytes, message: FetchEvents) -> None:
    """Send a client the events that it missed.

    Those that it has are not charged: it asks whenever a connection begins anew, and a replica that ends its own again
    and again would else use up what the client may have of all the others.
    """
    session = state.sessions.get(client, message.session)
    if session is None or not state.serves:
        return
    bodies = session.events_after(message.after)
    if budget.may_answer(state, client, sum(len(event.payload) for event in bodies.events)):
        state.send(client, bodies)


def resend(state: State, client: bytes, session_number: int, first: int, count: int) -> None:
    """Send the kept bundles that cover the operations `first .. first + count - 1` again, with their bytes."""
    session = state.sessions.get(client, session_number)
    if session is None or not state.serves:
        return
    seqs = {session.done[number]: None for number in range(first, first + count) if number in session.done}
    for seq in seqs:
        kept = session.kept.get(seq)
        if kept is None:
            continue
        if not budget.may_answer(state, client, len(kept.bundle)):
            return
        if kept.bundle:
            _reply(state, client, session_number, seq, kept.digest, kept.bundle)
        else:
            state.send(client, Refusal(session_number, first, "result-unavailable"))
