"""`Null`: does nothing, at any size. The service of throughput benchmarks (0/0, 1 KiB/0, 0/1 KiB ...)."""

from __future__ import annotations

from collections.abc import Sequence

from bft.digests import page_digest
from bft.messages import OPERATION_BYTES_MAX, STATUS_ERROR, STATUS_OK
from bft.ports import ExecutionContext

SIZE_BYTES = 4
REPLIES_KEPT_MAX = 64


def operation(*, reply_bytes: int = 0, padding_bytes: int = 0) -> bytes:
    """An operation with `padding_bytes` beside its 4-byte header, answered by `reply_bytes` zeros."""
    return reply_bytes.to_bytes(SIZE_BYTES, "big") + bytes(padding_bytes)


class Null:
    """State machine on bytes. An operation begins with the size of its reply, 4 bytes, big-endian.

    Its state is one number: how many operations it has executed.
    """

    def __init__(self) -> None:
        self.executed = 0
        self._replies: dict[bytes, bytes] = {}

    def execute(self, operation: bytes, context: ExecutionContext, /) -> tuple[int, bytes]:
        """Count the operation and give a reply of the size asked for."""
        self.executed += 1
        return self.query(operation)

    def query(self, operation: bytes, /) -> tuple[int, bytes]:
        """Give a reply of the size asked for."""
        header = operation[:SIZE_BYTES]
        reply = self._replies.get(header)
        if reply is None:
            size = int.from_bytes(header, "big")
            if len(header) != SIZE_BYTES or size > OPERATION_BYTES_MAX:
                return STATUS_ERROR, b"\x92\xacBadOperation\xa0"
            reply = bytes(size)
            if len(self._replies) < REPLIES_KEPT_MAX:
                self._replies[header] = reply
        return STATUS_OK, reply

    def checkpoint(self) -> tuple[tuple[bytes, ...], dict[bytes, bytes]]:
        """One page of 8 bytes."""
        page = self.executed.to_bytes(8, "big")
        digest = page_digest(page)
        return (digest,), {digest: page}

    def restore(self, pages: Sequence[bytes], /) -> None:
        """Replace the count."""
        (page,) = pages
        self.executed = int.from_bytes(page, "big")
