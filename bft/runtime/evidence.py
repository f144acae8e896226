"""Where a replica keeps evidence against others: a self-contained JSON file per accusation, bounded in number and size.

Nothing waits for a file: `keep` remembers, `run` writes in a thread. Losing one costs an accusation, never safety.
"""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import msgspec
import trio

from bft.core.evidence import bucket, file_of
from bft.events import Evidence
from bft.storage.files import write_whole

FILES_PER_ACCUSED_MAX = 16
BYTES_PER_ACCUSED_MAX = 64 * 1024 * 1024
"""No liar can take the room of the evidence against another one; with the number of replicas they bound the folder."""
WAITING_MAX = 64


class EvidenceKeeper:
    """Keeps evidence in a folder: at most one file per accused, kind and stretch of views."""

    def __init__(self, folder: Path, cluster_id: bytes) -> None:
        self._folder = folder
        self._cluster_id = cluster_id
        self._seen: dict[str, None] = {}
        self._counts: Counter[int] = Counter()
        self._waiting: list[tuple[str, Evidence]] = []
        self._wake = trio.Event()
        self._log = logging.getLogger("bft.evidence")

    def keep(self, evidence: Evidence) -> bool:
        """Remember to write an accusation; False if its like was kept before, or there is enough of it."""
        name = f"r{evidence.accused}-{evidence.kind}-{_stretch(evidence)}.json"
        full = len(self._waiting) >= WAITING_MAX or self._counts[evidence.accused] >= FILES_PER_ACCUSED_MAX
        if name in self._seen or full:
            return False
        self._seen[name] = None
        self._counts[evidence.accused] += 1
        self._waiting.append((name, evidence))
        self._wake.set()
        return True

    async def run(self) -> None:
        """Write what is kept, in a thread, until cancelled; then what is left."""
        try:
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                waiting, self._waiting = self._waiting, []
                await trio.to_thread.run_sync(self._write_all, waiting)
        finally:
            self.flush()

    def flush(self) -> list[Path]:
        """Write what waits, here and now; the files written."""
        waiting, self._waiting = self._waiting, []
        return self._write_all(waiting)

    def _write_all(self, waiting: list[tuple[str, Evidence]]) -> list[Path]:
        written = []
        for name, evidence in waiting:
            try:
                path = self._write(name, evidence)
            except OSError as error:
                self._log.warning("evidence against r%d not kept: %s", evidence.accused, error)
                continue
            if path is not None:
                written.append(path)
        return written

    def _write(self, name: str, evidence: Evidence) -> Path | None:
        """Write one file, whole or not at all; None if it is there from an earlier life, or there are enough."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / name
        others = [item.stat().st_size for item in self._folder.glob(f"r{evidence.accused}-*.json")]
        content = msgspec.json.encode(file_of(evidence, self._cluster_id))
        if path.exists() or len(others) >= FILES_PER_ACCUSED_MAX:
            return None
        if sum(others) + len(content) > BYTES_PER_ACCUSED_MAX:
            return None
        write_whole(path, content)
        return path


def _stretch(evidence: Evidence) -> str:
    """Views begin again in every epoch, so evidence of a later one says of which."""
    epoch = f"e{len(evidence.links)}-" if evidence.links else ""
    return f"{epoch}v{bucket(evidence)}"
