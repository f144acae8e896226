"""Digests: BLAKE2b-256, personalised per kind of thing so that one kind's digest is never another's."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

NULL_DIGEST = blake2b(b"", digest_size=32, person=b"bft null").digest()
"""Digest of the null batch: no batch can have it, since batches hash under another personalisation."""
EMPTY_CHAIN = blake2b(b"", digest_size=32, person=b"bft chain").digest()


def payload_digest(payload: bytes) -> bytes:
    """32-byte digest of a signed payload: what the signature covers, in the payload's place."""
    return blake2b(payload, digest_size=32, person=b"bft payload").digest()


def batch_digest(batch: bytes) -> bytes:
    """32-byte digest of an encoded batch."""
    return blake2b(batch, digest_size=32, person=b"bft batch").digest()


def bundle_digest(bundle: bytes) -> bytes:
    """32-byte digest of an encoded reply bundle."""
    return blake2b(bundle, digest_size=32, person=b"bft bundle").digest()


def page_digest(page: bytes) -> bytes:
    """32-byte digest of a state page."""
    return blake2b(page, digest_size=32, person=b"bft page").digest()


def pages_digest(service: Sequence[bytes], sessions: Sequence[bytes]) -> bytes:
    """32-byte digest of a checkpoint's two lists of page digests."""
    listed = b"".join((len(service).to_bytes(8, "big"), *service, *sessions))
    return blake2b(listed, digest_size=32, person=b"bft pages").digest()


def state_digest(header: bytes) -> bytes:
    """32-byte digest of an encoded checkpoint header: the digest that CHECKPOINTs carry."""
    return blake2b(header, digest_size=32, person=b"bft state").digest()


def members_digest(members: bytes) -> bytes:
    """32-byte digest of an epoch and its members' ids and keys."""
    return blake2b(members, digest_size=32, person=b"bft members").digest()


def new_view_digest(new_view: bytes) -> bytes:
    """32-byte digest of an encoded NEW-VIEW, by which replicas compare how a view began."""
    return blake2b(new_view, digest_size=32, person=b"bft new view").digest()


def chain_digest(previous: bytes, seq: int, batch: bytes) -> bytes:
    """Extend the execution chain by the batch with digest `batch` at `seq`."""
    return blake2b(previous + seq.to_bytes(8, "big") + batch, digest_size=32, person=b"bft chain").digest()


def seed_digest(chain: bytes, batch: bytes) -> bytes:
    """Agreed random seed of a slot, from the chain before it and its batch."""
    return blake2b(chain + batch, digest_size=32, person=b"bft seed").digest()


def operation_seed(seed: bytes, index: int) -> bytes:
    """Agreed random bytes of the slot's operation at `index`."""
    return blake2b(seed + index.to_bytes(8, "big"), digest_size=32, person=b"bft op seed").digest()


def witness_dice(key: bytes, count: int) -> int:
    """A number that only the holder of the 64-byte key can foresee."""
    hashed = blake2b(count.to_bytes(8, "big"), key=key, digest_size=8, person=b"bft witness")
    return int.from_bytes(hashed.digest(), "big")


def first_nonce(session: int) -> int:
    """What a session numbers its queries from: 62 bits, far from those of any other session."""
    hashed = blake2b(session.to_bytes(8, "big"), digest_size=8, person=b"bft nonce")
    return int.from_bytes(hashed.digest(), "big") >> 2


def config_digest(config: bytes) -> bytes:
    """32-byte fingerprint of a cluster's genesis configuration: the cluster id."""
    return blake2b(config, digest_size=32, person=b"bft config").digest()


def signature_digest(signed: bytes) -> bytes:
    """Memo key of a verified signature: 32 bytes over everything that went into it."""
    return blake2b(signed, digest_size=32, person=b"bft signature").digest()
