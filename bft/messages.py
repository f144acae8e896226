"""What travels: signed messages, certificates, and the packets that carry them.

Everything is a frozen `msgspec.Struct`, encoded as a MessagePack array (`bft/wire/FORMAT.md`). Two layers:

- a *message* is what a replica or client signs; its encoded bytes are the `payload` and are kept beside the decoded
  value, since nothing here is ever signed or hashed from a re-encoding;
- a *packet* is what a frame carries: a signed message, a message with its unsigned attachment, a self-certifying
  certificate, or something that the authenticated channel alone vouches for.

The sender of a signed message is who signed it: no message has a second sender field. Every replica message carries
its epoch. Deviation: PREPAREs and COMMITs of one slot have equal payloads, so that a certificate is one payload and a
set of signatures ("endorsements"), ascending by replica; the signer's id is bound by the signature's prefix.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from bft.ids import DIGEST_BYTES, U63, DigestBytes, KeyBytes, ReplicaIndex, SignatureBytes

PAYLOAD_BYTES_MAX = 16 * 1024 * 1024
OPERATION_BYTES_MAX = 1024 * 1024
OPERATIONS_MAX = 4096
QUERY_OPERATIONS_MAX = 64
ENVELOPE_BYTES_MAX = 2 * 1024 * 1024
"""A REQUEST payload; one operation of the largest size fits."""
REPLICAS_BOUND = 100
EVENTS_MAX = 1024
"""Events kept per session for a client that missed some."""
HEADER_BYTES_MAX = 256 * 1024
"""A header is small unless a change of membership is pending, which names up to 100 members and who is ready."""
LINKS_MAX = 64
"""Links in one packet; who needs more asks again."""

Payload = Annotated[bytes, Meta(max_length=PAYLOAD_BYTES_MAX)]
Operation = Annotated[bytes, Meta(max_length=OPERATION_BYTES_MAX)]


class Message(msgspec.Struct, frozen=True, array_like=True, gc=False, forbid_unknown_fields=True):
    """Base of all that is signed or sent: a MessagePack array `[tag, field, ...]`."""


# --- signatures ---------------------------------------------------------------------------------------------------


class Signed(Message, frozen=True, tag=1):
    """A message signed by a replica.

    Attributes:
        sender: who signed.
        payload: the encoded message, the very bytes that were signed.
        signature: 64-byte Ed25519 signature over the domain prefix, the sender and the payload.
    """

    sender: ReplicaIndex
    payload: Payload
    signature: SignatureBytes


class SignedRequest(Message, frozen=True, tag=2):
    """A REQUEST envelope signed by a client; `client` is its public key."""

    client: KeyBytes
    payload: Payload
    signature: SignatureBytes


class Endorsement(Message, frozen=True):
    """One replica's signature under a payload that a certificate states once."""

    replica: ReplicaIndex
    signature: SignatureBytes


Endorsements = Annotated[tuple[Endorsement, ...], Meta(min_length=1, max_length=REPLICAS_BOUND)]


# --- messages signed by replicas ----------------------------------------------------------------------------------


class PrePrepare(Message, frozen=True, tag=10):
    """The primary's assignment of a batch to a sequence number [CL99 4.2]. `digest` names the batch, or null."""

    epoch: U63
    view: U63
    seq: U63
    digest: DigestBytes


class Prepare(Message, frozen=True, tag=11):
    """A backup's agreement to the assignment [CL99 4.2]; a primary never sends one."""

    epoch: U63
    view: U63
    seq: U63
    digest: DigestBytes


class Commit(Message, frozen=True, tag=12):
    """Sent when prepared [CL99 4.2]."""

    epoch: U63
    view: U63
    seq: U63
    digest: DigestBytes


class Checkpoint(Message, frozen=True, tag=13):
    """The sender's state after `seq` has this digest [CL99 4.3]."""

    epoch: U63
    seq: U63
    digest: DigestBytes


