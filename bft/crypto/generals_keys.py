"""Give the generals real Ed25519 keys (PyNaCl), behind the protocols of `bft.generals.signatures`.

The keys of a battle live as long as the battle: they are made from one 32-byte seed, so that a run can be
repeated and so that processes can be given exactly the keys they may hold.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from bft.generals.ids import GeneralId
from bft.generals.signatures import Signer

SEED_BYTES = 32
SIGNATURE_BYTES = 64


class Ed25519Signer:
    """Sign as the one general whose key this is."""

    def __init__(self, key: SigningKey) -> None:
        """Hold a key."""
        self._key = key

    def sign(self, payload: bytes, /) -> bytes:
        """Return the 64-byte signature of the payload."""
        return self._key.sign(payload).signature


class Ed25519Notary:
    """Hold some private keys and all public keys: all private ones in memory, a process its own (or its
    coalition's)."""

    def __init__(self, seeds: Mapping[GeneralId, bytes], public: Mapping[GeneralId, bytes]) -> None:
        """Hold the 32-byte seeds of those keys that may be used here, and everybody's 32-byte public key."""
        self._signers = {general: Ed25519Signer(SigningKey(seed)) for general, seed in seeds.items()}
        self._public = {general: VerifyKey(key) for general, key in public.items()}

    @classmethod
    def from_seed(cls, seed: bytes, n: int) -> Ed25519Notary:
        """Make all keys of a battle of n generals."""
        seeds = battle_seeds(seed, n)
        return cls(seeds, public_keys(seeds))

    def signer(self, general: GeneralId, /) -> Signer:
        """Return the signer of one general.

        Raises:
            KeyError: that general's key is not held here.
        """
        return self._signers[general]

    def verify(self, general: GeneralId, payload: bytes, signature: bytes, /) -> bool:
        """Say whether `general` signed exactly this payload."""
        key = self._public.get(general)
        if key is None or len(signature) != SIGNATURE_BYTES:
            return False
        try:
            key.verify(payload, signature)
        except BadSignatureError:
            return False
        return True


def battle_seeds(seed: bytes, n: int) -> dict[GeneralId, bytes]:
    """Derive one 32-byte seed a general from the 32-byte seed of the battle."""
    return {
        GeneralId(general): hashlib.blake2b(
            b"bft/generals/key/%d" % general, key=seed, digest_size=SEED_BYTES
        ).digest()
        for general in range(n)
    }


def public_keys(
    seeds: Mapping[GeneralId, bytes], generals: Iterable[GeneralId] | None = None
) -> dict[GeneralId, bytes]:
    """Return the public keys that belong to seeds."""
    chosen = seeds if generals is None else generals
    return {general: bytes(SigningKey(seeds[general]).verify_key) for general in chosen}
