"""What a SQLite store gives back: every row is checked, whatever the disk has done to it."""

from __future__ import annotations

import sqlite3
from functools import partial
from typing import Any

from bft.errors import VotesLost
from bft.events import Recovered, Snapshot
from bft.storage.pages import checked_manifest, require_page
from bft.storage.rows import accepted_from, link_from, prepared_from, signed_from, stable_from, view_record_from
from bft.storage.schema import SUMMED, checked


def stable_seqs(connection: sqlite3.Connection) -> tuple[int, int]:
    """The stable sequence number and the one before it; 0 for genesis."""
    row = connection.execute("select seq, previous from stable").fetchone()
    return (0, 0) if row is None else (row[0], row[1])


def recover(connection: sqlite3.Connection) -> Recovered:
    """Everything needed to go on where the last process stopped.

    Raises:
        VotesLost: the content is corrupt; the replica must not vote with it.
    """
    recovered = Recovered()
    for *row, found in _rows(connection, "view"):
        where = "record of the present view"
        recovered.view = checked("view", row, found, where, partial(view_record_from, *row))
    for *row, found in _rows(connection, "stable"):
        where = "stable checkpoint certificate"
        recovered.stable = checked("stable", row, found, where, partial(stable_from, row[0], row[2]))
    links = [
        checked("epochs", row, found, f"end of epoch {row[0]}", partial(link_from, *row))
        for *row, found in _rows(connection, "epochs")
    ]
    recovered.epochs = sorted(links, key=lambda link: link.certificate.epoch)
    if [link.certificate.epoch for link in recovered.epochs] != list(range(len(links))):
        raise VotesLost("the chain of epochs is corrupt: a link is missing")
    stable_seq = stable_seqs(connection)[0]
    for *row, found, batch in _rows(connection, "accepted", "batch"):
        where = f"accepted pre-prepare at seq {row[0]}"
        recovered.accepted.append(
            checked("accepted", row, found, where, partial(accepted_from, row[0], row[1], row[2], batch))
        )
    for *row, found in _rows(connection, "prepared"):
        where = f"prepared certificate at seq {row[0]}"
        build = partial(prepared_from, row[0], row[2])
        recovered.prepared.append(checked("prepared", row, found, where, build))
    # A row that came late lies below, and is of no use; one whose number was damaged has been found by now.
    recovered.accepted = sorted(
        (record for record in recovered.accepted if record.seq > stable_seq),
        key=lambda record: (record.seq, record.view),
    )
    recovered.prepared = sorted(
        (record for record in recovered.prepared if record.seq > stable_seq), key=lambda record: record.seq
    )
    _recover_snapshots(connection, recovered)
    for (executed,) in connection.execute("select executed from doubted"):
        recovered.doubted = executed
    return recovered


def _rows(connection: sqlite3.Connection, table: str, *others: str) -> list[tuple[Any, ...]]:
    """A table's summed columns, their sum, and other columns; from the table itself, whatever its index says."""
    columns = ", ".join((SUMMED[table], "sum", *others))
    return connection.execute(f"select {columns} from {table} not indexed").fetchall()


def _recover_snapshots(connection: sqlite3.Connection, recovered: Recovered) -> None:
    chosen: int | None = None
    stable_seq, _ = stable_seqs(connection)
    void = {row[0] for row in connection.execute("select seq from void")}
    for *row, found in sorted(_rows(connection, "snapshots")):
        seq, where = row[0], f"checkpoint vote at seq {row[0]}"
        vote = checked("snapshots", row, found, where, partial(signed_from, row[2], where))
        if vote is not None and seq > stable_seq:
            recovered.votes.append(vote)
        if seq in void:
            continue
        recovered.taken[seq] = row[1]
        if vote is not None or seq <= stable_seq:
            chosen = seq
    if chosen is not None:
        recovered.snapshot = _recover_snapshot(connection, chosen)


def _recover_snapshot(connection: sqlite3.Connection, seq: int) -> Snapshot:
    digest, manifest, vote = connection.execute(
        "select digest, manifest, vote from snapshots where seq = ?", (seq,)
    ).fetchone()
    decoded = checked_manifest(seq, digest, manifest)
    pages: dict[bytes, bytes] = {}
    for name in sorted({*decoded.service, *decoded.sessions}):
        row = connection.execute("select bytes from pages where digest = ?", (name,)).fetchone()
        if row is None:
            raise VotesLost(f"snapshot at seq {seq} is corrupt: page {name.hex()} is missing")
        require_page(name, row[0])
        pages[name] = row[0]
    return Snapshot(seq, digest, manifest, pages, signed_from(vote, f"checkpoint vote at seq {seq}"))
