"""Turns: bounded, in order, and with room for replicas between the rounds."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import trio
import trio.testing

from bft.runtime.lane import BYTES_PER_WORK, ROUND_WORK, TURN_WORK, ClientLane, turn_of


def test_turn_is_bounded_in_frames_and_bytes() -> None:
    """At least one frame, and never more than a turn's work of several."""
    assert turn_of([b"x"] * 100, 0) == (TURN_WORK, TURN_WORK)
    assert turn_of([b"x"] * 100, 97) == (100, 3)
    large = bytes(2 * BYTES_PER_WORK)
    assert turn_of([large] * 9, 0) == (2, 6)
    assert turn_of([bytes(50 * BYTES_PER_WORK), b"x"], 0) == (1, 51)


async def _work(lane: ClientLane, name: str, turns: int, done: list[str]) -> None:
    for _ in range(turns):
        await lane.turn(TURN_WORK)
        done.append(name)


async def test_round_has_room_without_a_task_switch(nursery: trio.Nursery) -> None:
    """A quiet replica pays an integer comparison for all this."""
    lane = ClientLane()
    nursery.start_soon(lane.run)
    with trio.testing.assert_no_checkpoints():
        for _ in range(ROUND_WORK // TURN_WORK):
            assert await lane.turn(TURN_WORK) is False


async def test_flood_of_many_clients_leaves_replicas_a_pass_per_round(nursery: trio.Nursery) -> None:
    """Fifty clients with endless frames: a replica's reader runs after every round's work at the latest."""
    lane = ClientLane()
    nursery.start_soon(lane.run)
    done: list[str] = []
    seen: list[int] = []

    async def replica() -> None:
        for _ in range(50):
            await trio.lowlevel.checkpoint()
            seen.append(len(done))

    async with trio.open_nursery() as load:
        for number in range(50):
            load.start_soon(_work, lane, f"c{number}", 20, done)
        load.start_soon(replica)
    gaps = [after - before for before, after in pairwise(seen)]
    assert max(gaps) <= 2 * ROUND_WORK // TURN_WORK


async def test_clients_that_wait_get_equal_turns(nursery: trio.Nursery) -> None:
    """One that has thousands of frames waits its turn like the others."""
    lane = ClientLane()
    nursery.start_soon(lane.run)
    done: list[str] = []
    async with trio.open_nursery() as load:
        for name in ("flood", "honest", "other"):
            load.start_soon(_work, lane, name, 200, done)
    assert min(Counter(done[:300]).values()) >= 75, "of 100; who gets what is left of a round is chance"


async def test_client_that_went_away_does_not_stop_the_others(nursery: trio.Nursery) -> None:
    """A cancelled waiter leaves the queue."""
    lane = ClientLane()
    nursery.start_soon(lane.run)
    done: list[str] = []
    async with trio.open_nursery() as load:
        with trio.move_on_after(0):
            await _work(lane, "gone", 1000, [])
        load.start_soon(_work, lane, "stays", 20, done)
    assert len(done) == 20
