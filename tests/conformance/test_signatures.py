"""One suite for every way to sign: what the protocol relies on, held against Ed25519 in this process, Ed25519 in a
signing agent, and the simulator's stand-in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bft.digests import payload_digest
from bft.messages import Prepare
from bft.sim.keys import Ed25519Vault, KeyVault, Vault
from bft.wire.codec import encode
from tests.unit.signing.rig import AgentVault

PAYLOAD = encode(Prepare(0, 0, 1, bytes(32)))
"""A vote: an agent signs nothing else."""


@pytest.fixture(params=[KeyVault, Ed25519Vault, AgentVault], ids=["stand-in", "ed25519", "agent"])
def vault(request) -> Iterator[Vault]:
    """A world's keys."""
    made = request.param(7)
    yield made
    if isinstance(made, AgentVault):
        made.close()


def test_signature_verifies_for_its_signer_and_payload(vault):
    """What a replica signed is accepted as its own."""
    signature = vault.replica_signer(1).sign(PAYLOAD)
    assert len(signature) == 64
    assert vault.verifier(4).verify_replica(1, PAYLOAD, signature)


def test_signing_is_deterministic(vault):
    """A restarted replica's votes are the very bytes of before."""
    assert vault.replica_signer(1).sign(PAYLOAD) == vault.replica_signer(1).sign(PAYLOAD)


@pytest.mark.parametrize("sender", [0, 2, 3, 4, 99])
def test_signature_is_nobody_elses(vault, sender):
    """Another replica, or none, did not sign it."""
    assert not vault.verifier(4).verify_replica(sender, PAYLOAD, vault.replica_signer(1).sign(PAYLOAD))


def test_signature_covers_every_byte(vault):
    """Neither payload nor signature can be changed."""
    signature = vault.replica_signer(1).sign(PAYLOAD)
    verifier = vault.verifier(4)
    assert not verifier.verify_replica(1, PAYLOAD + b"x", signature)
    for place in range(64):
        changed = bytearray(signature)
        changed[place] ^= 1
        assert not verifier.verify_replica(1, PAYLOAD, bytes(changed))


@pytest.mark.parametrize("length", [0, 1, 63, 65, 1000])
def test_signature_of_another_length_is_refused_quietly(vault, length):
    """Hostile input is refused, never raised."""
    assert not vault.verifier(4).verify_replica(1, PAYLOAD, bytes(length))


def test_client_signature_is_not_a_replicas(vault):
    """Roles are separated: a client's signature never passes for a replica's, nor the reverse."""
    client = vault.client_key(0)
    signature = vault.client_signer(client).sign(PAYLOAD)
    verifier = vault.verifier(4)
    assert verifier.verify_client(client, payload_digest(PAYLOAD), signature)
    assert not any(verifier.verify_replica(replica, PAYLOAD, signature) for replica in range(4))
    assert not verifier.verify_client(client, payload_digest(PAYLOAD), vault.replica_signer(0).sign(PAYLOAD))


def test_another_worlds_signature_is_refused(vault):
    """A signature of one cluster means nothing in another."""
    other = type(vault)(8)
    signature = other.replica_signer(1).sign(PAYLOAD)
    if isinstance(other, AgentVault):
        other.close()
    assert not vault.verifier(4).verify_replica(1, PAYLOAD, signature)
