"""Signatures hold for one payload, signer and cluster, and hostile input is False, never an exception."""

from __future__ import annotations

from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl import bindings

from bft.crypto.keys import KeyPair
from bft.crypto.signatures import (
    CLIENT_PREFIXES_MAX,
    MESSAGE_DOMAIN,
    Ed25519Signer,
    Ed25519Verifier,
    domain_prefix,
    is_valid_key,
)
from bft.digests import payload_digest
from bft.ids import ClientId, ReplicaId

CLUSTER, OTHER = b"c" * 32, b"d" * 32
KEYS = [KeyPair.of_seed(bytes([index]) * 32) for index in range(4)]
ALICE = KeyPair.of_seed(b"alice" + bytes(27))
GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493
VERIFIER = Ed25519Verifier(CLUSTER, [keys.public for keys in KEYS], None)


def replica_signer(index: int, cluster: bytes = CLUSTER) -> Ed25519Signer:
    return Ed25519Signer(cluster, ReplicaId(index), KEYS[index].seed)


def client_signer() -> Ed25519Signer:
    return Ed25519Signer(CLUSTER, ClientId(ALICE.public), ALICE.seed)


def test_signature_of_replica_and_client_verify() -> None:
    """What a key signs, its holder's name verifies."""
    assert VERIFIER.verify_replica(2, b"payload", replica_signer(2).sign(b"payload"))
    assert VERIFIER.verify_client(ALICE.public, payload_digest(b"payload"), client_signer().sign(b"payload"))


def test_signing_is_deterministic() -> None:
    """Equal payloads give equal signatures."""
    assert replica_signer(1).sign(b"x") == replica_signer(1).sign(b"x")


def test_prefix_names_library_cluster_role_and_signer() -> None:
    """The signed prefix is part of the format."""
    assert domain_prefix(CLUSTER, ReplicaId(3)) == b"bft/1\0" + CLUSTER + b"R\0\0\0\3"
    assert domain_prefix(CLUSTER, ClientId(ALICE.public)) == MESSAGE_DOMAIN + CLUSTER + b"C" + ALICE.public


def test_signed_bytes_are_the_prefix_and_the_payloads_digest() -> None:
    """The format, with libsodium alone: no later change of ours may alter it unseen [FORMAT.md]."""
    signature = replica_signer(2).sign(b"payload")
    digest = blake2b(b"payload", digest_size=32, person=b"bft payload").digest()
    assert bindings.crypto_sign_open(signature + b"bft/1\0" + CLUSTER + b"R\0\0\0\2" + digest, KEYS[2].public)


def test_signature_is_bound_to_payload_signer_and_cluster() -> None:
    """A signature is good for nothing else."""
    signature = replica_signer(1).sign(b"payload")
    assert not VERIFIER.verify_replica(1, b"payloae", signature)
    assert not VERIFIER.verify_replica(2, b"payload", signature)
    assert not VERIFIER.verify_client(KEYS[1].public, payload_digest(b"payload"), signature)
    assert not VERIFIER.verify_replica(1, b"payload", replica_signer(1, OTHER).sign(b"payload"))


def test_signature_with_scalar_beyond_the_group_order_is_refused() -> None:
    """S + L is another spelling of the same signature; only one is accepted."""
    signature = replica_signer(1).sign(b"payload")
    other = int.from_bytes(signature[32:], "little") + GROUP_ORDER
    assert not VERIFIER.verify_replica(1, b"payload", signature[:32] + other.to_bytes(32, "little"))


@pytest.mark.parametrize("key", [bytes(32), b"\1" + bytes(31), b"\xff" * 32, b"short", b"", bytes(33)])
def test_weak_key_signs_for_nobody(key: bytes) -> None:
    """Points of small order verify forged signatures under careless libraries; here they are no keys."""
    assert not is_valid_key(key)
    verifier = Ed25519Verifier(CLUSTER, [key], None)
    assert verifier.replica_key(0) is None
    assert not verifier.verify_replica(0, b"payload", bytes(64))
    assert not verifier.verify_client(key, payload_digest(b"payload"), b"\1" + bytes(63))