class Suspect(Message, frozen=True, tag=14):
    """A complaint about the primary of `view`, without leaving the view. weak many start a view change.

    Deviation from [CL99 4.4], where a backup leaves the view on its own timer: a single replica with a bad link does
    not drop out of the active set. Safe: suspicion only ever triggers the ordinary view change.
    """

    epoch: U63
    view: U63
    reason: Annotated[str, Meta(max_length=32)]


class PreparedCertificate(Message, frozen=True):
    """A PRE-PREPARE and `strong - 1` PREPAREs of distinct backups that match it [CL99 4.2, 4.4]."""

    pre_prepare: Signed
    prepares: Endorsements


class CommitCertificate(Message, frozen=True, tag=20):
    """`strong` COMMITs for one batch: transferable proof that it is committed at `seq`."""

    epoch: U63
    view: U63
    seq: U63
    digest: DigestBytes
    commits: Endorsements


class CheckpointCertificate(Message, frozen=True, tag=21):
    """`strong` CHECKPOINTs with equal digest: the checkpoint at `seq` is stable [CL99 4.3]."""

    epoch: U63
    seq: U63
    digest: DigestBytes
    checkpoints: Endorsements


class ViewChange(Message, frozen=True, tag=15):
    """The sender has left every view below `view` [CL99 4.4].

    Attributes:
        stable: the sender's last stable checkpoint's proof C, None only for the one from which the epoch begins.
        prepared: P, ascending by sequence number, at most one per slot: the certificate of the highest view.
    """

    epoch: U63
    view: U63
    stable: CheckpointCertificate | None
    prepared: Annotated[tuple[PreparedCertificate, ...], Meta(max_length=4096)]


class NewView(Message, frozen=True, tag=16):
    """The new primary's V (exactly `strong` VIEW-CHANGEs, ascending by sender) and O (PRE-PREPAREs) [CL99 4.4]."""

    epoch: U63
    view: U63
    view_changes: Annotated[tuple[Signed, ...], Meta(min_length=1, max_length=REPLICAS_BOUND)]
    pre_prepares: Annotated[tuple[Signed, ...], Meta(max_length=4096)]


class ReplyStatement(Message, frozen=True, tag=22):
    """What a replica signs about a reply, if the cluster has `signed_replies` (`bft.client.receipts`)."""

    epoch: U63
    client: KeyBytes
    session: U63
    seq: U63
    digest: DigestBytes


class PagesServed(Message, frozen=True, tag=23):
    """What a replica signs about state pages that it sends: digests asked for, and sent; they are equal, or it lies."""

    epoch: U63
    asked: Annotated[tuple[DigestBytes, ...], Meta(min_length=1, max_length=256)]
    served: Annotated[tuple[DigestBytes, ...], Meta(min_length=1, max_length=256)]


# --- messages signed by clients -----------------------------------------------------------------------------------


class Request(Message, frozen=True, tag=17):
    """An envelope of operations `number .. number + len(operations) - 1` of one session, under one signature.

    Attributes:
        session: the session's incarnation; a higher one of the same client key replaces a lower one.
        number: number of the first operation; a session counts from 1.
        acknowledged: the client has the final result of every operation below this number; 1 at first.
        operations: the service's own bytes.
        after: FIFO lanes; either empty (all operations are concurrent) or, per operation, the number of the
            operation that it must follow, 0 for none.
    """

    session: U63
    number: U63
    acknowledged: U63
    operations: Annotated[tuple[Operation, ...], Meta(min_length=1, max_length=OPERATIONS_MAX)]
    after: Annotated[tuple[U63, ...], Meta(max_length=OPERATIONS_MAX)]


# --- what a batch and a bundle are (attachments, bound by a digest) -----------------------------------------------


class Batch(Message, frozen=True, tag=30):
    """The content of a slot: the primary's clock and the envelopes, signatures included.

    The batch's digest covers all of it, so a primary cannot show valid client signatures to some backups and garbage
    to others under one digest. One without envelopes only fills its slot, on the way to an epoch's last.
    """

    time_ns: U63
    requests: Annotated[tuple[SignedRequest, ...], Meta(max_length=OPERATIONS_MAX)]


