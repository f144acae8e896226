"""Names of things: replicas, clients, digests, and the bounded types that messages are built from.

A replica is a number: its index in the cluster file for the first members (0 .. n - 1), a number never used before for
those that join later. A client is its 32-byte Ed25519 public key, so that a client's name needs no registry to be
checked against its signature.
"""

from __future__ import annotations

from typing import Annotated, NewType

from msgspec import Meta

ReplicaId = NewType("ReplicaId", int)
ClientId = NewType("ClientId", bytes)
Peer = int | bytes
"""A replica (by index) or a client (by public key), as the authenticated channel knows it."""
Nanos = int
"""Integer nanoseconds; a point in time when it comes from a driver, a span in configuration."""

DIGEST_BYTES = 32
SIGNATURE_BYTES = 64
KEY_BYTES = 32

U63 = Annotated[int, Meta(ge=0, le=2**63 - 1)]
REPLICA_ID_MAX = 65535
"""Numbers are not reused, so a cluster can replace a replica some 65 000 times."""
ReplicaIndex = Annotated[int, Meta(ge=0, le=REPLICA_ID_MAX)]
DigestBytes = Annotated[bytes, Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
SignatureBytes = Annotated[bytes, Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]
KeyBytes = Annotated[bytes, Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]


def peer_name(peer: Peer) -> str:
    """Name a peer for people: `r2` for a replica, the first eight hex digits for a client."""
    return f"r{peer}" if isinstance(peer, int) else f"c:{peer[:4].hex()}"


def printable(text: str) -> str:
    """Another's words for our log or terminal: they end no line there, and command nothing."""
    return "".join(char if char.isprintable() else "?" for char in text)
