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
    amnesia,
    budget,
    checkpoint,
    execution,
    ordering,
    queries,
    reconfig,
    recovery,
    repair,
    requests,
    rot,
    transfer,
    viewchange,
)
from bft.core.state import Signers
from bft.epochs import Configuration, base_certificate
from bft.events import (
    Deliver,
    Effect,
    Executed,
    Input,
    PagesLoaded,
    PagesRead,
    PagesRotten,
    QueryAnswered,
    Recovered,
    SendManifest,
    SendPages,
    Start,
    StateExplained,
    Tick,
)
from bft.ids import Nanos, Peer
from bft.messages import (
    BatchBody,
    Checkpoint,
    CheckpointCertificate,
    Commit,
    CommitCertificate,
    EpochLink,
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
        transfer_rate: bytes a second that a state transfer may bring; 0 for no cap.
    """

    def __init__(
        self,
        cluster: Cluster,
        me: int,
        signer: Signers,
        recovered: Recovered,
        verifier: KeyVerifier | None = None,
        *,
        transfer_rate: int = 0,
    ) -> None:
        self._state = recovery.rebuild(cluster, me, signer, recovered, verifier)
        self._state.transfer_rate = transfer_rate
        self._recovered: Recovered | None = recovered
        timeout = min(cluster.protocol.request_timeout_ms, cluster.protocol.view_change_timeout_ms)
        self._tick_ns = max(timeout * MILLISECOND // TICKS_PER_TIMEOUT, MILLISECOND)
        self._tick_at: Nanos = 0

    def step(self, event: Input, now: Nanos, /) -> Sequence[Effect]:
        """Take one input; see `bft.ports.Node`."""
        state = self._state
        if state.forgotten:
            return ()
        state.now = now
        match event:
            case Deliver():
                self._deliver(event)
            case Executed():
                execution.on_executed(state, event)
            case Tick():
                self._wake()
            case QueryAnswered():
                queries.on_query_answered(state, event)
            case PagesLoaded():
                transfer.on_pages_loaded(state, event)
            case StateExplained():
                transfer.on_explained(state, event)
            case PagesRotten():
                rot.on_rotten(state, event)
            case PagesRead():
                transfer.on_pages_read(state, event)
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
        state.monitor.enter(state.primary, state.now)
        repair.send_status(state)
        viewchange.vote_for_proposals(state)
        execution.execute_ready(state)
        self._tick_at = state.now + self._tick_ns
        state.set_timer(self._tick_at)

    def _wake(self) -> None:
        """The timer went off: for a tick, or before it for what waited to be proposed."""
        if self._state.now >= self._tick_at:
            self._tick()
            self._tick_at = self._state.now + self._tick_ns
        self._state.set_timer(self._tick_at)
        ordering.propose(self._state)

    def _tick(self) -> None:
        state = self._state
        budget.renew(state)
        requests.spread(state)
        viewchange.on_tick(state)
        repair.on_tick(state)
        transfer.ask(state)
        reconfig.on_tick(state)
        rot.ask(state)
        queries.serve_waiting(state)

    # --- what comes in --------------------------------------------------------------------------------------------

    def wants(self, peer: Peer, packet: Packet, message: Message | None, /) -> bool:
        """Cheap filter before signatures are checked; see `bft.ports.Node`."""
        state = self._state
        if not isinstance(peer, int):
            match packet:
                case SignedRequest():
                    return isinstance(message, Request) and requests.wants_request(state, peer, packet, message)
                case _:
                    return isinstance(packet, Query | FetchEvents | FetchEpochs)
        match packet:
            case Signed():
                if packet.sender == state.me:
                    return not amnesia.is_known(state, message)
                return self._wants_signed(packet, message)
            case SignedRequest():
                return isinstance(message, Request) and requests.wants_request(state, peer, packet, message)
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
            case PageBodies():
                is_of_epoch = not isinstance(message, ReplicaMessage) or message.epoch == state.epoch
                return is_of_epoch and (state.fetching is not None or bool(state.rotten))
            case FetchEvents():
                return False
            case _:
                return True

    def _wants_signed(self, packet: Signed, message: Message | None) -> bool:
        """What is of another epoch can no longer, or not yet, matter (mutant R03)."""
        state = self._state
        sender = packet.sender
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
                return viewchange.wants_new_view(state, message) or viewchange.is_second(state, packet, message)
            case _:
                return False

    def _deliver(self, event: Deliver) -> None:
        state = self._state
        packet = event.packet
        peer = event.peer
        match packet:
            case Signed() if packet.sender == state.me:
                amnesia.on_own(state, event.message)
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
            case Query() if isinstance(peer, bytes):
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
                if budget.may_answer(state, peer):
                    state.out.append(SendManifest(peer, packet.digest))
            case FetchPages():
                if budget.may_answer(state, peer):
                    state.out.append(SendPages(peer, packet.digests))
            case ManifestBody():
                transfer.on_manifest(state, peer, packet)
            case PageBodies():
                rot.take(state, packet)
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

    @property
    def links(self) -> tuple[EpochLink, ...]:
        """The way from genesis to the present epoch."""
        return tuple(self._state.links)

    def hold_back(self, client: bytes, now: Nanos) -> tuple[Nanos, str]:
        """(how long what this client sends is better left unread, why); see `bft.core.pool`.

        Only while slots go through: where nothing is ordered a backlog says nothing, and would last for ever.
        """
        state = self._state
        since = max(state.timing.progressed, state.timing.active_since)
        if not state.active or state.fetching is not None or now - since >= state.request_timeout_ns:
            return 0, ""
        return state.pool.hold_back(client, now)

    def note_read(self, client: bytes, frames: int) -> None:
        """So many frames of this client, or what costs as much, were read."""
        self._state.pool.shares.note(client, frames)

    def ready(self, key: bytes) -> tuple[Signed, ...]:
        """What a change needs of this replica to let it vote with the public `key`; empty if it is not ready for that.

        For `bft.epochs.approved`: of a newcomer, or of a member that changes its key.
        """
        return reconfig.ready(self._state, key)

    def summary(self) -> dict[str, object]:
        """Where the replica stands, and the size of every table: for `status`, and for the bounded-state checker."""
        state = self._state
        proof = state.stable or base_certificate(state.links)
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
            "state_digest": proof.digest.hex() if proof is not None else "",
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
            "fetch": transfer.account(state),
            "rotten": len(state.rotten),
            "repaired": state.repaired,
            "last_transfer": state.last_transfer,
            "transferred": dict(state.transferred),
            "backoff": state.timing.backoff,
            "serves": state.serves,
            "divergences": state.divergences,
            "diverged_at": state.divergence.seq if state.divergence is not None else None,
            "differs": list(state.divergence.where) if state.divergence is not None else [],
            "split": state.split,
            "monitor": state.monitor.figures(),
            "refuses": state.forgotten or None,
        }
