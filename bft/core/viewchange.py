"""View change: from a suspected primary to the next [CL99 4.4].

    upon a grievance:                     send SUSPECT(view); weak many SUSPECTs start a view change
    upon starting view v:                 persist(v, changing, VIEW-CHANGE); send it, the same bytes until a NEW-VIEW
    upon weak many others beyond our view: follow them (a correct one is among them)
    upon strong VIEW-CHANGEs for v:       the primary of v persists and sends NEW-VIEW; all arm the timer for v + 1
    upon a valid NEW-VIEW:                persist; adopt its checkpoint; vote for its proposals

After a VIEW-CHANGE for v this replica never votes in a view below v again, also not after a restart (mutant M17).
Prepared certificates of older views stay until a newer one replaces them or the slot is stable (mutant M06).
"""

from __future__ import annotations

from bft.core import checkpoint, ordering
from bft.core.evidence import hides
from bft.core.newview import select
from bft.core.proofs import opened, opened_pre_prepare
from bft.core.state import State
from bft.messages import CheckpointCertificate, Commit, NewView, PrePrepare, Signed, Suspect, ViewChange
from bft.wire.codec import encode

SUSPECT_REPEATS = 4
"""A complaint counts for as long as this many repetitions of it take."""

# --- suspicion ----------------------------------------------------------------------------------------------------


def suspect(state: State, reason: str) -> None:
    """Complain about the present primary, once per view (and again on ticks while the view lasts)."""
    if not state.active or state.timing.grievance or not state.is_member:
        return
    state.timing.grievance = reason
    state.progress("suspect", state.executed, reason)
    _send_suspect(state)
    _count_suspects(state)


def _send_suspect(state: State) -> None:
    state.timing.suspected = state.now
    state.suspects[state.me] = (state.view, state.now)
    state.broadcast(state.sign(Suspect(state.epoch, state.view, state.timing.grievance)))


def wants_suspect(state: State, sender: int, message: Suspect) -> bool:
    """True if the complaint is about this or a later view and its sender has not made it lately."""
    view, at = state.suspects.get(sender, (-1, 0))
    is_news = message.view > view or state.now - at >= state.repeat_ns // 2
    return state.is_member and message.view >= state.view and is_news


def on_suspect(state: State, signed: Signed, message: Suspect) -> None:
    """Count a complaint; per sender the one about the highest view."""
    if wants_suspect(state, signed.sender, message):
        state.suspects[signed.sender] = (message.view, state.now)
        _count_suspects(state)


def _count_suspects(state: State) -> None:
    """weak many complaints hold one of a correct replica: f liars alone cannot depose a primary.

    Whoever has a grievance repeats it while it lasts; what is not repeated does not count for ever, so that one slow
    moment of a correct replica does not lend its voice to f liars later.
    """
    recent = state.now - SUSPECT_REPEATS * state.repeat_ns
    complaining = sum(view == state.view and at >= recent for view, at in state.suspects.values())
    if state.active and complaining >= state.quorums.weak:
        start(state, state.view + 1)


# --- leaving a view -----------------------------------------------------------------------------------------------


def start(state: State, view: int) -> None:
    """Leave every view below `view` and tell the others what must survive."""
    assert view > state.view, f"view change from {state.view} to {view}"
    timing = state.timing
    if state.executed <= timing.executed_at_change:
        timing.backoff = min(timing.backoff + 1, state.protocol.backoff_exponent_max)
    timing.executed_at_change = state.executed
    timing.grievance = ""
    timing.new_view_deadline = None
    timing.view_change_sent = state.now
    prepared = tuple(slot.prepared for _, slot in sorted(state.log.slots.items()) if slot.prepared is not None)
    message = ViewChange(state.epoch, view, state.stable, prepared)
    state.view = view
    state.active = False
    state.new_view = None
    state.proposed_again = {}
    state.view_change = state.sign(message)
    state.persist_view()
    state.broadcast(state.view_change)
    state.progress("view-change", state.executed, f"{len(prepared)} prepared")
    _store(state, state.view_change, message)
    _consider(state)


