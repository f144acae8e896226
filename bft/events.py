"""Inputs and effects of a node: the whole seam between the pure protocol and the world.

Effects take place in order, and `Persist` is a barrier: nothing after it may become visible outside the process until
the record is on stable storage. Persisting earlier or sending later is always allowed, so a driver steps many inputs,
writes all their records at once, then sends.

What is made once per message or operation is a msgspec Struct and no dataclass: making one costs a tenth.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from bft.ids import Nanos, Peer
from bft.messages import (
    CheckpointCertificate,
    CommitCertificate,
    EpochLink,
    Message,
    Packet,
    PreparedCertificate,
    Request,
    Signed,
)

if TYPE_CHECKING:
    from bft.epochs import Configuration

# --- records on stable storage ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Accepted:
    """A PRE-PREPARE that this replica sent or voted for, with the batch's bytes (empty for the null batch)."""

    seq: int
    view: int
    pre_prepare: Signed
    batch: bytes


@dataclass(frozen=True, slots=True)
class Prepared:
    """The slot's prepared certificate of the highest view."""

    seq: int
    certificate: PreparedCertificate


@dataclass(frozen=True, slots=True)
class ViewRecord:
    """Which view this replica is in, and the exact signed messages that brought it there.

    Attributes:
        view_change: the VIEW-CHANGE sent for `view`; None in view 0 and after entering by a NEW-VIEW alone.
        new_view: the NEW-VIEW accepted or sent for `view`; None while changing, and in view 0.
    """

    view: int
    active: bool
    view_change: Signed | None
    new_view: Signed | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A checkpoint of this replica's state.

    Attributes:
        digest: the state digest, that of the manifest's bytes.
        pages: bytes of the pages that the store may not have yet, by digest.
        vote: the replica's own signed CHECKPOINT; None when the state was fetched from others.
    """

    seq: int
    digest: bytes
    manifest: bytes
    pages: dict[bytes, bytes]
    vote: Signed | None


@dataclass(frozen=True, slots=True)
class Stable:
    """A stable checkpoint: slots at or below `seq` and older snapshots may be dropped."""

    seq: int
    certificate: CheckpointCertificate


@dataclass(frozen=True, slots=True)
class Pages:
    """Pages fetched so far for a state transfer, kept so that a restart resumes it."""

    pages: dict[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Epoch:
    """An epoch has ended: the replica is in the next one. Views, votes and proposals of the old one are void."""

    link: EpochLink


@dataclass(frozen=True, slots=True)
class Forgotten:
    """This replica has seen a vote of its own that its store does not know: it must never vote again.

    Attributes:
        what: which vote, for people.
    """

    what: str


@dataclass(frozen=True, slots=True)
class Doubted:
    """The own state is not the certified one: snapshots from `seq` on are void until a certified state replaces them.

    Attributes:
        executed: the highest slot whose results came from that state.
    """

    seq: int
    executed: int


Record = Accepted | Prepared | ViewRecord | Snapshot | Stable | Pages | Epoch | Forgotten | Doubted


@dataclass(slots=True)
class Recovered:
    """What `Store.load` found; empty for a new replica.

    Attributes:
        snapshot: the newest snapshot at or below which a stable certificate or an own vote exists, and which is not
            in doubt.
        pages: all pages of `snapshot`, by digest.
        votes: own signed CHECKPOINTs above the stable one, ascending by sequence number.
        epochs: the links from genesis to the present epoch, in order.
        taken: seq -> digest of the own state at the snapshots that are not in doubt.
        doubted: the highest slot that was ever executed on a state found to be wrong.
    """

    view: ViewRecord | None = None
    stable: CheckpointCertificate | None = None
    snapshot: Snapshot | None = None
    votes: list[Signed] = field(default_factory=list)
    accepted: list[Accepted] = field(default_factory=list)
    prepared: list[Prepared] = field(default_factory=list)
    epochs: list[EpochLink] = field(default_factory=list)
    taken: dict[int, bytes] = field(default_factory=dict)
    doubted: int = 0


# --- inputs -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    """First input of every node's life."""


