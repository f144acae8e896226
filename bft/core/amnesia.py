"""A replica that finds out from the others that it has forgotten: its store is an old copy, or its key is used twice.

    upon STATUS of a peer that claims less than it has signed:  send it its own latest statements, as signed
    upon an own statement that the own state does not know:     persist(forgotten); say so; never say anything again

Sound: a statement leaves a correct replica only after the record that implies it is durable, records are kept while
their slot is above the low watermark, and only the replica itself can sign; so a correct replica, restarted or not,
knows every statement it is shown (`test_own_statements_are_known_after_any_restart`). Not complete: a liar may keep
a statement to itself, and what was said below the low watermark is past caring about. The guard beside the key
(`bft.storage.guard`) comes first; this is for copies of a whole machine, and for what lies between two of its notes.
"""

from __future__ import annotations

from bft.core.state import State
from bft.events import Forgotten
from bft.messages import (
    Checkpoint,
    Commit,
    Message,
    NewView,
    Prepare,
    PrePrepare,
    ReplicaMessage,
    Signed,
    Status,
    ViewChange,
)
from bft.wire.codec import encode


def is_known(state: State, message: Message | None) -> bool:
    """True unless this replica cannot have said `message` by what it remembers. Cheap: no signature is looked at."""
    if not isinstance(message, ReplicaMessage) or message.epoch != state.epoch:
        return True  # an epoch that is over is closed like a slot below the low watermark
    match message:
        case ViewChange() | NewView():
            return message.view <= state.view
        case Prepare() | PrePrepare() | Commit() | Checkpoint() if message.seq <= state.log.low:
            return True  # closed: nobody counts a vote there
        case Checkpoint():
            return message.seq in state.own_checkpoints
        case Prepare():
            return _has_accepted(state, message)
        case PrePrepare():
            return message.view < state.view or not state.log.within(message.seq) or _has_proposed(state, message)
        case Commit():
            slot = state.log.slots.get(message.seq)
            return slot is not None and slot.prepared_view >= message.view
        case _:
            return True


def _has_accepted(state: State, message: Prepare | PrePrepare) -> bool:
    slot = state.log.slots.get(message.seq)
    accepted = slot.accepted.get(message.view) if slot is not None else None
    return accepted is not None and accepted[0] == message.digest


def _has_proposed(state: State, message: PrePrepare) -> bool:
    """A proposal of the present view is in the log or in the NEW-VIEW; of older ones the batch may never have come."""
    again = state.proposed_again.get(message.seq)
    return message.view == state.view and (
        _has_accepted(state, message) or (again is not None and again[0] == message.digest)
    )


def on_own(state: State, message: Message | None) -> None:
    """An authentic statement of this replica's own key has come from somebody else."""
    if is_known(state, message) or state.forgotten:
        return
    seq = getattr(message, "seq", 0)
    said = [(name, getattr(message, name, None)) for name in ("view", "seq")]
    where = ", ".join(f"{name} {value}" for name, value in said if value is not None)
    what = (
        f"its store does not know a {type(message).__name__} ({where}) that its key has signed:"
        f" the store is an old copy, or the key is used twice"
    )
    state.forgotten = what
    state.persist(Forgotten(what))
    state.progress("forgotten", seq, what)


def remind(state: State, peer: int, status: Status) -> None:
    """Send a peer that may have just started the latest of its own statements that go beyond what it claims.

    A replica that starts stands at a checkpoint, whatever store it starts from; one in K of the others does too, and
    drops what it knows unlooked at.
    """
    if status.executed % state.protocol.checkpoint_interval:
        return
    changes = [view for view in state.view_changes.get(peer, ()) if view > status.view]
    if changes:
        state.send(peer, state.view_changes[peer][max(changes)][0])
    voted = [seq for seq, votes in state.checkpoints.items() if seq > status.executed and peer in votes]
    if voted:
        digest, signature = state.checkpoints[max(voted)][peer]
        state.send(peer, Signed(peer, encode(Checkpoint(state.epoch, max(voted), digest)), signature))
    for seq in sorted(state.log.slots, reverse=True):
        if seq <= status.executed:
            return
        found = _latest(state, peer, seq)
        if found is not None:
            state.send(peer, found)
            return


def _latest(state: State, peer: int, seq: int) -> Signed | None:
    slot = state.log.slots[seq]
    accepted = slot.accepted.get(state.view)
    if accepted is not None and accepted[1].sender == peer:
        return accepted[1]
    commit, prepare = slot.commits.get(peer), slot.prepares.get(peer)
    if commit is not None:
        return Signed(peer, encode(Commit(state.epoch, commit[0], seq, commit[1])), commit[2])
    if prepare is not None:
        return Signed(peer, encode(Prepare(state.epoch, prepare[0], seq, prepare[1])), prepare[2])
    return None
