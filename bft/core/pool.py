"""Requests that wait to be ordered: local, bounded, fair between clients.

Nothing here is replicated: a full pool may refuse or evict, since clients retransmit. Batches are filled by deficit
round robin [Shreedhar and Varghese 1995] over clients: each in turn may add a quantum of work, and what it does not
use of it while it waits for a large envelope is kept.

That alone gives whoever sends without end all that the others leave, and with it their latency: callers that wait for
answers send less the longer they wait. So beside others that were served lately a client gets no more than the average
of them, slots counted at what they cost: beyond it no slot is made for it while anything is in flight, and it may add
but little to those of others (virtual time, as in fair queueing [Demers, Keshav and Shenker 1989]). A lone client has
everything, at any time.

A backup keeps the same accounts of what the primary proposes, so that the monitor can tell whom a fair primary lets
wait (`is_beyond_share`) from whom an unfair one does. They need not agree to the digit: both begin anew with every
view, and the backup's virtual time does not jump ahead when nothing is in flight, so it errs towards trust.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from bft.ids import Nanos
from bft.messages import Request, SignedRequest

CLIENT_BYTES_MAX = 16 * 1024 * 1024
POOL_BYTES_MAX = 256 * 1024 * 1024
CLIENT_ENVELOPES_MAX = 4096
ENVELOPE_OVERHEAD_BYTES = 1024
"""What the smallest envelope costs here; without it, tiny ones of many clients would fill the memory unseen."""
QUANTUM = 512
"""Work that a client may add to a batch per turn by default: a quarter of the default batch."""
TURNS_PER_BATCH = 4
"""So many clients share a batch when all of them have more than their part of it waiting."""
ENVELOPE_WORK = 8
"""What an envelope costs beside its operations: its signature is checked by every replica, about 40 us."""
BYTES_PER_WORK = 512
SLOT_WORK = 64
"""What a slot costs beside its envelopes, with all its votes; those in it share it. Without it a client could have a
slot made for every single operation."""
LOOKED_AT = 8
DEBTORS_MAX = 1 << 16
"""Of so many clients at once it is remembered that they had more than their share and went silent."""
RIDE_SHARE = 4
"""Clients beyond their share may add this part of a quantum, together, to a batch of others."""
RECENT_SLOTS = 16
"""Who was in one of the last so many slots counts as active."""
EVICTED_AT_ONCE = 64
"""The largest client is looked for once per so many evictions: a flood must not make each of them a search."""
URGENT_MAX = 2
"""Envelopes of one client that one replica may have passed on ahead of the client's own order."""

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
        via: the replica that passed it on as urgent; -1 for none.
        is_behind: its client had more than its share before it, waiting or proposed: how long it waits is up to its
            client, and says nothing of the primary.
    """

    signed: SignedRequest
    request: Request
    since: Nanos
    proposed: int = 0
    stage: int = 0
    forwarded: Nanos = 0
    via: int = -1
    is_behind: bool = False

    @property
    def key(self) -> Key:
        """What this envelope is known by."""
        return self.signed.client, self.request.session, self.request.number

    @property
    def size(self) -> int:
        """Bytes that it takes here."""
        return len(self.signed.payload) + ENVELOPE_OVERHEAD_BYTES

    @property
    def work(self) -> int:
        """What it costs to order and execute, in small operations."""
        return len(self.request.operations) + ENVELOPE_WORK + len(self.signed.payload) // BYTES_PER_WORK


@dataclass(slots=True)
class Queue:
    """What waits of one client.

    Attributes:
        all: every envelope, oldest first.
        open: those that no slot of this view holds, in the order in which they will be proposed.
        urgent: those of `open` that go first, since a backup waits for them.
        size: bytes of `all`.
        work: of `open`.
        deficit: work that it may still add in its turn.
        is_served: its turn has begun.
        taken: how many were taken for a batch; every other one is urgent, so that neither order starves the other.
        head_since: when the oldest envelope became the oldest: its client's turn has come since.
    """

    all: dict[Key, Pending] = field(default_factory=dict)
    open: dict[Key, Pending] = field(default_factory=dict)
    urgent: dict[Key, Pending] = field(default_factory=dict)
    size: int = 0
    work: int = 0
    deficit: int = 0
    is_served: bool = False
    taken: int = 0
    head_since: Nanos = 0

    def first(self) -> Pending:
        """The next one to propose."""
        return next(iter((self.urgent if self.urgent and self.taken % 2 == 0 else self.open).values()))

    def close(self, pending: Pending) -> bool:
        """It needs no proposing any more; False if it did not before either."""
        self.urgent.pop(pending.key, None)
        if self.open.pop(pending.key, None) is None:
            return False
        self.work -= pending.work
        return True


@dataclass(slots=True)
class _Filling:
    """A batch that is being filled."""

    seq: int
    operations_max: int
    bytes_max: int
    operations: int = 0
    size: int = 0
    taken: list[Pending] = field(default_factory=list)
    spent: dict[bytes, int] = field(default_factory=dict)

    def add(self, client: bytes, pending: Pending) -> bool:
        """Add an envelope; False if there is no room. The first fits whatever its size."""
        self.operations += len(pending.request.operations)
        self.size += len(pending.signed.payload)
        if self.taken and (self.operations > self.operations_max or self.size > self.bytes_max):
            return False
        pending.proposed = self.seq
        self.taken.append(pending)
        self.spent[client] = self.spent.get(client, 0) + pending.work
        return True


class Pool:
    """Pending envelopes, a queue per client.

    Attributes:
        open_work: of all envelopes that no slot of this view holds.
        open_since: when the first of them came; not later than that, at least.
        evicted: what had to go to make room for others since somebody last cleared this.
    """

    def __init__(self, bytes_max: int = POOL_BYTES_MAX, quantum: int = QUANTUM) -> None:
        """Hold at most `bytes_max` bytes, overhead included; a turn is `quantum` work."""
        self._quantum = quantum
        self._queues: dict[bytes, Queue] = {}
        self._ring: dict[bytes, None] = {}
        self._recent: dict[bytes, tuple[int, int]] = {}
        self._debtors: dict[bytes, int] = {}
        self._virtual = self._remainder = self._charged = 0
        self._slack = 2 * quantum + SLOT_WORK
        self._proposed = 0
        self.open_work = 0
        self.open_since: Nanos = 0
        self._bytes = 0
        self._bytes_max = bytes_max
        self.evicted: list[Pending] = []

    def __len__(self) -> int:
        return sum(len(queue.all) for queue in self._queues.values())

    @property
    def is_due(self) -> bool:
        """True if something waits that no slot of this view holds, and its client has not had more than its share.

        Whoever was served longest ago is first in the ring: a look at the first few is enough. With nothing in flight
        everybody is due, so nobody waits for ever.
        """
        if not self._ring:
            return False
        return self._proposed == 0 or any(not self._is_ahead(client) for client in islice(self._ring, LOOKED_AT))

    def _is_ahead(self, client: bytes, spent: int = 0) -> bool:
        """True if the client has had more than the average of those that were served lately, `spent` work included."""
        if len(self._recent) < 2:
            return False
        return max(self._tag(client), self._virtual) + spent > self._virtual + self._slack

    def _tag(self, client: bytes) -> int:
        """The virtual time up to which the client has been served; in the past if it is owed something."""
        recent = self._recent.get(client)
        return recent[1] if recent is not None else self._debtors.get(client, 0)

    def is_beyond_share(self, pending: Pending) -> bool:
        """True if a fair primary may let this envelope wait while it orders those of others, as far as is known here.

        Either its client has had more than the average lately, what waits of it included; or more than a turn of the
        client's own was before it. Whoever sends so much is not starved, and must not be able to have a primary
        deposed for being fair; should its oldest envelope wait too long all the same, there is `requests.spread`.
        """
        queue = self._queues.get(pending.signed.client)
        return pending.is_behind or (queue is not None and self._is_ahead(pending.signed.client, queue.work))

    def __contains__(self, key: Key) -> bool:
        queue = self._queues.get(key[0])
        return queue is not None and key in queue.all

    def __iter__(self) -> Iterator[Pending]:
        """All envelopes, oldest first within a client."""
        for queue in self._queues.values():
            yield from queue.all.values()

    def oldest(self, count: int) -> Iterator[Pending]:
        """The oldest envelopes of every client, at most `count` of each, oldest first within a client."""
        for queue in self._queues.values():
            yield from islice(queue.all.values(), count)

    def heads(self) -> Iterator[tuple[Queue, Pending]]:
        """Every client's queue with its oldest envelope."""
        for queue in self._queues.values():
            yield queue, next(iter(queue.all.values()))

    # --- in and out -----------------------------------------------------------------------------------------------

    def add(self, pending: Pending) -> bool:
        """Add an envelope not yet there; False if its client is over its limit, or everybody is and it has most."""
        client = pending.signed.client
        queue = self._queues.get(client)
        held = queue.size if queue is not None else 0
        if held + pending.size > CLIENT_BYTES_MAX:
            return False
        if queue is not None and len(queue.all) >= CLIENT_ENVELOPES_MAX:
            return False
        if self._bytes + pending.size > self._bytes_max and not self._make_room(held + pending.size, pending.size):
            return False
        if queue is None:
            queue = self._queues[client] = Queue()
        if not self.open_work:
            self.open_since = pending.since
        self.open_work += pending.work
        pending.is_behind = queue.work > self._quantum
        queue.all[pending.key] = queue.open[pending.key] = pending
        queue.work += pending.work
        queue.size += pending.size
        self._bytes += pending.size
        self._ring[client] = None
        return True

    def _make_room(self, held: int, needed: int) -> bool:
        """Evict the newest envelopes of whoever holds most, if that is more than `held` bytes.

        What a slot holds stays: it is in the log anyway, and must be proposed again if the view fails.
        """
        while self._bytes + needed > self._bytes_max:
            largest = max(self._queues.values(), key=lambda queue: queue.size, default=None)
            if largest is None or largest.size <= held or not largest.open:
                return False
            for pending in list(reversed(largest.open.values()))[:EVICTED_AT_ONCE]:
                self.evicted.append(pending)
                self._drop(largest, pending)
                if largest.size <= held:
                    break
        return True

    def get(self, key: Key) -> Pending | None:
        """The envelope, if it is there."""
        queue = self._queues.get(key[0])
        return queue.all.get(key) if queue is not None else None

    def remove(self, key: Key, now: Nanos) -> Pending | None:
        """Forget an envelope, and return it if it is there; at time `now` the next one is its client's oldest."""
        queue = self._queues.get(key[0])
        pending = queue.all.get(key) if queue is not None else None
        if queue is None or pending is None:
            return None
        if next(iter(queue.all)) == key:
            queue.head_since = now
        self._drop(queue, pending)
        return pending

    def _drop(self, queue: Queue, pending: Pending) -> None:
        client = pending.signed.client
        del queue.all[pending.key]
        self._proposed -= pending.proposed > 0
        self._close(queue, pending)
        queue.size -= pending.size
        self._bytes -= pending.size
        if not queue.open:
            self._rest(client, queue)
        if not queue.all:
            del self._queues[client]

    def _close(self, queue: Queue, pending: Pending) -> bool:
        """It needs no proposing any more; False if it did not before either."""
        if not queue.close(pending):
            return False
        self.open_work -= pending.work
        return True

    def _rest(self, client: bytes, queue: Queue) -> None:
        """Nothing of the client waits: what it did not use of its turn is gone."""
        queue.deficit = 0
        queue.is_served = False
        self._ring.pop(client, None)

    def promote(self, key: Key, via: int) -> None:
        """Replica `via` waits for this envelope: it goes before the others of its client, a few per replica.

        Without it a client could show backups first what it sends the primary last, and have it deposed.
        """
        queue = self._queues.get(key[0])
        pending = queue.open.get(key) if queue is not None else None
        if queue is None or pending is None or key in queue.urgent:
            return
        if sum(other.via == via for other in queue.urgent.values()) < URGENT_MAX:
            pending.via = via
            queue.urgent[key] = pending

    # --- batches --------------------------------------------------------------------------------------------------

    def take(self, seq: int, operations_max: int, bytes_max: int) -> list[Pending]:
        """Mark the next batch's envelopes as proposed in `seq`: fair between clients, in order within each.

        Never empty if `is_due`.
        """
        batch = _Filling(seq, operations_max, bytes_max)
        passed = 0
        if self._ring and self._proposed == 0:
            self._catch_up()
        while self._ring and passed < len(self._ring):
            client = next(iter(self._ring))
            if self._is_ahead(client, batch.spent.get(client, 0)):
                passed += 1
                self._ring[client] = self._ring.pop(client)  # to the end
            elif self._serve(client, self._quantum, batch):
                passed = 0
            else:
                break
        else:
            self._ride(batch)
        self._account(batch.spent)
        return batch.taken

    def _serve(self, client: bytes, quantum: int, batch: _Filling) -> bool:
        """Give a client its turn; False if the batch is full, and the turn goes on in the next one."""
        queue = self._queues[client]
        if not queue.is_served:
            queue.is_served = True
            queue.deficit += quantum
        while queue.open and (pending := queue.first()).work <= queue.deficit:
            if not batch.add(client, pending):
                return False
            queue.taken += 1
            queue.deficit -= pending.work
            self._close(queue, pending)
            self._proposed += 1
        queue.is_served = False
        del self._ring[client]
        if queue.open:
            self._ring[client] = None
        else:
            queue.deficit = 0
        return True

    def _ride(self, batch: _Filling) -> None:
        """Those that had more than the average may add a little to a batch that is made for others anyway.

        It costs no slot, and a busy client beside some idle ones needs it: their average is not what it may have.
        """
        riders = list(islice(self._ring, LOOKED_AT)) if batch.taken else []
        for client in riders:
            if not self._serve(client, self._quantum // RIDE_SHARE // len(riders), batch):
                return

    def _catch_up(self) -> None:
        """Nothing is in flight: if everybody that waits had more than the average, time passes until one has not."""
        if all(self._is_ahead(client) for client in self._ring):
            self._virtual = min(self._tag(client) for client in self._ring) - self._slack

    def _account(self, spent: dict[bytes, int], slot: int = SLOT_WORK) -> None:
        """Charge a batch to the clients in it, and let virtual time pass for all that are active.

        Only those of the last few batches are: keys that come once and never again must not slow time down for all
        others (`test_fresh_keys_do_not_stop_virtual_time`).
        """
        if not spent:
            return
        self._charged += 1
        slot_work = slot // len(spent)
        ceiling = self._virtual + 4 * self._slack
        for client, work in spent.items():
            tag = max(self._tag(client), self._virtual) + work + slot_work
            self._recent.pop(client, None)
            self._debtors.pop(client, None)
            self._recent[client] = (self._charged, min(tag, ceiling))
        self._expire(len(spent))
        passed, self._remainder = divmod(sum(spent.values()) + slot + self._remainder, len(self._recent))
        self._virtual += passed

    def _expire(self, added: int) -> None:
        """Forget who was not served lately; who is ahead is remembered until it has paid, up to a bound."""
        while True:
            client, (last, tag) = next(iter(self._recent.items()))
            if self._charged - last < RECENT_SLOTS:
                break
            del self._recent[client]
            self._debtors[client] = tag
        for client in list(islice(self._debtors, added + LOOKED_AT)):
            tag = self._debtors.pop(client)
            if tag > self._virtual and len(self._debtors) < DEBTORS_MAX:
                self._debtors[client] = tag  # to the end

    def mark_proposed(self, key: Key, seq: int) -> int:
        """Note that a slot of this view holds the envelope; returns its work, 0 if it is not here."""
        queue = self._queues.get(key[0])
        pending = queue.all.get(key) if queue is not None else None
        if queue is None or pending is None:
            return 0
        if pending.proposed == 0:
            pending.proposed = seq
            pending.is_behind = pending.is_behind or self._is_ahead(key[0])
            self._proposed += 1
            if self._close(queue, pending) and not queue.open:
                self._rest(key[0], queue)
        return pending.work

    def charge(self, seq: int, requests: Sequence[tuple[bytes, Request]]) -> None:
        """Another replica's batch for this view: note that its envelopes are proposed, and charge it to its clients.

        The slot itself is not charged: how many there are is the primary's choice, and one that gives a client slots
        of its own could call it greedy, and starve it.
        """
        spent: dict[bytes, int] = {}
        for client, request in requests:
            work = self.mark_proposed((client, request.session, request.number), seq)
            spent[client] = spent.get(client, 0) + (work or len(request.operations) + ENVELOPE_WORK)
        self._account(spent, slot=0)

    def reset(self) -> None:
        """A new view: nothing is proposed yet, and everything must be spread again."""
        for client, queue in self._queues.items():
            for pending in queue.all.values():
                pending.proposed = pending.stage = pending.forwarded = 0
                pending.via = -1
            queue.open = dict(queue.all)
            queue.work = sum(pending.work for pending in queue.all.values())
            queue.urgent.clear()
            self._rest(client, queue)
        self.open_work = sum(queue.work for queue in self._queues.values())
        self.open_since = 0
        self._ring = dict.fromkeys(self._queues)
        self._recent.clear()
        self._debtors.clear()
        self._virtual = self._remainder = self._charged = self._proposed = 0
