"""The normal case: pre-prepare, prepare, commit [CL99 4.2].

    upon enough waiting requests, primary:      persist(accepted); send PRE-PREPARE with the batch
    upon PRE-PREPARE and its batch, backup:     persist(accepted); send PREPARE
    upon PRE-PREPARE and strong - 1 PREPAREs:   persist(prepared certificate); send COMMIT
    upon strong COMMITs of one view and digest: committed; `execution` takes over

Counting is by distinct replica, per (view, digest); votes of different views never combine. The primary's PRE-PREPARE
is its vote, so it sends no PREPARE. Votes that outrun their PRE-PREPARE are kept and counted when it comes.

Deviation: no check here depends on the executed state ("already executed?"): replicas execute at different times and
would disagree, and slots proposed again after a view change would be refused. Duplicates are no-ops at execution.
"""

from __future__ import annotations

from bft.config import MILLISECOND
from bft.core import budget, execution, reconfig, viewchange
from bft.core.log import Slot
from bft.core.pool import Pending
from bft.core.proofs import commit_certificate_flaw, prepared_certificate_flaw
from bft.core.shares import SLOT_WORK
from bft.core.state import State
from bft.digests import batch_digest
from bft.events import Accepted, OpenedBatch, Prepared
from bft.ids import Nanos, Peer
from bft.messages import (
    Batch,
    BatchBody,
    Commit,
    CommitCertificate,
    Endorsement,
    FetchBatch,
    Prepare,
    PreparedCertificate,
    PrePrepare,
    Proposal,
    Signed,
)
from bft.wire.codec import encode

GATHER_WORK = 2 * SLOT_WORK
"""What waits beside a slot in flight should cost so much: then its votes are a third of the whole."""
GATHER_NS = 20 * MILLISECOND
"""A little waits for company for so long."""
GATHER_SLOT_NS = 100 * MILLISECOND
"""Where slots take longer, votes travel far: slots in flight cost little there, and waiting for them much."""

# --- primary ------------------------------------------------------------------------------------------------------


def propose(state: State) -> None:
    """Propose everything that waits while the pipeline and the window have room: batches grow under load.

    On the way to an epoch's last slot, empty batches are proposed where nothing waits.
    """
    if not state.is_primary:
        return
    protocol = state.protocol
    while _may_open_slot(state):
        seq = state.next_seq
        limits = protocol.batch_operations_max, protocol.batch_bytes_max
        taken = _unfinished(state, state.pool.take(seq, state.now, *limits, is_idle=seq <= state.executed + 1))
        if not taken and not reconfig.must_fill(state):
            continue
        time_ns = max(state.now, 1)
        body = encode(Batch(time_ns, tuple(pending.signed for pending in taken)))
        requests = tuple((pending.signed.client, pending.request) for pending in taken)
        batch = OpenedBatch(batch_digest(body), body, time_ns, requests)
        state.next_seq = seq + 1
        if state.timing.timed[0] <= state.executed:
            state.timing.timed = (seq, state.now)
        _propose_batch(state, seq, batch)


def _may_open_slot(state: State) -> bool:
    """True if there is room for a slot, and what waits is worth one beside those in flight.

    It should cost more than their votes do, or have waited for a while. Else a few dozen independent clients would
    have a slot per envelope or two, and keep everybody busy with votes. What is counted is due by the rules of the fair
    pool only: a backlog of one client must not open slots for the others. With none in flight nothing waits but what is
    beyond its client's share.
    """
    in_flight = state.next_seq - 1 - state.executed
    if in_flight >= state.protocol.pipeline or not state.log.within(state.next_seq):
        return False
    if reconfig.must_fill(state):
        return True
    pool, timing = state.pool, state.timing
    if in_flight <= 0:
        if pool.due_work(1) > 0 or pool.may_go_alone or pool.was_for_few:
            return pool.open_work > 0
        # Callers that wait for their answers come back about now: a slot of its own would make them wait for it. If
        # they did not come back the last time, nobody waits for them again.
        gap = min(GATHER_NS, timing.slot_ns)
        return pool.open_work > 0 and _has_come(state, max(pool.open_since, timing.progressed) + gap)
    enough = in_flight * GATHER_WORK if timing.slot_ns <= GATHER_SLOT_NS else 1
    due = pool.due_work(enough)
    return due >= enough or (due > 0 and _has_come(state, pool.open_since + GATHER_NS))


