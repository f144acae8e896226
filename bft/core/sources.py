"""Whom a state transfer asks: who answers gets more to do, who lies, is silent or slow is named and left.

    a source starts with few pages at a time; every answer doubles that; the least busy source is asked next
    pages that were never asked for, a manifest of another state:   a lie, or a stale source: left at once
    nothing at all within the patience, twice in a row:             silent or slow: left
    when all are left:                                              all are forgiven, for correct ones are among them

Scores decide only whom to ask: nothing unverified is ever installed, so a wrong score costs time, never safety.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bft.ids import Nanos, Peer

PAGES_FIRST = 4
PAGES_PER_REQUEST = 32
REQUESTS_EACH = 2
"""Requests that one source has open at most."""
LATE_MAX = 2
PATIENCE_FACTOR = 4
"""A source may take so many times longer than the best answer so far took."""


@dataclass(slots=True)
class Source:
    """One replica that vouches for the checkpoint.

    Attributes:
        open: pages asked for and not here yet -> when they were asked for.
        batch: pages to ask for at once.
        heard: when it last sent something useful.
        took: how long its quickest answer took; 0 before the first.
        late: unanswered requests in a row.
        left: why it is asked no more; empty if it is.
        named: every reason for which it was left, forgiven or not; for people.
    """

    open: dict[bytes, Nanos] = field(default_factory=dict)
    batch: int = PAGES_FIRST
    heard: Nanos = -1
    took: Nanos = 0
    late: int = 0
    pages: int = 0
    size: int = 0
    left: str = ""
    named: dict[str, None] = field(default_factory=dict)

    @property
    def has_room(self) -> bool:
        """True if another request may be sent to it."""
        return not self.left and len(self.open) <= self.batch * (REQUESTS_EACH - 1)


@dataclass(slots=True)
class Sources:
    """All of them, by replica."""

    by_replica: dict[int, Source] = field(default_factory=dict)
    turn: int = 0

    def know(self, replicas: list[int]) -> None:
        """These vouch for the checkpoint now; what is known of them stays."""
        self.by_replica = {replica: self.by_replica.get(replica, Source()) for replica in replicas}
        for source in self.by_replica.values():
            source.open.clear()

    def next(self) -> int:
        """Whom to ask for one thing: in turn among those not left; all are forgiven if nobody is."""
        if self.are_all_left:
            for source in self.by_replica.values():
                source.left, source.late, source.batch = "", 0, PAGES_FIRST
        candidates = [replica for replica, source in self.by_replica.items() if not source.left]
        self.turn += 1
        return candidates[self.turn % len(candidates)]

    def next_for_pages(self) -> int | None:
        """The least busy of those that have room; None if all are busy."""
        first = self.next()
        order = list(self.by_replica)
        start = order.index(first)
        ready = [replica for replica in order[start:] + order[:start] if self.by_replica[replica].has_room]
        return min(ready, key=lambda replica: len(self.by_replica[replica].open), default=None)

    @property
    def are_all_left(self) -> bool:
        """True if nobody is asked any more, until all are forgiven."""
        return all(source.left for source in self.by_replica.values())

    @property
    def open_pages(self) -> int:
        """Pages asked for and not here yet."""
        return sum(len(source.open) for source in self.by_replica.values())

    def is_open(self, digest: bytes) -> bool:
        """True if somebody has been asked for the page."""
        return any(digest in source.open for source in self.by_replica.values())

    def patience(self, least: Nanos) -> Nanos:
        """How long an answer may take: as measured, but never less than `least`."""
        quickest = min((source.took for source in self.by_replica.values() if source.took), default=0)
        return max(least, PATIENCE_FACTOR * quickest)

    def took_page(self, peer: Peer, digest: bytes, size: int, now: Nanos) -> None:
        """A page that was asked for came from `peer`; whoever else was asked for it need not answer."""
        for replica, source in self.by_replica.items():
            asked = source.open.pop(digest, None)
            if asked is not None and replica == peer:
                source.heard, source.late = now, 0
                source.took = min(source.took or now - asked + 1, now - asked + 1)
            if replica == peer:
                source.pages += 1
                source.size += size
                if not source.open:
                    source.batch = min(2 * source.batch, PAGES_PER_REQUEST)

    def overdue(self, now: Nanos, patience: Nanos) -> list[int]:
        """Give up on pages that take too long; returns those who have let it come to that once too often.

        Who has sent something since it was asked is busy, not late: an answer has a bounded size.
        """
        gone: list[int] = []
        for replica, source in self.by_replica.items():
            old = [digest for digest, asked in source.open.items() if now - max(asked, source.heard) >= patience]
            if not old:
                continue
            if any(source.open[digest] >= source.heard for digest in old):
                source.late += 1
                source.batch = max(1, source.batch // 2)
            for digest in old:
                del source.open[digest]
            if source.late >= LATE_MAX and not source.left:
                gone.append(replica)
        return gone

    def report(self) -> dict[str, dict[str, object]]:
        """For people: what each has sent, and why it was left."""
        return {
            f"r{replica}": {
                "pages": source.pages,
                "bytes": source.size,
                "left": source.left or None,
                "named": list(source.named),
            }
            for replica, source in self.by_replica.items()
        }
