"""Checkpoint headers, and the change of membership that one may hold [CL99 4.3; the change is our own].

A header is what CHECKPOINTs certify: small, whatever the size of the state. None of this is a packet: headers travel
inside manifests and links, changes as operations of a client.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from bft.ids import U63, DigestBytes, KeyBytes, ReplicaIndex, SignatureBytes
from bft.messages import HEADER_BYTES_MAX, REPLICAS_BOUND, Message, Signed

PAGES_MAX = 1 << 20

ADMINS_BOUND = 32
CHANGE_BYTES_MAX = 64 * 1024


class Member(Message, frozen=True):
    """A replica of an epoch: its name, which is never given to another, its public key, and where it listens."""

    id: ReplicaIndex
    key: KeyBytes
    host: Annotated[str, Meta(min_length=1, max_length=255)]
    port: Annotated[int, Meta(ge=1, le=65535)]


Members = Annotated[tuple[Member, ...], Meta(max_length=REPLICAS_BOUND)]


class MembershipChange(Message, frozen=True, tag=18):
    """What administrators sign: who the members of the epoch after `epoch` are, ascending by id."""

    epoch: U63
    members: Members


class Ready(Message, frozen=True, tag=19):
    """A newcomer's word that it holds the stable state at `seq`, signed with the key that it will vote with.

    Without it, members that are not there could make every quorum unreachable. A member that changes its key signs it
    with both keys.
    """

    epoch: U63
    seq: U63
    key: KeyBytes


class Approval(Message, frozen=True):
    """An administrator's signature under a `MembershipChange`."""

    key: KeyBytes
    signature: SignatureBytes


class Reconfigure(Message, frozen=True, tag=34):
    """The system operation that changes the membership; an ordinary client submits it.

    Attributes:
        change: an encoded `MembershipChange`, the very bytes that were signed.
        approvals: ascending by key, each an administrator's.
        ready: encoded `Ready`s signed by newcomers (and twice by who changes its key: old key first), ascending by id.
    """

    change: Annotated[bytes, Meta(max_length=CHANGE_BYTES_MAX)]
    approvals: Annotated[tuple[Approval, ...], Meta(max_length=ADMINS_BOUND)]
    ready: Annotated[tuple[Signed, ...], Meta(max_length=2 * REPLICAS_BOUND)]


class Pending(Message, frozen=True):
    """A change of membership that has been ordered: the slot `activation` is the last of the present epoch."""

    activation: U63
    operation: Reconfigure


class Header(Message, frozen=True, tag=33):
    """A checkpoint in small: everything that influences later execution, pages by one digest.

    The digest of its encoding is the state digest, the one that CHECKPOINTs carry; so a certificate and a header prove
    a change of membership without the state.

    Attributes:
        seq: the slot after which the state was taken.
        chain: hash chain over the executed batches.
        time_ns: the agreed time.
        lease_ns: the lease clock.
        pages: digest of the manifest's two lists.
        members: digest of the epoch's members.
        pending: the change of membership that ends this epoch, if one was ordered.
    """

    epoch: U63
    seq: U63
    chain: DigestBytes
    time_ns: U63
    lease_ns: U63
    pages: DigestBytes
    members: DigestBytes
    pending: Pending | None


class Manifest(Message, frozen=True, tag=32):
    """A checkpoint: its encoded header, and the pages that the header commits to.

    Attributes:
        service: digests of the service's pages, in order.
        sessions: digests of the session pages, ascending by client.
    """

    header: Annotated[bytes, Meta(max_length=HEADER_BYTES_MAX)]
    service: Annotated[tuple[DigestBytes, ...], Meta(max_length=PAGES_MAX)]
    sessions: Annotated[tuple[DigestBytes, ...], Meta(max_length=PAGES_MAX)]
