"""Requests that wait to be ordered: local, bounded, fair between clients.

Nothing here is replicated: a full pool may refuse, since clients retransmit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from bft.ids import Nanos
from bft.messages import Request, SignedRequest

CLIENT_BYTES_MAX = 16 * 1024 * 1024
POOL_BYTES_MAX = 256 * 1024 * 1024
CLIENT_ENVELOPES_MAX = 4096
ENVELOPE_OVERHEAD_BYTES = 1024
"""What the smallest envelope costs here; without it, tiny ones of many clients would fill the memory unseen."""

Key = tuple[bytes, int, int]
"""(client, session, first number): what an envelope is known by. Never its digest: a client may sign two."""


@dataclass(slots=True)
class Pending:
    """An envelope that waits.

    Attributes:
        since: when it came in.
        proposed: the slot of this view that holds it, 0 for none.
        stage: how far a backup has spread it: 0 not, 1 to the primary, 2 to all.
        forwarded: when this replica passed it on to the present primary; 0 for not yet.
    """

    signed: SignedRequest
    request: Request
    since: Nanos
    proposed: int = 0
    stage: int = 0
    forwarded: Nanos = 0

    @property
    def key(self) -> Key:
        """What this envelope is known by."""
        return self.signed.client, self.request.session, self.request.number


class Pool:
    """Pending envelopes, a queue per client."""

    def __init__(self) -> None:
        self._queues: dict[bytes, dict[Key, Pending]] = {}
        self._sizes: dict[bytes, int] = {}
        self._bytes = 0
        self._unproposed = 0

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._queues.values())

    @property
    def has_unproposed(self) -> bool:
        """True if something waits that no slot of this view holds."""
        return self._unproposed > 0

    def __contains__(self, key: Key) -> bool:
        queue = self._queues.get(key[0])
        return queue is not None and key in queue

    def __iter__(self) -> Iterator[Pending]:
        """All envelopes, oldest first within a client."""
        for queue in self._queues.values():
            yield from queue.values()

    def oldest(self, count: int) -> Iterator[Pending]:
        """The oldest envelopes of every client, at most `count` of each, oldest first within a client."""
        for queue in self._queues.values():
            yield from islice(queue.values(), count)

    def add(self, pending: Pending) -> bool:
        """Add an envelope not yet there; False if the client or the pool is over its limit."""
        client = pending.signed.client
        size = len(pending.signed.payload) + ENVELOPE_OVERHEAD_BYTES
        queue = self._queues.get(client)
        held = self._sizes.get(client, 0)
        if self._bytes + size > POOL_BYTES_MAX or held + size > CLIENT_BYTES_MAX:
            return False
        if queue is None:
            queue = self._queues[client] = {}
        elif len(queue) >= CLIENT_ENVELOPES_MAX:
            return False
        queue[pending.key] = pending
        self._sizes[client] = held + size
        self._bytes += size
        self._unproposed += 1
        return True

    def get(self, key: Key) -> Pending | None:
        """The envelope, if it is there."""
        queue = self._queues.get(key[0])
        return queue.get(key) if queue is not None else None

    def remove(self, key: Key) -> Nanos:
        """Forget an envelope, if it is there; returns when it came in, 0 if it was not there."""
        queue = self._queues.get(key[0])
        pending = queue.pop(key, None) if queue is not None else None
        if queue is None or pending is None:
            return 0
        size = len(pending.signed.payload) + ENVELOPE_OVERHEAD_BYTES
        self._bytes -= size
        self._sizes[key[0]] -= size
        self._unproposed -= pending.proposed == 0
        if not queue:
            del self._queues[key[0]]
            del self._sizes[key[0]]
        return pending.since

    def take(self, seq: int, operations_max: int, bytes_max: int) -> list[Pending]:
        """Mark the next batch's envelopes as proposed in `seq`: round robin over clients, in order within each."""
        taken: list[Pending] = []
        operations = size = 0
        queues = [
            (client, (pending for pending in queue.values() if pending.proposed == 0))
            for client, queue in self._queues.items()
        ]
        while queues:
            remaining = []
            for client, queue in queues:
                pending = next(queue, None)
                if pending is None:
                    continue
                operations += len(pending.request.operations)
                size += len(pending.signed.payload)
                if taken and (operations > operations_max or size > bytes_max):
                    self._rotate(client)
                    return taken
                pending.proposed = seq
                self._unproposed -= 1
                taken.append(pending)
                remaining.append((client, queue))
            queues = remaining
        return taken

    def _rotate(self, client: bytes) -> None:
        """Begin the next batch with `client`, whose turn it was when the batch was full."""
        clients = list(self._queues)
        start = clients.index(client)
        self._queues = {name: self._queues[name] for name in clients[start:] + clients[:start]}

    def mark_proposed(self, key: Key, seq: int) -> None:
        """Note that a slot of this view holds the envelope."""
        queue = self._queues.get(key[0])
        pending = queue.get(key) if queue is not None else None
        if pending is not None and pending.proposed == 0:
            pending.proposed = seq
            self._unproposed -= 1

    def reset(self) -> None:
        """A new view: nothing is proposed yet, and everything must be spread again."""
        self._unproposed = 0
        for pending in self:
            pending.proposed = 0
            pending.stage = 0
            pending.forwarded = 0
            self._unproposed += 1
