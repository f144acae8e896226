"""The hostile client process, and what is made of what it costs."""

from __future__ import annotations

from typing import Any, cast

import pytest

from benchmarks.hostile import BURST_SECONDS, combined, idle
from benchmarks.hostile_client import KINDS, SYBIL_KEYS, Attack
from benchmarks.virtual.world import VirtualCase, virtual_cluster
from bft.config import ClientLimits
from bft.messages import SignedRequest
from bft.sim.keys import KeyVault
from bft.wire.codec import decode_packet


class Taking:
    """A connection that takes everything."""

    buffered_bytes = 0

    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def send(self, frames: list[bytes]) -> None:
        self.frames += frames


def _attack(kind: str) -> tuple[Attack, dict[tuple[bytes, int], Taking]]:
    """A hostile client with all its connections, after some rounds."""
    attack = Attack(kind, virtual_cluster(VirtualCase(), KeyVault(1)))
    ways = {(key, replica): Taking() for key in attack._keys for replica in range(4)}
    attack._channels = cast("dict[tuple[bytes, int], Any]", ways)
    for _ in range(SYBIL_KEYS):
        attack._send_all(attack._behaviour(attack._hostile))
    return attack, ways


def test_client_with_many_keys_sends_for_each_over_its_own_connections() -> None:
    """What came over another's would be refused unread: nothing of the attack would be measured."""
    attack, ways = _attack("many_keys")
    assert len(attack._keys) == SYBIL_KEYS
    for (key, _), way in ways.items():
        packets = [decode_packet(frame) for frame in way.frames]
        assert packets
        assert all(isinstance(packet, SignedRequest) and packet.client == key for packet in packets)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"many_keys"}))
def test_every_other_kind_has_one_key_and_sends_to_every_replica(kind: str) -> None:
    attack, ways = _attack(kind)
    assert len(attack._keys) == 1
    assert all(way.frames for way in ways.values())


def test_nothing_is_measured_before_a_hostile_clients_burst_is_over() -> None:
    assert ClientLimits().burst_seconds < BURST_SECONDS


def test_runs_of_one_kind_become_one_row() -> None:
    runs = [[{"kind": "flood", "niceness": 10, "ratio": ratio, "counted": ""}] for ratio in (0.8, 0.9, 1.0)]
    (row,) = combined(runs, durability="memory", sessions=200)
    assert row["ratio"]["median"] == 0.9
    assert row["sessions"] == 200
    assert "counted" not in row


def test_process_that_sent_nothing_in_one_run_is_named() -> None:
    """Beside it honest clients do as well as ever: a ratio of 1 would pass for a defence."""
    runs = [
        [
            {"kind": kind, "niceness": 10, "ratio": 1.0, "counted": "", "hostile_frames_s": sent}
            for kind, sent in (("flood", 900.0), ("torrent", several))
        ]
        for several in (800.0, 0.0)
    ]
    assert idle(combined(runs)) == ["torrent"]
