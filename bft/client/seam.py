"""What goes into a client session and what comes out of it, beside `bft.events.{Deliver, Tick, Send, SetTimer}`.

Effects about operations are msgspec Structs and no dataclasses: one is made per operation, and they cost a third.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

from bft.epochs import Configuration
from bft.events import Deliver, Send, SetTimer, Tick

LostReason = Literal["overloaded", "session-expired", "result-unavailable", "closed"]

# --- inputs -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Submit:
    """Have an operation ordered and executed, once; it leaves with the next `Flush`.

    Attributes:
        ticket: the caller's own name for it, unique among the unfinished.
        lane: operations of one lane other than 0 execute in the order of submission.
    """

    ticket: int
    operation: bytes
    lane: int = 0


@dataclass(frozen=True, slots=True)
class Ask:
    """Have a read-only operation answered without ordering, or else order it; it leaves with the next `Flush`.

    Attributes:
        floor: answer from a state at or after this slot.
        wait: True for a linearizable answer; False for a weak one, possibly stale but never older than what this
            session has seen.
    """

    ticket: int
    operation: bytes
    floor: int = 0
    wait: bool = True


@dataclass(frozen=True, slots=True)
class Cancel:
    """Drop the operation if it has not been sent yet; what has been sent goes on, and its outcome is still reported."""

    ticket: int


@dataclass(frozen=True, slots=True)
class Unreachable:
    """The connection to a replica broke or began anew: what it was sent may be lost."""

    replica: int


@dataclass(frozen=True, slots=True)
class Flush:
    """The link is free: send all that waits, as one envelope and one query where limits permit."""


SessionInput = Submit | Ask | Cancel | Flush | Unreachable | Deliver | Tick

# --- effects ------------------------------------------------------------------------------------------------------


class Completed(msgspec.Struct, frozen=True, gc=False):
    """The operation's outcome, vouched for by enough replicas.

    Attributes:
        status: one of `bft.messages.STATUS_*`.
        seq: the slot that executed it; for an unordered read, one that the answer's state is not older than.
        index: its place in the slot; -1 for an unordered read.
    """

    ticket: int
    status: int
    value: bytes
    seq: int
    index: int


class Lost(msgspec.Struct, frozen=True, gc=False):
    """The operation's outcome will not be known.

    Attributes:
        reason: `overloaded` (nothing was sent), `session-expired`, `result-unavailable` (it was ordered, but nobody
            keeps its result any more; one of a lane may wait for its predecessor), or `closed` (said by the client
            around the session).
    """

    ticket: int
    reason: LostReason


@dataclass(frozen=True, slots=True)
class EventArrived:
    """An event for this session, in order of number."""

    number: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class EventsMissed:
    """The events `first .. last` did not arrive and will not be reported."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class EpochEntered:
    """The cluster's members are proven to be these now: connect to the new ones, leave those who are gone, and keep the
    proof if the client should find the cluster again without the first members."""

    configuration: Configuration


SessionEffect = Send | SetTimer | Completed | Lost | EventArrived | EventsMissed | EpochEntered
