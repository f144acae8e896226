"""Folders that hold private keys."""

from __future__ import annotations

from pathlib import Path

from bft.errors import KeyFileError


def make_folder(folder: Path) -> None:
    """Make a folder for private keys, closed to others.

    Raises:
        KeyFileError: it cannot be made.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise KeyFileError(f"{folder}: folder cannot be made: {error.strerror}") from error