def _has_come(state: State, at: Nanos) -> bool:
    """True if it is so late; else this replica will be woken then."""
    if state.now < at:
        state.wake_before(at)
    return state.now >= at


def _unfinished(state: State, taken: list[Pending]) -> list[Pending]:
    """Drop what needs no ordering any more: another envelope with the same operations was first.

    Their client has paid its share for them; proposed, they would be waste of the primary's.
    """
    kept = []
    for pending in taken:
        if state.sessions.is_finished(pending.signed.client, pending.request):
            state.pool.remove(pending.key, state.now)
        else:
            kept.append(pending)
    return kept


def _propose_batch(state: State, seq: int, batch: OpenedBatch) -> None:
    signed = state.sign(PrePrepare(state.epoch, state.view, seq, batch.digest))
    slot = state.log.slot(seq)
    assert state.view not in slot.accepted, f"slot {seq} proposed twice in view {state.view}"
    slot.accepted[state.view] = (batch.digest, signed)
    slot.voted_view = state.view
    state.log.keep_batch(batch, seq)
    state.persist(Accepted(seq, state.view, signed, batch.body))
    state.broadcast(Proposal(signed, batch.body))
    check_prepared(state, slot)


# --- backup -------------------------------------------------------------------------------------------------------


def wants_pre_prepare(state: State, message: PrePrepare) -> bool:
    """True if the PRE-PREPARE is for the present view and window, and says something new.

    Slots at or below the checkpoint that the view began from are closed in this view: they are decided, though this
    replica's own low watermark may not have got there (`test_view_floor_closes_slots_below_the_new_views_checkpoint`).
    """
    if not state.active or message.view != state.view:
        return False
    if message.seq <= state.view_floor or not state.log.within(message.seq):
        return False
    slot = state.log.slots.get(message.seq)
    accepted = slot.accepted.get(message.view) if slot is not None else None
    return accepted is None or accepted[0] != message.digest or not state.log.has_batch(message.digest)


def on_proposal(state: State, peer: Peer, signed: Signed, message: PrePrepare, batch: OpenedBatch) -> None:
    """Accept the primary's assignment, at most one per slot and view, and vote for it.

    A fresh PRE-PREPARE comes with its batch or not at all, so that nobody votes for a time that was never checked;
    those of a NEW-VIEW come inside it.
    """
    if not wants_pre_prepare(state, message) or signed.sender == state.me:
        return
    slot = state.log.slot(message.seq)
    accepted = slot.accepted.get(message.view)
    if accepted is not None and accepted[0] != message.digest:
        state.accuse(signed.sender, "two-pre-prepares", accepted[1], signed)
        viewchange.suspect(state, "equivocation")
        return
    again = state.proposed_again.get(message.seq)
    if again is not None and again[0] != message.digest:
        # Beyond the window when the view began, hence not in `accepted`, but bound by the NEW-VIEW all the same.
        viewchange.suspect(state, "contradicts-new-view")
        return
    if accepted is None and again is None and not _time_is_acceptable(state, peer, batch):
        return
    state.log.keep_batch(batch, message.seq)
    state.pool.charge(message.seq, batch.requests)
    if accepted is None and again is None:
        _observe(state, batch)
    if accepted is None:
        slot.accepted[message.view] = (message.digest, signed)
    vote(state, slot)
    on_batch_body(state, batch)


def _time_is_acceptable(state: State, peer: Peer, batch: OpenedBatch) -> bool:
    """Bound the proposed time of *fresh* proposals; those of a NEW-VIEW may be arbitrarily old.

    Without the upper bound one primary could push the agreed time to the end of its range. A proposal from the future
    is dropped, not refused: repair brings it again when its time has come. One from the past is only a complaint.
    """
    if batch.time_ns > state.now + state.protocol.time_ahead_max_ms * MILLISECOND:
        state.reject(peer, "time-ahead")
        return False
    if batch.time_ns < state.now - state.protocol.time_behind_max_ms * MILLISECOND:
        viewchange.suspect(state, "time-behind")
    return True


