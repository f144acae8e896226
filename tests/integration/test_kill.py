"""Real processes are killed with SIGKILL under load: nothing acknowledged is lost, nothing executes twice."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio

from bft.client.client import Client
from bft.config import Durability
from bft.errors import OutcomeUnknown
from bft.services.kv import KeyValue
from tests.integration.rig import Rig, count, make_rig

WORKERS = 24
KILLS = 4


async def _kill_and_restart(rig: Rig, dice: random.Random, stop: trio.Event) -> None:
    """Kill one replica after the other at random moments, each time waiting until all keep up again."""
    for _ in range(KILLS):
        await trio.sleep(dice.uniform(0.05, 0.4))
        victim = dice.randrange(4)
        rig.kill(victim)
        await trio.sleep(dice.uniform(0.0, 0.7))
        rig.start(victim)
        await rig.until_all_answer()
        front = max(account.number("executed") for account in await rig.accounts())
        await rig.until(
            lambda accounts, front=front: all(account.number("executed") >= front for account in accounts)  # type: ignore[misc]
        )
    stop.set()


async def test_cluster_executes_exactly_once_when_replicas_are_killed_at_random_moments(tmp_path: Path) -> None:
    """Killed replicas come back with their votes; every acknowledged increment counted once, none twice."""
    dice = random.Random(7)
    acknowledged = {f"counter-{number}": 0 for number in range(WORKERS)}
    with make_rig(tmp_path / "cluster") as rig:
        rig.start()
        async with rig.client() as client:
            stop = trio.Event()
            async with trio.open_nursery() as nursery:
                for key in acknowledged:
                    nursery.start_soon(count, client, key, acknowledged, stop)
                nursery.start_soon(_kill_and_restart, rig, dice, stop)
            found = dict(await client.service(KeyValue).scan("counter-"))  # type: ignore[call-overload]
        assert found == {key: str(total) for key, total in acknowledged.items()}
        assert sum(acknowledged.values()) > 500
        await rig.until_equal()


async def _store_until_cut(client: Client, worker: int, acknowledged: set[str]) -> None:
    service = client.service(KeyValue).within(2.0)
    number = 0
    while True:
        key = f"{worker}/{number}"
        try:
            await service.put(key, "stored")
        except OutcomeUnknown:
            return
        acknowledged.add(key)
        number += 1


@pytest.mark.parametrize("durability", ["power", "process"])
async def test_cluster_loses_nothing_acknowledged_when_all_replicas_are_killed(
    tmp_path: Path, durability: Durability
) -> None:
    """All four are killed in the middle of a load and started again: what a client was told is there."""
    acknowledged: set[str] = set()
    with make_rig(tmp_path / "cluster", durability=durability) as rig:
        rig.start()
        async with rig.client() as client, trio.open_nursery() as nursery:
            for worker in range(WORKERS):
                nursery.start_soon(_store_until_cut, client, worker, acknowledged)
            while len(acknowledged) < 2000:
                await trio.sleep(0.02)
            for process in rig.processes:
                process.send(9)  # type: ignore[arg-type] # all at once, before waiting for any
            rig.kill()
        rig.start()
        async with rig.client() as client:
            found: set[str] = set()
            start: str | None = None
            while page := await client.service(KeyValue).scan("", start):
                assert isinstance(page, list)
                found.update(key for key, _ in page)
                start = page[-1][0] + "\0"
        assert len(acknowledged) >= 2000
        assert acknowledged <= found, f"lost: {sorted(acknowledged - found)[:10]}"
        await rig.until_equal()
