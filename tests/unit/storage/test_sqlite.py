"""What the SQLite store refuses, and what it survives."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bft.digests import batch_digest, page_digest, pages_digest, state_digest
from bft.errors import StorageError, VotesLost
from bft.events import Accepted, Epoch, Pages, Prepared, Snapshot, Stable, ViewRecord
from bft.headers import Header, Manifest, MembershipChange, Pending, Reconfigure
from bft.messages import (
    Checkpoint,
    CheckpointCertificate,
    Endorsement,
    EpochLink,
    PreparedCertificate,
    PrePrepare,
    Signed,
)
from bft.storage.sqlite import PAGE_BYTES, SqliteStore
from bft.wire.codec import encode

CLUSTER = b"c" * 32
SIGNATURE = bytes(64)


def accepted(seq: int, batch: bytes = b"batch") -> Accepted:
    return Accepted(seq, 0, Signed(0, encode(PrePrepare(0, 0, seq, batch_digest(batch))), SIGNATURE), batch)


def snapshot(seq: int, page: bytes) -> Snapshot:
    service = (page_digest(page),)
    header = encode(Header(0, seq, bytes(32), 0, 0, pages_digest(service, ()), bytes(32), None))
    manifest = encode(Manifest(header, service, ()))
    vote = Signed(1, encode(Checkpoint(0, seq, state_digest(header))), SIGNATURE)
    return Snapshot(seq, state_digest(header), manifest, {page_digest(page): page}, vote)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "replica.db"


@contextmanager
def refused(text: str) -> Iterator[None]:
    """Refused for now, or for this file: no sign that votes are lost (`bft replica rejoin`)."""
    with pytest.raises(StorageError, match=text) as caught:
        yield
    assert caught.type is StorageError


def damage(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement)
    connection.close()


def test_second_store_on_the_same_file_is_refused(path: Path) -> None:
    """Two processes must not vote from one store."""
    store = SqliteStore(path, CLUSTER, 1)
    with refused("in use by another process"):
        SqliteStore(path, CLUSTER, 1)
    store.close()
    SqliteStore(path, CLUSTER, 1).close()


def test_store_behind_a_link_is_the_same_store(path: Path, tmp_path: Path) -> None:
    """SQLite follows links, so one lock must stand for all names of a file."""
    store = SqliteStore(path, CLUSTER, 1)
    link = tmp_path / "other" / "link.db"
    link.parent.mkdir()
    link.symlink_to(path)
    with refused("in use by another process"):
        SqliteStore(link, CLUSTER, 1)
    store.close()
    store = SqliteStore(link, CLUSTER, 1)
    with refused("in use by another process"):
        SqliteStore(path, CLUSTER, 1)
    store.close()


@pytest.mark.parametrize(
    ("cluster", "replica", "text"),
    [(b"d" * 32, 1, "belongs to cluster 6363"), (CLUSTER, 2, "belongs to replica 1, not to replica 2")],
)
def test_foreign_store_is_refused(path: Path, cluster: bytes, replica: int, text: str) -> None:
    """A store of another cluster or replica is refused by name."""
    SqliteStore(path, CLUSTER, 1).close()
    with refused(text):
        SqliteStore(path, cluster, replica)


def test_store_of_unknown_format_is_refused(path: Path) -> None:
    """A future format is not guessed at."""
    SqliteStore(path, CLUSTER, 1).close()
    damage(path, "update identity set format = 99")
    with refused("format 99, this program reads 2"):
        SqliteStore(path, CLUSTER, 1)


def test_file_that_is_no_database_is_refused(path: Path) -> None:
    """Random bytes are not a store."""
    path.parent.mkdir()
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(VotesLost, match="not a database"):
        SqliteStore(path, CLUSTER, 1)


def test_overwritten_database_page_is_refused(path: Path) -> None:
    """Damage to the file's structure is found on opening or on loading."""
    store = SqliteStore(path, CLUSTER, 1)
    store.write([accepted(seq, os.urandom(3000)) for seq in range(1, 200)])
    store.close()
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2 // PAGE_BYTES * PAGE_BYTES)
        file.write(os.urandom(PAGE_BYTES))
    with pytest.raises(VotesLost):
        SqliteStore(path, CLUSTER, 1).load()


