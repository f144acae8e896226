"""Checkpoints, stability and garbage collection [CL99 4.3].

    every K slots, after execution:   persist(snapshot and own vote); send CHECKPOINT
    upon strong equal CHECKPOINTs:    the checkpoint is stable: persist(certificate); drop the log up to it

The state digest covers everything that influences later execution: the service's pages, the exactly-once table with
its kept replies, the clocks, the chain, the members and a pending change of them. Nothing local (views, timers) is in
it. It is the digest of a small header, so that a certificate and a header prove a change of membership (`bft.epochs`).
"""

from __future__ import annotations

from bft.core import execution, ordering, queries, reconfig, transfer, viewchange
from bft.core.proofs import checkpoint_certificate_flaw
from bft.core.state import State
from bft.digests import pages_digest, state_digest
from bft.events import Snapshot, Stable
from bft.headers import Header, Manifest
from bft.messages import Checkpoint, CheckpointCertificate, Endorsement, Signed
from bft.wire.codec import encode


def take(state: State, service_pages: tuple[bytes, ...], fresh: dict[bytes, bytes]) -> None:
    """Take a checkpoint of the state after `executed`, durable before the vote for it leaves."""
    sessions, fresh_sessions = state.sessions.checkpoint()
    header = encode(
        Header(
            state.epoch,
            state.executed,
            state.chain,
            state.time_ns,
            state.lease_ns,
            pages_digest(service_pages, sessions),
            state.configuration.digest,
            state.pending,
        )
    )
    manifest = encode(Manifest(header, service_pages, sessions))
    digest = state_digest(header)
    if state.pending is not None and state.pending.activation == state.executed:
        state.boundary = header
    before = state.own_checkpoints.get(state.executed)
    message = Checkpoint(state.epoch, state.executed, digest)
    vote = before[1] if before is not None else state.sign(message) if state.is_member else None
    state.persist(Snapshot(state.executed, digest, manifest, {**fresh, **fresh_sessions}, vote))
    state.own_checkpoints[state.executed] = (digest, vote)
    if vote is not None and vote.payload != encode(message):
        # Executed again after a repair. The state is kept, since later ones build on it, but the vote given stands: a
        # second one would be evidence against us, and strong many others vote without this replica
        # (`test_repaired_replica_goes_on_without_voting_twice`). What counts is what was voted, not the state that came
        # after it: that may have been this one already (`test_vote_for_another_state_is_never_counted_for_this_one`).
        state.progress("diverged", state.executed, "executing again gave another state")
    elif vote is not None:
        state.broadcast(vote)
        count(state, vote, message)
    if state.target is not None and state.target.seq <= state.executed:
        adopt(state, state.target)


def wants_checkpoint(state: State, sender: int, message: Checkpoint) -> bool:
    """True if the vote is above the low watermark and its sender has not voted there."""
    if message.seq <= state.log.low:
        return False
    return sender not in state.checkpoints.get(message.seq, ())


def on_checkpoint(state: State, signed: Signed, message: Checkpoint) -> None:
    """Count a vote; beyond the window only the last of its sender is kept, as a sign that this replica lags."""
    held = state.checkpoints.get(message.seq, {}).get(signed.sender)
    if held is not None and held[0] != message.digest:
        first = Signed(signed.sender, encode(Checkpoint(message.epoch, message.seq, held[0])), held[1])
        state.accuse(signed.sender, "two-checkpoints", first, signed)
        return
    if wants_checkpoint(state, signed.sender, message):
        count(state, signed, message)


def count(state: State, signed: Signed, message: Checkpoint) -> None:
    """Add a vote, and make the checkpoint stable when a strong quorum agrees on its digest."""
    if not state.log.within(message.seq):
        _forget_far_votes(state, signed.sender)
    votes = state.checkpoints.setdefault(message.seq, {})
    votes[signed.sender] = (message.digest, signed.signature)
    matching = [replica for replica in sorted(votes) if votes[replica][0] == message.digest]
    _notice_split(state, message.seq, votes)
    if len(matching) < state.quorums.strong:
        return
    chosen = matching[: state.quorums.strong]
    certificate = CheckpointCertificate(
        message.epoch,
        message.seq,
        message.digest,
        tuple(Endorsement(replica, votes[replica][1]) for replica in chosen),
    )
    found = checkpoint_certificate_flaw(certificate, state.rules)
    assert found is None, f"made a checkpoint certificate that others must refuse: {found}"
    adopt(state, certificate)


def _notice_split(state: State, seq: int, votes: dict[int, tuple[bytes, bytes]]) -> None:
    """Say once per slot that no strong quorum of equal checkpoints can come: more than f states differ.

    Nothing follows from it but words: the window fills and ordering stops, which is safe. f liars cannot cause it:
    the others' equal votes, given or to come, are strong many.
    """
    digests = [digest for digest, _ in votes.values()]
    most = max(digests.count(digest) for digest in digests)
    if seq > state.split and most + state.quorums.n - len(votes) < state.quorums.strong:
        state.split = seq
        state.progress("split", seq, f"{len(dict.fromkeys(digests))} states differ: is the service deterministic?")


def _forget_far_votes(state: State, sender: int) -> None:
    """Keep one vote per sender beyond the window: f replicas cannot fill the table with future slots."""
    for seq in [seq for seq in state.checkpoints if not state.log.within(seq)]:
        state.checkpoints[seq].pop(sender, None)
        if not state.checkpoints[seq]:
            del state.checkpoints[seq]


def wants_certificate(state: State, certificate: CheckpointCertificate) -> bool:
    """True if it proves a checkpoint above the low watermark."""
    return certificate.seq > state.log.low


def adopt(state: State, certificate: CheckpointCertificate) -> None:
    """Act on a proof that a checkpoint is stable.

    The low watermark follows only a state that this replica has: executed here with the very digest, or fetched.
    """
    if certificate.seq <= state.log.low:
        return
    if certificate.seq > state.executed:
        if state.target is None:
            state.target_since = state.now
        if state.target is None or certificate.seq > state.target.seq:
            state.target = certificate
        return
    own = state.own_checkpoints.get(certificate.seq)
    if own is None:
        return
    if own[0] != certificate.digest:
        transfer.repair(state, own[0], certificate)
        return
    make_stable(state, certificate)


def make_stable(state: State, certificate: CheckpointCertificate) -> None:
    """Advance the low watermark to a checkpoint whose state is here and durable; drop what it covers."""
    seq = certificate.seq
    state.persist(Stable(seq, certificate))
    # The base of an epoch needs no proof in it, and the epoch before has no say.
    state.stable = certificate if certificate.epoch == state.epoch else None
    state.log.truncate(seq)
    state.checkpoints = {at: votes for at, votes in state.checkpoints.items() if at > seq}
    state.own_checkpoints = {at: own for at, own in state.own_checkpoints.items() if at > seq}
    state.waiting_batches = {
        digest: [at for at in seqs if at > seq]
        for digest, seqs in state.waiting_batches.items()
        if any(at > seq for at in seqs)
    }
    if state.target is not None and state.target.seq <= seq:
        state.target = None
    state.timing.backoff = max(0, state.timing.backoff - 1)
    state.next_seq = max(state.next_seq, seq + 1)
    state.progress("stable", seq)
    has_ended_a_transfer = transfer.overtaken(state, seq)
    reconfig.on_stable(state, certificate)
    viewchange.vote_for_proposals(state)
    if has_ended_a_transfer:
        queries.serve_waiting(state)
        execution.execute_ready(state)
    ordering.propose(state)
