"""Name what every other file of this package speaks of: generals, orders, paths, and the error a user can
cause.

Nothing is decided here. Read next: `plan` (one battle), `seam` (how a general is driven).
"""

from __future__ import annotations

from typing import NewType, Protocol, TypeAlias

from bft.errors import BFTError

GeneralId = NewType("GeneralId", int)
"""A general's number, `0 <= id < n`."""

Order: TypeAlias = str
"""One of the finitely many orders of a battle, such as `"attack"`."""

Path: TypeAlias = tuple[GeneralId, ...]
"""Who said that who said ... what the commander said: `(0, 2, 1)` reads "1 said that 2 said that 0 said"."""

RETREAT: Order = "retreat"
ATTACK: Order = "attack"


class GeneralsError(BFTError):
    """Tell the user of this package that what was asked for cannot be done, and why."""


class Dice(Protocol):
    """Draw numbers; a `random.Random` handed in by the caller fits."""

    def randrange(self, stop: int, /) -> int:
        """Return an integer in `0..stop-1`."""
        ...