def wants_view_change(state: State, sender: int, message: ViewChange) -> bool:
    """True if the message is for the pending view or a later one, and not held yet."""
    if message.view < state.view or (message.view == state.view and state.active) or not state.is_member:
        return False
    return message.view not in state.view_changes.get(sender, ())


def on_view_change(state: State, signed: Signed, message: ViewChange) -> None:
    """Keep a valid VIEW-CHANGE, follow a weak quorum that is ahead, and see whether the new view can begin."""
    held = state.view_changes.get(signed.sender, {}).get(message.view)
    if held is not None and held[0].payload != signed.payload:
        state.accuse(signed.sender, "two-view-changes", held[0], signed)
        return
    if not wants_view_change(state, signed.sender, message):
        return
    _accuse_of_hiding(state, signed, message)
    _store(state, signed, message)
    _join(state)
    _consider(state)


def _accuse_of_hiding(state: State, signed: Signed, message: ViewChange) -> None:
    """Hold the VIEW-CHANGE against the COMMITs of its sender that are still here."""
    for _, slot in sorted(state.log.slots.items()):
        vote = slot.commits.get(signed.sender)
        if vote is None:
            continue
        commit = Commit(message.epoch, vote[0], slot.seq, vote[1])
        if hides(commit, message):
            state.accuse(signed.sender, "hidden-certificate", Signed(signed.sender, encode(commit), vote[2]), signed)
            return


def _store(state: State, signed: Signed, message: ViewChange) -> None:
    """Per sender, keep the VIEW-CHANGE for the present view and the highest: far views cost nothing."""
    held = state.view_changes.setdefault(signed.sender, {})
    held[message.view] = (signed, message)
    highest = max(held)
    state.view_changes[signed.sender] = {
        view: entry for view, entry in sorted(held.items()) if view in (state.view, highest)
    }


def _join(state: State) -> None:
    """Follow the (f + 1)-th highest view among the others: a correct replica wants at least that one.

    f liars can neither start nor inflate it.
    """
    views = sorted((max(held) for sender, held in state.view_changes.items() if sender != state.me), reverse=True)
    if len(views) >= state.quorums.weak and views[state.quorums.weak - 1] > state.view:
        start(state, views[state.quorums.weak - 1])


def _consider(state: State) -> None:
    """Arm the timer when a strong quorum waits for this view or a later one; as its primary, begin it."""
    if state.active:
        return
    waiting = sum(max(held) >= state.view for held in state.view_changes.values())
    if waiting >= state.quorums.strong and state.timing.new_view_deadline is None:
        state.timing.new_view_deadline = state.now + state.view_change_timeout_ns
    if state.primary == state.me:
        _make_new_view(state)


# --- entering a view ----------------------------------------------------------------------------------------------


def _make_new_view(state: State) -> None:
    entries = {sender: held[state.view] for sender, held in sorted(state.view_changes.items()) if state.view in held}
    if len(entries) < state.quorums.strong or state.me not in entries:
        return
    others = [sender for sender in entries if sender != state.me][: state.quorums.strong - 1]
    chosen = [entries[sender] for sender in sorted([state.me, *others])]
    selection = select([message for _, message in chosen], state.rules.base)
    proposals = tuple(
        state.sign(PrePrepare(state.epoch, state.view, seq, digest)) for seq, digest in selection.proposals
    )
    message = NewView(state.epoch, state.view, tuple(signed for signed, _ in chosen), proposals)
    signed = state.sign(message)
    enter(state, signed, message)


def wants_new_view(state: State, message: NewView) -> bool:
    """True for a later view, or for the pending one; whoever takes no part needs to know of none."""
    return state.is_member and (message.view > state.view or (message.view == state.view and not state.active))


def on_new_view(state: State, signed: Signed, message: NewView) -> None:
    """Enter a view whose NEW-VIEW admission found to be exactly what its VIEW-CHANGEs imply."""
    if wants_new_view(state, message) and signed.sender != state.me:
        enter(state, signed, message)


