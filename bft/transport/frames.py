"""Frames on a byte stream: a 4-byte big-endian length, then that many bytes. No IO here.

Lengths are checked before a byte of the content is kept, so a peer can make us hold at most one frame; what all
connections together may hold is bounded by a shared `ReceiveBudget`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

HEADER_BYTES = 4


class FrameViolation(Exception):
    """The peer breaks the framing, and the stream cannot be read on. Internal: the channel closes."""


@dataclass(slots=True)
class ReceiveBudget:
    """Bytes that incomplete frames of many connections may hold together.

    Attributes:
        bytes_max: the bound.
        used: what they hold now.
    """

    bytes_max: int
    used: int = 0


def pack(frames: Iterable[bytes]) -> bytes:
    """The bytes that carry these frames."""
    parts: list[bytes] = []
    for frame in frames:
        parts.append(len(frame).to_bytes(HEADER_BYTES, "big"))
        parts.append(frame)
    return b"".join(parts)


class FrameReader:
    """Cuts a byte stream into frames.

    Attributes:
        frame_bytes_max: longest frame allowed; may be raised between calls.
        held: bytes of an incomplete frame, header included.
    """

    def __init__(self, frame_bytes_max: int, budget: ReceiveBudget | None = None) -> None:
        self.frame_bytes_max = frame_bytes_max
        self._budget = budget
        self._partial = bytearray()
        self._missing = 0
        self.held = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes of the stream; return the frames that are now whole, in order.

        Raises:
            FrameViolation: a frame is empty or longer than allowed, or the shared budget is spent.
        """
        if self._partial:
            if len(data) < self._missing:
                self._partial += data
                self._missing -= len(data)
                self._hold(len(self._partial))
                return []
            data = bytes(self._partial) + data
            self._partial.clear()
        frames: list[bytes] = []
        start, end = 0, len(data)
        missing = 0
        while start < end:
            stop = start + HEADER_BYTES
            length = int.from_bytes(data[start:stop], "big")
            if stop <= end:
                self._require(length)
                stop += length
            if stop > end:
                missing = stop - end
                break
            frames.append(data[stop - length : stop])
            start = stop
        if start < end:
            self._partial += data[start:]
            self._missing = missing
        self._hold(len(self._partial))
        return frames

    def close(self) -> None:
        """Give what is held back to the budget."""
        self._partial.clear()
        self._hold(0)

    def _require(self, length: int) -> None:
        if not 0 < length <= self.frame_bytes_max:
            raise FrameViolation(f"frame of {length} bytes, allowed are 1 to {self.frame_bytes_max}")

    def _hold(self, held: int) -> None:
        if self._budget is not None and held != self.held:
            self._budget.used += held - self.held
        self.held = held
        if self._budget is not None and self._budget.used > self._budget.bytes_max and held:
            raise FrameViolation(f"incomplete frames of all connections exceed {self._budget.bytes_max} bytes")
