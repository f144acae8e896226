"""What a replica keeps so that a fork can be explained: how views began, and what was decided.

The protocol needs neither once a checkpoint covers it; forensics does (`bft.core.forensics`). Bounded, written every
second in a thread and without fsync: losing the tail costs an explanation, never safety.

In a folder: `commits-<slot>.bin`, commit certificates as frames (4-byte length, packet), a bounded number of files of a
bounded number of certificates; `new-view-<epoch>-<view>.bin`, one frame each, the latest ones.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import trio

from bft.core.proofs import opened
from bft.messages import PAYLOAD_BYTES_MAX, CommitCertificate, NewView, Signed
from bft.storage.files import write_whole
from bft.transport.frames import HEADER_BYTES, pack
from bft.wire.codec import Malformed, decode_packet, encode

SEGMENTS_MAX = 8
NEW_VIEWS_MAX = 32
NEW_VIEWS_WAITING_MAX = 4
SPILL_SECONDS = 1.0
FILE_BYTES_MAX = 64 * 1024 * 1024


class Archive:
    """The archive of one replica.

    Attributes:
        commits: certificates that wait to be written; whoever reports one appends it, which is all it costs.
    """

    def __init__(self, folder: Path, slots_max: int) -> None:
        """Keep about the last `slots_max` decided slots; 0 keeps nothing."""
        self._folder = folder
        self._per_segment = max(slots_max // SEGMENTS_MAX, 1)
        self._segment: tuple[Path, int] | None = None
        self.commits: deque[CommitCertificate] = deque(maxlen=slots_max)
        self._new_views: deque[Signed] = deque(maxlen=NEW_VIEWS_WAITING_MAX if slots_max else 0)
        self._log = logging.getLogger("bft.archive")

    def enter(self, new_view: Signed) -> None:
        """A view was entered by this NEW-VIEW."""
        self._new_views.append(new_view)

    async def run(self) -> None:
        """Write what waits, again and again, until cancelled; then what is left."""
        try:
            while True:
                await trio.sleep(SPILL_SECONDS)
                commits, new_views = self._taken()
                if commits or new_views:
                    await trio.to_thread.run_sync(self._write, commits, new_views)
        finally:
            self.flush()

    def flush(self) -> None:
        """Write what waits, here and now."""
        self._write(*self._taken())

    def _taken(self) -> tuple[list[CommitCertificate], list[Signed]]:
        commits, new_views = list(self.commits), list(self._new_views)
        self.commits.clear()
        self._new_views.clear()
        return commits, new_views

    def _write(self, commits: list[CommitCertificate], new_views: list[Signed]) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for start in range(0, len(commits), self._per_segment):
                self._append(commits[start : start + self._per_segment])
            for signed in new_views:
                message = opened(signed)
                assert isinstance(message, NewView), "a replica enters views by NEW-VIEWs"
                name = f"new-view-{message.epoch:010}-{message.view:020}.bin"
                write_whole(self._folder / name, pack([encode(signed)]))
            self._forget("commits-*.bin", SEGMENTS_MAX + 1)
            self._forget("new-view-*.bin", NEW_VIEWS_MAX)
        except OSError as error:
            self._log.warning("not archived: %s", error)

    def _append(self, commits: Sequence[CommitCertificate]) -> None:
        if self._segment is None or self._segment[1] >= self._per_segment:
            self._segment = (self._folder / f"commits-{commits[0].seq:020}.bin", 0)
        path, count = self._segment
        with path.open("ab") as file:
            file.write(pack([encode(certificate) for certificate in commits]))
        self._segment = (path, count + len(commits))

    def _forget(self, pattern: str, files_max: int) -> None:
        for path in sorted(self._folder.glob(pattern))[:-files_max]:
            path.unlink()


def read_archive(folder: Path) -> tuple[list[CommitCertificate], list[Signed]]:
    """Everything that archives below `folder` hold, unverified; what is torn, too long or no packet is passed over."""
    commits: list[CommitCertificate] = []
    new_views: list[Signed] = []
    for path in sorted(folder.rglob("*.bin")):
        for frame in _frames(path):
            try:
                packet = decode_packet(frame)
            except Malformed:
                continue
            if isinstance(packet, CommitCertificate):
                commits.append(packet)
            elif isinstance(packet, Signed):
                new_views.append(packet)
    return commits, new_views


def _frames(path: Path) -> list[bytes]:
    try:
        if not path.is_file() or path.stat().st_size > FILE_BYTES_MAX:
            return []
        content = path.read_bytes()
    except OSError:
        return []
    frames = []
    at = 0
    while at + HEADER_BYTES <= len(content):
        length = int.from_bytes(content[at : at + HEADER_BYTES], "big")
        at += HEADER_BYTES
        if not 0 < length <= PAYLOAD_BYTES_MAX + 4096 or at + length > len(content):
            break
        frames.append(content[at : at + length])
        at += length
    return frames
