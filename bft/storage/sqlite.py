"""Stable storage in one SQLite file: write-ahead log, one transaction per `write`.

    sqlite3 replica.db 'select seq, view, length(batch) from accepted'      -- may be done while the replica runs

Two connections: `write` may run in a worker thread while the replica's own thread reads pages, which sees what was
committed. Durability "power" syncs every transaction; "process" leaves them to the operating system's cache, which a
killed process cannot take along, but a power failure can.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal, assert_never

from bft.errors import StorageError, VotesLost
from bft.events import (
    Accepted,
    Doubted,
    Epoch,
    Forgotten,
    Pages,
    Prepared,
    Record,
    Recovered,
    Snapshot,
    Stable,
    ViewRecord,
)
from bft.ids import DIGEST_BYTES
from bft.storage.files import sync
from bft.storage.guard import FolderLock, Mark, boot_id, read_mark, require_same, require_unused, write_mark
from bft.storage.pages import checked_manifest, garbage, is_page, manifest_pages
from bft.storage.recovering import recover, stable_seqs
from bft.storage.rows import (
    prepared_view,
    signed_blob,
)
from bft.storage.schema import READABLE, as_text, create, row_sum, upgrade
from bft.wire.codec import encode

PAGE_BYTES = 16384
WAL_BYTES_MAX = 64 * 1024 * 1024
_EVER = 2**63 - 1
_DAMAGE = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
"""What SQLite calls a file that is none of its own, or no longer."""


class SqliteStore:
    """A `Store` in a SQLite database.

    Attributes:
        store_id: 32 hex digits made at its creation; copies of the file share it.
    """

    def __init__(
        self,
        path: Path,
        cluster_id: bytes,
        replica: int,
        durability: Literal["power", "process"] = "power",
        marker: Path | None = None,
        boot: str | None = None,
    ) -> None:
        """Open the store of one replica, or create it.

        Args:
            path: the database file; its folder is created, and locked against other processes.
            cluster_id: 32 bytes; a store of another cluster or replica is refused.
            replica: whose store it is.
            durability: what a committed write survives.
            marker: file beside the replica's key that remembers that the key is in use (`bft.storage.guard`).
            boot: which run of the operating system this is; by default what it says itself.

        Raises:
            StorageError: the store is locked, foreign, or cannot be written.
            VotesLost: it is corrupt; or it is empty, or an old copy, although the marker says that the key has voted.
        """
        self._path = path = path.resolve()  # one lock for all names of a file, and the log is where SQLite has it
        self._broken = False
        self._closed = False
        self._connections: list[sqlite3.Connection] = []
        self._marker = marker
        self._mark: Mark | None = None
        self._durability = durability
        self._lock = FolderLock(path.with_name(path.name + ".lock"))
        try:
            with self._explained():
                if durability == "power":
                    # An earlier life at "process" may have left what it wrote to the operating system's cache.
                    self._sync_files()
                self._writer = self._connect()
                self._open(cluster_id, replica, durability, marker)
                self._begin_life(boot_id() if boot is None else boot)
                self._reader = self._connect()
                self._reader.execute("pragma query_only = on")
        except BaseException:  # also a cancellation must not leave the folder locked
            self.close()
            raise

    def load(self) -> Recovered:
        """Everything needed to go on where the last process stopped; every row is checked.

        Raises:
            VotesLost: the content is corrupt; the replica must not vote with it.
        """
        with self._explained():
            return recover(self._writer)

    def write(self, records: Sequence[Record], /) -> None:
        """Make all records durable, in order, in one transaction.

        Raises:
            StorageError: the disk refused. The store is then unusable: what became of the transaction is unknown.
        """
        if self._broken:
            raise StorageError(f"{self._path}: closed, or an earlier write failed: it must not be used any more")
        self._broken = True
        with self._explained():
            self._writer.execute("begin immediate")
            for record in records:
                self._put(record)
            self._writer.execute("commit")
            self._note_written(records)
        self._broken = False

    def read_pages(self, digests: Sequence[bytes], /) -> list[bytes]:
        """The pages among `digests` that are committed, in the order asked.

        A damaged page is left out: it is not ours to send, and the scrub brings it back (`bft.core.rot`).
        """
        found = []
        with self._explained():
            for digest in digests:
                row = self._reader.execute("select bytes from pages where digest = ?", (digest,)).fetchone()
                if row is not None and is_page(digest, row[0]):
                    found.append(row[0])
        return found

    def kept_pages(self) -> list[bytes]:
        """Digests of all pages that the kept snapshots refer to, ascending; every manifest is checked.

        Raises:
            VotesLost: a manifest is corrupt.
        """
        found: set[bytes] = set()
        with self._explained(), closing(sqlite3.connect(self._path, isolation_level=None)) as connection:
            connection.text_factory = bytes
            for seq, digest, manifest in connection.execute("select seq, digest, manifest from snapshots"):
                decoded = checked_manifest(seq, digest, manifest)
                found.update(decoded.service, decoded.sessions)
        return sorted(found)

    def damaged(self, digests: Sequence[bytes], /) -> list[bytes]:
        """Those whose stored bytes have another digest, as they are on the disk: nothing comes from SQLite's cache."""
        found = []
        with self._explained(), closing(sqlite3.connect(self._path, isolation_level=None)) as connection:
            connection.execute("pragma query_only = on")
            connection.text_factory = bytes
            for digest in digests:
                row = connection.execute("select bytes from pages where digest = ?", (digest,)).fetchone()
                if row is not None and not is_page(digest, row[0]):
                    found.append(digest)
        return found

    def read_manifest(self, digest: bytes, /) -> bytes | None:
        """The manifest with this state digest, if still kept."""
        with self._explained():
            row = self._reader.execute("select manifest from snapshots where digest = ?", (digest,)).fetchone()
        return None if row is None else row[0]

    def close(self) -> None:
        """Release files and locks; the second call does nothing."""
        if self._closed:
            return
        is_sound = not self._broken and self._mark is not None
        self._broken = self._closed = True
        try:
            with self._explained():
                if is_sound:
                    # A disk that refuses this leaves a note that says "running", which is true enough.
                    with suppress(sqlite3.Error, StorageError, OSError):
                        self._end_life()
                for connection in reversed(self._connections):
                    connection.close()
        finally:
            self._lock.release()

    # --- opening ---

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=5)
        connection.text_factory = bytes  # damage can make a text of bytes that are none
        self._connections.append(connection)
        return connection

    def _open(
        self, cluster_id: bytes, replica: int, durability: Literal["power", "process"], marker: Path | None
    ) -> None:
        assert len(cluster_id) == DIGEST_BYTES, f"a cluster id has {DIGEST_BYTES} bytes, not {len(cluster_id)}"
        self._writer.execute(f"pragma page_size = {PAGE_BYTES}")
        self._writer.execute("pragma journal_mode = wal")
        self._writer.execute(f"pragma synchronous = {'full' if durability == 'power' else 'off'}")
        self._writer.execute(f"pragma journal_size_limit = {WAL_BYTES_MAX}")
        if self._writer.execute("select count(*) from sqlite_schema").fetchone()[0] == 0:
            if marker is not None:
                require_unused(marker, self._path)
            self._create(cluster_id, replica)
        verdict = self._writer.execute("pragma quick_check(1)").fetchone()[0]
        if verdict != b"ok":
            raise VotesLost(f"{self._path}: the database is corrupt: {as_text(verdict)}")
        self.store_id = self._require_identity(cluster_id, replica)
        upgrade(self._writer)

    # --- the guard beside the key ---

    def _begin_life(self, boot: str) -> None:
        """Check the store against the note beside its key, and count an opening in both, the store first."""
        generation, refused = self._writer.execute("select generation, refused from life").fetchone()
        if refused:
            raise VotesLost(f"the replica refuses to vote: {as_text(refused)}")
        if type(generation) is not int:
            raise VotesLost("the store's generation is corrupt")
        if self._marker is None:
            return
        mark = read_mark(self._marker)
        stable = stable_seqs(self._writer)[0]
        if mark is not None:
            require_same(
                self._marker,
                mark,
                store=self.store_id,
                generation=generation,
                stable=stable,
                boot=boot,
                path=self._path,
            )
        self._writer.execute("update life set generation = ?", (generation + 1,))
        self._note(Mark(self.store_id, generation + 1, stable, boot, self._durability, is_clean=False))

    def _note(self, mark: Mark) -> None:
        if self._marker is not None:
            write_mark(self._marker, mark)
            self._mark = mark

    def _note_written(self, records: Sequence[Record]) -> None:
        """After a commit: tell the guard of a new stable checkpoint, so that a copy from before it is recognised.

        The store is durable at this point, so a crash in between leaves it ahead of the note, never behind.
        """
        if self._mark is None:
            return
        for record in records:
            match record:
                case Stable(seq) if seq > self._mark.stable:
                    self._note(replace(self._mark, stable=seq))
                case Forgotten(what):
                    self._note(replace(self._mark, refused=what))
                case _:
                    pass

    def _end_life(self) -> None:
        """Count a clean end, so that a copy made while the store was open is recognised as old."""
        assert self._mark is not None, "a life that began is noted"
        self._writer.execute("update life set generation = ?", (self._mark.generation + 1,))
        for connection in reversed(self._connections):
            connection.close()
        # Closing moved the log into the file, unless somebody else is reading it; "process" has synced neither.
        self._sync_files()
        self._note(replace(self._mark, generation=self._mark.generation + 1, is_clean=True))

    def _sync_files(self) -> None:
        """Make durable what is in the operating system's hands.

        Only while this process has no connection: opening the file and closing it again drops SQLite's locks.
        """
        for file in (self._path, self._path.with_name(self._path.name + "-wal")):
            if file.exists():
                sync(file)
        sync(self._path.parent)

    def _create(self, cluster_id: bytes, replica: int) -> None:
        create(self._writer, cluster_id, replica)
        sync(self._path.parent)

    def _require_identity(self, cluster_id: bytes, replica: int) -> str:
        """The store's id, once it is known to be ours."""
        rows = self._writer.execute("select format, cluster, replica, store from identity").fetchall()
        if len(rows) != 1:
            raise VotesLost(f"{self._path}: the database is corrupt: {len(rows)} rows of identity, expected 1")
        version, owner = rows[0][0], rows[0][2]
        cluster, store = as_text(rows[0][1]), as_text(rows[0][3])
        if version not in READABLE:
            known = " and ".join(map(str, READABLE))
            raise StorageError(f"{self._path}: the store has format {version}, this program reads {known}")
        if cluster != cluster_id.hex():
            raise StorageError(f"{self._path}: the store belongs to cluster {cluster}, not to {cluster_id.hex()}")
        if owner != replica:
            raise StorageError(f"{self._path}: the store belongs to replica {owner}, not to replica {replica}")
        return store

    # --- reading ---

    def _manifests(self) -> list[bytes]:
        return [row[0] for row in self._writer.execute("select manifest from snapshots")]

    # --- writing ---

    def _put(self, record: Record) -> None:
        execute = self._writer.execute
        match record:
            case Accepted(seq, view, pre_prepare, batch):
                row = (seq, view, encode(pre_prepare))
                execute(
                    "insert or replace into accepted values (?, ?, ?, ?, ?)", (*row, batch, row_sum("accepted", *row))
                )
            case Prepared(seq, certificate):
                row = (seq, prepared_view(certificate), encode(certificate))
                execute(
                    "insert into prepared values (?, ?, ?, ?) on conflict (seq) do update set view = excluded.view,"
                    " certificate = excluded.certificate, sum = excluded.sum where excluded.view >= view",
                    (*row, row_sum("prepared", *row)),
                )
            case ViewRecord(view, active, view_change, new_view):
                said = (view, int(active), signed_blob(view_change), signed_blob(new_view))
                execute("insert or replace into view values (1, ?, ?, ?, ?, ?)", (*said, row_sum("view", *said)))
            case Snapshot():
                self._put_snapshot(record)
            case Stable():
                self._put_stable(record)
            case Pages(pages):
                at = stable_seqs(self._writer)[0]
                self._writer.executemany(
                    "insert into pages values (?, ?, ?) on conflict (digest) do update"
                    " set bytes = excluded.bytes, fetched = excluded.fetched",
                    [(digest, page, at) for digest, page in pages.items()],
                )
            case Epoch(link):
                end = (link.certificate.epoch, encode(link))
                execute("insert into epochs values (?, ?, ?)", (*end, row_sum("epochs", *end)))
                execute("delete from view")
                execute("delete from accepted")
                execute("delete from prepared")
            case Forgotten(what):
                execute("update life set refused = ?", (what,))
            case Doubted(seq, executed):
                execute("insert or ignore into void select seq from snapshots where seq >= ?", (seq,))
                execute(
                    "insert into doubted values (1, ?) on conflict (id) do update"
                    " set executed = max(executed, excluded.executed)",
                    (executed,),
                )
            case _:
                assert_never(record)

    def _put_snapshot(self, snapshot: Snapshot) -> None:
        used = manifest_pages(snapshot.manifest)
        elsewhere = used - snapshot.pages.keys()
        for manifest in self._manifests():
            elsewhere -= manifest_pages(manifest)
        self._writer.executemany(
            "insert into pages values (?, ?, null) on conflict (digest) do update"
            " set bytes = excluded.bytes where bytes is not excluded.bytes",  # differs if it was damaged
            snapshot.pages.items(),
        )
        for name in elsewhere:
            row = self._writer.execute("select 1 from pages where digest = ?", (name,)).fetchone()
            assert row is not None, f"snapshot at seq {snapshot.seq} lacks its page {name.hex()}"
        self._replace_snapshot(snapshot)
        if snapshot.vote is None:
            self._release_fetched(_EVER)

    def _replace_snapshot(self, snapshot: Snapshot) -> None:
        """The row of its slot; an own vote that was given there stays, whatever the state."""
        at = (snapshot.seq,)
        before = self._writer.execute("select manifest, vote from snapshots where seq = ?", at).fetchone()
        vote = signed_blob(snapshot.vote)
        if vote is None and before is not None:
            vote = before[1]
        row = (snapshot.seq, snapshot.digest, vote)
        self._writer.execute(
            "insert or replace into snapshots values (?, ?, ?, ?, ?)",
            (snapshot.seq, snapshot.digest, snapshot.manifest, vote, row_sum("snapshots", *row)),
        )
        self._writer.execute("delete from void where seq = ?", at)
        self._collect([before[0]] if before is not None else [])

    def _put_stable(self, stable: Stable) -> None:
        current, previous = stable_seqs(self._writer)
        if stable.seq < current:
            return
        if stable.seq > current:
            previous = current
        execute = self._writer.execute
        row = (stable.seq, previous, encode(stable.certificate))
        execute("insert or replace into stable values (1, ?, ?, ?, ?)", (*row, row_sum("stable", *row)))
        execute("delete from accepted where seq <= ?", (stable.seq,))
        execute("delete from prepared where seq <= ?", (stable.seq,))
        if execute("select 1 from void where seq = ?", (stable.seq,)).fetchone():
            execute("delete from void")  # the own state has become the certified one by itself
        execute("delete from void where seq <= ?", (stable.seq,))
        self._drop_snapshots(previous)
        if execute("select 1 from snapshots where seq = ? and vote is not null", (stable.seq,)).fetchone():
            self._release_fetched(previous)

    def _drop_snapshots(self, previous: int) -> None:
        """Drop snapshots older than the newest one at or below the previous stable checkpoint, and their pages."""
        rule = "seq < (select max(seq) from snapshots where seq <= ?)"
        dropped = [row[0] for row in self._writer.execute(f"select manifest from snapshots where {rule}", (previous,))]
        if not dropped:
            return
        self._writer.execute(f"delete from snapshots where {rule}", (previous,))
        self._collect(dropped)

    def _collect(self, dropped: list[bytes]) -> None:
        """Drop the pages that only these manifests refer to, unless a transfer may need them."""
        if not dropped:
            return
        unused = [(digest,) for digest in garbage(dropped, self._manifests())]
        self._writer.executemany("delete from pages where digest = ? and fetched is null", unused)

    def _release_fetched(self, before: int) -> None:
        """End the protection of pages fetched when the stable checkpoint was below `before`; unused ones go."""
        rows = self._writer.execute("select digest from pages where fetched < ?", (before,)).fetchall()
        if not rows:
            return
        used: set[bytes] = set()
        for manifest in self._manifests():
            used |= manifest_pages(manifest)
        self._writer.execute("update pages set fetched = null where fetched < ?", (before,))
        self._writer.executemany("delete from pages where digest = ?", [row for row in rows if row[0] not in used])

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn errors of SQLite and of the disk, and damage, into one error that names the file."""
        try:
            yield
        except OSError as error:
            raise StorageError(f"{self._path}: {error.strerror}") from error
        except sqlite3.Error as error:
            name = getattr(error, "sqlite_errorname", "no code")
            kind = VotesLost if name.startswith(_DAMAGE) else StorageError
            raise kind(f"{self._path}: {error} ({name})") from error
        except StorageError as error:
            if str(self._path.parent) in str(error):
                raise
            raise type(error)(f"{self._path}: {error}") from error
