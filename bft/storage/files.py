"""Files that a crash or power loss leaves whole: the old content or the new one, never a part."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Create or replace a small file, durably and at once.

    Raises:
        OSError: the disk refused; the file is as it was, and a draft may lie beside it.
    """
    draft = path.with_name(path.name + ".new")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    sync(path.parent)


def make_folder(folder: Path) -> None:
    """Create a folder, and those above it that are missing, durably: what is synced in it later can be found again.

    Raises:
        OSError: the disk refused, or a file has that name.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        sync(path.parent)


def sync(path: Path) -> None:
    """Make durable what was written to a file, whoever wrote it, or which entries a folder has.

    Raises:
        OSError: the disk refused.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
