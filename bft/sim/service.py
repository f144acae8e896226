"""A service for simulated runs on which checkers can replay: registers by key, on bytes.

Operations are `["put", key, value]`, `["get", key]` and `["cas", key, expected, value]` in MessagePack, as the
key-value service encodes them; anything else is answered with an error.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from bft.digests import page_digest
from bft.messages import STATUS_ERROR, STATUS_OK
from bft.ports import ExecutionContext
from bft.wire.codec import encode

PAGES = 4


class Registers:
    """A `StateMachine`: string registers, spread over a few pages so that state transfer has something to fetch."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}
        self._reported: set[bytes] = set()

    def execute(self, operation: bytes, context: ExecutionContext, /) -> tuple[int, bytes]:
        """See `bft.ports.StateMachine`."""
        match _decoded(operation):
            case ["put", str(key), str(value)]:
                self._values[key] = value
                return STATUS_OK, encode(None)
            case ["cas", str(key), None | str() as expected, str(value)]:
                swapped = self._values.get(key) == expected
                if swapped:
                    self._values[key] = value
                return STATUS_OK, encode(swapped)
        return self.query(operation)

    def query(self, operation: bytes, /) -> tuple[int, bytes]:
        """See `bft.ports.StateMachine`."""
        match _decoded(operation):
            case ["get", str(key)]:
                return STATUS_OK, encode(self._values.get(key))
        return STATUS_ERROR, encode(("BadOperation", ""))

    def checkpoint(self) -> tuple[tuple[bytes, ...], dict[bytes, bytes]]:
        """See `bft.ports.StateMachine`."""
        items = sorted(self._values.items())
        pages = [encode(items[part::PAGES]) for part in range(PAGES)]
        digests = tuple(page_digest(page) for page in pages)
        fresh = {digest: page for digest, page in zip(digests, pages, strict=True) if digest not in self._reported}
        self._reported = set(digests)
        return digests, fresh

    def restore(self, pages: Sequence[bytes], /) -> None:
        """See `bft.ports.StateMachine`."""
        self._values = {key: value for page in pages for key, value in msgspec.msgpack.decode(page)}
        self._reported = {page_digest(page) for page in pages}


def _decoded(operation: bytes) -> object:
    try:
        return msgspec.msgpack.decode(operation)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