class OpenedBatch(msgspec.Struct, frozen=True):
    """A batch whose content has been checked: client signatures, static validity, no envelope twice.

    Attributes:
        digest: 32-byte digest of `body`.
        body: the encoded `Batch`.
        requests: (client, envelope) in order.
    """

    digest: bytes
    body: bytes
    time_ns: int
    requests: tuple[tuple[bytes, Request], ...]


class Deliver(msgspec.Struct, frozen=True):
    """A packet whose signatures have been verified, nested ones included.

    Attributes:
        peer: who sent it over the authenticated channel (not necessarily who signed it).
        message: the decoded payload of a `Signed`, `SignedRequest` or `Proposal`; None for other packets.
        batch: the opened attachment of a `Proposal` or `BatchBody`.
    """

    peer: Peer
    packet: Packet
    message: Message | None = None
    batch: OpenedBatch | None = None


@dataclass(frozen=True, slots=True)
class Tick:
    """The timer that the node set has fired."""


class OperationCall(msgspec.Struct, frozen=True):
    """One operation that the exactly-once table lets through."""

    client: bytes
    session: int
    number: int
    index: int
    operation: bytes


class Executed(msgspec.Struct, frozen=True):
    """The service has executed a slot.

    Attributes:
        results: (status, value) per operation of the `Execute`, in order.
        events: (client, session, payload) in order of emission.
        pages: digests of the service's pages; None unless a checkpoint was asked for.
        fresh: bytes of pages that changed since the last checkpoint, by digest.
    """

    seq: int
    results: list[tuple[int, bytes]]
    events: list[tuple[bytes, int, bytes]]
    pages: tuple[bytes, ...] | None = None
    fresh: dict[bytes, bytes] = msgspec.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class QueryAnswered:
    """The service has answered read-only operations.

    Attributes:
        answers: (status, value) of each, in order; of the first ones only, where they are large.
        is_all: True if none was left out.
    """

    client: Peer
    nonce: int
    seq: int
    answers: list[tuple[int, bytes]]
    is_all: bool = True


@dataclass(frozen=True, slots=True)
class PagesLoaded:
    """Which of the pages asked for by `LoadPages` the store already has, by digest."""

    pages: dict[bytes, bytes]


@dataclass(frozen=True, slots=True)
class StateExplained:
    """Answer to `ExplainState`: lines for people, none if the own pages are gone."""

    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PagesRotten:
    """The scrub has found stored pages whose bytes have changed: they are fetched again from the others.

    Attributes:
        digests: of the damaged pages.
        unused: reported as damaged before, and no kept snapshot refers to them any more.
    """

    digests: tuple[bytes, ...]
    unused: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class PagesRead:
    """Pages that `SendPages` asked for, as far as they fit into one packet: to be sent, and answered for.

    Attributes:
        digests: of the pages, as asked for; each page hashes to its own.
    """

    to: Peer
    digests: tuple[bytes, ...]
    pages: tuple[bytes, ...]


Input = Start | Deliver | Tick | Executed | QueryAnswered | PagesLoaded | StateExplained | PagesRotten | PagesRead

# --- effects ------------------------------------------------------------------------------------------------------


class Persist(msgspec.Struct, frozen=True):
    """Make `record` durable before any later effect becomes visible outside."""

    record: Record


class Send(msgspec.Struct, frozen=True):
    """Send to one peer; may be lost."""

    to: Peer
    packet: Packet


class Broadcast(msgspec.Struct, frozen=True):
    """Send to every other replica; may be lost."""

    packet: Packet


class SetTimer(msgspec.Struct, frozen=True):
    """Deliver a `Tick` at `at_ns`; replaces the timer set before (a node has one)."""

    at_ns: Nanos