@given(st.integers(-5, 300), st.binary(max_size=40), st.binary(max_size=200), st.binary(max_size=70))
def test_verifier_never_raises(sender: int, client: bytes, payload: bytes, signature: bytes) -> None:
    """Whatever a peer sends is True or False."""
    assert not VERIFIER.verify_replica(sender, payload, signature)
    assert not VERIFIER.verify_client(client, payload_digest(payload), signature)


def test_known_clients_only_when_enrolment_is_closed() -> None:
    """A client outside the cluster file does not verify, however well it signs."""
    closed = Ed25519Verifier(CLUSTER, [], frozenset([KEYS[0].public]))
    assert not closed.may_use(ALICE.public)
    assert not closed.verify_client(ALICE.public, payload_digest(b"x"), client_signer().sign(b"x"))
    assert closed.may_use(KEYS[0].public)


def test_cache_of_client_keys_is_bounded() -> None:
    """Open enrolment does not grow memory with every key ever seen."""
    verifier = Ed25519Verifier(CLUSTER, [], None)
    for index in range(CLIENT_PREFIXES_MAX + 10):
        verifier._clients[index.to_bytes(32, "big")] = b""
    assert verifier.may_use(ALICE.public)
    verifier._clients.popitem(last=False)
    before = len(verifier._clients)
    assert verifier.may_use(KEYS[0].public)
    assert len(verifier._clients) <= before + 1


def test_client_keys_that_were_used_longest_ago_leave_the_cache() -> None:
    """Else strangers' keys, or whoever came first, would have everybody else's checked again and again."""
    verifier = Ed25519Verifier(CLUSTER, [], None)
    assert verifier.may_use(ALICE.public) and verifier.may_use(KEYS[0].public)
    for index in range(CLIENT_PREFIXES_MAX - 2):
        verifier._clients[index.to_bytes(32, "big")] = b"prefix"
    assert verifier.may_use(ALICE.public), "used again"
    assert verifier.may_use(KEYS[1].public)
    assert len(verifier._clients) == CLIENT_PREFIXES_MAX
    assert KEYS[0].public not in verifier._clients
    assert {ALICE.public, KEYS[1].public} <= set(verifier._clients)


def test_key_that_is_given_verifies_what_its_holder_signed_under_that_name() -> None:
    """Administrators and members of other epochs are checked so: as strictly, and in this cluster alone."""
    verifier = Ed25519Verifier(CLUSTER, [], frozenset())
    signature = replica_signer(1).sign(b"payload")
    assert verifier.verify_key(KEYS[1].public, ReplicaId(1), b"payload", signature)
    assert verifier.verify_key(ALICE.public, ClientId(ALICE.public), b"payload", client_signer().sign(b"payload"))
    assert not verifier.verify_key(KEYS[1].public, ReplicaId(1), b"payloae", signature)
    assert not verifier.verify_key(KEYS[1].public, ReplicaId(2), b"payload", signature)
    assert not verifier.verify_key(KEYS[2].public, ReplicaId(1), b"payload", signature)
    assert not verifier.verify_key(KEYS[1].public, ClientId(KEYS[1].public), b"payload", signature)
    other = replica_signer(1, OTHER).sign(b"payload")
    assert not verifier.verify_key(KEYS[1].public, ReplicaId(1), b"payload", other)
    for bad in (b"", signature[:-1], signature + b"x"):
        assert not verifier.verify_key(KEYS[1].public, ReplicaId(1), b"payload", bad)
    for key in (bytes(32), b"\1" + bytes(31), b"short", b""):
        assert not verifier.verify_key(key, ReplicaId(1), b"payload", b"\1" + bytes(63))
