"""A replica's private keys: the one it votes with, the one that follows it, the one that it came back from.

    r3.pem        the key; the present epoch names it, unless the replica is to join or to come back
    r3.pem.next   made by `bft keys rotate`; the epoch that names it makes it the key, and the old one is erased
    r3.pem.old    left by `bft replica rejoin`: it vouches for the key and never votes again; erased after the return

Votes are signed with the key that the epoch of the vote names, whichever it is, and with no other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from bft.crypto.keys import KeyPair, load_key
from bft.crypto.signatures import Ed25519Signer
from bft.epochs import Configuration
from bft.errors import KeyFileError
from bft.ids import ReplicaId
from bft.storage.guard import sync_folder

NEXT = ".next"
OLD = ".old"
RETIRED = ".retired"


def beside(key: Path, suffix: str) -> Path:
    """A file beside the key file."""
    return key.with_name(key.name + suffix)


class OwnKeys:
    """The key files of one replica.

    Attributes:
        path: the key file.
        current: the key in it.
    """

    def __init__(self, path: Path, passphrase: bytes | None) -> None:
        """Read the key.

        Raises:
            KeyFileError: it cannot be used, or the replica was removed from its cluster and has erased it.
        """
        self.path = path
        self._passphrase = passphrase
        tombstone = beside(path, RETIRED)
        if tombstone.exists() and not path.exists():
            raise KeyFileError(f"{path}: erased: {tombstone.read_text().strip()}; ids are never used again")
        self.current = load_key(path, passphrase)

    @property
    def next(self) -> KeyPair | None:
        """The key that is to follow; None if there is none that can be used."""
        return self._other(NEXT)

    @property
    def old(self) -> KeyPair | None:
        """The key that this replica had before it lost its store; None if there is none."""
        return self._other(OLD)

    def find(self, public: bytes) -> tuple[KeyPair, Path] | None:
        """The pair that may vote under this public key, and its file."""
        if self.current.public == public:
            return self.current, self.path
        following = self.next
        return (following, beside(self.path, NEXT)) if following and following.public == public else None

    def settle(self, public: bytes) -> bool:
        """An epoch names `public`: make it the key, and erase what came before; True if the key is another one now."""
        found = self.find(public)
        if found is None:
            return False
        pair, file = found
        if file != self.path:
            file.replace(self.path)
        beside(self.path, OLD).unlink(missing_ok=True)
        sync_folder(self.path.parent)
        changed, self.current = pair.public != self.current.public, pair
        return changed

    def erase(self, why: str) -> None:
        """The replica was removed: nobody shall ever sign with its key again."""
        beside(self.path, RETIRED).write_text(why + "\n")
        for file in (beside(self.path, NEXT), beside(self.path, OLD), self.path):
            file.unlink(missing_ok=True)
        sync_folder(self.path.parent)

    def _other(self, suffix: str) -> KeyPair | None:
        file = beside(self.path, suffix)
        if not file.exists():
            return None
        with contextlib.suppress(KeyFileError):
            return load_key(file, self._passphrase)
        return None


class EpochSigner:
    """A `Signer` that signs with the key that the present epoch names for this replica.

    The node enters an epoch and signs in it within one step, so it is asked which epoch it is in: an attribute and a
    comparison of identities per signature.
    """

    def __init__(self, cluster_id: bytes, me: ReplicaId, keys: OwnKeys, configuration: Configuration) -> None:
        """Sign as replica `me` in the epoch of `configuration`; until it is a member, with its current key."""
        self._cluster_id = cluster_id
        self._me = me
        self._keys = keys
        self._signer = Ed25519Signer(cluster_id, me, keys.current.seed)
        self._present: Callable[[], Configuration] = lambda: configuration
        self._seen: Configuration | None = None

    def follow(self, present: Callable[[], Configuration]) -> None:
        """Ask `present` for the epoch from now on."""
        self._present = present

    def sign(self, payload: bytes, /) -> bytes:
        """64-byte signature over the identity's domain prefix and `payload`.

        Raises:
            KeyFileError: the epoch names a key for this replica that it does not hold: it must not go on.
        """
        present = self._present()
        if present is not self._seen:
            self._choose(present)
        return self._signer.sign(payload)

    def _choose(self, configuration: Configuration) -> None:
        member = configuration.member(self._me)
        found = None if member is None else self._keys.find(member.key)
        if member is not None and found is None:
            raise KeyFileError(
                f"{self._keys.path}: epoch {configuration.epoch} names the key {member.key.hex()} for replica"
                f" {self._me}, which is in none of its key files"
            )
        if found is not None:
            self._signer = Ed25519Signer(self._cluster_id, self._me, found[0].seed)
        self._seen = configuration
