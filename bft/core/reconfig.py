"""Changes of membership: from the ordered operation to the next epoch (its values: `bft.epochs`).

    upon RECONFIGURE at slot s:            check it; it becomes pending; the epoch ends at A = ceil_K(s + L)
    upon pending, primary:                 fill the slots up to A, with empty batches where nothing waits
    upon the checkpoint at A stable:       persist(link); enter epoch + 1: view 0, empty log, low watermark A
    upon an EPOCH-PROOF:                   verify it; persist(links); enter its last epoch, fetch the state at its base

No vote and no certificate crosses the boundary: every message carries its epoch, everything up to A is stable, and
nothing beyond A exists in the old epoch. Requests that wait, sessions and the clocks go over unchanged.

A replica that is no member takes no part: it signs nothing, and learns what is decided from proofs. So does one that is
to join, until its first epoch, and one that was removed, until the new members have a stable checkpoint of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING

from bft.core import budget, ordering, queries, recovery, repair, transfer
from bft.core.pool import Pool
from bft.epochs import (
    ANSWER_BYTES_MAX,
    SYSTEM_PREFIX,
    ChainError,
    Configuration,
    activation,
    follow,
    open_operation,
    operation_flaw,
    some_links,
    verify_chain,
)
from bft.events import Epoch, EpochEntered, OperationCall, Retired, Stable
from bft.headers import Pending, Ready
from bft.ids import Peer
from bft.messages import (
    STATUS_ERROR,
    STATUS_OK,
    CheckpointCertificate,
    EpochLink,
    EpochProof,
    FetchEpochs,
    Request,
    Signed,
)
from bft.ports import Signer
from bft.wire.codec import encode

if TYPE_CHECKING:
    from bft.core.state import State

FILL_LATE = "epoch-not-filled"
RETIRE_TIMEOUTS = 60
"""A removed replica serves others for this many request timeouts at most: it cannot know that nobody needs it."""

# --- the operation ------------------------------------------------------------------------------------------------


def split(
    state: State, requests: tuple[tuple[bytes, Request], ...], calls: list[OperationCall]
) -> tuple[list[OperationCall], list[OperationCall]]:
    """A slot's calls for the service, and those that change the membership: alone in an envelope, without a lane."""
    if not state.configuration.admins:
        return calls, []
    marked = {
        (client, request.session, request.number)
        for client, request in requests
        if len(request.operations) == 1 and request.operations[0].startswith(SYSTEM_PREFIX) and not request.after
    }
    if not marked:
        return calls, []
    system = [call for call in calls if (call.client, call.session, call.number) in marked]
    return [call for call in calls if (call.client, call.session, call.number) not in marked], system


def execute(state: State, call: OperationCall, seq: int) -> tuple[int, bytes]:
    """Execute a change of membership; its result is the epoch to come and the last slot of this one.

    The first of two stands: the second is a conflict, also within one batch (mutant R04).
    """
    operation = open_operation(call.operation)
    if operation is None:
        return _refused("malformed")
    if state.pending is not None:
        return _refused("conflict")
    assert state.verifier is not None, "a replica of a cluster with administrators can check their signatures"
    found = operation_flaw(state.configuration, operation, seq, state.protocol, state.verifier)
    if found is not None:
        return _refused(found)
    last = activation(seq, state.protocol)
    set_pending(state, Pending(last, operation))
    state.progress("reconfigure", seq, f"epoch {state.epoch} ends at {last}")
    return STATUS_OK, encode((state.epoch + 1, last))


def _refused(why: str) -> tuple[int, bytes]:
    return STATUS_ERROR, encode(("ReconfigureRefused", why))


def set_pending(state: State, pending: Pending | None) -> None:
    """The epoch ends where a pending change says: no slot beyond it exists (mutant R01)."""
    state.pending = pending
    state.log.end(pending.activation if pending is not None else None)


def must_fill(state: State) -> bool:
    """True while slots are missing on the way to the epoch's last."""
    return state.pending is not None and state.executed < state.pending.activation


def is_over(state: State) -> bool:
    """True when the last slot of the epoch has executed: the next epoch may have begun elsewhere.

    Then no linearizable read may be answered in the old one. Safe: whoever completes a write in the next epoch needed
    strong many CHECKPOINTs at this slot; a read's strong quorum in the old epoch shares a correct replica with them,
    which has executed it and does not answer (`test_no_linearizable_read_between_the_epochs`).
    """
    return state.pending is not None and state.executed >= state.pending.activation


# --- the next epoch -----------------------------------------------------------------------------------------------


def on_stable(state: State, certificate: CheckpointCertificate) -> None:
    """A checkpoint of this replica's own state is stable: if it ends the epoch, the next one begins.

    Also upon restart, when the process died after the checkpoint was stable (mutant R05).
    """
    if state.pending is not None and state.pending.activation == certificate.seq:
        advance(state, [EpochLink(state.boundary, certificate)], holds_base=True)
    elif not state.is_member and state.was_member and certificate.epoch == state.epoch:
        retire(state, f"epoch {state.epoch} goes on without it, from the stable checkpoint at {certificate.seq}")


def advance(state: State, links: list[EpochLink], *, holds_base: bool) -> None:
    """Enter the epoch after `links`, which hold; durable before the first vote in it.

    Args:
        holds_base: the state where that epoch begins is here, with the certified digest.
    """
    configuration = state.configuration
    for link in links:
        state.was_member = state.was_member or recovery.is_member(configuration, state.me, state.signers)
        configuration = follow(configuration, link)
        state.persist(Epoch(link))
    enter(state, configuration, [*state.links, *links], holds_base=holds_base)


