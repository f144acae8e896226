"""What a replica is when it starts: rebuilt from stable storage, never contradicting what it said before [CL02 4.6].

Records were written before the statements they cover left the machine, so the rebuilt replica is indistinguishable
from one that was slow. Signatures are deterministic: votes made again are the very bytes of before.
"""

from __future__ import annotations

from collections.abc import Mapping

from bft.config import Cluster, Protocol
from bft.core import reconfig
from bft.core.clients import SessionTable
from bft.core.log import Log
from bft.core.monitor import Monitor
from bft.core.pool import ENVELOPE_WORK, TURNS_PER_BATCH, Pool
from bft.core.proofs import Rules, opened, opened_pre_prepare, prepared_header
from bft.core.state import Signers, State
from bft.core.viewchange import install_proposals
from bft.digests import new_view_digest
from bft.epochs import Configuration, follow, genesis
from bft.events import Accepted, InstallState, OpenedBatch, Recovered
from bft.messages import Checkpoint, Commit, EpochLink, NewView, Prepare, ViewChange
from bft.ports import KeyVerifier, Signer
from bft.wire.codec import decode_batch, decode_request, open_manifest


def rules_of(cluster: Cluster, configuration: Configuration | None = None) -> Rules:
    """The structural rules of an epoch, of the cluster's first by default."""
    protocol = cluster.protocol
    return rules_in(protocol, configuration or genesis(cluster))


def rules_in(protocol: Protocol, configuration: Configuration) -> Rules:
    """The structural rules of an epoch."""
    return Rules(
        configuration.quorums,
        configuration.epoch,
        protocol.checkpoint_interval,
        protocol.window,
        configuration.base,
    )


