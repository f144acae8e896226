"""What a call returns, and who waits for it."""

from __future__ import annotations

from dataclasses import dataclass

import anyio

from bft.client.seam import Completed, Lost


@dataclass(frozen=True, slots=True)
class Result:
    """What a call returned, and where it stands in the total order.

    Attributes:
        value: the service's own bytes.
        seq, index: position of an ordered operation, a fencing token; `index` is -1 for an unordered read, whose
            state is not older than slot `seq`.
    """

    value: bytes
    seq: int
    index: int


class Waiter:
    """Somebody who waits for one call."""

    __slots__ = ("event", "outcome")

    def __init__(self) -> None:
        self.event = anyio.Event()
        self.outcome: Completed | Lost | None = None

    def __call__(self, outcome: Completed | Lost) -> None:
        self.outcome = outcome
        self.event.set()
