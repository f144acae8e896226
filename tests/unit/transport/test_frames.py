"""Framing: whatever way a stream is cut, the same frames come out, and lengths are checked before content is kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bft.transport.frames import FrameReader, FrameViolation, ReceiveBudget, pack


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=20), st.lists(st.integers(1, 50), max_size=300))
def test_frames_come_out_whole_however_the_stream_is_cut(frames: list[bytes], cuts: list[int]) -> None:
    """Frames do not depend on how the network cuts the stream."""
    reader = FrameReader(300)
    stream = pack(frames)
    seen: list[bytes] = []
    for cut in cuts:
        seen += reader.feed(stream[:cut])
        stream = stream[cut:]
    seen += reader.feed(stream)

    assert seen == frames
    assert reader.held == 0


def test_longest_frame_allowed_passes_and_one_byte_more_is_refused() -> None:
    """The limit is exact, and applies before the content has come."""
    assert FrameReader(100).feed(pack([bytes(100)])) == [bytes(100)]
    with pytest.raises(FrameViolation, match="frame of 101 bytes"):
        FrameReader(100).feed((101).to_bytes(4, "big"))


def test_empty_frame_is_refused() -> None:
    """Empty frames would be work for nothing."""
    with pytest.raises(FrameViolation, match="frame of 0 bytes"):
        FrameReader(100).feed(bytes(4))


def test_incomplete_frames_share_a_budget() -> None:
    """Many connections cannot make us hold a large frame each."""
    budget = ReceiveBudget(100)
    first, second = FrameReader(1000, budget), FrameReader(1000, budget)
    first.feed(pack([bytes(200)])[:80])
    with pytest.raises(FrameViolation, match="all connections"):
        second.feed(pack([bytes(200)])[:30])
    second.close()
    assert budget.used == 80
    first.close()
    assert budget.used == 0


def test_budget_is_returned_when_a_frame_completes() -> None:
    """What was held for a frame is free once the frame is out."""
    budget = ReceiveBudget(1000)
    reader = FrameReader(1000, budget)
    data = pack([bytes(500)])
    reader.feed(data[:300])
    assert budget.used == 300
    reader.feed(data[300:])
    assert budget.used == 0
