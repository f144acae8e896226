"""Where a replica keeps evidence against others: one self-contained JSON file per accusation, bounded in number."""

from __future__ import annotations

import logging
from hashlib import blake2b
from pathlib import Path

import msgspec

from bft.core.evidence import EvidenceFile
from bft.events import Evidence

FILES_PER_ACCUSED_MAX = 32


class EvidenceKeeper:
    """Writes evidence into a folder, off the critical path: losing a file costs an accusation, never safety."""

    def __init__(self, folder: Path, cluster_id: bytes) -> None:
        self._folder = folder
        self._cluster_id = cluster_id
        self._kept: dict[int, int] = {}
        self._log = logging.getLogger("bft.evidence")

    def keep(self, evidence: Evidence) -> Path | None:
        """Write one accusation; None if there are enough against that replica, or the disk refuses."""
        kept = self._kept.get(evidence.accused)
        if kept is None:
            kept = len(list(self._folder.glob(f"r{evidence.accused}-*.json")))
        if kept >= FILES_PER_ACCUSED_MAX:
            self._kept[evidence.accused] = kept
            return None
        content = msgspec.json.encode(
            EvidenceFile(
                cluster=self._cluster_id,
                kind=evidence.kind,
                accused=evidence.accused,
                first=evidence.first,
                second=evidence.second,
                links=evidence.links,
            )
        )
        name = f"r{evidence.accused}-{evidence.kind}-{blake2b(content, digest_size=6).hexdigest()}.json"
        path = self._folder / name
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        except OSError as error:
            self._log.warning("evidence against r%d not kept: %s", evidence.accused, error)
            return None
        self._kept[evidence.accused] = kept + 1
        return path
