"""What an operation may know: position, agreed time, agreed dice, and whose it is.

One context object serves all operations of a replica, rewritten in place: the per-operation loop allocates nothing.
It is valid while the operation executes and not after.
"""

from __future__ import annotations

# The only dice of the pure layers: seeded with agreed bytes, hence a function and no source of chance.
from random import Random

from bft.digests import operation_seed
from bft.messages import OPERATION_BYTES_MAX


class Context:
    """The one implementation of `bft.ports.ExecutionContext`; the executor fills it in."""

    __slots__ = ("client", "events", "index", "lease_ns", "number", "seq", "session", "slot_seed", "time_ns")

    def __init__(self) -> None:
        self.client = b""
        self.session = 0
        self.number = 0
        self.seq = 0
        self.index = 0
        self.time_ns = 0
        self.lease_ns = 0
        self.slot_seed = bytes(32)
        self.events: list[tuple[bytes, int, bytes]] = []

    @property
    def seed(self) -> bytes:
        """32 agreed random bytes of this operation."""
        return operation_seed(self.slot_seed, self.index)

    def random(self) -> Random:
        """A generator seeded with `seed`: equal on all replicas that run the same minor version of Python."""
        return Random(self.seed)

    def emit(self, client: bytes, session: int, payload: bytes, /) -> None:
        """Send an event to a client's session, in that session's bundle of this slot.

        Raises:
            TypeError: an argument is of another type. Found here, that is a failure of the operation, alike everywhere;
                found later, it would stop the replica.
            ValueError: the payload has more than 1 MiB.
        """
        if (type(client), type(session), type(payload)) != (bytes, int, bytes):  # nor derived from them
            raise TypeError("an event has a client (bytes), a session (int) and a payload (bytes)")
        if len(payload) > OPERATION_BYTES_MAX:
            raise ValueError(f"an event has at most {OPERATION_BYTES_MAX} bytes, found {len(payload)}")
        self.events.append((client, session, payload))
