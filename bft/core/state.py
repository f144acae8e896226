"""Everything one replica knows, and the small helpers that all parts of the protocol share.

The parts are modules of functions on this state: `ordering`, `execution`, `checkpoint`, `viewchange`, `repair`,
`transfer`, `queries`. Effects are appended to `out` in the order in which they must take place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from bft.config import MILLISECOND, Protocol
from bft.core.clients import SessionTable
from bft.core.log import Log
from bft.core.monitor import Monitor
from bft.core.pool import Pool
from bft.core.proofs import Rules, flaw
from bft.core.sources import Sources
from bft.digests import EMPTY_CHAIN
from bft.epochs import Configuration
from bft.events import (
    AnswerQuery,
    Broadcast,
    Effect,
    Evidence,
    Execute,
    OpenedBatch,
    OperationCall,
    Persist,
    Progress,
    Record,
    Rejected,
    Send,
    SetTimer,
    ViewRecord,
)
from bft.headers import Header, Pending
from bft.ids import Nanos, Peer
from bft.membership import Quorums
from bft.messages import CheckpointCertificate, EpochLink, Packet, ReplicaMessage, Signed, ViewChange
from bft.ports import BatchSigner, KeyVerifier, Signer
from bft.wire.codec import Opened, encode

ASKED_MAX = 8192
"""Pages and manifests; many times what is asked for at once."""
Signers = Signer | Mapping[bytes, Signer]
"""What a replica signs with: one key, or several by public key, of which each epoch's members name one."""


@dataclass(slots=True)
class Timing:
    """When what was last done; all local, none of it decides anything that replicas must agree on.

    Attributes:
        active_since: when the present view became active; request deadlines count from here at the earliest.
        backoff: exponent k of the request and view-change timeouts.
        executed_at_change: last executed slot when the last view change began: tells whether it had made progress.
        new_view_deadline: when to give up on the primary of a pending view; None until a strong quorum waits too.
        view_change_sent: when the own VIEW-CHANGE was last (re-)sent.
        status_sent: when a STATUS was last sent.
        answered: per replica, when its STATUS was last answered (bounds amplification).
        suspected: when the own SUSPECT was last (re-)sent.
        grievance: why the present primary is suspected; empty if it is not.
        progressed: when a slot was last executed.
        opened: when last no accepted slot waited for its execution.
        timed: a slot that this replica has proposed, and when; one at a time.
        slot_ns: how long the last one took that was timed, from its proposal to its execution.
        status_considered: when this replica last asked itself whether it stalls.
        executed_at_status: last executed slot when the last STATUS was considered: tells whether this replica stalls.
    """

    active_since: Nanos = 0
    backoff: int = 0
    executed_at_change: int = -1
    new_view_deadline: Nanos | None = None
    view_change_sent: Nanos = 0
    status_sent: Nanos = 0
    answered: dict[int, Nanos] = field(default_factory=dict)
    suspected: Nanos = 0
    grievance: str = ""
    progressed: Nanos = 0
    opened: Nanos = 0
    timed: tuple[int, Nanos] = (0, 0)
    slot_ns: Nanos = 0
    status_considered: Nanos = 0
    executed_at_status: int = -1


@dataclass(slots=True)
class Fetching:
    """A state transfer under way.

    Attributes:
        certificate: proof of the checkpoint being fetched.
        manifest: its manifest, once here and verified.
        missing: page digests not here yet, in order of need (a dict keeps order and finds fast).
        pages: verified pages, by digest.
        sources: whom to ask.
        fetched, size: pages that came from others, and their bytes, for earlier targets too.
        paid_until: with a bandwidth cap, when more may be asked for.
        began: when the first target was set.
        overtaken: how many targets were given up for later ones, since their pages were gone.
        progressed: when the fetch last came nearer to its end.
    """

    certificate: CheckpointCertificate
    manifest: Opened | None = None
    manifest_bytes: bytes = b""
    missing: dict[bytes, None] = field(default_factory=dict)
    pages: dict[bytes, bytes] = field(default_factory=dict)
    sources: Sources = field(default_factory=Sources)
    manifest_asked: Nanos = 0
    fetched: int = 0
    size: int = 0
    paid_until: Nanos = 0
    began: Nanos = 0
    overtaken: int = 0
    progressed: Nanos = 0

    def is_of_interest(self, digest: bytes) -> bool:
        """True if the page belongs to the target."""
        return digest in self.missing or digest in self.pages


