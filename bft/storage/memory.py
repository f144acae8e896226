"""A store that survives nothing: durability "memory", and the conformance suite's fast twin of the SQLite store.

A replica on it that restarts has forgotten its votes, hence counts as one of the f faulty ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import assert_never
from uuid import uuid4

from bft.digests import page_digest
from bft.errors import VotesLost
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
from bft.messages import CheckpointCertificate, EpochLink
from bft.storage.pages import garbage, manifest_pages
from bft.storage.rows import prepared_view


class MemoryStore:
    """A `Store` in dictionaries. `write` is atomic because nothing interrupts it.

    Attributes:
        store_id: see `bft.ports.Store`.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.store_id = uuid4().hex
        self._view: ViewRecord | None = None
        self._stable: CheckpointCertificate | None = None
        self._epochs: list[EpochLink] = []
        self._previous_stable_seq = 0
        self._accepted: dict[tuple[int, int], Accepted] = {}
        self._prepared: dict[int, Prepared] = {}
        self._snapshots: dict[int, Snapshot] = {}
        self._pages: dict[bytes, bytes] = {}
        self._fetched: dict[bytes, int] = {}
        self._forgotten = ""
        self._void: dict[int, None] = {}
        self._doubted = 0

    def load(self) -> Recovered:
        """Everything written so far that still matters.

        Raises:
            VotesLost: the replica has found out that it has forgotten votes.
        """
        if self._forgotten:
            raise VotesLost(f"the replica refuses to vote: {self._forgotten}")
        stable_seq = self._stable_seq
        recovered = Recovered(self._view, self._stable, doubted=self._doubted)
        recovered.epochs = list(self._epochs)
        recovered.accepted = [self._accepted[key] for key in sorted(self._accepted) if key[0] > stable_seq]
        recovered.prepared = [self._prepared[seq] for seq in sorted(self._prepared) if seq > stable_seq]
        for seq in sorted(self._snapshots):
            snapshot = self._snapshots[seq]
            if snapshot.vote is not None and seq > stable_seq:
                recovered.votes.append(snapshot.vote)
            if seq in self._void:
                continue
            recovered.taken[seq] = snapshot.digest
            if snapshot.vote is not None or seq <= stable_seq:
                recovered.snapshot = snapshot
        if recovered.snapshot is not None:
            pages = {digest: self._pages[digest] for digest in sorted(manifest_pages(recovered.snapshot.manifest))}
            recovered.snapshot = replace(recovered.snapshot, pages=pages)
        return recovered

    def write(self, records: Sequence[Record], /) -> None:
        """Take all records, in order."""
        for record in records:
            self._put(record)

    def read_pages(self, digests: Sequence[bytes], /) -> list[bytes]:
        """The pages among `digests` that are kept, in the order asked."""
        found = [(digest, self._pages[digest]) for digest in digests if digest in self._pages]
        return [page for digest, page in found if page_digest(page) == digest]

    def kept_pages(self) -> list[bytes]:
        """Digests of all pages that the kept snapshots refer to."""
        return sorted({digest for snapshot in self._snapshots.values() for digest in manifest_pages(snapshot.manifest)})

    def damaged(self, digests: Sequence[bytes], /) -> list[bytes]:
        """Those whose stored bytes have another digest."""
        return [digest for digest in digests if digest in self._pages and page_digest(self._pages[digest]) != digest]

    def read_manifest(self, digest: bytes, /) -> bytes | None:
        """The manifest with this state digest, if still kept."""
        return next((snap.manifest for snap in self._snapshots.values() if snap.digest == digest), None)

    def close(self) -> None:
        """Nothing to release."""

    @property
    def _stable_seq(self) -> int:
        return 0 if self._stable is None else self._stable.seq

    def _put(self, record: Record) -> None:
        match record:
            case Accepted():
                self._accepted[record.seq, record.view] = record
            case Prepared():
                old = self._prepared.get(record.seq)
                if old is None or prepared_view(old.certificate) <= prepared_view(record.certificate):
                    self._prepared[record.seq] = record
            case ViewRecord():
                self._view = record
            case Snapshot():
                self._put_snapshot(record)
            case Stable():
                self._put_stable(record)
            case Pages():
                self._fetched.update(dict.fromkeys(record.pages, self._stable_seq))
                self._pages.update(record.pages)
            case Epoch():
                assert record.link.certificate.epoch == len(self._epochs), "epochs follow each other"
                self._epochs.append(record.link)
                self._view = None
                self._accepted.clear()
                self._prepared.clear()
            case Forgotten(what):
                self._forgotten = what
            case Doubted(seq, executed):
                self._void.update((at, None) for at in self._snapshots if at >= seq)
                self._doubted = max(executed, self._doubted)
            case _:
                assert_never(record)

    def _put_snapshot(self, snapshot: Snapshot) -> None:
        self._pages.update(snapshot.pages)
        used = manifest_pages(snapshot.manifest)
        missing = [digest for digest in used if digest not in self._pages]
        assert not missing, f"snapshot at seq {snapshot.seq} lacks {len(missing)} of its pages"
        before = self._snapshots.get(snapshot.seq)
        vote = snapshot.vote if snapshot.vote is not None or before is None else before.vote
        self._snapshots[snapshot.seq] = replace(snapshot, vote=vote, pages={})
        self._void.pop(snapshot.seq, None)
        if before is not None:
            self._collect([before.manifest])
        if snapshot.vote is None:
            self._release(list(self._fetched))

    def _put_stable(self, stable: Stable) -> None:
        if stable.seq < self._stable_seq:
            return
        if stable.seq > self._stable_seq:
            self._previous_stable_seq = self._stable_seq
        self._stable = stable.certificate
        if stable.seq in self._void:  # the own state has become the certified one by itself
            self._void.clear()
        self._void = {seq: None for seq in self._void if seq > stable.seq}
        self._accepted = {key: value for key, value in self._accepted.items() if key[0] > stable.seq}
        self._prepared = {seq: value for seq, value in self._prepared.items() if seq > stable.seq}
        held = [seq for seq in self._snapshots if seq <= self._previous_stable_seq]
        dropped = [self._snapshots.pop(seq) for seq in held if seq < max(held)]
        self._collect([snap.manifest for snap in dropped])
        own = self._snapshots.get(stable.seq)
        if own is not None and own.vote is not None:
            self._release([digest for digest, at in self._fetched.items() if at < self._previous_stable_seq])

    def _collect(self, dropped: list[bytes]) -> None:
        """Drop the pages that only these manifests refer to, unless a transfer may need them."""
        for digest in garbage(dropped, [snap.manifest for snap in self._snapshots.values()]):
            if digest not in self._fetched:
                del self._pages[digest]

    def _release(self, fetched: list[bytes]) -> None:
        """End the protection of fetched pages: those that no snapshot refers to go."""
        if not fetched:
            return
        used: set[bytes] = set()
        for snapshot in self._snapshots.values():
            used |= manifest_pages(snapshot.manifest)
        for digest in fetched:
            del self._fetched[digest]
            if digest not in used:
                del self._pages[digest]
