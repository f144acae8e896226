"""Tables of the SQLite store, and the sums by which it finds damage that nothing else shows.

Pages, manifests and batches have digests. What else a row says, numbers and signatures, has a sum in the row: a flipped
bit must not become a view that the replica was never in, or a certificate that others must refuse.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import blake2b
from typing import TypeVar

from bft.errors import VotesLost
from bft.wire.codec import encode

T = TypeVar("T")

FORMAT_VERSION = 3
_UNSUMMED_VERSION = 2
READABLE = (_UNSUMMED_VERSION, FORMAT_VERSION)
_SCHEMA = """
create table identity (format integer not null, cluster text not null, replica integer not null, store text not null);
create table view (id integer primary key check (id = 1), view integer not null, active integer not null,
                   view_change blob, new_view blob);
create table stable (id integer primary key check (id = 1), seq integer not null, previous integer not null,
                     certificate blob not null);
create table accepted (seq integer not null, view integer not null, pre_prepare blob not null, batch blob not null,
                       primary key (seq, view));
create table prepared (seq integer primary key, view integer not null, certificate blob not null);
create table snapshots (seq integer primary key, digest blob not null, manifest blob not null, vote blob);
create table epochs (epoch integer primary key, link blob not null);
create table pages (digest blob primary key, bytes blob not null, fetched integer);
create index fetched on pages (fetched) where fetched is not null;
"""
_LATER = """
create table if not exists life (id integer primary key check (id = 1), generation integer not null,
                                 refused text not null);
insert or ignore into life values (1, 0, '');
create table if not exists void (seq integer primary key);
create table if not exists doubted (id integer primary key check (id = 1), executed integer not null);
"""
"""Not in the first schema: stores made before have none of these until they are opened."""
SUMMED = {
    "view": "view, active, view_change, new_view",
    "stable": "seq, previous, certificate",
    "accepted": "seq, view, pre_prepare",
    "prepared": "seq, view, certificate",
    "snapshots": "seq, digest, vote",
    "epochs": "epoch, link",
}
"""Columns under the sum of each table."""


def row_sum(table: str, *columns: object) -> bytes:
    """16 bytes over a row's columns, as they are stored."""
    return blake2b(encode((table, columns)), digest_size=16, person=b"bft row").digest()


def checked(table: str, columns: Sequence[object], found: object, where: str, build: Callable[[], T]) -> T:
    """Build what a row says, once its columns are known to be those that were written.

    Raises:
        VotesLost: they are not. What `build` finds wrong with them says it best.
    """
    if row_sum(table, *columns) != found:
        with suppress(TypeError, ValueError, AttributeError):  # whatever damage turned the columns into
            build()
        raise VotesLost(f"{where} is corrupt: its columns do not have the sum that was stored with them")
    return build()


def as_text(column: object) -> str:
    """A text column, which connections here read as bytes, for comparisons and for people."""
    return column.decode(errors="replace") if isinstance(column, bytes) else str(column)


def create(connection: sqlite3.Connection, cluster_id: bytes, replica: int) -> None:
    """Make the tables of a new store, in one transaction."""
    connection.execute("begin immediate")
    for statement in _SCHEMA.split(";")[:-1]:
        connection.execute(statement)
    identity = (_UNSUMMED_VERSION, cluster_id.hex(), replica, os.urandom(16).hex())
    connection.execute("insert into identity values (?, ?, ?, ?)", identity)
    _add_sums(connection)
    connection.execute("commit")


def upgrade(connection: sqlite3.Connection) -> None:
    """Make what later formats have: sums for the rows of a store without, in one transaction, and tables."""
    if connection.execute("select format from identity").fetchall() == [(_UNSUMMED_VERSION,)]:
        connection.execute("begin immediate")
        _add_sums(connection)
        connection.execute("commit")
    for statement in _LATER.split(";")[:-1]:
        connection.execute(statement)


def _add_sums(connection: sqlite3.Connection) -> None:
    for table, columns in SUMMED.items():
        connection.execute(f"alter table {table} add column sum blob")
        rows = connection.execute(f"select rowid, {columns} from {table}").fetchall()
        sums = [(row_sum(table, *row[1:]), row[0]) for row in rows]
        connection.executemany(f"update {table} set sum = ? where rowid = ?", sums)
    connection.execute("update identity set format = ?", (FORMAT_VERSION,))
