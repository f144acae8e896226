"""Client requests on their way to the primary, and the grievances of those that wait too long [CL99 4.1, 4.4].

A request has a deadline of its own, the oldest first: one timer that any progress restarts would let a primary starve
a client for ever. A backup passes a waiting request on to the primary, then to everybody, so that a weak quorum of
correct replicas shares the grievance.
"""

from __future__ import annotations

from bft.core import execution, ordering, reconfig, viewchange
from bft.core.pool import Pending
from bft.core.state import State
from bft.ids import Peer
from bft.messages import Request, SignedRequest

REQUEST_LATE = "request-timeout"
SLOT_LATE = "slot-timeout"
SPREAD_MAX = 256
"""Envelopes of one client that a tick looks at: a flood in the pool must not slow down every tick. The oldest decide
about grievances, and the others move up as those are executed."""


def wants_request(state: State, packet: SignedRequest, request: Request) -> bool:
    """True if the envelope is new here, or was executed and its replies can be sent again."""
    key = (packet.client, request.session, request.number)
    return key not in state.pool


def on_request(state: State, peer: Peer, packet: SignedRequest, request: Request) -> None:
    """Take an authentic envelope in; answer it from the table if it was executed before."""
    if not wants_request(state, packet, request):
        return
    if state.sessions.is_expired(packet.client, request.session):
        execution.refuse(state, packet.client, request.session, request.number)
        return
    if is_finished(state, packet.client, request):
        if peer == packet.client:
            count = len(request.operations)
            execution.resend(state, packet.client, request.session, request.number, count)
        return
    if not state.pool.add(Pending(packet, request, state.now)):
        state.reject(peer, "pool-full")
        return
    ordering.propose(state)


def is_finished(state: State, client: bytes, request: Request) -> bool:
    """True if no operation of the envelope needs ordering any more."""
    session = state.sessions.get(client, request.session)
    if session is None:
        return state.sessions.is_expired(client, request.session)
    return all(session.finished(number) for number in range(request.number, request.number + len(request.operations)))


def spread(state: State) -> None:
    """On every tick: pass waiting envelopes on, and complain about those past their deadline."""
    if not state.active:
        return
    timeout = state.request_timeout_ns
    late = False
    stale = []
    for pending in state.pool.oldest(SPREAD_MAX):
        waited = state.now - max(pending.since, state.timing.active_since)
        if waited < timeout // 4:
            continue
        if is_finished(state, pending.signed.client, pending.request):
            stale.append(pending.key)
        elif pending.stage == 0:
            pending.stage = 1
            if state.primary != state.me:
                state.send(state.primary, pending.signed)
        elif pending.stage == 1 and waited >= timeout // 2:
            pending.stage = 2
            state.broadcast(pending.signed)
        late = late or (waited >= timeout and pending.key not in stale)
    for key in stale:
        state.pool.remove(key)
    if late:
        viewchange.suspect(state, REQUEST_LATE)
    elif _has_late_slot(state, timeout):
        viewchange.suspect(state, SLOT_LATE)
    elif reconfig.must_fill(state) and state.now - max(state.timing.progressed, state.timing.active_since) >= timeout:
        viewchange.suspect(state, reconfig.FILL_LATE)
    elif state.timing.grievance in (REQUEST_LATE, SLOT_LATE, reconfig.FILL_LATE):
        # Settled: stop repeating it, so that a slow moment of the past cannot depose a primary later.
        state.timing.grievance = ""


def _has_late_slot(state: State, timeout: int) -> bool:
    """A slot that was accepted but is not executed for too long is a grievance too, even with an empty pool.

    Accepted in this view: what an older one left behind, the present primary need not know of.
    """
    if not any(seq > state.executed and state.view in slot.accepted for seq, slot in state.log.slots.items()):
        state.timing.opened = state.now
        return False
    since = max(state.timing.progressed, state.timing.active_since, state.timing.opened)
    return state.now - since >= timeout and state.executing is None and state.fetching is None