@dataclass(slots=True)
class Divergence:
    """A checkpoint at which this replica's state is not the one that a strong quorum certified.

    Attributes:
        ours: the digest of the own state.
        where: what differs, as lines for people; filled while the right state comes in.
        repaired: True once the certified state (or a later one) is installed.
    """

    seq: int
    ours: bytes
    where: tuple[str, ...] = ()
    repaired: bool = False


@dataclass(slots=True)
class State:
    """One replica.

    Attributes:
        configuration: the present epoch: its members, and where it began.
        view, active: the present view, and whether this replica takes part in it (False while changing).
        view_change, new_view: the exact signed messages that brought it there; `began` is the latter's digest.
        accused: (replica, kind) -> view in which it was last accused: evidence does not grow with what a liar sends.
        signs_replies: the cluster's clients want receipts.
        compared: per peer, the view whose differing NEW-VIEW it was last shown.
        view_floor: checkpoint from which the present view began; slots at or below it are closed in this view.
        proposed_again: slot -> (digest, PRE-PREPARE) of what the present view's NEW-VIEW proposed, above the low
            watermark; nothing else may stand there.
        next_seq: the next slot that this replica, as primary, will propose.
        max_commit_sent: highest slot for which it sent COMMIT; reads wait for it.
        executed: last executed slot; `chain`, `time_ns`, `lease_ns` belong to the state after it.
        signer: signs with the key that this replica has in the present epoch; `signers` has those of others, too.
        is_member: this replica votes in the present epoch.
        verifier: checks administrators and members of other epochs; None in a cluster that cannot change.
        pending: the change of membership that ends this epoch, once one has executed.
        boundary: the encoded header of the epoch's last checkpoint, once that was taken or fetched.
        links: the way from genesis to this epoch.
        was_member: this replica has voted in an earlier epoch.
        retire_at: when a removed replica stops serving others at the latest; `retired` once it has said so.
        system_calls: operations of the slot being executed that are not for the service.
        executing: the `Execute` that has no `Executed` yet, and its batch's digest.
        checkpoints: per slot and replica, the vote (digest, signature) for a checkpoint there.
        own_checkpoints: slot -> (digest of the own state, vote that was sent) of checkpoints taken and not yet stable;
            no vote unless a member.
        stable: proof of the low watermark; None at the genesis checkpoint.
        target: a certificate ahead of `executed` that the ordinary repair has not reached yet.
        divergence: the last one found; while it is not repaired, nothing that the service said is given out.
        divergences: how many were found since the start.
        doubted: the highest slot that was ever executed on a state found to be wrong: what was said of its results is
            not signed again.
        split: the highest slot at which so many CHECKPOINTs differ that no strong quorum of equal ones can come.
        view_changes: per sender, view -> VIEW-CHANGE: at most the one for the present view and the highest.
        suspects: per sender, the view it suspects, and when it last said so.
        waiting_batches: digest -> slots that cannot go on before the batch is here.
        waiting_queries: (needed seq, query) in order of arrival.
        waiting_load: per client, how many operations of those queries are its own, and their bytes; those of all are
            `waiting_operations` and `waiting_bytes`.
        served: what peers were sent on request since the last tick (`bft.core.budget`).
        timer_at: when this replica asked to be woken.
        transfer_rate: bytes a second that a state transfer may bring; 0 for no cap.
        rotten: pages that the own store has lost to bit rot -> when they were last asked for, and how often; in the
            order in which they are asked for.
        asked: pages and manifests that others were asked for lately, for this transfer or an earlier one, or because of
            rot: answers about them are late, no lies.
        repaired: how many came back.
        last_transfer: what the last state transfer came to, for people.
        transferred: what all of them came to: "count", "fetched" pages, "bytes", "milliseconds".
        forgotten: why this replica must not vote any more; empty if it may (`bft.core.amnesia`).
    """

    me: int
    protocol: Protocol
    configuration: Configuration
    quorums: Quorums
    rules: Rules
    signer: Signer
    signers: Signers
    is_member: bool
    verifier: KeyVerifier | None
    log: Log
    sessions: SessionTable
    pool: Pool
    monitor: Monitor
    now: Nanos = 0
    epoch: int = 0
    view: int = 0
    active: bool = True
    view_change: Signed | None = None
    new_view: Signed | None = None
    began: bytes = b""
    view_floor: int = 0
    proposed_again: dict[int, tuple[bytes, Signed]] = field(default_factory=dict)
    next_seq: int = 1
    max_commit_sent: int = 0
    executed: int = 0
    chain: bytes = EMPTY_CHAIN
    time_ns: int = 0
    lease_ns: int = 0
    pending: Pending | None = None
    boundary: bytes = b""
    links: list[EpochLink] = field(default_factory=list)
    was_member: bool = False
    retire_at: Nanos = 0
    retired: bool = False
    system_calls: list[OperationCall] = field(default_factory=list)
    executing: tuple[Execute, bytes, OpenedBatch | None] | None = None
    checkpoints: dict[int, dict[int, tuple[bytes, bytes]]] = field(default_factory=dict)
    own_checkpoints: dict[int, tuple[bytes, Signed | None]] = field(default_factory=dict)
    stable: CheckpointCertificate | None = None
    target: CheckpointCertificate | None = None
    target_since: Nanos = 0
    fetching: Fetching | None = None
    divergence: Divergence | None = None
    divergences: int = 0
    doubted: int = 0
    split: int = 0
    view_changes: dict[int, dict[int, tuple[Signed, ViewChange]]] = field(default_factory=dict)
    suspects: dict[int, tuple[int, Nanos]] = field(default_factory=dict)
    waiting_batches: dict[bytes, list[int]] = field(default_factory=dict)
    waiting_queries: list[tuple[int, AnswerQuery]] = field(default_factory=list)
    waiting_load: dict[Peer, tuple[int, int]] = field(default_factory=dict)
    waiting_operations: int = 0
    waiting_bytes: int = 0
    served: dict[Peer, tuple[int, int]] = field(default_factory=dict)
    transfer_rate: int = 0
    rotten: dict[bytes, tuple[Nanos, int]] = field(default_factory=dict)
    asked: dict[bytes, None] = field(default_factory=dict)
    repaired: int = 0
    last_transfer: dict[str, object] | None = None
    transferred: Counter[str] = field(default_factory=Counter)
    forgotten: str = ""
    accused: dict[tuple[int, str], int] = field(default_factory=dict)
    compared: dict[int, int] = field(default_factory=dict)
    signs_replies: bool = False
    timing: Timing = field(default_factory=Timing)
    timer_at: Nanos = 0
    out: list[Effect] = field(default_factory=list)

    # --- who and how many -----------------------------------------------------------------------------------------

    @property
    def primary(self) -> int:
        """The primary of the present view."""
        return self.quorums.primary(self.view)

    @property
    def is_primary(self) -> bool:
        """True if this replica orders now."""
        return self.active and self.quorums.primary(self.view) == self.me

    @property
    def serves(self) -> bool:
        """False from finding that the own state is wrong until the certified one is installed.

        What clients are told comes from that state: replies, kept replies, events and queries. Votes go on: PREPARE and
        COMMIT bind a digest to a slot and read the log alone, which the divergence has not touched; with f other faults
        the cluster would stop without them. CHECKPOINTs stop by themselves, since nothing executes meanwhile.
        """
        return self.divergence is None or self.divergence.repaired

    # --- time -----------------------------------------------------------------------------------------------------

    @property
    def request_timeout_ns(self) -> Nanos:
        """Patience with the primary of an active view."""
        return (self.protocol.request_timeout_ms * MILLISECOND) << self.timing.backoff

    @property
    def view_change_timeout_ns(self) -> Nanos:
        """Patience with the primary of a pending view."""
        return (self.protocol.view_change_timeout_ms * MILLISECOND) << self.timing.backoff

    @property
    def repeat_ns(self) -> Nanos:
        """Pause before a SUSPECT or VIEW-CHANGE is sent again; without back-off, so that all know it of each other."""
        return self.protocol.view_change_timeout_ms * MILLISECOND // 2

    @property
    def status_interval_ns(self) -> Nanos:
        """Pause between two STATUS messages while something is missing."""
        return self.protocol.status_interval_ms * MILLISECOND

    # --- execution ------------------------------------------------------------------------------------------------

    def take_header(self, header: Header) -> None:
        """Stand where a checkpoint stands; its pages are restored beside this."""
        self.executed = header.seq
        self.chain = header.chain
        self.time_ns = header.time_ns
        self.lease_ns = header.lease_ns

    # --- asking others --------------------------------------------------------------------------------------------

    def note_asked(self, digests: Iterable[bytes]) -> None:
        """Remember what others are asked for, up to a bound."""
        for digest in digests:
            self.asked.pop(digest, None)
            self.asked[digest] = None
        while len(self.asked) > ASKED_MAX:
            del self.asked[next(iter(self.asked))]

    # --- effects --------------------------------------------------------------------------------------------------

    def sign(self, message: ReplicaMessage) -> Signed:
        """Sign a message of ours; it must pass the validator that others hold it against."""
        payload = self._checked(message)
        return Signed(self.me, payload, self.signer.sign(payload))

    def sign_all(self, messages: Sequence[ReplicaMessage]) -> tuple[Signed, ...]:
        """Sign several messages; in one go where that spares waiting."""
        if not isinstance(self.signer, BatchSigner) or not messages:
            return tuple(map(self.sign, messages))
        payloads = list(map(self._checked, messages))
        signatures = self.signer.sign_many(payloads)
        return tuple(Signed(self.me, payload, made) for payload, made in zip(payloads, signatures, strict=True))

    def _checked(self, message: ReplicaMessage) -> bytes:
        found = flaw(message, self.me, self.rules)
        assert found is None, f"about to send a message that others must refuse ({found}): {message}"
        return encode(message)

    def persist(self, record: Record) -> None:
        """Nothing emitted after this leaves the machine before `record` is durable."""
        self.out.append(Persist(record))

    def persist_view(self) -> None:
        """Record the view, the mode and the exact messages behind them."""
        self.persist(ViewRecord(self.view, self.active, self.view_change, self.new_view))

    def set_timer(self, at: Nanos) -> None:
        """Ask to be woken then, whatever was asked for before."""
        self.timer_at = at
        self.out.append(SetTimer(at))

    def wake_before(self, at: Nanos) -> None:
        """Ask to be woken then, if that is not too late already."""
        if at < self.timer_at:
            self.set_timer(at)

    def send(self, to: Peer, packet: Packet) -> None:
        """Send to one peer."""
        self.out.append(Send(to, packet))

    def broadcast(self, packet: Packet) -> None:
        """Send to every other replica."""
        self.out.append(Broadcast(packet))

    def reject(self, peer: Peer, reason: str) -> None:
        """Count a peer's message as dropped."""
        self.out.append(Rejected(peer, reason))

    def accuse(self, accused: int, kind: str, first: Signed, second: Signed) -> None:
        """Report two signed messages that exclude each other, once per signer and kind in a view."""
        if not self.has_accused(accused, kind):
            self.accused[accused, kind] = self.view
            self.out.append(Evidence(accused, kind, first, second, links=tuple(self.links)))

    def has_accused(self, accused: int, kind: str) -> bool:
        """True if that was reported in the present view."""
        return self.accused.get((accused, kind)) == self.view

    def progress(self, what: str, seq: int = 0, detail: str = "") -> None:
        """Tell people and checkers of a transition."""
        self.out.append(Progress(what, self.view, seq, detail))
