"""A PBFT replica as one pure state machine: dispatch, and the life before the first input [CL99 4].

Where to find a rule: the normal case is `ordering`, execution and replies `execution`, requests and their deadlines
`requests`, the exactly-once table `clients`, checkpoints `checkpoint`, view changes `viewchange` and `newview`,
validity of every message and certificate `proofs`, lost messages `repair`, catching up `transfer`, reads `queries`,
changes of membership `reconfig`.

Time enters as `now`, bytes as authentic messages, the disk as `Recovered`; signatures come from a deterministic
`Signer`. Equal inputs give equal effects, in any process.
"""

from __future__ import annotations

from collections.abc import Sequence

from bft.config import MILLISECOND, Cluster
from bft.core import (
    checkpoint,
    execution,
    ordering,
    queries,
    reconfig,
    recovery,
    repair,
    requests,
    transfer,
    viewchange,
)
from bft.core.state import Signers
from bft.epochs import Configuration
from bft.events import (
    Deliver,
    Effect,
    Executed,
    Input,
    PagesLoaded,
    QueryAnswered,
    Recovered,
    SendManifest,
    SendPages,
    SetTimer,
    Start,
    Tick,
)
from bft.ids import Nanos, Peer
from bft.messages import (
    BatchBody,
    Checkpoint,
    CheckpointCertificate,
    Commit,
    CommitCertificate,
    EpochProof,
    FetchBatch,
    FetchEpochs,
    FetchEvents,
    FetchManifest,
    FetchPages,
    ManifestBody,
    Message,
    NewView,
    Packet,
    PageBodies,
    Prepare,
    PrePrepare,
    Proposal,
    Query,
    ReplicaMessage,
    Request,
    Signed,
    SignedRequest,
    Status,
    Suspect,
    ViewChange,
)
from bft.ports import KeyVerifier

TICKS_PER_TIMEOUT = 20
"""Deadlines are looked at this often per request timeout.

Deviation: a node has one periodic timer instead of one per deadline, so that no timer can be forgotten on a change of
view, and no stale one can fire.
"""