def test_damage_that_only_sqlite_finds_is_a_loss_of_votes(path: Path) -> None:
    """Its own word for it is "malformed": what a replica is told to do about it must not depend on words."""
    store = SqliteStore(path, CLUSTER, 1)
    store.write([accepted(seq, os.urandom(3000)) for seq in range(1, 200)])
    store._writer.execute("pragma wal_checkpoint(truncate)")
    root = store._writer.execute("select rootpage from sqlite_schema where name = 'accepted'").fetchone()[0]
    with path.open("r+b") as file:
        file.seek((root - 1) * PAGE_BYTES)
        file.write(os.urandom(PAGE_BYTES))
    store._writer.execute("pragma shrink_memory")
    with pytest.raises(VotesLost, match="malformed"):
        store.load()
    store.close()


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        ("update accepted set batch = x'00'", "accepted pre-prepare at seq 3, view 0 is corrupt: its batch"),
        ("update accepted set seq = 4", "the message is of seq 3"),
        ("update accepted set pre_prepare = x'c1'", "accepted pre-prepare at seq 3"),
        ("update pages set bytes = x'00'", "page [0-9a-f]+ is corrupt"),
        ("delete from pages", "snapshot at seq 2 is corrupt: page [0-9a-f]+ is missing"),
        ("update snapshots set manifest = x'00'", "snapshot at seq 2 is corrupt: its manifest"),
        ("update snapshots set vote = x'c1'", "checkpoint vote at seq 2 is corrupt"),
        ("update stable set certificate = x'c1'", "stable checkpoint certificate is corrupt"),
        ("update view set new_view = x'c1'", "new-view for view 5 is corrupt"),
    ],
)
def test_damaged_row_is_refused_on_load(path: Path, statement: str, text: str) -> None:
    """Whatever a row says must be what was written: digests and types are checked."""
    store = SqliteStore(path, CLUSTER, 1)
    certificate = CheckpointCertificate(0, 2, bytes(32), (Endorsement(0, SIGNATURE),))
    store.write([ViewRecord(5, True, None, accepted(1).pre_prepare), snapshot(2, b"page"), Stable(2, certificate)])
    store.write([accepted(3)])
    store.close()
    damage(path, statement)
    store = SqliteStore(path, CLUSTER, 1)
    with pytest.raises(StorageError, match=text):
        store.load()
    store.close()


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        ("update view set view = 4", "record of the present view is corrupt: its columns do not have the sum"),
        ("update view set active = 0", "record of the present view is corrupt"),
        ("update view set new_view = null", "record of the present view is corrupt"),
        ("update stable set previous = 1", "stable checkpoint certificate is corrupt"),
        ("update accepted set seq = 1 where seq = 3", "accepted pre-prepare at seq 1"),
        ("update snapshots set vote = null", "checkpoint vote at seq 2 is corrupt"),
        ("update prepared set certificate = {flipped}", "prepared certificate at seq 3 is corrupt"),
        ("update accepted set pre_prepare = {flipped} where seq = 4", "accepted pre-prepare at seq 4 is corrupt"),
        ("update accepted set batch = 7 where seq = 3", "accepted pre-prepare at seq 3, view 0 is corrupt"),
        ("update stable set certificate = 'text'", "stable checkpoint certificate is corrupt"),
        ("update snapshots set manifest = 'text'", "snapshot at seq 2 is corrupt"),
        ("update pages set bytes = 7", "is corrupt"),
    ],
)
def test_damage_to_numbers_and_signatures_is_noticed(path: Path, statement: str, text: str) -> None:
    """No digest covers them: a bit that flips could make a vote of another view, or none, of what was written."""
    store = SqliteStore(path, CLUSTER, 1)
    certificate = CheckpointCertificate(0, 2, bytes(32), (Endorsement(0, SIGNATURE),))
    store.write([ViewRecord(5, True, None, accepted(1).pre_prepare), snapshot(2, b"page"), Stable(2, certificate)])
    endorsements = (Endorsement(1, SIGNATURE), Endorsement(2, SIGNATURE))
    prepared = Prepared(3, PreparedCertificate(accepted(3).pre_prepare, endorsements))
    store.write([accepted(3), accepted(4), prepared])
    store.close()
    column = "certificate" if "certificate" in statement else "pre_prepare"  # each ends with a byte of a signature
    damage(path, statement.format(flipped=f"cast(substr({column}, 1, length({column}) - 1) || x'01' as blob)"))
    store = SqliteStore(path, CLUSTER, 1)
    with pytest.raises(StorageError, match=text):
        store.load()
    store.close()


