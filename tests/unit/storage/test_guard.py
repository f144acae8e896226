"""The note beside the key: a store that has forgotten is refused, and a store that has not never is."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import pytest

from bft.errors import StorageError, VotesLost
from bft.events import Forgotten, Stable
from bft.messages import CheckpointCertificate, Endorsement
from bft.storage.guard import read_mark
from bft.storage.sqlite import SqliteStore
from tests.unit.storage.test_sqlite import CLUSTER, SIGNATURE, accepted, snapshot


def _open(folder: Path, *, boot: str = "first", durability: str = "power") -> SqliteStore:
    path = folder / "data" / "replica.db"
    return SqliteStore(path, CLUSTER, 1, durability, folder / "r1.pem.used", boot)  # type: ignore[arg-type]


def _abandon(store: SqliteStore) -> None:
    """As kill -9 does: files stay as they are, the lock goes."""
    for connection in store._connections:
        connection.interrupt()
    store._broken = True
    store.close()


def _backup(folder: Path) -> Path:
    copy = folder / "backup"
    shutil.copytree(folder / "data", copy)
    return copy


def _restore(folder: Path, copy: Path) -> None:
    shutil.rmtree(folder / "data")
    shutil.copytree(copy, folder / "data")


def _stable(seq: int) -> Stable:
    endorsements = tuple(Endorsement(replica, SIGNATURE) for replica in range(3))
    return Stable(seq, CheckpointCertificate(0, seq, snapshot(seq, b"page").digest, endorsements))


def test_backup_of_an_earlier_life_is_refused(tmp_path: Path) -> None:
    """The store was closed, copied, used again, and replaced by the copy."""
    _open(tmp_path).close()
    copy = _backup(tmp_path)
    store = _open(tmp_path)
    store.write([accepted(1)])
    store.close()
    _restore(tmp_path, copy)
    with pytest.raises(VotesLost, match=r"is an old copy: .* refuses to vote, .* give the replica a new key"):
        _open(tmp_path)


def test_backup_made_while_the_store_was_open_is_refused_after_a_clean_end(tmp_path: Path) -> None:
    """Votes may have been given between the copy and the end."""
    store = _open(tmp_path)
    copy = _backup(tmp_path)
    store.write([accepted(1)])
    store.close()
    _restore(tmp_path, copy)
    with pytest.raises(VotesLost, match="is an old copy"):
        _open(tmp_path)


def test_backup_from_before_a_stable_checkpoint_is_refused_after_a_kill(tmp_path: Path) -> None:
    """Without a clean end the last stable checkpoint tells."""
    store = _open(tmp_path)
    copy = _backup(tmp_path)
    store.write([snapshot(8, b"page"), _stable(8)])
    _abandon(store)
    _restore(tmp_path, copy)
    with pytest.raises(VotesLost, match=r"with stable checkpoint 0, but .* has seen .* stable checkpoint 8"):
        _open(tmp_path)


def test_store_that_was_killed_is_taken_again(tmp_path: Path) -> None:
    """kill -9 loses nothing: no alarm, in the same run of the system or, at durability power, in another."""
    store = _open(tmp_path)
    store.write([snapshot(8, b"page"), _stable(8), accepted(9)])
    _abandon(store)
    store = _open(tmp_path)
    assert store.load().accepted == [accepted(9)]
    _abandon(store)
    _open(tmp_path, boot="second").close()


def test_reboot_under_durability_process_is_amnesia_unless_the_end_was_clean(tmp_path: Path) -> None:
    """What was not synced may be gone, and nothing in the file tells."""
    _open(tmp_path, durability="process").close()
    store = _open(tmp_path, boot="second", durability="process")
    _abandon(store)
    _abandon(_open(tmp_path, boot="second", durability="process"))
    for durability in ("process", "power"):
        with pytest.raises(VotesLost, match="machine has been restarted while the replica ran with durability 'pro"):
            _open(tmp_path, boot="third", durability=durability)
    _open(tmp_path, boot="second", durability="process").close()
    _open(tmp_path, boot="third", durability="process").close()


def test_replica_that_found_out_refuses_for_ever(tmp_path: Path) -> None:
    """Also with another copy of its store: the guard remembers."""
    store = _open(tmp_path)
    copy = _backup(tmp_path)
    store.write([Forgotten("it does not know a vote of its own")])
    _abandon(store)
    for _ in range(2):
        with pytest.raises(VotesLost, match="refuses to vote: it does not know a vote of its own"):
            _open(tmp_path)
        _restore(tmp_path, copy)


def test_store_of_a_replica_that_found_out_refuses_though_the_note_does_not_say_so(tmp_path: Path) -> None:
    """The process may die between the two; and an agent's store has no note."""
    store = _open(tmp_path)
    marker = tmp_path / "r1.pem.used"
    before = marker.read_bytes()
    store.write([Forgotten("it does not know a vote of its own")])
    _abandon(store)
    marker.write_bytes(before)
    for note in (marker, None):
        with pytest.raises(VotesLost, match="refuses to vote: it does not know a vote of its own"):
            SqliteStore(tmp_path / "data" / "replica.db", CLUSTER, 1, "power", note)


