"""Client requests on their way to the primary, and the grievances of those that wait too long [CL99 4.1, 4.4].

Every client's oldest request has a deadline: one timer that any progress restarts would let a primary starve a client
for ever, and one per request would let a client that floods depose primaries that are merely fair. A backup passes a
waiting request on to the primary, then to everybody, so that a weak quorum of correct replicas shares the grievance.
"""

from __future__ import annotations

from bft.core import execution, ordering, reconfig, viewchange
from bft.core.monitor import PERFORMANCE
from bft.core.pool import Pending
from bft.core.state import State
from bft.ids import Peer
from bft.messages import Request, SignedRequest

REQUEST_LATE = "request-timeout"
SLOT_LATE = "slot-timeout"
SPREAD_MAX = 2
"""Envelopes of one client that a tick looks at, and that are on their way to a primary that may not have them. The
oldest decides about grievances, and the others move up as those before them are executed. Passing on a whole flood
would put it between the primary and the one envelope that a backup waits for (`C06-torrent-at-full-speed`)."""


def wants_request(state: State, peer: Peer, packet: SignedRequest, request: Request) -> bool:
    """True if the envelope is new here, was executed and can be answered again, or a backup waits for it."""
    key = (packet.client, request.session, request.number)
    return key not in state.pool or (isinstance(peer, int) and state.is_primary)


def on_request(state: State, peer: Peer, packet: SignedRequest, request: Request) -> None:
    """Take an authentic envelope in; answer it from the table if it was executed before."""
    key = (packet.client, request.session, request.number)
    if key in state.pool:
        if isinstance(peer, int):
            state.pool.promote(key, peer)
        return
    if state.sessions.is_expired(packet.client, request.session):
        execution.refuse(state, packet.client, request.session, request.number)
        return
    if state.sessions.is_finished(packet.client, request):
        if peer == packet.client:
            count = len(request.operations)
            execution.resend(state, packet.client, request.session, request.number, count)
        return
    pending = Pending(packet, request, state.now)
    if not state.pool.add(pending, peer if isinstance(peer, int) and state.is_primary else -1):
        state.reject(peer, "pool-full")
        if peer == packet.client:
            execution.refuse(state, packet.client, request.session, request.number, execution.BUSY)
        return
    if isinstance(peer, int):
        state.pool.promote(key, peer)
    if state.pool.evicted:
        _refuse_evicted(state)
    _probe(state, pending)
    ordering.propose(state)


def _probe(state: State, pending: Pending) -> None:
    """Now and then pass a request on at once, and see how soon it is proposed; not one that a fair pool lets wait."""
    if not state.monitor.wants_probe(state.now) or not state.active or state.primary == state.me:
        return
    if state.pool.is_beyond_share(pending):
        return
    state.monitor.begin_probe(pending, state.now)
    pending.stage = 1
    pending.forwarded = state.now
    state.send(state.primary, pending.signed)


def _refuse_evicted(state: State) -> None:
    """Tell those who held most of a full pool that they sent too much; their clients send it again later."""
    evicted, state.pool.evicted = state.pool.evicted, []
    for pending in evicted:
        client, session, number = pending.key
        state.reject(client, "pool-evicted")
        execution.refuse(state, client, session, number, execution.BUSY)


def spread(state: State) -> None:
    """On every tick: pass waiting envelopes on, and complain about those past their deadline."""
    if not state.active:
        return
    timeout = state.request_timeout_ns
    monitor = state.monitor
    patience = min(timeout // 4, monitor.forward_ns) if monitor.is_on else timeout // 4
    watched: Pending | None = None
    stale = []
    for pending in state.pool.oldest(SPREAD_MAX):
        waited = state.now - max(pending.since, state.timing.active_since)
        if waited < patience:
            continue
        if state.sessions.is_finished(pending.signed.client, pending.request):
            stale.append(pending.key)
            continue
        if pending.stage == 0:
            pending.stage = 1
            pending.forwarded = state.now
            if state.primary != state.me:
                state.send(state.primary, pending.signed)
        elif pending.stage == 1 and waited >= timeout // 2:
            pending.stage = 2
            state.broadcast(pending.signed)
        if pending.proposed or (watched is not None and pending.since >= watched.since):
            continue
        if monitor.is_on and not state.pool.is_beyond_share(pending):
            watched = pending
    for key in stale:
        state.pool.remove(key, state.now)
    monitor.watch(watched)
    _judge(state)
    if _has_late_head(state, timeout):
        viewchange.suspect(state, REQUEST_LATE)
    elif _has_late_slot(state, timeout):
        viewchange.suspect(state, SLOT_LATE)
    elif reconfig.must_fill(state) and state.now - max(state.timing.progressed, state.timing.active_since) >= timeout:
        viewchange.suspect(state, reconfig.FILL_LATE)
    elif state.timing.grievance in (REQUEST_LATE, SLOT_LATE, reconfig.FILL_LATE):
        # Settled: stop repeating it, so that a slow moment of the past cannot depose a primary later.
        state.timing.grievance = ""


def _judge(state: State) -> None:
    """Complain about a primary that is slow, unfair or wasteful, and stop when it no longer is."""
    verdict = state.monitor.judge(state.now)
    if state.primary == state.me:
        return
    if verdict:
        viewchange.suspect(state, verdict)
    elif state.timing.grievance in PERFORMANCE:
        state.timing.grievance = ""


def _has_late_head(state: State, timeout: int) -> bool:
    """True if some client's oldest envelope has been the oldest for too long.

    The clock of an envelope starts when those before it are done: a client that sends faster than its fair share is
    ordered would else depose one correct primary after another. A primary that leaves one envelope aside while it
    orders later ones of that client is seen all the same, since the one left aside stays the oldest.
    """
    for queue, pending in state.pool.heads():
        waited = state.now - max(queue.waiting_since, state.timing.active_since)
        if waited >= timeout and not state.sessions.is_finished(pending.signed.client, pending.request):
            return True
    return False


def _has_late_slot(state: State, timeout: int) -> bool:
    """A slot that was accepted but is not executed for too long is a grievance too, even with an empty pool.

    Accepted in this view: what an older one left behind, the present primary need not know of.
    """
    if not any(seq > state.executed and state.view in slot.accepted for seq, slot in state.log.slots.items()):
        state.timing.opened = state.now
        return False
    since = max(state.timing.progressed, state.timing.active_since, state.timing.opened)
    return state.now - since >= timeout and state.executing is None and state.fetching is None