def test_store_of_the_format_without_sums_is_given_them(path: Path) -> None:
    """A replica of the version before goes on with what it has, and damage is found from then on."""
    store = SqliteStore(path, CLUSTER, 1)
    certificate = CheckpointCertificate(0, 2, bytes(32), (Endorsement(0, SIGNATURE),))
    store.write([ViewRecord(5, True, None, accepted(1).pre_prepare), snapshot(2, b"page"), Stable(2, certificate)])
    store.write([accepted(3), accepted(4)])
    before = store.load()
    store.close()
    for table in ("view", "stable", "accepted", "prepared", "snapshots", "epochs"):
        damage(path, f"alter table {table} drop column sum")
    damage(path, "update identity set format = 2")
    store = SqliteStore(path, CLUSTER, 1)
    assert store.load() == before
    store.write([accepted(5)])
    store.close()
    store = SqliteStore(path, CLUSTER, 1)
    assert store.load().accepted == [accepted(3), accepted(4), accepted(5)]
    store.close()
    damage(path, "update view set active = 0")
    with pytest.raises(VotesLost, match="record of the present view is corrupt"):
        SqliteStore(path, CLUSTER, 1).load()


def test_damaged_page_of_another_type_is_found_and_repaired(path: Path) -> None:
    """One bit in SQLite's record header makes a text of bytes, or a number; no peer's page is needed for the former."""
    store = SqliteStore(path, CLUSTER, 1)
    body = b"\xff page"
    name = page_digest(body)
    store.write([snapshot(2, body)])
    damage(path, "update pages set bytes = cast(bytes as text)")
    assert store.damaged([name]) == [] and store.read_pages([name]) == [body]
    damage(path, "update pages set bytes = 7")
    assert store.damaged([name]) == [name] and store.read_pages([name]) == []
    store.write([Pages({name: body})])
    assert store.damaged([name]) == []
    store.close()


