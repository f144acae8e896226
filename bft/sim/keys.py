"""The keys of a simulated world: fast unforgeable stand-ins, or real Ed25519, behind the same ports.

A stand-in's signature is a keyed hash under a secret that only the world holds; whoever was handed the `Signer` of an
identity can sign for it, nobody else can. With Ed25519 a key is a capability by mathematics, here by construction.
Both pass `tests/conformance/test_signatures.py`.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Protocol

from bft.crypto.keys import KeyPair
from bft.crypto.signatures import Ed25519Signer, Ed25519Verifier
from bft.digests import payload_digest
from bft.ids import ClientId, ReplicaId
from bft.ports import Signer, Verifier

ROLE_REPLICA = b"R"
ROLE_CLIENT = b"C"


class Vault(Protocol):
    """Hands out the identities of one simulated world."""

    def replica_key(self, replica: int) -> bytes:
        """32-byte public key of a replica."""
        ...

    def client_key(self, index: int) -> bytes:
        """32-byte public key of the `index`-th client."""
        ...

    def replica_signer(self, replica: int) -> Signer:
        """The capability to sign as a replica."""
        ...

    def client_signer(self, client: bytes) -> Signer:
        """The capability to sign as a client."""
        ...

    def verifier(self, n: int) -> Verifier:
        """Checks anybody's signatures in a cluster of `n` replicas."""
        ...


class Ed25519Vault:
    """Real keys, derived from the world's seed: slower by two orders of magnitude, and just what production uses."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._clients: dict[bytes, KeyPair] = {}
        self._cluster_id = blake2b(str(seed).encode(), digest_size=32, person=b"bft sim cluster").digest()

    def replica_key(self, replica: int) -> bytes:
        """See `Vault`."""
        return self._keys(f"replica {replica}").public

    def client_key(self, index: int) -> bytes:
        """See `Vault`."""
        keys = self._keys(f"client {index}")
        self._clients[keys.public] = keys
        return keys.public

    def replica_signer(self, replica: int) -> Signer:
        """See `Vault`."""
        return Ed25519Signer(self._cluster_id, ReplicaId(replica), self._keys(f"replica {replica}").seed)

    def client_signer(self, client: bytes) -> Signer:
        """See `Vault`; the client must have been named by `client_key` before."""
        return Ed25519Signer(self._cluster_id, ClientId(client), self._clients[client].seed)

    def verifier(self, n: int) -> Verifier:
        """See `Vault`."""
        return Ed25519Verifier(self._cluster_id, [self.replica_key(replica) for replica in range(n)], None)

    def _keys(self, name: str) -> KeyPair:
        return KeyPair.of_seed(
            blake2b(f"{self._seed}/{name}".encode(), digest_size=32, person=b"bft sim ed25519").digest()
        )


class KeyVault:
    """Holds the secrets of every identity in one simulated world."""

    def __init__(self, seed: int) -> None:
        self._secret = blake2b(str(seed).encode(), digest_size=32, person=b"bft sim vault").digest()

    def replica_key(self, replica: int) -> bytes:
        """A label in the place of a public key."""
        return blake2b(b"replica %d" % replica, digest_size=32).digest()

    def client_key(self, index: int) -> bytes:
        """A label in the place of a public key."""
        return blake2b(b"client %d" % index, digest_size=32).digest()

    def replica_signer(self, replica: int) -> StandInSigner:
        """The capability to sign as a replica."""
        return StandInSigner(self._identity_key(ROLE_REPLICA + replica.to_bytes(4, "big")))

    def client_signer(self, client: bytes) -> StandInSigner:
        """The capability to sign as a client."""
        return StandInSigner(self._identity_key(ROLE_CLIENT + client))

    def verifier(self, n: int) -> StandInVerifier:
        """Checks anybody's signatures in a cluster of `n` replicas."""
        replicas = [self.replica_signer(replica) for replica in range(n)]
        return StandInVerifier(replicas, self)

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

    def __init__(self, replicas: list[StandInSigner], vault: KeyVault) -> None:
        self._replicas = replicas
        self._vault = vault
        self._clients: dict[bytes, StandInSigner] = {}

    def verify_replica(self, sender: int, payload: bytes, signature: bytes, /) -> bool:
        """See `bft.ports.Verifier`."""
        return 0 <= sender < len(self._replicas) and self._replicas[sender].sign(payload) == signature

    def verify_client(self, client: bytes, digest: bytes, signature: bytes, /) -> bool:
        """See `bft.ports.Verifier`."""
        signer = self._clients.get(client)
        if signer is None:
            signer = self._vault.client_signer(client)
            if len(self._clients) < 4096:
                self._clients[client] = signer
        return signer.sign_digest(digest) == signature