class Result(Message, frozen=True):
    """Outcome of one operation.

    Attributes:
        number: the operation's number in its session.
        index: its place among the operations executed in the slot; (seq, index) is its position, a fencing token.
        status: one of the `STATUS_*` values below.
        value: the service's result, or its declared error.
    """

    number: U63
    index: U63
    status: Annotated[int, Meta(ge=0, le=255)]
    value: bytes


STATUS_OK = 0
STATUS_ERROR = 1
"""The service answered with an error that it declares; `value` encodes (code, detail)."""
STATUS_FAILED = 2
"""The service raised something that it does not declare: a bug of the service, alike on every replica."""


class Event(Message, frozen=True):
    """Something a batch emitted for a session, numbered 1, 2, 3 ... in replicated state."""

    number: U63
    payload: bytes


class Bundle(Message, frozen=True, tag=31):
    """All that one slot has for one session: the results of its operations, and its events.

    Correct replicas produce identical bundles, so a client compares bytes (or their digest).
    """

    results: tuple[Result, ...]
    events: tuple[Event, ...]


# --- packets: what a frame carries --------------------------------------------------------------------------------


class Proposal(Message, frozen=True, tag=3):
    """A PRE-PREPARE with its batch attached; the batch is unsigned, its digest is signed."""

    signed: Signed
    batch: Payload


class Reply(Message, frozen=True, tag=4):
    """One replica's bundle for a session and slot; the channel vouches for the replica.

    Attributes:
        view: hint where the primary is; not part of the match.
        digest: digest of the bundle's bytes; replies match on (session, seq, digest).
        bundle: the bytes, or empty when another replica was due to send them.
    """

    session: U63
    seq: U63
    epoch: U63
    view: U63
    digest: DigestBytes
    bundle: Payload


class SignedReply(Message, frozen=True, tag=9):
    """A reply whose sender has signed its `ReplyStatement`, so that a client can show it to others."""

    reply: Reply
    signature: SignatureBytes


class Refusal(Message, frozen=True, tag=5):
    """A hint that a session's operations were not executed; believed only when `weak` replicas agree.

    Attributes:
        time_ns: the agreed time at the sender, so that a client with a wrong clock can name its next session.
    """

    session: U63
    number: U63
    reason: Annotated[str, Meta(max_length=32)]
    time_ns: U63 = 0


class Query(Message, frozen=True, tag=6):
    """Read-only operations that ask for answers without ordering [CL99 4.1].

    Attributes:
        nonce: the client's own name for this query.
        floor: answer only from a state at or after this sequence number.
        wait: True for the safe rule (answer only after executing every slot for which the replica had sent COMMIT
            when the query arrived); False for a weak, possibly stale read.
    """

    nonce: U63
    floor: U63
    wait: bool
    operations: Annotated[tuple[Operation, ...], Meta(min_length=1, max_length=QUERY_OPERATIONS_MAX)]


class ReadAnswer(Message, frozen=True):
    """Outcome of one read-only operation."""

    status: Annotated[int, Meta(ge=0, le=255)]
    value: Payload


class QueryReply(Message, frozen=True, tag=7):
    """Answers to a query from the state after `seq`; large ones come in several parts.

    Attributes:
        first: which of the query's operations the first of the answers is for, from 0.
    """

    nonce: U63
    seq: U63
    epoch: U63
    first: Annotated[int, Meta(ge=0, lt=QUERY_OPERATIONS_MAX)]
    answers: Annotated[tuple[ReadAnswer, ...], Meta(min_length=1, max_length=QUERY_OPERATIONS_MAX)]


