"""Notice that a store is an old copy of itself: whoever votes from a backup has forgotten its later votes.

A store cannot tell its own age. So a note beside the *key* says how often the replica has started and which checkpoint
it has made stable, and a counter in the store's folder says how often the store was there:

    r3.pem.age      starts 4, stable 1280          data/starts      4

A store with fewer starts, or a lower stable checkpoint, than the note is an old one. What this cannot see: a copy made
and put back while the replica was down only in between, and no checkpoint became stable since (at most K slots); and a
machine that was rolled back as a whole, key folder included. Both are for the operator to know.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from bft.errors import StorageError
from bft.events import Record, Recovered, Stable
from bft.ports import Store
from bft.storage.guard import sync_folder

AGE = ".age"
STARTS_FILE = "starts"


class AgedStore:
    """A `Store` that compares its age with the note beside the key, and keeps the note."""

    def __init__(self, store: Store, note: Path, folder: Path) -> None:
        """Guard `store`, which lives in `folder`, by `note`."""
        self._store = store
        self._note = note
        self._counter = folder / STARTS_FILE
        self._starts = 0
        self._stable = 0

    def load(self) -> Recovered:
        """Everything needed to go on.

        Raises:
            StorageError: the content is corrupt, or older than what this key has voted from.
        """
        recovered = self._store.load()
        if not self._starts:
            self._begin(recovered.stable.seq if recovered.stable is not None else 0)
        return recovered

    def _begin(self, stable: int) -> None:
        """Check, and count this start: in the store first, so that a crash in between leaves the note behind it."""
        starts_noted, stable_noted = self._read(self._note)
        starts, _ = self._read(self._counter)
        if starts < starts_noted or stable < stable_noted:
            raise StorageError(
                f"{self._counter.parent}: the store is an old copy: it has seen {starts} starts and the stable slot"
                f" {stable}, but {self._note} says {starts_noted} starts and {stable_noted}. Voting from it would"
                f" be a Byzantine fault: the votes since are forgotten"
            )
        self._starts, self._stable = starts + 1, stable
        self._write_note(self._counter, is_synced=True)
        self._write_note(self._note, is_synced=True)

    def write(self, records: Sequence[Record], /) -> None:
        """Make all records durable, and note a checkpoint that is stable now. Raises as the store does."""
        self._store.write(records)
        for record in records:
            if type(record) is Stable and record.seq > self._stable:
                self._stable = record.seq
                self._write_note(self._note, is_synced=False)

    def read_pages(self, digests: Sequence[bytes], /) -> list[bytes]:
        """The pages among `digests` that are stored."""
        return self._store.read_pages(digests)

    def read_manifest(self, digest: bytes, /) -> bytes | None:
        """The manifest with this state digest, if still kept."""
        return self._store.read_manifest(digest)

    def close(self) -> None:
        """Release files and locks."""
        self._store.close()

    def _read(self, path: Path) -> tuple[int, int]:
        try:
            text = path.read_text()
        except FileNotFoundError:
            return 0, 0
        except (OSError, UnicodeDecodeError) as error:
            raise StorageError(f"{path}: the store's age cannot be read: {error}") from error
        found = re.fullmatch(r"starts ([0-9]{1,18})\nstable ([0-9]{1,19})\n", text)
        if found is None:
            raise StorageError(f"{path}: the store's age cannot be read: found {text[:60]!r}")
        return int(found[1]), int(found[2])

    def _write_note(self, path: Path, *, is_synced: bool) -> None:
        """All or nothing. Unsynced, a power failure may leave an older note: it sees less, and never wrongly."""
        draft = path.with_name(path.name + ".new")
        try:
            with draft.open("w") as file:
                file.write(f"starts {self._starts}\nstable {self._stable}\n")
                if is_synced:
                    file.flush()
                    os.fsync(file.fileno())
            draft.replace(path)
            if is_synced:
                sync_folder(path.parent)
        except OSError as error:
            raise StorageError(f"{path}: the store's age cannot be noted: {error.strerror}") from error
