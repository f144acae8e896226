"""Connections that take nothing are given up; those of replicas never are."""

from __future__ import annotations

import time

import pytest

from bft.ids import ClientId, ReplicaId
from bft.runtime.links import LinkLimits, Links
from bft.runtime.stats import Stats

pytestmark = pytest.mark.interpreted("its channel is the test's own")
ALICE = ClientId(b"a" * 32)


class FullChannel:
    """A channel whose peer reads nothing."""

    def __init__(self, idle_seconds: float) -> None:
        self.dropped = 0
        self.closed: str | None = None
        self.progressed_at = time.monotonic() - idle_seconds

    def send(self, frames: list[bytes]) -> None:
        self.dropped += len(frames)

    def close(self, reason: str) -> None:
        self.closed = reason


def _links(channel: FullChannel, peer: ClientId | ReplicaId) -> tuple[Links, Stats]:
    stats = Stats()
    links = Links(stats, LinkLimits(unread_seconds_max=2.0))
    if isinstance(peer, bytes):
        assert links.enter(peer, channel) is None  # type: ignore[arg-type]
    else:
        links.attach(peer, channel)  # type: ignore[arg-type]
    return links, stats


def test_client_that_reads_nothing_is_disconnected_and_counted() -> None:
    """Its buffer is memory that others need."""
    channel = FullChannel(idle_seconds=3)
    links, stats = _links(channel, ALICE)
    links.send(ALICE, [b"reply"])
    assert channel.closed and stats.dropped == {"send-buffer-full": 1, "unread-connection": 1}


def test_client_that_is_only_slow_keeps_its_connection() -> None:
    """Frames are dropped; the protocol repairs that."""
    channel = FullChannel(idle_seconds=0.5)
    links, stats = _links(channel, ALICE)
    links.send(ALICE, [b"reply"])
    assert channel.closed is None and stats.dropped == {"send-buffer-full": 1}


def test_replica_is_never_disconnected() -> None:
    """A correct one may look like this after a pause of its machine."""
    channel = FullChannel(idle_seconds=60)
    links, _ = _links(channel, ReplicaId(2))
    links.send(ReplicaId(2), [b"vote"])
    assert channel.closed is None
