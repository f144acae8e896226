"""Files that are replaced whole: whoever reads one finds the old content or the new one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bft.storage.files import make_folder, sync, write_whole
from bft.storage.sqlite import SqliteStore


def test_content_is_synced_before_it_takes_its_place_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In any other order power loss could leave an empty file, or none."""
    done: list[str] = []
    real_sync, real_rename = os.fsync, os.rename
    path = tmp_path / "note"

    def fsync(descriptor: int) -> None:
        inode = os.fstat(descriptor).st_ino
        name = "folder" if inode == tmp_path.stat().st_ino else "draft"
        done.append(f"{name} synced, {'new' if path.exists() and path.read_bytes() == b'new' else 'old'}")
        real_sync(descriptor)

    def rename(source: str, target: str) -> None:
        done.append("renamed")
        real_rename(source, target)

    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    write_whole(path, b"new")
    assert done == ["draft synced, old", "renamed", "folder synced, new"]


def test_disk_that_refuses_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller is told; a later attempt passes over the draft."""
    path = tmp_path / "note"
    write_whole(path, b"old")

    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", refuse)
        with pytest.raises(OSError, match="No space left"):
            write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    write_whole(path, b"newer")
    assert path.read_bytes() == b"newer"
    assert [file.name for file in tmp_path.iterdir()] == ["note"]


def test_what_is_not_there_cannot_be_synced(tmp_path: Path) -> None:
    """A mistake of the caller is not passed over."""
    with pytest.raises(FileNotFoundError):
        sync(tmp_path / "absent")


def test_folder_is_made_durably_with_all_that_lead_to_it(tmp_path: Path, synced: list[str]) -> None:
    """A store that is synced in a folder that nobody finds after a power loss is lost."""
    make_folder(tmp_path / "a" / "b")
    assert sorted(synced) == sorted(["a", tmp_path.name])
    synced.clear()
    make_folder(tmp_path / "a" / "b")
    assert synced == []


def test_new_store_syncs_the_way_to_it(tmp_path: Path, synced: list[str]) -> None:
    """Before anything is written into it."""
    SqliteStore(tmp_path / "new" / "data" / "replica.db", bytes(32), 1).close()
    assert synced[:2] in (["new", tmp_path.name], [tmp_path.name, "new"])
