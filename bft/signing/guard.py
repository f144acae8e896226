"""The double-sign guard on stable storage: one SQLite file, one transaction per request, before anything is signed.

Durability "power" syncs every transaction; "process" survives kill -9 of the agent but not a power failure. The guard's
level should be the replica's.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from bft.errors import StorageError
from bft.messages import ReplicaMessage
from bft.signing.rules import Entry, Ledger, Refused, ViewVote, Vote
from bft.storage.files import sync
from bft.storage.guard import FolderLock

FORMAT_VERSION = 1
_SCHEMA = """
create table identity (format integer not null, cluster text not null, replica integer not null, store text);
create table floor (id integer primary key check (id = 1), stable integer not null);
create table votes (epoch integer not null, seq integer not null, phase text not null, view integer not null,
                    digest blob not null, proposed integer not null, primary key (epoch, seq, phase, view));
create table views (kind text primary key, epoch integer not null, view integer not null, payload blob not null);
insert into floor values (1, 0);
"""


class Guard:
    """The ledger of one key, in memory and on disk.

    Attributes:
        ledger: what was signed; changed by this class only.
        store: id of the store that the key votes with; None before the first `bind`.
    """

    def __init__(
        self, path: Path, cluster_id: bytes, replica: int, durability: Literal["power", "process"] = "power"
    ) -> None:
        """Open the guard of a key, or create it.

        Raises:
            StorageError: it is locked by another agent, of another cluster or replica, corrupt, or cannot be written.
        """
        self._path = path
        self._broken = False
        self.ledger = Ledger()
        self.store: str | None = None
        self._lock = FolderLock(path.with_name(path.name + ".lock"))
        try:
            with self._explained():
                self._database = sqlite3.connect(path, isolation_level=None, timeout=5, check_same_thread=False)
                self._database.execute("pragma journal_mode = wal")
                self._database.execute(f"pragma synchronous = {'full' if durability == 'power' else 'off'}")
                self._open(cluster_id, replica)
                self._load()
            path.chmod(0o600)
        except BaseException:  # also an interrupt must not leave the guard locked
            self._lock.release()
            raise

    def check(self, store: str, stable: int) -> None:
        """Compare a store with the one that the key votes with; changes nothing.

        Raises:
            Refused: it is another one, or it is older than what it has already made durable.
        """
        if self.store is not None and self.store != store:
            raise Refused("other-store", f"votes with store {self.store} were signed, not with {store}")
        if stable < self.ledger.stable:
            raise Refused(
                "rolled-back",
                f"the store's stable checkpoint is {stable}, but it had {self.ledger.stable} when votes were signed"
                f" last: restore a newer copy",
            )

    def bind(self, store: str, stable: int) -> None:
        """Note which store the key votes with. Raises as `check`, and StorageError if the disk refuses."""
        self.check(store, stable)
        with self._transaction():
            self._database.execute("update identity set store = ?", (store,))
            self._raise_floor(stable)
        self.store = store
        self.ledger.advance(stable)

    def admit(self, messages: Sequence[tuple[ReplicaMessage, bytes]], stable: int) -> None:
        """Judge messages one after the other, and record them durably: all or none. Afterwards they may be signed.

        Args:
            messages: each with its payload.
            stable: stable checkpoint that the store has by now.

        Raises:
            Refused: one of them must not be signed; nothing was recorded.
            StorageError: the disk refused; the agent must stop.
        """
        draft = (
            Ledger(self.ledger.stable, dict(self.ledger.votes), dict(self.ledger.views)) if len(messages) > 1 else None
        )
        judging = draft or self.ledger
        entries: list[Entry] = []
        for message, payload in messages:
            entry = judging.judge(message, payload)
            if entry is not None:
                entries.append(entry)
                if draft is not None:
                    draft.record(entry)
        if not entries and stable <= self.ledger.stable:
            return
        with self._transaction():
            for entry in entries:
                self._put(entry)
            self._raise_floor(stable)
        for entry in entries:
            self.ledger.record(entry)
        self.ledger.advance(stable)

    def close(self) -> None:
        """Release the file; at most once."""
        self._broken = True
        self._database.close()
        self._lock.release()

    # --- rows -----------------------------------------------------------------------------------------------------

    def _put(self, entry: Entry) -> None:
        if isinstance(entry, ViewVote):
            row = (entry.kind, entry.epoch, entry.view, entry.payload)
            self._database.execute("insert or replace into views values (?, ?, ?, ?)", row)
            return
        self._database.execute(
            "insert into votes values (?, ?, ?, ?, ?, ?)"
            " on conflict do update set proposed = max(proposed, excluded.proposed)",
            (entry.epoch, entry.seq, entry.phase, entry.view, entry.digest, entry.proposed),
        )
        self._database.execute(
            "delete from votes where epoch = ? and seq = ? and phase = ? and view not in"
            " (select view from votes where epoch = ? and seq = ? and phase = ? order by view desc limit 2)",
            (entry.epoch, entry.seq, entry.phase) * 2,
        )

    def _raise_floor(self, stable: int) -> None:
        if stable > self.ledger.stable:
            self._database.execute("update floor set stable = ?", (stable,))
            self._database.execute("delete from votes where seq <= ?", (stable,))

    def _open(self, cluster_id: bytes, replica: int) -> None:
        if self._database.execute("select count(*) from sqlite_schema").fetchone()[0] == 0:
            self._database.execute("begin immediate")
            for statement in _SCHEMA.split(";")[:-1]:
                self._database.execute(statement)
            identity = (FORMAT_VERSION, cluster_id.hex(), replica, None)
            self._database.execute("insert into identity values (?, ?, ?, ?)", identity)
            self._database.execute("commit")
            sync(self._path.parent)
        verdict = self._database.execute("pragma quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise StorageError(f"{self._path}: the guard is corrupt: {verdict}")
        rows = self._database.execute("select format, cluster, replica, store from identity").fetchall()
        if len(rows) != 1 or rows[0][0] != FORMAT_VERSION:
            raise StorageError(f"{self._path}: the guard is corrupt, or of another format")
        if rows[0][1:3] != (cluster_id.hex(), replica):
            raise StorageError(f"{self._path}: the guard is of replica {rows[0][2]} in cluster {rows[0][1]}")
        self.store = rows[0][3]

    def _load(self) -> None:
        floors = self._database.execute("select stable from floor").fetchall()
        if len(floors) != 1:
            raise StorageError(f"{self._path}: the guard is corrupt: {len(floors)} floors, expected 1")
        self.ledger.stable = floors[0][0]
        for epoch, seq, phase, view, digest, proposed in self._database.execute(
            "select epoch, seq, phase, view, digest, proposed from votes order by epoch, seq, phase, view"
        ):
            self.ledger.record(Vote(epoch, seq, phase, view, digest, bool(proposed)))
        for kind, epoch, view, payload in self._database.execute("select kind, epoch, view, payload from views"):
            self.ledger.record(ViewVote(kind, epoch, view, payload))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing; after a failure the guard is not used any more, since what became of it is unknown."""
        if self._broken:
            raise StorageError(f"{self._path}: an earlier write failed: nothing is signed any more")
        self._broken = True
        with self._explained():
            self._database.execute("begin immediate")
            yield
            self._database.execute("commit")
        self._broken = False

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StorageError(f"{self._path}: the guard cannot be read or written: {error}") from error
