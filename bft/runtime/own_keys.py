"""A replica's private keys: the one it votes with, the one that follows it, the one that it came back from.

    r3.pem        the key; the present epoch names it, unless the replica is to join or to come back
    r3.pem.next   made by `bft keys rotate`; the epoch that names it makes it the key, and the old one is erased
    r3.pem.old    left by `bft replica rejoin`: it vouches for the key and never votes again; erased after the return
    r3.pem.lost1  the key of a return that lost its store as well: vouches in the place of .old if an epoch has named it
    r3.pem.new    while `bft replica rejoin` puts it in the place of the key

Votes are signed with the key that the epoch of the vote names, whichever it is, and with no other.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path

from bft.crypto.keys import KeyPair, load_key
from bft.crypto.signatures import Ed25519Signer
from bft.crypto.tls import server_context
from bft.errors import KeyFileError
from bft.events import Recovered
from bft.ids import ReplicaId
from bft.ports import Signer, Store
from bft.storage.files import sync, write_whole

NEXT, OLD, NEW, LOST = ".next", ".old", ".new", ".lost"
USED = ".used"
"""Says with which store the key has voted."""
GUARD = ".guard"
"""What an agent has signed with the key."""
VOUCHER = ".voucher"
RETIRED = ".retired"


def beside(key: Path, suffix: str) -> Path:
    """A file beside the key file."""
    return key.with_name(key.name + suffix)


def lost_keys(path: Path) -> list[Path]:
    """Keys that were put out of the way one after the other, the latest first."""
    if not path.parent.is_dir():
        return []
    begin = path.name + LOST
    numbered = [(file.name.removeprefix(begin), file) for file in path.parent.iterdir() if file.name.startswith(begin)]
    found = sorted((int(number), file) for number, file in numbered if number.isdecimal())
    return [file for _, file in reversed(found)]


def next_lost(path: Path) -> Path:
    """Where the next one goes: none is ever overwritten, since an epoch may come to name any of them."""
    found = lost_keys(path)
    return beside(path, f"{LOST}{int(found[0].name.removeprefix(path.name + LOST)) + 1 if found else 1}")


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

    def context(self, name: str) -> ssl.SSLContext:
        """The listening side of TLS, with the present key."""
        return server_context(self.current, self.path, name, self._passphrase)

    def signers(self, cluster_id: bytes, me: ReplicaId) -> Mapping[bytes, Signer]:
        """Signers by public key, of the present key and of the next."""
        return OwnSigners(cluster_id, me, self)

    def remember(self, store: Store, recovered: Recovered, me: ReplicaId) -> Recovered:
        """The store's memory is all there is."""
        return recovered

    def follow(self, store: Store) -> Store:
        """The store as it is."""
        return store

    def close(self) -> None:
        """Nothing is open."""

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
        for file in (beside(self.path, OLD), *lost_keys(self.path)):
            file.unlink(missing_ok=True)
        sync(self.path.parent)
        changed, self.current = pair.public != self.current.public, pair
        return changed

    def erase(self, why: str) -> None:
        """The replica was removed: nobody shall ever sign with its key again."""
        write_whole(beside(self.path, RETIRED), (why + "\n").encode())
        for file in (*(beside(self.path, suffix) for suffix in (NEXT, OLD, NEW)), *lost_keys(self.path), self.path):
            file.unlink(missing_ok=True)
        sync(self.path.parent)

    def _other(self, suffix: str) -> KeyPair | None:
        file = beside(self.path, suffix)
        if not file.exists():
            return None
        with contextlib.suppress(KeyFileError):
            return load_key(file, self._passphrase)
        return None


class OwnSigners(Mapping[bytes, Signer]):
    """Signers by public key, for a node that signs in each epoch with the key that the epoch names for it.

    The key files are looked at when an epoch begins, so that a next key may be made while the replica runs.
    """

    def __init__(self, cluster_id: bytes, me: ReplicaId, keys: OwnKeys) -> None:
        """Sign as replica `me`."""
        self._cluster_id = cluster_id
        self._me = me
        self._keys = keys

    def __getitem__(self, public: bytes) -> Signer:
        """The signer with this public key; KeyError if it is in none of the files."""
        found = self._keys.find(public)
        if found is None:
            raise KeyError(public)
        return Ed25519Signer(self._cluster_id, self._me, found[0].seed)

    def __iter__(self) -> Iterator[bytes]:
        """The present key, then the next one."""
        yield self._keys.current.public
        following = self._keys.next
        if following is not None:
            yield following.public

    def __len__(self) -> int:
        """How many keys there are."""
        return 1 if self._keys.next is None else 2