def blank(
    protocol: Protocol,
    me: int,
    signers: Signers,
    verifier: KeyVerifier | None,
    configuration: Configuration,
    links: list[EpochLink],
    sessions: SessionTable,
    *,
    signs_replies: bool,
) -> State:
    """A replica at the beginning of an epoch: view 0, nothing voted for, the base its low watermark."""
    signer, _ = _signer_in(configuration, me, signers)
    state = State(
        me=me,
        protocol=protocol,
        configuration=configuration,
        quorums=configuration.quorums,
        rules=rules_in(protocol, configuration),
        signer=signer,
        signers=signers,
        is_member=is_member(configuration, me, signers),
        verifier=verifier,
        log=Log(protocol.window),
        sessions=sessions,
        pool=Pool(quantum=protocol.batch_operations_max // TURNS_PER_BATCH + ENVELOPE_WORK),
        monitor=Monitor(protocol, configuration.quorums.weak),
        signs_replies=signs_replies,
    )
    state.epoch = configuration.epoch
    state.links = links
    state.log.begin(configuration.base)
    state.view_floor = configuration.base
    state.next_seq = configuration.base + 1
    state.active = state.is_member
    return state


def is_member(configuration: Configuration, me: int, signers: Signers) -> bool:
    """True if the replica votes in that epoch: it is named, with a key that it holds."""
    _, holds_key = _signer_in(configuration, me, signers)
    return me in configuration.quorums.ids and holds_key


def _signer_in(configuration: Configuration, me: int, signers: Signers) -> tuple[Signer, bool]:
    """What to sign with in an epoch, and whether it is the key that the members know.

    Whoever has lost its new key, or not been given it yet, must not vote with the old one: it takes no part.
    """
    if not isinstance(signers, Mapping):
        return signers, True
    member = configuration.member(me)
    found = signers.get(member.key) if member is not None else None
    return found or next(iter(signers.values())), found is not None


def rebuild(
    cluster: Cluster, me: int, signers: Signers, recovered: Recovered, verifier: KeyVerifier | None = None
) -> State:
    """The state after everything that is on stable storage.

    Where the process died between the end of an epoch being stable and the next one being recorded, the switch is made
    now: the certificate and the header under it are the record (`reconfig.on_stable`, mutant R05).
    """
    assert verifier is not None or not cluster.admin, "a cluster that can change needs its signatures checked"
    configuration = genesis(cluster)
    was_member = False
    for link in recovered.epochs:
        was_member = was_member or is_member(configuration, me, signers)
        configuration = follow(configuration, link)
    sessions = SessionTable(cluster.protocol)
    links = list(recovered.epochs)
    state = blank(
        cluster.protocol,
        me,
        signers,
        verifier,
        configuration,
        links,
        sessions,
        signs_replies=cluster.signed_replies,
    )
    state.was_member = was_member
    state.doubted = recovered.doubted
    _rebuild_snapshot(state, recovered)
    if recovered.stable is not None and recovered.stable.epoch == state.epoch:
        state.stable = recovered.stable
        state.log.begin(recovered.stable.seq)
    _rebuild_view(state, recovered)
    _rebuild_slots(state, recovered)
    _rebuild_checkpoints(state, recovered)
    return state


def install(state: State, recovered: Recovered) -> None:
    """Give the service its pages back; the first effect of a restarted replica. Then redo a switch of epochs."""
    if recovered.snapshot is not None:
        manifest = open_manifest(recovered.snapshot.manifest)
        pages = tuple(recovered.snapshot.pages[digest] for digest in manifest.service)
        state.out.append(InstallState(manifest.header.seq, pages))
    if state.stable is not None and state.pending is not None and state.stable.seq == state.pending.activation:
        reconfig.on_stable(state, state.stable)
    elif state.links:
        reconfig.begin(state, holds_base=_holds_base(state, recovered))


def _holds_base(state: State, recovered: Recovered) -> bool:
    """True unless the epoch was entered by its proof alone, and its first state has not been fetched yet."""
    base, snapshot = state.links[-1].certificate, recovered.snapshot
    if snapshot is None or snapshot.seq < base.seq:
        return False
    return snapshot.seq > base.seq or snapshot.digest == base.digest


def _rebuild_snapshot(state: State, recovered: Recovered) -> None:
    snapshot = recovered.snapshot
    if snapshot is None:
        return
    manifest = open_manifest(snapshot.manifest)
    state.take_header(manifest.header)
    if manifest.header.epoch == state.epoch:
        reconfig.set_pending(state, manifest.header.pending)
        state.boundary = manifest.header_bytes
    state.sessions.restore([snapshot.pages[digest] for digest in manifest.sessions])


def _rebuild_view(state: State, recovered: Recovered) -> None:
    """Same view, same mode: a replica that had left a view does not come back into it (mutant M17)."""
    record = recovered.view
    if record is None or not state.is_member:
        return
    state.view = record.view
    state.active = record.active
    state.view_change = record.view_change
    state.new_view = record.new_view
    if record.new_view is not None:
        new_view = opened(record.new_view)
        assert isinstance(new_view, NewView), "the store gives back what was persisted"
        state.began = new_view_digest(record.new_view.payload)
        install_proposals(state, new_view)
    if record.view_change is not None and not record.active:
        view_change = opened(record.view_change)
        assert isinstance(view_change, ViewChange), "the store gives back what was persisted"
        state.view_changes[state.me] = {record.view: (record.view_change, view_change)}


def _rebuild_slots(state: State, recovered: Recovered) -> None:
    """What was voted for; a replica without its key takes no part, and can sign none of it again."""
    if not state.is_member:
        return
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
    """What was voted for stays so; the own state there may be another by now: executed again after a repair."""
    for signed in recovered.votes:
        vote = opened(signed)
        assert isinstance(vote, Checkpoint), "the store gives back what was persisted"
        if vote.seq > state.log.low and vote.epoch == state.epoch:
            state.own_checkpoints[vote.seq] = (recovered.taken.get(vote.seq, vote.digest), signed)
            state.checkpoints.setdefault(vote.seq, {})[state.me] = (vote.digest, signed.signature)
