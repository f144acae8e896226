"""Guards around a store: one process at a time, and no voting with an empty or old store and a used key.

A replica that has forgotten its votes and keeps its key is Byzantine: it may vote differently for a slot that it has
voted for. So a store leaves a note beside the *key*; losing, or bringing back, the store's folder does not change it.
What the note cannot see, a backup of the same life and the last checkpoint interval before a crash, or a copy of the
whole machine, the other replicas tell (`bft.core.amnesia`).
"""

from __future__ import annotations

import fcntl
import os
import re
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from bft.errors import StorageError, VotesLost
from bft.storage.files import make_folder, write_whole

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_LINE = re.compile(r"^(store|generation|stable|boot|durability|ended|refused) (.+)$", re.MULTILINE)
_SUM = "sum "
_ADVICE = "give the replica a new key, or bring back the store that it last voted with"


class FolderLock:
    """Exclusive hold on a store, by an advisory lock that the system releases when the process dies."""

    def __init__(self, path: Path) -> None:
        """Take the lock.

        Raises:
            StorageError: another process (or another store in this one) holds it, or the folder cannot be written.
        """
        try:
            make_folder(path.parent)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StorageError(f"{path.parent}: store folder cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            raise StorageError(f"{path.parent}: the store is in use by another process, which holds {path}") from error

    def release(self) -> None:
        """Let go; at most once."""
        os.close(self._descriptor)


def require_unused(marker: Path, path: Path) -> None:
    """Refuse to create a store for a key that has voted before.

    Raises:
        VotesLost: the marker exists.
    """
    if not marker.exists():
        return
    raise VotesLost(
        f"{path}: the store is empty or absent, but {marker} says that the replica's key has been used with a store."
        f" Voting with an empty store would be a Byzantine fault: restore the store, or give the replica a new key"
    )


@dataclass(frozen=True, slots=True)
class Mark:
    """What is noted beside the key; whatever a note of an earlier version does not say is taken as harmless.

    Attributes:
        store: id of the store that remembers the key's votes.
        generation: counts the store's openings and clean ends; the store counts along, and is never behind.
        stable: a stable checkpoint that the store had; the store is never behind it either.
        boot: which run of the operating system the store was last open in; empty if it cannot be told.
        durability: the store's level then.
        is_clean: the store was closed, and everything in it was synced.
        refused: why the replica must not vote with this key any more; empty if it may.
    """

    store: str
    generation: int = 0
    stable: int = 0
    boot: str = ""
    durability: str = "power"
    is_clean: bool = True
    refused: str = ""


def boot_id() -> str:
    """Names the run of the operating system since it booted; empty where it does not tell."""
    try:
        return BOOT_ID.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def read_mark(marker: Path) -> Mark | None:
    """What is noted beside the key; None if the key has not been used with a store.

    Raises:
        StorageError: the note cannot be read; `VotesLost` if it is none.
    """
    try:
        if not marker.exists():
            return None
        text = marker.read_text()
        body, found, noted = text.rpartition(_SUM)
        if found and noted.strip() != _sum(body):
            raise ValueError("it does not have the sum that it ends with")
        said = dict(_LINE.findall(text))
        return Mark(
            said["store"],
            int(said.get("generation", "0")),
            int(said.get("stable", "0")),
            said.get("boot", ""),
            said.get("durability", "power"),
            said.get("ended", "clean") == "clean",
            said.get("refused", ""),
        )
    except OSError as error:
        raise StorageError(f"{marker}: the mark of a used key cannot be read: {error}") from error
    except (KeyError, ValueError) as error:
        raise VotesLost(f"{marker}: the mark of a used key is damaged ({error}): {_ADVICE}") from error


def write_mark(marker: Path, mark: Mark) -> None:
    """Replace the note beside the key, durably and at once.

    Raises:
        StorageError: it cannot be written.
    """
    text = (
        f"This key has voted. Its votes are remembered in\nstore {mark.store}\n"
        f"generation {mark.generation}\nstable {mark.stable}\nboot {mark.boot}\ndurability {mark.durability}\n"
        f"ended {'clean' if mark.is_clean else 'running'}\n"
    )
    if mark.refused:
        text += f"refused {' '.join(mark.refused.split())}\n"
    try:
        write_whole(marker, f"{text}{_SUM}{_sum(text)}\n".encode())
    except OSError as error:
        raise StorageError(f"{marker}: the mark of a used key cannot be written: {error.strerror}") from error


def _sum(text: str) -> str:
    """Shows damage to a note; notes of the first versions end without one."""
    return blake2b(text.encode(), digest_size=8, person=b"bft note").hexdigest()


def claim(marker: Path, store_id: str) -> None:
    """Note beside the key that it is used with this store, for a signing agent, which has a guard of its own.

    Raises:
        StorageError: the note cannot be read or written; `VotesLost` if the key was used with another store.
    """
    mark = read_mark(marker)
    if mark is None:
        write_mark(marker, Mark(store_id))
    elif mark.store != store_id:
        raise VotesLost(f"{marker}: the key was last used with store {mark.store}, not {store_id}")


def require_same(marker: Path, mark: Mark, *, store: str, generation: int, stable: int, boot: str, path: Path) -> None:
    """Refuse a store that is not, or is older than, the one that this key last voted with.

    The store is always written before the note, hence a store behind its note has lost what it had: it is an old copy,
    or the machine lost power under a store that did not sync. A crash between the two leaves the store ahead, which is
    no reason for alarm (`test_killed_store_loses_nothing_and_raises_no_false_alarm`).

    Raises:
        VotesLost: what is wrong, and what to do.
    """
    if mark.refused:
        raise VotesLost(f"{path}: the replica refuses to vote: {mark.refused}: {_ADVICE} ({marker})")
    if mark.store != store:
        raise VotesLost(
            f"{path}: {marker} says that the key was last used with store {mark.store}, not {store}: the store is not"
            f" the one that it was, or the key is another replica's"
        )
    if generation < mark.generation or stable < mark.stable:
        raise VotesLost(
            f"{path}: the store is an old copy: it is of generation {generation} with stable checkpoint {stable},"
            f" but {marker} has seen generation {mark.generation} with stable checkpoint {mark.stable}."
            f" The replica refuses to vote, for it has forgotten votes: {_ADVICE}"
        )
    rebooted = bool(mark.boot and boot) and mark.boot != boot
    if rebooted and not mark.is_clean and mark.durability == "process":
        raise VotesLost(
            f"{path}: the machine has been restarted while the replica ran with durability 'process', which does not"
            f" survive that: it may have forgotten votes, and refuses to vote: {_ADVICE}"
        )
