"""STATUS and retransmission: how everything that can get lost comes back [CL99 4.2; thesis 5.2].

TCP does not make this unnecessary: connections break, queues overflow and drop, replicas restart. A replica that
stalls says where it stands; whoever has what it lacks sends it. One correct helper suffices, since what it sends is
signed or self-certifying. STATUS decides nothing: it only triggers sends, bounded per peer.
"""

from __future__ import annotations

from bft.core import amnesia, reconfig, transfer
from bft.core.log import Slot
from bft.core.state import State
from bft.messages import Commit, FetchBatch, Prepare, Proposal, Signed, Status
from bft.wire.codec import encode

SLOTS_PER_ANSWER = 32
BYTES_PER_ANSWER = 4 * 1024 * 1024
FETCHES_PER_TICK = 16
IDLE_FACTOR = 10
STRANGERS_MAX = 256


def on_tick(state: State) -> None:
    """Say where this replica stands: often while it stalls, rarely otherwise."""
    interval = state.status_interval_ns
    since = state.now - state.timing.status_sent
    if state.now - state.timing.status_considered < interval:
        return
    stalled = _is_incomplete(state) and state.executed == state.timing.executed_at_status
    if since < interval * IDLE_FACTOR and not stalled:
        state.timing.status_considered = state.now
        state.timing.executed_at_status = state.executed
        return
    send_status(state)
    for digest in list(state.waiting_batches)[:FETCHES_PER_TICK]:
        state.broadcast(FetchBatch(digest))
    transfer.consider(state)


def send_status(state: State) -> None:
    """Tell all replicas what is here, so that they send what is not."""
    state.timing.executed_at_status = state.executed
    state.timing.status_considered = state.timing.status_sent = state.now
    held = tuple(sorted(sender for sender, held in state.view_changes.items() if state.view in held))
    state.broadcast(Status(state.epoch, state.view, state.active, state.log.low, state.executed, held, state.began))


def _is_incomplete(state: State) -> bool:
    return (
        not state.active
        or state.pending is not None
        or len(state.pool) > 0
        or state.target is not None
        or state.fetching is not None
        or bool(state.waiting_batches)
        or any(seq > state.executed for seq in state.log.slots)
        or any(seq > state.executed for seq in state.checkpoints)
        or bool(state.own_checkpoints)
    )


def on_status(state: State, peer: int, message: Status) -> None:
    """Send one peer what it lacks, oldest first, within a budget."""
    if message.epoch > state.epoch or state.now - state.timing.answered.get(peer, -(1 << 62)) < (
        state.status_interval_ns // 2
    ):
        return
    if peer not in state.quorums.ids:
        _forget_strangers(state)
    state.timing.answered[peer] = state.now
    if message.epoch < state.epoch:
        reconfig.send_links(state, peer, message.epoch)
        return
    if state.stable is not None and message.stable < state.log.low:
        state.send(peer, state.stable)
    for seq, (_, vote) in state.own_checkpoints.items():
        if seq > message.stable and vote is not None:
            state.send(peer, vote)
    if peer in state.quorums.ids:
        _answer_view(state, peer, message)
    _answer_slots(state, peer, message)
    amnesia.remind(state, peer, message)


def _forget_strangers(state: State) -> None:
    """Replicas that are to join, and those removed, are helped too; there is no bound on their names but this."""
    if len(state.timing.answered) > STRANGERS_MAX:
        answered = state.timing.answered
        state.timing.answered = {peer: at for peer, at in answered.items() if peer in state.quorums.ids}


def _answer_view(state: State, peer: int, message: Status) -> None:
    """Views: the NEW-VIEW that this replica is in, or the VIEW-CHANGEs that the peer has not got, the same bytes."""
    if state.active:
        behind = message.view < state.view or (message.view == state.view and not message.active)
        if behind and state.new_view is not None:
            state.send(peer, state.new_view)
        elif message.view == state.view and message.began and message.began != state.began:
            _show_new_view(state, peer)
        return
    if message.view > state.view or (message.view == state.view and message.active):
        return
    for sender, held in sorted(state.view_changes.items()):
        if state.view in held and (message.view < state.view or sender not in message.view_changes):
            state.send(peer, held[state.view][0])


def _show_new_view(state: State, peer: int) -> None:
    """The view began in two ways: the peer can prove it once it sees ours. Once per peer and view, as it is large."""
    if state.new_view is not None and state.compared.get(peer) != state.view:
        state.compared[peer] = state.view
        state.send(peer, state.new_view)


def _answer_slots(state: State, peer: int, message: Status) -> None:
    """Slots, oldest hole first: proofs of what is decided; proposal and own votes for what is not."""
    budget = BYTES_PER_ANSWER
    same_view = state.active and message.active and message.view == state.view
    first = max(message.executed, state.log.low) + 1
    for seq in range(first, first + SLOTS_PER_ANSWER):
        slot = state.log.slots.get(seq)
        if slot is None or budget <= 0:
            continue
        if slot.committed is not None:
            state.send(peer, slot.committed)
            batch = state.log.batch(slot.committed.digest)
            budget -= len(batch.body) if batch is not None else 0
        elif same_view:
            budget -= _answer_open_slot(state, peer, slot)


def _answer_open_slot(state: State, peer: int, slot: Slot) -> int:
    accepted = slot.accepted.get(state.view)
    spent = 0
    if accepted is not None:
        batch = state.log.batch(accepted[0])
        if batch is not None and accepted[1].sender != peer:
            state.send(peer, Proposal(accepted[1], batch.body))
            spent = len(batch.body)
    own = slot.prepares.get(state.me)
    if own is not None and own[0] == state.view:
        state.send(peer, Signed(state.me, encode(Prepare(state.epoch, own[0], slot.seq, own[1])), own[2]))
    own = slot.commits.get(state.me)
    if own is not None and own[0] == state.view:
        state.send(peer, Signed(state.me, encode(Commit(state.epoch, own[0], slot.seq, own[1])), own[2]))
    return spent