def _observe(state: State, batch: OpenedBatch) -> None:
    """What the monitor sees of a fresh proposal: one envelope of it, and whether it leaves watched requests out.

    Which envelope is up to the nanoseconds of this replica's clock, so that a primary cannot hide stale ones from it.
    """
    monitor = state.monitor
    monitor.note_proposed(stale=_is_stale(state, batch))
    if monitor.watched is not None and monitor.watched.proposed:
        monitor.watch(None)
    if monitor.probe is not None and (monitor.probe.proposed or monitor.probe.key not in state.pool):
        monitor.end_probe()
    elif monitor.probe is not None and state.sessions.is_finished(monitor.probe.signed.client, monitor.probe.request):
        monitor.drop_probe(state.now)
    if monitor.watched is None and monitor.probe is None:
        return
    operations = sum(len(request.operations) for _, request in batch.requests)
    has_room = (
        2 * operations <= state.protocol.batch_operations_max and 2 * len(batch.body) <= state.protocol.batch_bytes_max
    )
    # Clients beyond their share wait by the rules of the fair pool, which a correct primary follows.
    if monitor.probe is not None and has_room and not state.pool.is_beyond_share(monitor.probe):
        monitor.note_left_out()
    if monitor.watched is None or state.pool.is_beyond_share(monitor.watched):
        return
    held = [state.pool.get((client, request.session, request.number)) for client, request in batch.requests]
    newest = max((pending.since for pending in held if pending is not None), default=0)
    monitor.note_passed_over(newest, state.now, has_room=has_room)


def _is_stale(state: State, batch: OpenedBatch) -> bool:
    """True if an envelope of the batch needed no ordering, and a primary that keeps up knew it."""
    if not batch.requests:  # only an epoch that ends needs its slots filled
        return state.pending is None
    client, request = batch.requests[state.now % len(batch.requests)]
    if state.sessions.get(client, request.session) is None or not state.sessions.is_finished(client, request):
        return False
    last = request.number + len(request.operations) - 1
    return not state.monitor.is_fresh((client, request.session, request.number), last)


def vote(state: State, slot: Slot) -> None:
    """Send PREPARE for the slot's PRE-PREPARE of the present view, never without its batch [CL99 4.2].

    The accepted record goes to disk first: after a crash this replica must not vote for another digest in this view
    (mutant M15, `test_vote_is_durable_before_it_leaves`).
    """
    accepted = slot.accepted.get(state.view)
    if accepted is None or not state.active:
        return
    if state.fetching is not None and slot.seq <= state.fetching.certificate.seq:
        return
    digest, signed = accepted
    if not state.log.has_batch(digest):
        want_batch(state, digest, slot.seq, signed.sender)
        return
    if slot.voted_view < state.view:
        batch = state.log.batch(digest)
        state.persist(Accepted(slot.seq, state.view, signed, batch.body if batch is not None else b""))
        slot.voted_view = state.view
        if state.primary != state.me:
            own = state.sign(Prepare(state.epoch, state.view, slot.seq, digest))
            slot.prepares[state.me] = (state.view, digest, own.signature)
            state.broadcast(own)
    check_prepared(state, slot)
    check_committed(state, slot)


# --- votes --------------------------------------------------------------------------------------------------------


def wants_prepare(state: State, sender: int, message: Prepare) -> bool:
    """True unless the vote is old, outside the window, already held, or no longer needed."""
    if message.view < state.view or not state.log.within(message.seq):
        return False
    slot = state.log.slots.get(message.seq)
    if slot is None:
        return True
    if slot.prepared_view >= message.view:
        return False
    held = slot.prepares.get(sender)
    return held is None or held[0] < message.view or (held[0] == message.view and held[1] != message.digest)