class Replica:
    """One replica.

    Args:
        cluster: the shared configuration.
        me: this replica's id.
        signer: signs for this replica; several by public key if it changes its key.
        recovered: what its stable storage holds; empty for a new replica.
        verifier: checks administrators' signatures and those of other epochs; required if the cluster can change.
    """

    def __init__(
        self, cluster: Cluster, me: int, signer: Signers, recovered: Recovered, verifier: KeyVerifier | None = None
    ) -> None:
        self._state = recovery.rebuild(cluster, me, signer, recovered, verifier)
        self._recovered: Recovered | None = recovered
        timeout = min(cluster.protocol.request_timeout_ms, cluster.protocol.view_change_timeout_ms)
        self._tick_ns = max(timeout * MILLISECOND // TICKS_PER_TIMEOUT, MILLISECOND)

    def step(self, event: Input, now: Nanos, /) -> Sequence[Effect]:
        """Take one input; see `bft.ports.Node`."""
        state = self._state
        state.now = now
        match event:
            case Deliver():
                self._deliver(event)
            case Executed():
                execution.on_executed(state, event)
            case Tick():
                self._tick()
            case QueryAnswered():
                queries.on_query_answered(state, event)
            case PagesLoaded():
                transfer.on_pages_loaded(state, event)
            case Start():
                self._start()
        effects = state.out
        state.out = []
        return effects

    def _start(self) -> None:
        state = self._state
        assert self._recovered is not None, "a replica starts once"
        state.timing.active_since = state.timing.progressed = state.timing.opened = state.now
        recovery.install(state, self._recovered)
        self._recovered = None
        repair.send_status(state)
        viewchange.vote_for_proposals(state)
        execution.execute_ready(state)
        state.out.append(SetTimer(state.now + self._tick_ns))

    def _tick(self) -> None:
        state = self._state
        requests.spread(state)
        viewchange.on_tick(state)
        repair.on_tick(state)
        transfer.ask(state)
        reconfig.on_tick(state)
        state.out.append(SetTimer(state.now + self._tick_ns))

    # --- what comes in --------------------------------------------------------------------------------------------

    def wants(self, peer: Peer, packet: Packet, message: Message | None, /) -> bool:
        """Cheap filter before signatures are checked; see `bft.ports.Node`."""
        state = self._state
        if not isinstance(peer, int):
            match packet:
                case SignedRequest():
                    return isinstance(message, Request) and requests.wants_request(state, packet, message)
                case _:
                    return isinstance(packet, Query | FetchEvents | FetchEpochs)
        match packet:
            case Signed():
                return packet.sender != state.me and self._wants_signed(packet.sender, message)
            case SignedRequest():
                return isinstance(message, Request) and requests.wants_request(state, packet, message)
            case Proposal():
                return (
                    isinstance(message, PrePrepare)
                    and message.epoch == state.epoch
                    and ordering.wants_pre_prepare(state, message)
                )
            case CommitCertificate():
                return packet.epoch == state.epoch and ordering.wants_commit_certificate(state, packet)
            case CheckpointCertificate():
                return packet.epoch == state.epoch and checkpoint.wants_certificate(state, packet)
            case EpochProof():
                return reconfig.wants_proof(state, packet)
            case BatchBody():
                return ordering.wants_batch_body(state, packet)
            case FetchEvents():
                return False
            case _:
                return True

    def _wants_signed(self, sender: int, message: Message | None) -> bool:
        """What is of another epoch can no longer, or not yet, matter (mutant R03)."""
        state = self._state
        if not isinstance(message, ReplicaMessage) or message.epoch != state.epoch:
            return False
        match message:
            case Prepare():
                return ordering.wants_prepare(state, sender, message)
            case Commit():
                return ordering.wants_commit(state, sender, message)
            case Checkpoint():
                held = state.checkpoints.get(message.seq, {}).get(sender)
                return checkpoint.wants_checkpoint(state, sender, message) or (
                    held is not None and held[0] != message.digest
                )
            case Suspect():
                return viewchange.wants_suspect(state, sender, message)
            case ViewChange():
                held_change = state.view_changes.get(sender, {}).get(message.view)
                return held_change is not None or viewchange.wants_view_change(state, sender, message)
            case NewView():
                return viewchange.wants_new_view(state, message)
            case _:
                return False

    def _deliver(self, event: Deliver) -> None:
        state = self._state
        packet = event.packet
        peer = event.peer
        match packet:
            case Signed():
                self._deliver_signed(packet, event.message)
            case SignedRequest():
                assert isinstance(event.message, Request), "admission opens requests"
                requests.on_request(state, peer, packet, event.message)
            case Proposal():
                assert isinstance(event.message, PrePrepare), "admission opens proposals"
                assert event.batch is not None, "admission opens batches"
                ordering.on_proposal(state, peer, packet.signed, event.message, event.batch)
            case BatchBody():
                assert event.batch is not None, "admission opens batches"
                ordering.on_batch_body(state, event.batch)
            case CommitCertificate():
                ordering.on_commit_certificate(state, packet, peer)
            case CheckpointCertificate():
                checkpoint.adopt(state, packet)
            case Query():
                queries.on_query(state, peer, packet)
            case FetchEvents() if isinstance(peer, bytes):
                execution.send_events(state, peer, packet)
            case FetchEpochs():
                reconfig.on_fetch_epochs(state, peer, packet)
            case _ if isinstance(peer, int):
                self._deliver_repair(peer, packet)
            case _:
                state.reject(peer, "not-for-clients")

    def _deliver_signed(self, signed: Signed, message: Message | None) -> None:
        state = self._state
        match message:
            case Prepare():
                ordering.on_prepare(state, signed, message)
            case Commit():
                ordering.on_commit(state, signed, message)
            case Checkpoint():
                checkpoint.on_checkpoint(state, signed, message)
            case Suspect():
                viewchange.on_suspect(state, signed, message)
            case ViewChange():
                viewchange.on_view_change(state, signed, message)
            case NewView():
                viewchange.on_new_view(state, signed, message)
            case _:
                state.reject(signed.sender, "unexpected")

    def _deliver_repair(self, peer: int, packet: Packet) -> None:
        state = self._state
        match packet:
            case Status():
                repair.on_status(state, peer, packet)
            case FetchBatch():
                ordering.on_fetch_batch(state, peer, packet)
            case FetchManifest():
                state.out.append(SendManifest(peer, packet.digest))
            case FetchPages():
                state.out.append(SendPages(peer, packet.digests))
            case ManifestBody():
                transfer.on_manifest(state, peer, packet)
            case PageBodies():
                transfer.on_pages(state, peer, packet)
            case EpochProof():
                reconfig.on_epoch_proof(state, peer, packet)
            case _:
                state.reject(peer, "unexpected")

    # --- for people and checkers ----------------------------------------------------------------------------------

    @property
    def configuration(self) -> Configuration:
        """The present epoch; changes with `EpochEntered`."""
        return self._state.configuration

    def ready(self, key: bytes) -> tuple[Signed, ...]:
        """What a change needs of this replica to let it vote with the public `key`; empty if it is not ready for that.

        For `bft.epochs.approved`: of a newcomer, or of a member that changes its key.
        """
        return reconfig.ready(self._state, key)

    def summary(self) -> dict[str, object]:
        """Where the replica stands, and the size of every table: for `status`, and for the bounded-state checker."""
        state = self._state
        return {
            "replica": state.me,
            "epoch": state.epoch,
            "members": list(state.quorums.members),
            "member": state.is_member,
            "epoch_ends": state.pending.activation if state.pending is not None else None,
            "view": state.view,
            "active": state.active,
            "primary": state.primary,
            "executed": state.executed,
            "stable": state.log.low,
            "chain": state.chain.hex(),
            "state_digest": state.stable.digest.hex() if state.stable is not None else "",
            "pending": len(state.pool),
            "slots": len(state.log.slots),
            "batches": state.log.batch_count,
            "sessions": len(state.sessions),
            "checkpoint_votes": sum(len(votes) for votes in state.checkpoints.values()),
            "view_changes": sum(len(held) for held in state.view_changes.values()),
            "waiting_queries": len(state.waiting_queries),
            "waiting_batches": len(state.waiting_batches),
            "fetching": state.fetching.certificate.seq if state.fetching is not None else None,
            "fetch_missing": len(state.fetching.missing) if state.fetching is not None else 0,
            "backoff": state.timing.backoff,
        }
