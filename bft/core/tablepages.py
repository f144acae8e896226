"""The pages of the exactly-once table in a checkpoint: what of it is encoded, and how.

`bft/wire/FORMAT.md` describes them; `clients` and `session` hold what they carry and decide about it.
"""

from __future__ import annotations

import msgspec


class Kept(msgspec.Struct, array_like=True):
    """A bundle kept for retransmission: bytes until the byte cap takes them, digest until acknowledged."""

    seq: int
    last: int
    digest: bytes
    bundle: bytes


class Held(msgspec.Struct, array_like=True):
    """A lane's operation that waits for its predecessor."""

    number: int
    after: int
    operation: bytes


class KeptEvent(msgspec.Struct, array_like=True):
    """An event kept for a client that missed its bundle."""

    number: int
    payload: bytes


class SessionPage(msgspec.Struct, array_like=True):
    """Encoding of a session."""

    client: bytes
    incarnation: int
    used: int
    low: int
    done: list[tuple[int, int]]
    kept: list[Kept]
    held: list[Held]
    next_event: int
    events: list[KeptEvent]


class TablePage(msgspec.Struct, array_like=True):
    """Encoding of what the table has beside sessions."""

    floor: int


session_page_decoder = msgspec.msgpack.Decoder(SessionPage)
table_page_decoder = msgspec.msgpack.Decoder(TablePage)