def on_prepare(state: State, signed: Signed, message: Prepare) -> None:
    """Count a backup's vote; its first in a view stands, another digest in the same view is evidence."""
    if not wants_prepare(state, signed.sender, message):
        return
    slot = state.log.slot(message.seq)
    held = slot.prepares.get(signed.sender)
    if held is not None and held[0] == message.view:
        first = Prepare(message.epoch, message.view, message.seq, held[1])
        state.accuse(signed.sender, "two-prepares", Signed(signed.sender, encode(first), held[2]), signed)
        return
    slot.prepares[signed.sender] = (message.view, message.digest, signed.signature)
    check_prepared(state, slot)


def check_prepared(state: State, slot: Slot) -> None:
    """prepared(digest, view, seq): the PRE-PREPARE and strong - 1 matching PREPAREs of distinct backups [CL99 4.2].

    The certificate is durable before COMMIT leaves: a later view change must be able to show it (mutant M16).
    """
    accepted = slot.accepted.get(state.view)
    if accepted is None or slot.prepared_view >= state.view or not state.active:
        return
    digest, signed = accepted
    if slot.voted_view < state.view or not state.log.has_batch(digest):
        return
    matching = [
        replica
        for replica in sorted(slot.prepares)
        if slot.prepares[replica][0] == state.view and slot.prepares[replica][1] == digest
    ]
    if len(matching) < state.quorums.prepares:
        return
    chosen = matching[: state.quorums.prepares]
    certificate = PreparedCertificate(
        signed, tuple(Endorsement(replica, slot.prepares[replica][2]) for replica in chosen)
    )
    found = prepared_certificate_flaw(certificate, state.rules)
    assert found is None, f"made a prepared certificate that others must refuse: {found}"
    slot.prepared = certificate
    slot.prepared_view = state.view
    state.persist(Prepared(slot.seq, certificate))
    own = state.sign(Commit(state.epoch, state.view, slot.seq, digest))
    slot.commits[state.me] = (state.view, digest, own.signature)
    state.max_commit_sent = max(state.max_commit_sent, slot.seq)
    state.broadcast(own)
    check_committed(state, slot)


def wants_commit(state: State, sender: int, message: Commit) -> bool:
    """True unless the slot is decided, outside the window, or the vote is already held."""
    if not state.log.within(message.seq) or message.seq <= state.executed:
        return False
    slot = state.log.slots.get(message.seq)
    if slot is None:
        return True
    if slot.committed is not None:
        return False
    held = slot.commits.get(sender)
    return held is None or held[0] < message.view or (held[0] == message.view and held[1] != message.digest)


def on_commit(state: State, signed: Signed, message: Commit) -> None:
    """Count a COMMIT, per replica that of the highest view; valid in any view and mode (it proves, not proposes)."""
    if not wants_commit(state, signed.sender, message):
        return
    slot = state.log.slot(message.seq)
    held = slot.commits.get(signed.sender)
    if held is not None and held[0] == message.view:
        first = Commit(message.epoch, message.view, message.seq, held[1])
        state.accuse(signed.sender, "two-commits", Signed(signed.sender, encode(first), held[2]), signed)
        return
    slot.commits[signed.sender] = (message.view, message.digest, signed.signature)
    _count_commits(state, slot, message.view, message.digest)


def check_committed(state: State, slot: Slot) -> None:
    """See whether the COMMITs already here decide the slot in the present view."""
    accepted = slot.accepted.get(state.view)
    if accepted is not None and slot.committed is None:
        _count_commits(state, slot, state.view, accepted[0])


def _count_commits(state: State, slot: Slot, view: int, digest: bytes) -> None:
    """strong COMMITs equal in view *and* digest decide; votes of different views never combine."""
    if len(slot.commits) < state.quorums.strong or slot.committed is not None:
        return
    matching = [
        replica
        for replica in sorted(slot.commits)
        if slot.commits[replica][0] == view and slot.commits[replica][1] == digest
    ]
    if len(matching) < state.quorums.strong:
        return
    chosen = matching[: state.quorums.strong]
    certificate = CommitCertificate(
        state.epoch,
        view,
        slot.seq,
        digest,
        tuple(Endorsement(replica, slot.commits[replica][2]) for replica in chosen),
    )
    found = commit_certificate_flaw(certificate, state.rules)
    assert found is None, f"made a commit certificate that others must refuse: {found}"
    if len(matching) < len(slot.commits):
        _accuse_of_crossing(state, slot)
    decide(state, slot, certificate)


