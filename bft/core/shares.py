"""Who has had how much: each client's share of the work, in virtual time.

Virtual time passes with the work that is done, divided by the number of clients that were served lately, as in fair
queueing [Demers, Keshav and Shenker 1989]; a client's tag moves by what is done for it. Who is further ahead of virtual
time than a turn or two had more than the average of the others. Work is counted in small operations: an envelope costs
what a hundred of them do, and a slot several hundred.

All of it is local, and says nothing about what replicas must agree on.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterable
from itertools import islice

from bft.config import MILLISECOND
from bft.ids import Nanos

SLOT_WORK = 320
"""What a slot costs beside its envelopes, with all its votes: about 4 ms. Those in it share it. Without it a client
could have a slot made for every single operation."""
FRAME_WORK = 40
"""A frame of a client, whatever is in it: reading and answering one takes a replica some 100 us, and what one is sent
without having asked, the others mostly are as well."""
WORK_NS = 12_000
"""In so much time an operation's worth of work could have been done, on a small machine: time passes for those who had
too much while the others do nothing."""
GAP_NS = 5 * MILLISECOND
"""What callers take to come back with their next operation is no idle time,"""
IDLE_NS = 1000 * MILLISECOND
"""and more than this is as good as any."""
RECENT_SLOTS = 16
"""Who was in one of the last so many slots counts as active."""
DEBTORS_MAX = 1 << 16
"""Of so many clients at once it is remembered that they had more than their share and went silent."""
PAID_AT_ONCE = 8
"""So many of those are looked at per slot whether virtual time has caught up with them."""


class Shares:
    """Accounts of one view.

    Attributes:
        slack: how far ahead of virtual time a client may be.
    """

    def __init__(self, slack: int) -> None:
        self.slack = slack
        self._noted: Counter[bytes] = Counter()
        self._recent: dict[bytes, tuple[int, int]] = {}
        self._debtors: dict[bytes, int] = {}
        self._slots: deque[dict[bytes, int]] = deque()
        self._in_slots: Counter[bytes] = Counter()
        self._idle_from: Nanos = 0
        self._virtual = self._remainder = self._charged = 0

    def is_ahead(self, client: bytes, spent: int = 0) -> bool:
        """True if the client has had more than the average of those that were served lately, `spent` work included."""
        if len(self._recent) < 2:
            return False
        return max(self._tag(client), self._virtual) + spent > self._virtual + self.slack

    def did_most(self, clients: Iterable[bytes]) -> bool:
        """True if the recent slots were these clients', or two thirds of them; turns alone give nobody so much."""
        theirs = sum(self._in_slots[client] for client in clients)
        return theirs > 0 and 3 * theirs >= 2 * self._in_slots.total()

    def time_until_even(self, client: bytes) -> Nanos:
        """How long it takes at most until the client is no longer ahead, if it does nothing."""
        ahead = self._tag(client) - self._virtual - self.slack
        return max(0, ahead) * WORK_NS

    def _tag(self, client: bytes) -> int:
        """The virtual time up to which the client has been served; in the past if it is owed something."""
        recent = self._recent.get(client)
        return recent[1] if recent is not None else self._debtors.get(client, 0)

    # --- charging -------------------------------------------------------------------------------------------------

    def charge(self, spent: dict[bytes, int], slot: int = SLOT_WORK) -> None:
        """Charge the clients in a slot for what it cost."""
        if not spent:
            return
        self._slots.append(spent)
        self._in_slots.update(spent)
        if len(self._slots) > RECENT_SLOTS:
            for client, work in self._slots.popleft().items():
                self._in_slots[client] -= work
                if not self._in_slots[client]:
                    del self._in_slots[client]
        self._charge(spent, slot)

    def note(self, client: bytes, frames: int) -> None:
        """Charge a client for frames that were read, whether anything of them is ordered or not."""
        self._noted[client] += frames * FRAME_WORK
        if self._noted.total() >= SLOT_WORK:
            spent, self._noted = dict(self._noted), Counter()
            self._charge(spent, 0)

    def _charge(self, spent: dict[bytes, int], slot: int) -> None:
        """Move tags and virtual time.

        Only clients of the last few charges are active: keys that come once and never again must not slow virtual time
        down for all others (`test_fresh_keys_do_not_stop_virtual_time`).
        """
        self._charged += 1
        slot_work = slot // len(spent)
        ceiling = self._virtual + 4 * self.slack
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
        for client in list(islice(self._debtors, added + PAID_AT_ONCE)):
            tag = self._debtors.pop(client)
            if tag > self._virtual and len(self._debtors) < DEBTORS_MAX:
                self._debtors[client] = tag  # to the end

    # --- time -----------------------------------------------------------------------------------------------------

    def note_busy(self, now: Nanos) -> None:
        """Something is in flight, or due: the work that is done moves virtual time."""
        self._idle_from = now + GAP_NS

    def pass_idle(self, now: Nanos) -> None:
        """Nothing has been in flight or due since somebody last said so: time passes for those who had too much."""
        if now > self._idle_from:
            self._virtual += min(now - self._idle_from, IDLE_NS) // WORK_NS
            self._idle_from = now

    def catch_up(self, clients: Collection[bytes]) -> None:
        """Nothing is in flight: if all of these, who wait, are ahead, time passes until one of them is not."""
        if clients and all(self.is_ahead(client) for client in clients):
            self._virtual = min(self._tag(client) for client in clients) - self.slack
