"""Two guards around a store: one process at a time, and no voting with an empty store and a used key.

A replica that has forgotten its votes and keeps its key is Byzantine: it may vote differently for a slot that it has
voted for. So the first store of a key leaves a marker beside the *key*; losing the store's folder does not lose it.
"""

from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path

from bft.errors import StorageError


class FolderLock:
    """Exclusive hold on a store, by an advisory lock that the system releases when the process dies."""

    def __init__(self, path: Path) -> None:
        """Take the lock.

        Raises:
            StorageError: another process (or another store in this one) holds it, or the folder cannot be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
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
        StorageError: the marker exists.
    """
    if not marker.exists():
        return
    raise StorageError(
        f"{path}: the store is empty or absent, but {marker} says that the replica's key has been used with a store."
        f" Voting with an empty store would be a Byzantine fault: restore the store, or give the replica a new key"
    )


def claim(marker: Path, store_id: str) -> None:
    """Note beside the key that it is used with this store; checks the note if there is one.

    Raises:
        StorageError: the key was used with another store, or the note cannot be read or written.
    """
    try:
        if marker.exists():
            found = re.search(r"^store ([0-9a-f]{32})$", marker.read_text(), re.MULTILINE)
            if found is None or found[1] != store_id:
                raise StorageError(f"{marker}: the key was last used with store {found and found[1]}, not {store_id}")
            return
        _write_synced(marker, f"This key has voted. Its votes are remembered in\nstore {store_id}\n")
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"{marker}: the mark of a used key cannot be read or written: {error}") from error


def _write_synced(path: Path, text: str) -> None:
    """Create a small file so that after a crash it is either whole or absent."""
    draft = path.with_name(path.name + ".new")
    with draft.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make created and renamed entries of a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