def _accuse_of_crossing(state: State, slot: Slot) -> None:
    """Somebody's COMMIT differs from what was decided: hold it against its own PREPARE, or PRE-PREPARE."""
    for replica, (view, digest, signature) in sorted(slot.commits.items()):
        prepare = slot.prepares.get(replica)
        proposal = slot.accepted.get(view)
        commit = Signed(replica, encode(Commit(state.epoch, view, slot.seq, digest)), signature)
        if prepare is not None and prepare[0] == view and prepare[1] != digest:
            vote = Signed(replica, encode(Prepare(state.epoch, view, slot.seq, prepare[1])), prepare[2])
            state.accuse(replica, "crossed-votes", vote, commit)
        elif proposal is not None and proposal[1].sender == replica and proposal[0] != digest:
            state.accuse(replica, "crossed-votes", proposal[1], commit)


def wants_commit_certificate(state: State, certificate: CommitCertificate) -> bool:
    """True if the certificate decides a slot that is not decided here."""
    if not state.log.within(certificate.seq) or certificate.seq <= state.executed:
        return False
    slot = state.log.slots.get(certificate.seq)
    return slot is None or slot.committed is None


def on_commit_certificate(state: State, certificate: CommitCertificate, peer: Peer) -> None:
    """A transferable proof decides a slot at any time, even if this replica never prepared it.

    Safe: strong many COMMITs mean that a weak quorum of correct replicas holds prepared certificates, the same fact
    that a local count of COMMITs rests on.
    """
    if wants_commit_certificate(state, certificate):
        decide(state, state.log.slot(certificate.seq), certificate)
        if not state.log.has_batch(certificate.digest) and isinstance(peer, int):
            state.send(peer, FetchBatch(certificate.digest))


def decide(state: State, slot: Slot, certificate: CommitCertificate) -> None:
    """The slot's batch is committed; execute as far as the decided prefix goes.

    The batch may be here for an earlier slot's sake only: without being kept for this one, it would be dropped with
    that one (`test_batch_of_a_later_slot_survives_the_checkpoint_of_an_earlier_one`).
    """
    slot.committed = certificate
    batch = state.log.batch(certificate.digest)
    if batch is not None:
        state.log.keep_batch(batch, slot.seq)
    elif not state.log.has_batch(certificate.digest):
        want_batch(state, certificate.digest, slot.seq, certificate.commits[0].replica)
    execution.execute_ready(state)


# --- missing batches ----------------------------------------------------------------------------------------------


def want_batch(state: State, digest: bytes, seq: int, likely: int) -> None:
    """Ask for a batch: first from whoever should have it, then (see `repair`) from everybody."""
    waiting = state.waiting_batches.get(digest)
    if waiting is None:
        state.waiting_batches[digest] = [seq]
        if likely != state.me:
            state.send(likely, FetchBatch(digest))
        else:
            state.broadcast(FetchBatch(digest))
    elif seq not in waiting:
        waiting.append(seq)


def on_fetch_batch(state: State, peer: Peer, message: FetchBatch) -> None:
    """Serve a batch that is in the log."""
    batch = state.log.batch(message.digest)
    if batch is not None and budget.may_answer(state, peer, len(batch.body)):
        state.send(peer, BatchBody(batch.body))


def wants_batch_body(state: State, message: BatchBody) -> bool:
    """True if somebody here waits for it."""
    return bool(state.waiting_batches) and batch_digest(message.batch) in state.waiting_batches


def on_batch_body(state: State, batch: OpenedBatch) -> None:
    """A batch that slots waited for: vote, and execute what is decided."""
    waiting = state.waiting_batches.pop(batch.digest, None)
    if waiting is None:
        return
    for seq in waiting:
        if not state.log.within(seq):
            continue
        state.log.keep_batch(batch, seq)
        vote(state, state.log.slot(seq))
    execution.execute_ready(state)
