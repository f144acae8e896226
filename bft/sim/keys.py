"""The keys of a simulated world: fast unforgeable stand-ins, or real Ed25519, behind the same ports.

A stand-in's signature is a keyed hash under a secret that only the world holds; whoever was handed the `Signer` of an
identity can sign for it, nobody else can. With Ed25519 a key is a capability by mathematics, here by construction.
Both pass `tests/conformance/test_signatures.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Protocol

from bft.crypto.keys import KeyPair
from bft.crypto.signatures import Ed25519Signer, Ed25519Verifier
from bft.digests import payload_digest
from bft.ids import ClientId, Peer, ReplicaId
from bft.ports import OutsideVerifier, Signer

ROLE_REPLICA = b"R"
ROLE_CLIENT = b"C"


class Vault(Protocol):
    """Hands out the identities of one simulated world."""

    def replica_key(self, replica: int, generation: int = 0) -> bytes:
        """32-byte public key of a replica; a replica that changes its key goes on to the next generation."""
        ...

    def client_key(self, index: int) -> bytes:
        """32-byte public key of the `index`-th client."""
        ...

    def replica_signer(self, replica: int, generation: int = 0) -> Signer:
        """The capability to sign as a replica."""
        ...

    def client_signer(self, client: bytes) -> Signer:
        """The capability to sign as a client."""
        ...

    def verifier(self, keys: int | Mapping[int, bytes]) -> OutsideVerifier:
        """Checks anybody's signatures in a cluster of that many replicas, or of these replicas' keys."""
        ...

    def verify_key(self, key: bytes, signer: Peer, payload: bytes, signature: bytes, /) -> bool:
        """See `bft.ports.KeyVerifier`."""
        ...


class Ed25519Vault:
    """Real keys, derived from the world's seed: slower by two orders of magnitude, and just what production uses."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._clients: dict[bytes, KeyPair] = {}
        self._cluster_id = blake2b(str(seed).encode(), digest_size=32, person=b"bft sim cluster").digest()

    def replica_key(self, replica: int, generation: int = 0) -> bytes:
        """See `Vault`."""
        return self._keys(_replica_name(replica, generation)).public

    def client_key(self, index: int) -> bytes:
        """See `Vault`."""
        keys = self._keys(f"client {index}")
        self._clients[keys.public] = keys
        return keys.public

    def replica_signer(self, replica: int, generation: int = 0) -> Signer:
        """See `Vault`."""
        seed = self._keys(_replica_name(replica, generation)).seed
        return Ed25519Signer(self._cluster_id, ReplicaId(replica), seed)

    def client_signer(self, client: bytes) -> Signer:
        """See `Vault`; the client must have been named by `client_key` before."""
        return Ed25519Signer(self._cluster_id, ClientId(client), self._clients[client].seed)

    def verifier(self, keys: int | Mapping[int, bytes]) -> OutsideVerifier:
        """See `Vault`."""
        return Ed25519Verifier(self._cluster_id, _by_id(self, keys), None)

    def verify_key(self, key: bytes, signer: Peer, payload: bytes, signature: bytes, /) -> bool:
        """See `bft.ports.KeyVerifier`."""
        return Ed25519Verifier(self._cluster_id, (), None).verify_key(key, signer, payload, signature)

    def _keys(self, name: str) -> KeyPair:
        return KeyPair.of_seed(
            blake2b(f"{self._seed}/{name}".encode(), digest_size=32, person=b"bft sim ed25519").digest()
        )


def _replica_name(replica: int, generation: int) -> str:
    return f"replica {replica}" if not generation else f"replica {replica}.{generation}"


def _by_id(vault: Vault, keys: int | Mapping[int, bytes]) -> Mapping[int, bytes]:
    if isinstance(keys, int):
        return {replica: vault.replica_key(replica) for replica in range(keys)}
    return keys


class KeyVault:
    """Holds the secrets of every identity in one simulated world: a function of role, name and public key."""

    def __init__(self, seed: int) -> None:
        self._secret = blake2b(str(seed).encode(), digest_size=32, person=b"bft sim vault").digest()

    def replica_key(self, replica: int, generation: int = 0) -> bytes:
        """A label in the place of a public key."""
        return blake2b(_replica_name(replica, generation).encode(), digest_size=32).digest()

    def client_key(self, index: int) -> bytes:
        """A label in the place of a public key."""
        return blake2b(b"client %d" % index, digest_size=32).digest()

    def replica_signer(self, replica: int, generation: int = 0) -> StandInSigner:
        """The capability to sign as a replica."""
        return self.signer(self.replica_key(replica, generation), replica)

    def client_signer(self, client: bytes) -> StandInSigner:
        """The capability to sign as a client."""
        return StandInSigner(self._identity_key(ROLE_CLIENT + client))

    def signer(self, key: bytes, signer: Peer) -> StandInSigner:
        """The capability of whoever holds `key` to sign as `signer`."""
        if isinstance(signer, int):
            return StandInSigner(self._identity_key(ROLE_REPLICA + signer.to_bytes(4, "big") + key))
        return StandInSigner(self._identity_key(ROLE_CLIENT + key))

    def verifier(self, keys: int | Mapping[int, bytes]) -> StandInVerifier:
        """Checks anybody's signatures in a cluster of that many replicas, or of these replicas' keys."""
        replicas = {replica: self.signer(key, replica) for replica, key in _by_id(self, keys).items()}
        return StandInVerifier(replicas, self)

    def verify_key(self, key: bytes, signer: Peer, payload: bytes, signature: bytes, /) -> bool:
        """See `bft.ports.KeyVerifier`."""
        return self.signer(key, signer).sign(payload) == signature

    def _identity_key(self, identity: bytes) -> bytes:
        return blake2b(identity, key=self._secret, digest_size=32, person=b"bft sim key").digest()


class StandInSigner:
    """Signs for one identity; deterministic."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = key

    def sign(self, payload: bytes, /) -> bytes:
        """64-byte keyed hash of the payload's digest."""
        return self.sign_digest(payload_digest(payload))

    def sign_digest(self, digest: bytes) -> bytes:
        """What `sign` gives for a payload of this digest."""
        return blake2b(digest, key=self._key, digest_size=64, person=b"bft sim sig").digest()


class StandInVerifier:
    """Verifies by recomputing."""

    def __init__(self, replicas: dict[int, StandInSigner], vault: KeyVault) -> None:
        self._replicas = replicas
        self._vault = vault
        self._clients: dict[bytes, StandInSigner] = {}

    def verify_replica(self, sender: int, payload: bytes, signature: bytes, /) -> bool:
        """See `bft.ports.Verifier`."""
        signer = self._replicas.get(sender)
        return signer is not None and signer.sign(payload) == signature

    def verify_client(self, client: bytes, digest: bytes, signature: bytes, /) -> bool:
        """See `bft.ports.Verifier`."""
        signer = self._clients.get(client)
        if signer is None:
            signer = self._vault.client_signer(client)
            if len(self._clients) < 4096:
                self._clients[client] = signer
        return signer.sign_digest(digest) == signature

    def verify_key(self, key: bytes, signer: Peer, payload: bytes, signature: bytes, /) -> bool:
        """See `bft.ports.KeyVerifier`."""
        return self._vault.verify_key(key, signer, payload, signature)
