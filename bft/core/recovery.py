"""What a replica is when it starts: rebuilt from stable storage, never contradicting what it said before [CL02 4.6].

Records were written before the statements they cover left the machine, so the rebuilt replica is indistinguishable
from one that was slow. Signatures are deterministic: votes made again are the very bytes of before.
"""

from __future__ import annotations

from bft.config import Cluster
from bft.core.clients import SessionTable
from bft.core.log import Log
from bft.core.pool import ENVELOPE_WORK, TURNS_PER_BATCH, Pool
from bft.core.proofs import Rules, opened, opened_pre_prepare, prepared_header
from bft.core.state import State
from bft.core.viewchange import install_proposals
from bft.events import Accepted, InstallState, OpenedBatch, Recovered
from bft.membership import Quorums
from bft.messages import Checkpoint, Commit, NewView, Prepare, ViewChange
from bft.ports import Signer
from bft.wire.codec import decode_batch, decode_manifest, decode_request


def rules_of(cluster: Cluster) -> Rules:
    """The structural rules of the cluster's first epoch."""
    protocol = cluster.protocol
    return Rules(cluster.quorums, 0, protocol.checkpoint_interval, protocol.window)


def rebuild(cluster: Cluster, me: int, signer: Signer, recovered: Recovered) -> State:
    """The state after everything that is on stable storage."""
    protocol = cluster.protocol
    state = State(
        me=me,
        protocol=protocol,
        quorums=Quorums.of(len(cluster.replica)),
        rules=rules_of(cluster),
        signer=signer,
        log=Log(protocol.window),
        sessions=SessionTable(protocol),
        pool=Pool(quantum=protocol.batch_operations_max // TURNS_PER_BATCH + ENVELOPE_WORK),
    )
    _rebuild_snapshot(state, recovered)
    if recovered.stable is not None:
        state.stable = recovered.stable
        state.log.low = recovered.stable.seq
    _rebuild_view(state, recovered)
    _rebuild_slots(state, recovered)
    _rebuild_checkpoints(state, recovered)
    return state


def install(state: State, recovered: Recovered) -> None:
    """Give the service its pages back; the first effect of a restarted replica."""
    if recovered.snapshot is not None:
        manifest = decode_manifest(recovered.snapshot.manifest)
        pages = tuple(recovered.snapshot.pages[digest] for digest in manifest.service)
        state.out.append(InstallState(manifest.seq, pages))


def _rebuild_snapshot(state: State, recovered: Recovered) -> None:
    snapshot = recovered.snapshot
    if snapshot is None:
        return
    manifest = decode_manifest(snapshot.manifest)
    state.executed = manifest.seq
    state.chain = manifest.chain
    state.time_ns = manifest.time_ns
    state.lease_ns = manifest.lease_ns
    state.sessions.restore([snapshot.pages[digest] for digest in manifest.sessions])


def _rebuild_view(state: State, recovered: Recovered) -> None:
    """Same view, same mode: a replica that had left a view does not come back into it (mutant M17)."""
    record = recovered.view
    if record is None:
        return
    state.view = record.view
    state.active = record.active
    state.view_change = record.view_change
    state.new_view = record.new_view
    if record.new_view is not None:
        new_view = opened(record.new_view)
        assert isinstance(new_view, NewView), "the store gives back what was persisted"
        install_proposals(state, new_view)
    if record.view_change is not None and not record.active:
        view_change = opened(record.view_change)
        assert isinstance(view_change, ViewChange), "the store gives back what was persisted"
        state.view_changes[state.me] = {record.view: (record.view_change, view_change)}


def _rebuild_slots(state: State, recovered: Recovered) -> None:
    for record in recovered.accepted:
        if state.log.within(record.seq):
            _rebuild_accepted(state, record)
    for prepared in recovered.prepared:
        if not state.log.within(prepared.seq):
            continue
        slot = state.log.slot(prepared.seq)
        header = prepared_header(prepared.certificate)
        slot.prepared = prepared.certificate
        slot.prepared_view = header.view
        commit = state.sign(Commit(header.epoch, header.view, header.seq, header.digest))
        slot.commits[state.me] = (header.view, header.digest, commit.signature)
        state.max_commit_sent = max(state.max_commit_sent, header.seq)
    used = [slot.seq for slot in state.log.slots.values() if state.view in slot.accepted]
    state.next_seq = max([state.next_seq, state.log.low + 1, *(seq + 1 for seq in used)])


def _rebuild_accepted(state: State, record: Accepted) -> None:
    header = opened_pre_prepare(record.pre_prepare)
    assert header is not None, "the store gives back what was persisted"
    slot = state.log.slot(record.seq)
    slot.accepted[record.view] = (header.digest, record.pre_prepare)
    slot.voted_view = max(slot.voted_view, record.view)
    if record.batch:
        state.log.keep_batch(_open_stored(header.digest, record.batch), record.seq)
    if record.view == state.view and state.quorums.primary(record.view) != state.me:
        vote = state.sign(Prepare(header.epoch, header.view, header.seq, header.digest))
        slot.prepares[state.me] = (header.view, header.digest, vote.signature)


def _open_stored(digest: bytes, body: bytes) -> OpenedBatch:
    batch = decode_batch(body)
    requests = tuple((packet.client, decode_request(packet.payload)) for packet in batch.requests)
    return OpenedBatch(digest, body, batch.time_ns, requests)


def _rebuild_checkpoints(state: State, recovered: Recovered) -> None:
    snapshot = recovered.snapshot
    for signed in recovered.votes:
        vote = opened(signed)
        assert isinstance(vote, Checkpoint), "the store gives back what was persisted"
        if vote.seq > state.log.low:
            digest = snapshot.digest if snapshot is not None and snapshot.seq == vote.seq else vote.digest
            state.own_checkpoints[vote.seq] = (digest, signed)
            state.checkpoints.setdefault(vote.seq, {})[state.me] = (vote.digest, signed.signature)
