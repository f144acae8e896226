"""Fast unforgeable stand-ins for Ed25519, behind the same ports.

A signature is a keyed hash under a secret that only the world holds; whoever was handed the `Signer` of an identity
can sign for it, nobody else can. With Ed25519 a key is a capability by mathematics, here by construction.
"""

from __future__ import annotations

from hashlib import blake2b

ROLE_REPLICA = b"R"
ROLE_CLIENT = b"C"


class KeyVault:
    """Holds the secrets of every identity in one simulated world."""

    def __init__(self, seed: int) -> None:
        self._secret = blake2b(str(seed).encode(), digest_size=32, person=b"bft sim vault").digest()

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
        """64-byte keyed hash of the payload."""
        return blake2b(payload, key=self._key, digest_size=64, person=b"bft sim sig").digest()


class StandInVerifier:
    """Verifies by recomputing."""

    def __init__(self, replicas: list[StandInSigner], vault: KeyVault) -> None:
        self._replicas = replicas
        self._vault = vault
        self._clients: dict[bytes, StandInSigner] = {}

    def verify_replica(self, sender: int, payload: bytes, signature: bytes, /) -> bool:
        """See `bft.ports.Verifier`."""
        return 0 <= sender < len(self._replicas) and self._replicas[sender].sign(payload) == signature

    def verify_client(self, client: bytes, payload: bytes, signature: bytes, /) -> bool:
        """See `bft.ports.Verifier`."""
        signer = self._clients.get(client)
        if signer is None:
            signer = self._vault.client_signer(client)
            if len(self._clients) < 4096:
                self._clients[client] = signer
        return signer.sign(payload) == signature
