"""The ports of the library: what the pure parts need from a world, with contracts.

Each has a real implementation, a fake for the simulator, and one conformance suite that both pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from bft.events import Effect, Input, Record, Recovered
from bft.ids import Nanos, Peer
from bft.messages import Message, Packet

if TYPE_CHECKING:
    from random import Random


class Node(Protocol):
    """One pure state machine per node: honest replica, corrupt replica, twins, puppet all look like this."""

    def step(self, event: Input, now: Nanos, /) -> Sequence[Effect]:
        """Take one input at time `now` (never decreasing) and return the effects, in order."""
        ...

    def wants(self, peer: Peer, packet: Packet, message: Message | None, /) -> bool:
        """Cheap filter before signatures are checked: False when the packet can no longer matter.

        `message` is the decoded, *unauthenticated* payload of a signed packet. Must not change state.
        """
        ...


class Signer(Protocol):
    """Signs for one identity. Deterministic: equal payloads give equal signatures."""

    def sign(self, payload: bytes, /) -> bytes:
        """64-byte signature over the identity's domain prefix and `payload`."""
        ...


@runtime_checkable
class BatchSigner(Signer, Protocol):
    """A signer to which several payloads cost little more than one, since it must be waited for."""

    def sign_many(self, payloads: Sequence[bytes], /) -> Sequence[bytes]:
        """Signatures in the order of the payloads."""
        ...


class Verifier(Protocol):
    """Checks signatures of anybody in the cluster."""

    def verify_replica(self, sender: int, payload: bytes, signature: bytes, /) -> bool:
        """True if replica `sender` signed `payload`. False for unknown senders; never raises on hostile input."""
        ...

    def verify_client(self, client: bytes, digest: bytes, signature: bytes, /) -> bool:
        """True if the holder of the 32-byte key `client` may use the cluster and signed what has this digest.

        The digest is `bft.digests.payload_digest`: envelopes are long, and the caller needs it too.
        """
        ...


class KeyVerifier(Protocol):
    """Checks signatures under a key that is given, of this cluster: for members of other epochs and administrators."""

    def verify_key(self, key: bytes, signer: Peer, payload: bytes, signature: bytes, /) -> bool:
        """True if the holder of the 32-byte `key` signed `payload` as `signer` (a replica's id, or its own key).

        Decides inside the replicated state machine: strict, and alike on every machine. Never raises on hostile input.
        """
        ...


class OutsideVerifier(Verifier, KeyVerifier, Protocol):
    """What a judge needs who knows the cluster file alone: clients' keys, and keys of replicas that are proven."""


class Store(Protocol):
    """Stable storage of one replica.

    `write` is atomic: after a crash either all of its records are there or none. Its durability is the store's level.
    An `Epoch` voids every view, accepted and prepared record before it; checkpoints and links are kept.
    Pages are content-addressed; those of the last two checkpoints written (and of one being fetched) are kept.
    """

    @property
    def store_id(self) -> str:
        """32 hex digits made when the store was: another one with the same key has forgotten what that key signed."""
        ...

    def load(self) -> Recovered:
        """Everything needed to go on where the last process stopped.

        Raises:
            StorageError: the content is corrupt; the replica must not vote with it.
        """
        ...

    def write(self, records: Sequence[Record], /) -> None:
        """Make all records durable, atomically and in order.

        Raises:
            StorageError: the disk refused; the caller must stop at once and never retry.
        """
        ...

    def read_pages(self, digests: Sequence[bytes], /) -> list[bytes]:
        """The pages among `digests` that are stored, in the order asked; absent and damaged ones are left out."""
        ...

    def kept_pages(self) -> list[bytes]:
        """Digests of all pages that the kept snapshots refer to, ascending.

        Raises:
            StorageError: a manifest is corrupt.
        """
        ...

    def damaged(self, digests: Sequence[bytes], /) -> list[bytes]:
        """Those among `digests` that the kept snapshots still refer to and whose stored bytes have another digest."""
        ...

    def read_manifest(self, digest: bytes, /) -> bytes | None:
        """The manifest with this state digest, if still kept."""
        ...

    def close(self) -> None:
        """Release files and locks."""
        ...


class StateMachine(Protocol):
    """A deterministic service on bytes. `bft.Service` builds one from typed methods."""

    def execute(self, operation: bytes, context: ExecutionContext, /) -> tuple[int, bytes]:
        """Apply one ordered operation; returns (status, value). Must depend on state, operation and context only."""
        ...

    def query(self, operation: bytes, /) -> tuple[int, bytes]:
        """Answer a read-only operation; must not change state."""
        ...

    def checkpoint(self) -> tuple[tuple[bytes, ...], dict[bytes, bytes]]:
        """Digests of all pages of the state, in order, and the bytes of pages not reported before (by digest).

        Cost is in proportion to what changed since the last call.
        """
        ...

    def restore(self, pages: Sequence[bytes], /) -> None:
        """Replace the whole state by these pages, in the order that `checkpoint` gave."""
        ...


@runtime_checkable
class Inspectable(StateMachine, Protocol):
    """A state machine that people can look into: typed services are, those on bytes need not be."""

    def observe(self) -> tuple[tuple[bytes, ...], dict[bytes, bytes]]:
        """What `checkpoint` would report, without any effect on what executes later."""
        ...

    def explain(self, ours: Sequence[bytes], theirs: Sequence[bytes], /) -> list[str]:
        """Where two states differ, given as their pages in order: lines for people."""
        ...


class ExecutionContext(Protocol):
    """What an operation may know beside state and arguments; equal on all correct replicas."""

    client: bytes
    """Public key of the client that signed the operation."""
    session: int
    number: int
    seq: int
    index: int
    """(seq, index) is the operation's position in the total order."""
    time_ns: int
    """Agreed time: strictly increasing, proposed by the primary within bounds."""
    lease_ns: int
    """Lease clock: advances with the agreed time but at most by a cap per batch."""

    @property
    def seed(self) -> bytes:
        """32 agreed random bytes of this operation (a primary can bias them: not for gambling)."""
        ...

    def emit(self, client: bytes, session: int, payload: bytes, /) -> None:
        """Send an event to a client's session, in that session's bundle of this slot."""
        ...

    def random(self) -> Random:
        """A generator seeded with `seed`: equal on all replicas that run the same minor version of Python."""
        ...