class Execute(msgspec.Struct, frozen=True):
    """Execute a committed slot; answered by `Executed` before the next `Execute` is given.

    Attributes:
        calls: operations in order; empty for the null batch or when all were duplicates.
        checkpoint: also report the pages of the state after this slot.
    """

    seq: int
    time_ns: int
    lease_ns: int
    seed: bytes
    calls: list[OperationCall]
    checkpoint: bool


@dataclass(frozen=True, slots=True)
class AnswerQuery:
    """Answer read-only operations from the service's present state; answered by `QueryAnswered`."""

    client: Peer
    nonce: int
    seq: int
    operations: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class InstallState:
    """Replace the service's state by these pages (verified, in order)."""

    seq: int
    pages: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class LoadPages:
    """Look up pages in the store; answered by `PagesLoaded`."""

    digests: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ExplainState:
    """Say where the stored state with digest `ours` differs from a certified one; answered by `StateExplained`.

    Attributes:
        manifest: the certified state's.
        pages: its service pages in order; empty while they are not here.
    """

    ours: bytes
    manifest: bytes
    pages: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class SendPages:
    """Send to `to` those of the pages that the store has."""

    to: Peer
    digests: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class SendManifest:
    """Send to `to` the manifest with this state digest, if the store has it."""

    to: Peer
    digest: bytes


@dataclass(frozen=True, slots=True)
class Rejected:
    """A peer's message was dropped, and why (a short fixed word: it becomes a metric's label).

    Attributes:
        evidence: what the message proves against its signer, who need not be the peer.
    """

    peer: Peer
    reason: str
    evidence: Evidence | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """Signed statements that no correct replica can have made (`bft.core.evidence`).

    Attributes:
        kind: one of the kinds of `bft.core.evidence`.
        first, second: two messages of the accused that exclude each other; without a second, the first convicts alone.
        attachment: unsigned bytes that `first` names by their digest: the batch of a PRE-PREPARE.
        witnesses: statements of others that it rests on.
        links: the way from genesis to the epoch in which they were signed, whose members, keys and rules judge them.
    """

    accused: int
    kind: str
    first: Signed
    second: Signed | None = None
    attachment: bytes = b""
    witnesses: tuple[Signed, ...] = ()
    links: tuple[EpochLink, ...] = ()


@dataclass(frozen=True, slots=True)
class ViewEntered:
    """A view was entered by this NEW-VIEW, for the archive that explains a fork (`bft.core.forensics`)."""

    new_view: Signed


class Committed(msgspec.Struct, frozen=True):
    """A slot is committed; `certificate` is its transferable proof."""

    certificate: CommitCertificate


@dataclass(frozen=True, slots=True)
class Progress:
    """Something for people and checkers: a transition of the protocol.

    Attributes:
        what: short fixed word (`view-change`, `new-view`, `stable`, `transfer`, `diverged`, `differs`, `split`,
            `suspect`, ...).
        detail: values of interest, as text.
    """

    what: str
    view: int
    seq: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class EpochEntered:
    """The node is in another epoch: from here on `Broadcast` means its members, and its rules and keys admit.

    Stands in the order of effects: what was sent before is of the epoch before.

    Attributes:
        links: the way from genesis to it.
    """

    configuration: Configuration
    links: tuple[EpochLink, ...]


@dataclass(frozen=True, slots=True)
class Retired:
    """The node was removed from the cluster and is needed no longer: stop, and say why."""

    reason: str


Report = Rejected | Evidence | ViewEntered | Committed | Progress
Effect = (
    Persist
    | Send
    | Broadcast
    | SetTimer
    | Execute
    | AnswerQuery
    | InstallState
    | LoadPages
    | ExplainState
    | SendPages
    | SendManifest
    | Rejected
    | Evidence
    | ViewEntered
    | Committed
    | Progress
    | EpochEntered
    | Retired
)
