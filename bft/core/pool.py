"""Requests that wait to be ordered: local, bounded, fair between clients.

Nothing here is replicated: a full pool may refuse or evict, since clients retransmit. Batches are filled by deficit
round robin [Shreedhar and Varghese 1995] over clients: each in turn may add a quantum of work, and what it does not
use of it while it waits for a large envelope is kept.

That alone gives whoever sends without end all that the others leave, and with it their latency: callers that wait for
answers send less the longer they wait. So beside others that were served lately a client gets no more than the average
of them, slots counted at what they cost (`bft.core.shares`). Beyond it no slot is made for the client while anything is
in flight, nor in the short gaps between; and when a few of its envelopes wait here, more are not even read
(`hold_back`). A client that does most of the recent work is spared some of that: those beside it are few or idle. A
lone client has everything, at any time.

A backup keeps the same accounts of what the primary proposes, so that the monitor can tell whom a fair primary lets
wait (`is_beyond_share`) from whom an unfair one does. They need not agree to the digit: both begin anew with every
view, and the backup's virtual time does not jump ahead when nothing is in flight, so it errs towards trust.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from bft.config import MILLISECOND
from bft.core.shares import SLOT_WORK, Shares
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
ENVELOPE_WORK = 96
"""What an envelope costs beside its operations, in operations: every replica reads it, checks its signature and answers
with a bundle. All processes together that is 1.2 - 1.8 ms, and 12 us for an operation in it."""
ENVELOPE_LOAD = 8
"""What it counts where a primary is judged by how long a client waits (`Queue.load`)."""
BYTES_PER_WORK = 512
LOOKED_AT = 64
"""So many clients that wait are looked at for a decision: what keys cost that come once each must stay bounded."""
RIDERS_MAX = 8
RIDE_SHARE = 4
"""A client beyond its share may add this part of a quantum to a batch of others, if it does most of the work,"""
RIDE_SHARE_SMALL = 16
"""and this part if not;"""
RIDE_AFTER_NS = 20 * MILLISECOND
"""but an envelope, when one has waited for so long."""
EVICTED_AT_ONCE = 64
"""The largest client is looked for once per so many evictions: a flood must not make each of them a search."""
HOLD_NS = 5 * MILLISECOND
"""How long a client is left unread, at least: a slot or two."""
HOLD_NS_MAX = 20 * MILLISECOND
BACKLOG_ENVELOPES = 4
"""So many envelopes of a client beyond its share may wait here; the rest is better left unread, and unchecked."""
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

    @property
    def load(self) -> int:
        """What a primary may take its time for, of what is open.

        Envelopes count for little here: a few small ones must be no excuse for a primary that lets a client starve.
        """
        return self.work - (ENVELOPE_WORK - ENVELOPE_LOAD) * len(self.open)

    @property
    def waiting_since(self) -> Nanos:
        """Since when the oldest envelope waits, those before it being done."""
        return max(next(iter(self.all.values())).since, self.head_since)

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
        open_since: when the first of them came, or a batch was last taken.
        was_for_few: no client within its share had anything for the last batch.
        shares: how much each client has had.
        evicted: what had to go to make room for others since somebody last cleared this.
    """

    def __init__(self, bytes_max: int = POOL_BYTES_MAX, quantum: int = QUANTUM) -> None:
        """Hold at most `bytes_max` bytes, overhead included; a turn is `quantum` work."""
        self._quantum = quantum
        self._queues: dict[bytes, Queue] = {}
        self._ring: dict[bytes, None] = {}
        self.shares = Shares(2 * quantum + SLOT_WORK)
        self._proposed = 0
        self.open_work = 0
        self.open_since: Nanos = 0
        self.was_for_few = False
        self._bytes = 0
        self._bytes_max = bytes_max
        self.evicted: list[Pending] = []

    def __len__(self) -> int:
        return sum(len(queue.all) for queue in self._queues.values())

    def due_work(self, enough: int) -> int:
        """What waits of clients that have not had more than their share, counted up to `enough`.

        Whoever was served longest ago is first in the ring: a look at the first of them is enough.
        """
        work = 0
        for client in islice(self._ring, LOOKED_AT):
            if not self.shares.is_ahead(client):
                work += self._queues[client].work
                if work >= enough:
                    break
        return work

    @property
    def may_go_alone(self) -> bool:
        """True if those who wait had most of the recent work ordered: no reason to wait for the others, then.

        Busy clients must not be slowed down by one that sends a little now and then; and one that sends without end
        must not have a slot in every gap that the others leave while they wait for their answers.
        """
        return self.shares.did_most(islice(self._ring, LOOKED_AT))

    def is_beyond_share(self, pending: Pending) -> bool:
        """True if a fair primary may let this envelope wait while it orders those of others, as far as is known here.

        Either its client has had more than the average lately, what waits of it included; or more than a turn of the
        client's own was before it. Whoever sends so much is not starved, and must not be able to have a primary
        deposed for being fair; should its oldest envelope wait too long all the same, there is `requests.spread`.
        """
        queue = self._queues.get(pending.signed.client)
        return pending.is_behind or (queue is not None and self.shares.is_ahead(pending.signed.client, queue.load))

    def hold_back(self, client: bytes, now: Nanos) -> tuple[Nanos, str]:
        """(how long what a client sends is better left unread, why).

        It has had more than its share, and enough waits: reading more would cost every replica a signature check, only
        for the envelope to wait here. Or it keeps the others from their share with reads, or with what was executed
        before: then its share of the time will have made up for that.
        """
        if self._proposed == 0 and self.due_work(1) == 0:
            self.shares.pass_idle(now)
        else:
            self.shares.note_busy(now)
        queue = self._queues.get(client)
        if not self.shares.is_ahead(client, queue.work if queue is not None else 0):
            return 0, ""
        if queue is not None and len(queue.open) >= BACKLOG_ENVELOPES:
            return HOLD_NS, "backlog"
        pause = self.shares.time_until_even(client)
        if pause == 0 or self.shares.did_most((client,)):
            return 0, ""
        return max(HOLD_NS, min(HOLD_NS_MAX, pause)), "share"

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

    def add(self, pending: Pending, via: int = -1) -> bool:
        """Add an envelope not yet there; False if its client is over its limit, or everybody is and it has most.

        One that replica `via` waits for is added all the same, as far as `promote` lets it go first. Else a client
        could keep its queue here full, show backups what has no room, and have a correct primary deposed.
        """
        client = pending.signed.client
        queue = self._queues.get(client)
        held = (queue.size if queue is not None else 0) + pending.size
        if via >= 0 and self._may_promote(queue, via):
            held = pending.size
        elif held > CLIENT_BYTES_MAX or (queue is not None and len(queue.all) >= CLIENT_ENVELOPES_MAX):
            return False
        if self._bytes + pending.size > self._bytes_max and not self._make_room(held, pending.size):
            return False
        queue = self._queues.get(client)  # room was made of another one, or of this
        if queue is None:
            queue = self._queues[client] = Queue()
        if not self.open_work:
            self.open_since = pending.since
        self.open_work += pending.work
        pending.is_behind = queue.load > self._quantum
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
        self.shares.note_busy(now)
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
        if self._may_promote(queue, via):
            pending.via = via
            queue.urgent[key] = pending

    def _may_promote(self, queue: Queue | None, via: int) -> bool:
        """True if fewer envelopes of the client go first for replica `via` than may."""
        return queue is None or sum(other.via == via for other in queue.urgent.values()) < URGENT_MAX

    # --- batches --------------------------------------------------------------------------------------------------

    def take(
        self, seq: int, now: Nanos, operations_max: int, bytes_max: int, *, is_idle: bool = False
    ) -> list[Pending]:
        """Mark the next batch's envelopes as proposed in `seq`: fair between clients, in order within each.

        Not empty if `due_work` is not 0, or if something waits and `is_idle`: nothing is in flight.
        """
        batch = _Filling(seq, operations_max, bytes_max)
        passed = 0
        self.open_since = now
        self.was_for_few = self.due_work(1) == 0
        self.shares.note_busy(now)
        if is_idle:
            self.shares.catch_up(self._ring)
        while self._ring and passed < len(self._ring):
            client = next(iter(self._ring))
            if self.shares.is_ahead(client, batch.spent.get(client, 0)):
                passed += 1
                self._ring[client] = self._ring.pop(client)  # to the end
            elif self._serve(client, self._quantum, batch):
                passed = 0
            else:
                break
        else:
            self._ride(batch, now)
        self.shares.charge(batch.spent)
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

    def _ride(self, batch: _Filling, now: Nanos) -> None:
        """Those that had more than the average may add a little to a batch that is made for others anyway.

        It costs no slot. A busy client beside some idle ones needs it, whose average is not what it may have; and so
        does one beside ever new keys, of which each is owed as much: nobody must wait until a primary is suspected.
        """
        riders = list(islice(self._ring, RIDERS_MAX)) if batch.taken else []
        for client in riders:
            work = self._quantum // (RIDE_SHARE if self.shares.did_most((client,)) else RIDE_SHARE_SMALL) // len(riders)
            queue = self._queues[client]
            if now - queue.waiting_since >= RIDE_AFTER_NS:
                work = max(work, queue.first().work)
            if not self._serve(client, work, batch):
                return

    def mark_proposed(self, key: Key, seq: int) -> int:
        """Note that a slot of this view holds the envelope; returns its work, 0 if it is not here."""
        queue = self._queues.get(key[0])
        pending = queue.all.get(key) if queue is not None else None
        if queue is None or pending is None:
            return 0
        if pending.proposed == 0:
            pending.proposed = seq
            pending.is_behind = pending.is_behind or self.shares.is_ahead(key[0])
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
        self.shares.charge(spent, slot=0)

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
        self.was_for_few = False
        self._ring = dict.fromkeys(self._queues)
        self.shares = Shares(self.shares.slack)
        self._proposed = 0
