"""Throughput under performance attacks, in virtual time, against the same cluster without faults (P06, P07, P10, P16).

Latencies are those of a campus network, so that a minute costs a few thousand operations; timeouts are the defaults.
"""

from __future__ import annotations

from functools import cache
from random import Random

import pytest

from bft.adversary.clients import HOSTILE, Hostile, Sends
from bft.core.monitor import PERFORMANCE, SLOW, UNFAIR, WASTE
from bft.messages import Request
from bft.sim.checkers import check
from bft.sim.history import History
from bft.sim.scenario import Network, Scenario, Workload
from bft.sim.service import Registers
from bft.sim.world import World

SECOND = 1_000_000_000
MINUTE = 60
FAULT_FREE = 8
FLOOD_ROUNDS = 160
"""One in 25 ms."""
PROTOCOL = {
    "checkpoint_interval": 32,
    "window": 64,
    "batch_operations_max": 64,
    "request_timeout_ms": 1000,
    "view_change_timeout_ms": 1000,
    "status_interval_ms": 200,
    "witness_interval_ms": 25,
}
CAMPUS = Network(delay_us=(5000, 8000))
ATTACKS = {
    "delays to just under the timeout": ("delay_requests(850)", MINUTE, 3, SLOW),
    "delays to just under the client's patience": ("delay_requests(220)", MINUTE, 3, SLOW),
    "grows slower by and by": ("creep(30, 800)", MINUTE, 3, SLOW),
    "starves one client": ("starve(1000)", 20, 3, UNFAIR),
    "starves one client a little": ("starve(700)", 20, 3, SLOW),
    "fills batches with old requests": ("pad_batches(30, 64)", 20, 3, WASTE),
    "fills batches with the latest requests": ("pad_batches(4, 64)", 20, 3, WASTE),
    "orders one at a time": ("one_at_a_time()", 20, 8, WASTE),
}
"""Crime, seconds, clients, complaint. The first three take their time to be found, the others are found soon."""


def _history(
    corrupted: dict[str, str], seconds: int, clients: int = 3, *, hostile: str = "", pause_ms: int = 0, **protocol: int
) -> History:
    """A run of so many seconds in a calm network, with clients that pause so long between calls."""
    scenario = Scenario(
        seed=1,
        network=CAMPUS,
        corrupted=corrupted,
        hostile_clients={"mallory": hostile} if hostile else {},
        gst_ms=0,
        patience_ms=seconds * 1000,
        workload=Workload(
            clients=clients, operations=100_000, outstanding=1, keys=4, query_permille=0, pause_ms=pause_ms
        ),
        protocol={**PROTOCOL, **protocol},
    )
    return World(scenario, Registers).run()


def _completed(history: History) -> int:
    return sum(operation.completed is not None for operation in history.operations)


@cache
def _fault_free_rate(clients: int = 3) -> int:
    """Operations that the fault-free cluster completes in ten seconds: its load is steady."""
    return _completed(_history({}, 10, clients))


def _complaints(history: History) -> set[str]:
    return {progress.detail for _, _, progress in history.timeline if progress.what == "suspect"}


@pytest.mark.parametrize("name", ATTACKS)
def test_attacked_cluster_keeps_seventy_percent_over_a_minute(name):
    """The attacker is the first primary; it loses its place, and nobody else does."""
    crime, seconds, clients, expected = ATTACKS[name]
    history = _history({"0": crime}, seconds, clients)
    assert history.crimes
    assert _completed(history) * 100 >= _fault_free_rate(clients) * seconds // 10 * 70
    assert _complaints(history) == {expected}
    assert {final["view"] for final in history.final.values()} == {1}
    assert check(history, only=("agreement", "no-framing", "no-takeover", "no-false-accusation")) == []


def test_without_the_monitor_the_attack_succeeds():
    """What the figure above is worth: the same attack on the same cluster leaves a few percent."""
    history = _history({"0": "delay_requests(850)"}, 10, slow_floor_ms=0)
    assert _completed(history) * 100 < _fault_free_rate() * 10