def enter(state: State, signed: Signed, message: NewView) -> None:
    """Take part in the view: durable before the first vote in it."""
    if state.view != message.view:
        state.view_change = None
    state.view = message.view
    state.active = True
    state.new_view = signed
    timing = state.timing
    timing.active_since = state.now
    timing.new_view_deadline = None
    timing.grievance = ""
    state.persist_view()
    if state.primary == state.me:
        state.broadcast(signed)
    state.view_changes = {
        sender: {view: entry for view, entry in held.items() if view > state.view}
        for sender, held in state.view_changes.items()
        if any(view > state.view for view in held)
    }
    state.pool.reset()
    state.progress("new-view", state.executed, f"{len(message.pre_prepares)} proposed again")
    _apply(state, message)
    for pending in state.pool:
        if pending.proposed == 0 and state.primary != state.me:
            pending.stage = 1
            state.send(state.primary, pending.signed)
    ordering.propose(state)


def _apply(state: State, message: NewView) -> None:
    """Adopt the NEW-VIEW's checkpoint and vote for its proposals, executed here or not: others need the votes."""
    install_proposals(state, message)
    stable = _stable_of(message)
    if stable is not None:
        checkpoint.adopt(state, stable)
    vote_for_proposals(state)


def install_proposals(state: State, message: NewView) -> None:
    """Note what the view proposes again, without voting; also used when a replica restarts inside the view."""
    stable = _stable_of(message)
    state.view_floor = stable.seq if stable is not None else state.rules.base
    state.proposed_again = {}
    for signed in message.pre_prepares:
        header = opened_pre_prepare(signed)
        assert header is not None, "admission checked the NEW-VIEW"
        state.proposed_again[header.seq] = (header.digest, signed)
    last = max(state.proposed_again, default=state.view_floor)
    state.next_seq = max(last, state.log.low) + 1
    _accept_proposals(state)


def _accept_proposals(state: State) -> None:
    for seq, (digest, signed) in state.proposed_again.items():
        if not state.log.within(seq):
            continue
        state.log.slot(seq).accepted.setdefault(state.view, (digest, signed))
        batch = state.log.batch(digest)
        if batch is not None:
            state.log.keep_batch(batch, seq)
            for client, request in batch.requests:
                state.pool.mark_proposed((client, request.session, request.number), seq)


def vote_for_proposals(state: State) -> None:
    """Accept and vote for what the view proposes again, as far as the window reaches.

    Also whenever the low watermark advances: slots beyond the window when the view began come from nowhere else. Null
    slots have no batch for peers to send; a primary is not sent its own (`test_window_reaches_proposals_later`).
    Safe: accepted is what the NEW-VIEW says, the one digest that may stand there; `vote` makes it durable first.
    """
    if not state.active:
        return
    state.proposed_again = {seq: again for seq, again in state.proposed_again.items() if seq > state.log.low}
    _accept_proposals(state)
    for seq in state.proposed_again:
        if state.log.within(seq):
            ordering.vote(state, state.log.slot(seq))


def _stable_of(message: NewView) -> CheckpointCertificate | None:
    view_changes = []
    for signed in message.view_changes:
        view_change = opened(signed)
        assert isinstance(view_change, ViewChange), "admission checked the NEW-VIEW"
        view_changes.append(view_change)
    return select(view_changes).stable


# --- time ---------------------------------------------------------------------------------------------------------


def on_tick(state: State) -> None:
    """Repeat what may have been lost, and give up on a new primary that does not come."""
    pause = state.repeat_ns
    timing = state.timing
    if not state.is_member:
        return
    if state.active:
        if timing.grievance and state.now - timing.suspected >= pause:
            _send_suspect(state)
        return
    if timing.new_view_deadline is not None and state.now >= timing.new_view_deadline:
        start(state, state.view + 1)
        return
    if state.view_change is not None and state.now - timing.view_change_sent >= pause:
        timing.view_change_sent = state.now
        state.broadcast(state.view_change)