class Status(Message, frozen=True, tag=8):
    """Where a replica stands; the receiver answers with what the sender lacks. Trusted for nothing else.

    Attributes:
        active: the sender takes part in `view`; False while it waits for a NEW-VIEW.
        stable: its low watermark h.
        executed: its last executed sequence number.
        view_changes: senders whose VIEW-CHANGE for `view` it holds, ascending.
        began: digest of the NEW-VIEW that `view` began with here, empty without one. Who holds another one shows it:
            so a primary that begins one view twice is found out.
    """

    epoch: U63
    view: U63
    active: bool
    stable: U63
    executed: U63
    view_changes: Annotated[tuple[ReplicaIndex, ...], Meta(max_length=REPLICAS_BOUND)]
    began: Annotated[bytes, Meta(max_length=DIGEST_BYTES)] = b""


class FetchBatch(Message, frozen=True, tag=40):
    """Ask for the batch with this digest."""

    digest: DigestBytes


class BatchBody(Message, frozen=True, tag=41):
    """A batch's bytes, proven by their digest."""

    batch: Payload


class FetchManifest(Message, frozen=True, tag=42):
    """Ask for the manifest of the checkpoint at `seq` with this state digest."""

    seq: U63
    digest: DigestBytes


class ManifestBody(Message, frozen=True, tag=43):
    """A checkpoint manifest's bytes, proven by the state digest."""

    manifest: Payload


class FetchPages(Message, frozen=True, tag=44):
    """Ask for state pages by digest."""

    digests: Annotated[tuple[DigestBytes, ...], Meta(min_length=1, max_length=256)]


class PageBodies(Message, frozen=True, tag=45):
    """State pages, each proven by its digest; `signed` is the sender's `PagesServed` about them if it is a member."""

    signed: Signed | None
    pages: Annotated[tuple[Payload, ...], Meta(min_length=1, max_length=256)]


class FetchEvents(Message, frozen=True, tag=46):
    """A client asks for the events of its session after number `after`."""

    session: U63
    after: U63


class EventBodies(Message, frozen=True, tag=47):
    """Events kept for a session; `first` is the number of the oldest one kept, so that an overflow shows as a gap."""

    session: U63
    first: U63
    events: Annotated[tuple[Event, ...], Meta(max_length=EVENTS_MAX)]


# --- checkpoints and epochs ----------------------------------------------------------------------------------------


class EpochLink(Message, frozen=True):
    """Proof of the next epoch's members: the last checkpoint of an epoch, certified by that epoch.

    Attributes:
        header: an encoded `bft.headers.Header` whose `pending` says who comes next.
    """

    header: Annotated[bytes, Meta(max_length=HEADER_BYTES_MAX)]
    certificate: CheckpointCertificate


class FetchEpochs(Message, frozen=True, tag=48):
    """Ask for the links from epoch `epoch` on; replicas and clients may."""

    epoch: U63


class EpochProof(Message, frozen=True, tag=49):
    """Consecutive links, each certified by the members that the one before it names."""

    links: Annotated[tuple[EpochLink, ...], Meta(min_length=1, max_length=LINKS_MAX)]


class Probe(Message, frozen=True, tag=50):
    """Ask a replica how it is (any connected client or replica may)."""

    nonce: U63


class ProbeReply(Message, frozen=True, tag=51):
    """A replica's own account of itself, as JSON; for people and tools, never for the protocol."""

    nonce: U63
    report: Annotated[bytes, Meta(max_length=1 << 16)]


ReplicaMessage = (
    PrePrepare | Prepare | Commit | Checkpoint | Suspect | ViewChange | NewView | ReplyStatement | PagesServed
)
Packet = (
    Signed
    | SignedRequest
    | Proposal
    | Reply
    | SignedReply
    | Refusal
    | Query
    | QueryReply
    | Status
    | CommitCertificate
    | CheckpointCertificate
    | FetchBatch
    | BatchBody
    | FetchManifest
    | ManifestBody
    | FetchPages
    | PageBodies
    | FetchEvents
    | EventBodies
    | FetchEpochs
    | EpochProof
    | Probe
    | ProbeReply
)
