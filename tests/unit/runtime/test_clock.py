"""The replica's clock follows the wall, and survives those who move it."""

from __future__ import annotations

from bft.runtime.clock import Clock


def test_clock_follows_the_wall() -> None:
    """Ordinarily it is the wall clock."""
    wall, monotonic = [1000], [0]
    clock = Clock(lambda: wall[0], lambda: monotonic[0])
    wall[0], monotonic[0] = 1500, 500
    assert clock.now() == 1500


def test_clock_creeps_on_when_the_wall_is_set_back() -> None:
    """It never goes back, never stands still, and meets the wall again."""
    wall, monotonic = [10_000], [0]
    clock = Clock(lambda: wall[0], lambda: monotonic[0])
    wall[0] = 9_000
    seen = []
    for _ in range(30):
        wall[0] += 100
        monotonic[0] += 100
        seen.append(clock.now())
    assert seen == sorted(set(seen))
    assert seen[0] == 10_050
    assert seen[-1] == wall[0] == 12_000