def test_disk_that_fails_while_the_store_is_made_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the system says becomes the one error that callers know."""

    def refuse(_: int) -> None:
        raise OSError(5, "Input/output error")

    path.parent.mkdir()
    monkeypatch.setattr(os, "fsync", refuse)
    with refused(r"replica\.db: Input/output error"):
        SqliteStore(path, CLUSTER, 1)


def test_damaged_page_is_not_served(path: Path) -> None:
    """A page that lost its digest is no answer; the scrub finds it, and a page from others takes its place."""
    store = SqliteStore(path, CLUSTER, 1)
    store.write([snapshot(2, b"page")])
    name = page_digest(b"page")
    assert store.kept_pages() == [name]
    assert store.damaged([name]) == []
    damage(path, "update pages set bytes = x'00'")
    assert store.read_pages([name]) == []
    assert store.damaged([name, bytes(32)]) == [name]
    store.write([Pages({name: b"page"})])
    assert store.damaged([name]) == []
    assert store.read_pages([name]) == [b"page"]
    store.close()


def test_damaged_page_that_is_given_again_is_sound(path: Path) -> None:
    """A page that was written to, and has the same content as before, is given again with the next snapshot."""
    store = SqliteStore(path, CLUSTER, 1)
    store.write([snapshot(2, b"page")])
    damage(path, "update pages set bytes = x'00'")
    store.write([snapshot(4, b"page")])
    assert store.read_pages([page_digest(b"page")]) == [b"page"]
    store.close()
    assert SqliteStore(path, CLUSTER, 1).load().snapshot == snapshot(4, b"page")


def test_full_disk_is_reported_and_the_store_refuses_to_go_on(path: Path) -> None:
    """A failed write says why, leaves nothing of its transaction, and is never followed by another."""
    store = SqliteStore(path, CLUSTER, 1)
    store.write([accepted(1)])
    store._writer.execute("pragma max_page_count = 20")
    with refused("full"):
        store.write([accepted(2), accepted(3, bytes(10**6))])
    with refused("an earlier write failed"):
        store.write([accepted(4)])
    store.close()

    store = SqliteStore(path, CLUSTER, 1)
    assert store.load().accepted == [accepted(1)]
    store.close()


def test_read_only_database_is_refused(path: Path) -> None:
    """A database that cannot be written is an error at the first write at the latest."""
    store = SqliteStore(path, CLUSTER, 1)
    store._writer.execute("pragma query_only = on")
    with refused("readonly"):
        store.write([accepted(1)])
    store.close()


def test_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    """A folder under a file is nowhere."""
    (tmp_path / "file").write_text("")
    with refused("store folder cannot be written"):
        SqliteStore(tmp_path / "file" / "replica.db", CLUSTER, 1)


def test_empty_store_is_refused_when_the_key_has_voted(path: Path, tmp_path: Path) -> None:
    """A key that has voted must not vote from an empty store: it could contradict itself."""
    marker = tmp_path / "r1.pem.used"
    store = SqliteStore(path, CLUSTER, 1, marker=marker)
    store.close()
    SqliteStore(path, CLUSTER, 1, marker=marker).close()
    path.unlink()
    with pytest.raises(VotesLost, match="Voting with an empty store would be a Byzantine fault"):
        SqliteStore(path, CLUSTER, 1, marker=marker)
    path.write_bytes(b"")
    with pytest.raises(VotesLost, match="Byzantine"):
        SqliteStore(path, CLUSTER, 1, marker=marker)


def test_store_other_than_the_one_the_key_used_is_refused(path: Path, tmp_path: Path) -> None:
    """A store of the same replica that is not the one with its votes does not do."""
    marker = tmp_path / "r1.pem.used"
    SqliteStore(path, CLUSTER, 1, marker=marker).close()
    other = tmp_path / "other" / "replica.db"
    SqliteStore(other, CLUSTER, 1).close()
    with pytest.raises(VotesLost, match="the key was last used with store"):
        SqliteStore(other, CLUSTER, 1, marker=marker)


def test_lost_marker_is_written_again(path: Path, tmp_path: Path) -> None:
    """A store whose marker was not written before a crash claims its key at the next start."""
    marker = tmp_path / "r1.pem.used"
    SqliteStore(path, CLUSTER, 1).close()
    SqliteStore(path, CLUSTER, 1, marker=marker).close()
    assert "store " in marker.read_text()


_WRITER = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_sqlite import CLUSTER, SqliteStore, accepted
store = SqliteStore(Path({path!r}), CLUSTER, 1, {durability!r})
seq = 0
while True:
    seq += 1
    store.write([accepted(2 * seq - 1), accepted(2 * seq)])
    print(2 * seq, flush=True)
"""


@pytest.mark.parametrize("durability", ["process", "power"])
def test_killed_process_loses_nothing_that_it_was_told_is_written(path: Path, durability: str) -> None:
    """kill -9 between any two instructions: all acknowledged writes are there, and transactions are whole."""
    script = _WRITER.format(tests=str(Path(__file__).parent), path=str(path), durability=durability)
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = 0
    for line in process.stdout:
        told = int(line)
        if told >= 100:
            break
    process.send_signal(signal.SIGKILL)
    told = max([told, *(int(line) for line in process.stdout.read().split())])
    process.wait()

    store = SqliteStore(path, CLUSTER, 1)
    seqs = [record.seq for record in store.load().accepted]
    store.close()
    assert seqs == list(range(1, len(seqs) + 1))
    assert len(seqs) % 2 == 0
    assert len(seqs) >= told


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        ("update epochs set link = x'00'", "end of epoch 0 is corrupt"),
        ("update epochs set epoch = 1", "end of epoch 1 is corrupt"),
        ("delete from epochs where epoch = 0", "a link is missing"),
    ],
)
def test_damaged_chain_of_epochs_is_noticed(path: Path, statement: str, text: str) -> None:
    """A replica must not go on in an epoch that it cannot prove."""
    store = SqliteStore(path, CLUSTER, 1)
    for epoch in (0, 1) if "delete" in statement else (0,):
        change = Reconfigure(encode(MembershipChange(epoch, ())), (), ())
        header = encode(Header(epoch, 8, bytes(32), 0, 0, bytes(32), bytes(32), Pending(8, change)))
        certificate = CheckpointCertificate(epoch, 8, state_digest(header), (Endorsement(0, SIGNATURE),))
        store.write([Epoch(EpochLink(header, certificate))])
    store.close()
    damage(path, statement)
    with pytest.raises(VotesLost, match=text):
        SqliteStore(path, CLUSTER, 1).load()