def enter(state: State, configuration: Configuration, links: list[EpochLink], *, holds_base: bool) -> None:
    """Begin an epoch: everything is as in a new replica, but for what is replicated and what waits.

    The very state that `recovery.rebuild` makes of the records (`test_switch_equals_a_restart`).
    """
    fresh = recovery.blank(
        state.protocol,
        state.me,
        state.signers,
        state.verifier,
        configuration,
        links,
        state.sessions,
        signs_replies=state.signs_replies,
    )
    fresh.now, fresh.out = state.now, state.out
    fresh.executed, fresh.chain = state.executed, state.chain
    fresh.time_ns, fresh.lease_ns = state.time_ns, state.lease_ns
    fresh.max_commit_sent = state.max_commit_sent
    fresh.waiting_queries, fresh.waiting_load = state.waiting_queries, state.waiting_load
    fresh.waiting_operations, fresh.waiting_bytes = state.waiting_operations, state.waiting_bytes
    fresh.served = state.served
    fresh.pool = _carried(state.pool)
    fresh.fetching = state.fetching
    fresh.transfer_rate, fresh.last_transfer = state.transfer_rate, state.last_transfer
    fresh.transferred = state.transferred
    fresh.rotten, fresh.asked, fresh.repaired = state.rotten, state.asked, state.repaired
    fresh.forgotten = state.forgotten
    fresh.divergence, fresh.divergences, fresh.doubted = state.divergence, state.divergences, state.doubted
    fresh.split = state.split
    fresh.was_member = state.was_member
    fresh.timing.active_since = fresh.timing.progressed = fresh.timing.opened = state.now
    for item in fields(fresh):
        setattr(state, item.name, getattr(fresh, item.name))
    state.out.append(EpochEntered(configuration, tuple(links)))
    state.progress("epoch", configuration.base, f"epoch {configuration.epoch} of {len(configuration.members)} replicas")
    begin(state, holds_base=holds_base)


def _carried(pool: Pool) -> Pool:
    pool.reset()
    return pool


def begin(state: State, *, holds_base: bool) -> None:
    """The first steps in an epoch, new or restarted into: fetch what is missing, say where we stand, go on."""
    state.monitor.enter(state.primary, state.now)
    if not state.is_member and state.was_member:
        state.retire_at = state.now + RETIRE_TIMEOUTS * state.request_timeout_ns
    if not holds_base:
        transfer.begin(state, state.links[-1].certificate)
    else:
        transfer.overtaken(state, state.configuration.base)
    repair.send_status(state)
    if state.is_member and state.primary != state.me:
        for pending in state.pool:
            pending.stage = 1
            pending.forwarded = state.now
            state.send(state.primary, pending.signed)
    queries.serve_waiting(state)
    ordering.propose(state)


# --- those who are away -------------------------------------------------------------------------------------------


def send_links(state: State, peer: Peer, epoch: int) -> None:
    """Show the way from an earlier epoch to this one, a part at a time."""
    links = some_links(state.links, epoch)
    if links:
        state.send(peer, EpochProof(links))


def on_fetch_epochs(state: State, peer: Peer, message: FetchEpochs) -> None:
    """Somebody knows an earlier epoch only."""
    if budget.may_answer(state, peer, ANSWER_BYTES_MAX):
        send_links(state, peer, message.epoch)


def wants_proof(state: State, message: EpochProof) -> bool:
    """True if it may lead on from here."""
    return message.links[-1].certificate.epoch >= state.epoch


def on_epoch_proof(state: State, peer: Peer, message: EpochProof) -> None:
    """Learn of later epochs, whoever says so: the links prove themselves.

    Their signatures are checked here, since admission knows the keys of the present epoch only. While the service
    executes, nothing changes under it; the proof comes again.
    """
    links = [link for link in message.links if link.certificate.epoch >= state.epoch]
    if not links or state.executing is not None or state.verifier is None:
        return
    try:
        verify_chain(state.configuration, links, state.verifier)
    except ChainError:
        state.reject(peer, "bad-epoch-proof")
        return
    base = links[-1].certificate
    # What it voted for before a restart, and has not executed again yet, it does not hold.
    own = state.own_checkpoints.get(base.seq) if base.seq <= state.executed else None
    holds_base = own is not None and own[0] == base.digest
    if holds_base:
        state.persist(Stable(base.seq, base))
    elif own is not None:
        transfer.doubt(state, own[0], base)
    advance(state, links, holds_base=holds_base)


def ready(state: State, key: bytes) -> tuple[Signed, ...]:
    """What `Reconfigure.ready` needs of this replica, that it may vote with `key` in the next epoch.

    A newcomer signs with that key; a member that changes its key signs with the old one, then with the new one. Empty
    while it lags behind, and for who was removed, does not hold the key, or must not vote any more.
    """
    lags = state.fetching is not None or state.target is not None
    if state.forgotten or lags or (state.was_member and not state.is_member):
        return ()
    new = state.signers.get(key) if isinstance(state.signers, Mapping) else None
    signers: tuple[Signer, ...]
    if state.is_member:
        signers = (state.signer, new) if new is not None and new is not state.signer else ()
    else:
        signers = (new if new is not None else state.signer,)
    payload = encode(Ready(state.epoch, state.log.low, key))
    return tuple(Signed(state.me, payload, signer.sign(payload)) for signer in signers)


def retire(state: State, reason: str) -> None:
    """A removed replica is needed no longer."""
    if not state.retired:
        state.retired = True
        state.out.append(Retired(reason))


def on_tick(state: State) -> None:
    """Do not serve for ever."""
    if not state.is_member and state.was_member and state.now >= state.retire_at:
        retire(state, f"it is no member of epoch {state.epoch}, and has waited for the others long enough")