def test_f_complainers_and_an_accomplice_depose_no_primary_within_bounds():
    """Whatever they complain of, in every view (B21, X05)."""
    for crime in (f'suspect_storm("{SLOW}")', f'suspect_storm("{UNFAIR}") & depose()', f'suspect_storm("{WASTE}")'):
        history = _history({"3": crime}, 5)
        assert history.crimes
        assert [found for found in check(history) if found.checker != "liveness"] == []  # cut off under load
        assert [item for item in history.timeline if item[2].what != "suspect"] == []


def _fault_free(seed: int) -> Scenario:
    """A fault-free cluster under some load: networks from a rack to a WAN, steady callers or bursts of them."""
    random = Random(f"fault-free/{seed}")
    regions = random.random() < 0.3
    # As an operator would: a WAN's timeouts, and its floor with them, are several of its round trips.
    patience = {"slow_floor_ms": 600, "request_timeout_ms": 3000} if regions else {}
    delay_us = random.choice(((100, 500), (500, 1500), (100, 10_000), (5000, 8000)))
    return Scenario(
        seed=seed,
        n=random.choice((4, 4, 7)),
        network=Network(delay_us=delay_us, regions=regions),
        gst_ms=0,
        patience_ms=random.choice((3000, 6000)),
        workload=Workload(
            clients=random.choice((1, 4, 12)),
            operations=100_000,
            outstanding=random.choice((1, 4, 32)),
            keys=4,
            query_permille=100,
            pause_ms=random.choice((0, 200, 1000)),
        ),
        protocol={**PROTOCOL, **patience},
    )


@pytest.mark.parametrize("seed", range(FAULT_FREE))
def test_nobody_is_deposed_where_nobody_is_at_fault(seed):
    """No complaint about performance in a fault-free cluster, whatever its network and load."""
    history = World(_fault_free(seed), Registers).run()
    assert _completed(history)
    assert _complaints(history) & set(PERFORMANCE) == set()
    assert {final["view"] for final in history.final.values()} == {0}


def _overlap(hostile: Hostile) -> Sends:
    """One envelope with a whole window of operations, and many with some of the same: all but one come to nothing."""
    first, window = hostile.number, hostile.window
    for place in range(window):
        count = window if place == 0 else min(4, window - place)
        operations = tuple(hostile.operation() for _ in range(count))
        yield from hostile.to_all(hostile.signed(Request(hostile.session, first + place, first, operations, ())))
    hostile.number = first + window


def _backups_only(hostile: Hostile) -> Sends:
    """Fifty envelopes to every backup, which the first primary hears of from them alone."""
    for _ in range(50):
        number, hostile.number = hostile.number, hostile.number + 1
        packet = hostile.signed(Request(hostile.session, number, max(1, number - 40), (hostile.operation(),), ()))
        for replica in range(1, hostile.n):
            yield replica, packet


@pytest.mark.parametrize(
    ("attack", "pause_ms", "operations_max"), [(_overlap, 60, 64), (_backups_only, 500, 2048)], ids=["waste", "slow"]
)
def test_client_alone_deposes_no_primary(attack, pause_ms, operations_max, monkeypatch):
    """What an honest primary could not know, or was not shown, is no complaint about it."""
    monkeypatch.setitem(HOSTILE, "framer", attack)
    monkeypatch.setattr("bft.sim.workload.HOSTILE_ROUNDS", FLOOD_ROUNDS)
    monkeypatch.setattr("bft.sim.workload.HOSTILE_PAUSE_MS", pause_ms)
    history = _history({}, 8, hostile="framer", pause_ms=100, session_window=64, batch_operations_max=operations_max)
    assert _completed(history) > 100
    assert _complaints(history) & set(PERFORMANCE) == set()
    assert {final["view"] for final in history.final.values()} == {0}


@pytest.mark.parametrize("clients", [1, 3])
def test_flood_brings_no_complaint_about_performance(clients, monkeypatch):
    """Who sends more than its share waits by the rules of the fair pool: a correct primary must not pay for it."""
    monkeypatch.setattr("bft.sim.workload.HOSTILE_ROUNDS", FLOOD_ROUNDS)
    history = _history({}, 4, clients, hostile="torrent", session_window=4096)
    assert _completed(history) > max(100, 0.7 * _completed(_history({}, 4, clients, session_window=4096)))
    assert check(history, only=("fairness", "no-groundless-suspicion", "no-framing")) == []
