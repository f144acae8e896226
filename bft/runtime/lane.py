"""Turns: replicas are read as their messages come, clients take turns, a few frames at a time.

Agreement must go on whatever clients send (Aardvark keeps separate network cards for it [Clement et al. 2009]). The
event loop runs every task that is ready once per pass. So here clients together get a bounded amount of work per round,
and between two rounds lies a pass in which the poller (`bft.transport.poller`), one of those tasks, reads every replica
connection that has something, and what all this has caused is written and sent.
Within a round clients go one after the other, first come first served, each for a bounded turn: a connection with
thousands of frames waits for as many turns.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from bft.wire.codec import reads_in

TURN_WORK = 8
"""Frames that a client may have looked at in its turn: below a millisecond, most of it signature checks."""
ROUND_WORK = 32
READS_PER_WORK = 16
"""So many reads of one frame cost as much as a small frame."""
BYTES_PER_WORK = 32 * 1024
"""So many bytes of a frame cost as much as a small frame: hashing, decoding."""


def turn_of(frames: Sequence[bytes], start: int) -> tuple[int, int]:
    """(where the turn that begins with `frames[start]` ends, its work): at least one frame."""
    work = 0
    for stop in range(start, len(frames)):
        cost = 1 + len(frames[stop]) // BYTES_PER_WORK + reads_in(frames[stop]) // READS_PER_WORK
        if work and work + cost > TURN_WORK:
            return stop, work
        work += cost
    return len(frames), work


class ClientLane:
    """Turns of all clients of one replica."""

    def __init__(self) -> None:
        self._left = ROUND_WORK
        self._waiting = trio.lowlevel.ParkingLot()
        self._refill = trio.lowlevel.ParkingLot()

    async def turn(self, work: int) -> bool:
        """Take a turn of this much work; returns at once, without a task switch, while the round has room.

        Returns:
            True if it had to wait.
        """
        if self._left > 0 and not self._waiting:
            self._left -= work
            return False
        self._refill.unpark()
        await self._waiting.park()  # `run` has taken its work off the next round
        return True

    async def run(self) -> None:
        """Begin rounds, for ever."""
        while True:
            if not self._waiting:
                await self._refill.park()
            await trio.lowlevel.checkpoint()
            self._left = ROUND_WORK
            while self._left > 0 and self._waiting:
                self._left -= TURN_WORK
                self._waiting.unpark()