def test_generation_that_is_no_number_is_refused(tmp_path: Path) -> None:
    """Whatever SQLite finds in its place: copies could not be told apart any more."""
    _open(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / "data" / "replica.db")) as found, found:
        found.execute("update life set generation = ?", (b"nine",))
    with pytest.raises(VotesLost, match="generation is corrupt"):
        _open(tmp_path)


def test_notes_of_the_first_version_are_understood(tmp_path: Path) -> None:
    """They name the store only."""
    _open(tmp_path).close()
    marker = tmp_path / "r1.pem.used"
    marker.write_text("".join(line for line in marker.read_text().splitlines(keepends=True)[:2]))
    _open(tmp_path).close()
    mark = read_mark(marker)
    assert mark is not None and mark.is_clean and mark.generation >= 3


@pytest.mark.parametrize("text", ["", "store\n", "generation 3\n", "store abc\ngeneration three\n", "\x00\xff"])
def test_damaged_note_is_refused(tmp_path: Path, text: str) -> None:
    """A key whose note says nothing must not vote."""
    _open(tmp_path).close()
    (tmp_path / "r1.pem.used").write_bytes(text.encode("latin-1"))
    with pytest.raises(VotesLost, match=r"r1\.pem\.used"):
        _open(tmp_path)


def test_clean_end_syncs_also_a_log_that_somebody_reads(tmp_path: Path, synced: list[str]) -> None:
    """SQLite moves the log into the file only when the last one closes it: the votes are in the log, unsynced."""
    store = _open(tmp_path, durability="process")
    store.write([accepted(1)])
    with closing(sqlite3.connect(tmp_path / "data" / "replica.db")) as reader:
        reader.execute("begin")
        reader.execute("select count(*) from accepted").fetchone()
        synced.clear()
        store.close()
        assert (tmp_path / "data" / "replica.db-wal").stat().st_size > 0
    assert set(synced[:-2]) == {"replica.db", "replica.db-wal", "data"}
    assert synced[-2:] == ["r1.pem.used.new", tmp_path.name], "what the note says is durable before the note"


def test_durability_power_begins_with_what_another_life_has_not_synced(tmp_path: Path, synced: list[str]) -> None:
    """Else the note would say "power" while votes of a life at "process" could still be lost in the same boot."""
    store = _open(tmp_path, durability="process")
    store.write([accepted(1)])
    copy = _backup(tmp_path)
    store.close()
    _restore(tmp_path, copy)  # as kill -9 leaves it: the vote is in the log
    assert (tmp_path / "data" / "replica.db-wal").stat().st_size > 0
    (tmp_path / "r1.pem.used").unlink()
    synced.clear()
    store = _open(tmp_path, durability="power")
    assert synced[:3] == ["replica.db", "replica.db-wal", "data"]
    assert store.load().accepted == [accepted(1)]
    store.close()


def test_flipped_bit_in_a_note_is_not_taken_for_harmless(tmp_path: Path) -> None:
    """What a note does not say counts as harmless, so a word that cannot be read must not make a note say less."""
    store = _open(tmp_path)
    store.write([Forgotten("it does not know a vote of its own")])
    _abandon(store)
    marker = tmp_path / "r1.pem.used"
    sound, content = read_mark(marker), marker.read_bytes()
    assert sound is not None and sound.refused and not sound.is_clean
    for place in range(len(content)):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[place] ^= 1 << bit
            marker.write_bytes(flipped)
            with suppress(StorageError):
                assert read_mark(marker) == sound, f"byte {place}, bit {bit}: {bytes(flipped)!r}"
