"""Read-only operations that ask for an answer without ordering [CL99 5.1; CL02 5.1.3].

PURE. A linearizable read needs `strong` equal answers from replicas of one epoch, each given under the commit-wait
rule; a weak one `weak` equal answers. An answer's slot is no part of the match: replicas stand at different slots with
the same value. What cannot be answered so is ordered by the session instead.

Reads that wait when the link is free leave together, as operations do; each is answered and counted by itself.

What replicas answer goes to all processes that use the client's key, also to those that did not ask, and to those that
began after the one that asked has ended. So every session numbers its queries from another nonce: with equal ones, an
answer to somebody else's question would pass for an answer to one's own, from as many correct replicas as there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from bft.ids import Nanos
from bft.membership import Quorums
from bft.messages import QUERY_OPERATIONS_MAX, Query, QueryReply

QUERY_BYTES_MAX = 1024 * 1024
"""A query's operations together; a single one may be as large as operations are."""


@dataclass(slots=True)
class Read:
    """A read without an answer.

    Attributes:
        floor: answer from a state at or after this slot.
        sent: what it was sent with, and its place in it; None while it waits.
        heard: who has answered or refused it; only the first answer of each counts.
        groups: equal answers (epoch, status, value) -> the slots of the states that gave them.
    """

    ticket: int
    operation: bytes
    floor: int
    wait: bool
    sent: Sent | None = None
    place: int = 0
    heard: set[int] = field(default_factory=set)
    groups: dict[tuple[int, int, bytes], list[int]] = field(default_factory=dict)


@dataclass(slots=True)
class Sent:
    """A query on its way, and its reads by place; None for those that are over."""

    query: Query
    deadline: Nanos
    reads: list[Read | None]
    left: int


@dataclass(frozen=True, slots=True)
class Answer:
    """An agreed answer.

    Attributes:
        seq_min: a correct replica gave it from a state at or after this slot.
        seq_max: no correct replica among those that agree gave it from a later state than this.
    """

    ticket: int
    status: int
    value: bytes
    seq_min: int
    seq_max: int


class Reads:
    """The session's unfinished reads.

    Attributes:
        floor: the latest slot whose state may have been seen in an answer; weak reads ask for no earlier one. The
            latest, since the one correct replica among those that agree may be the one furthest on. A liar can push it
            up and make weak reads wait; they are ordered then, and that takes the floor down again.
        ordered: tickets of reads that go on as ordinary operations -> how many answers had been agreed when they were
            sent: if none has been since, such a read is no older than anything seen.
    """

    __slots__ = ("_agreed", "_by_ticket", "_nonce", "_quorums", "_sent", "_waiting", "floor", "ordered")

    def __init__(self, quorums: Quorums, nonce: int) -> None:
        """Number queries from `nonce`, which is far from that of any other session of the client's key."""
        self._quorums = quorums
        self._nonce = nonce
        self._agreed = 0
        self.floor = 0
        self.ordered: dict[int, int] = {}
        self._by_ticket: dict[int, Read] = {}
        self._waiting: list[Read] = []
        self._sent: dict[int, Sent] = {}

    def __len__(self) -> int:
        return len(self._by_ticket)

    @property
    def deadline(self) -> Nanos | None:
        """The earliest deadline; None with nothing on its way."""
        return min((sent.deadline for sent in self._sent.values()), default=None)

    def add(self, ticket: int, operation: bytes, floor: int, *, wait: bool) -> None:
        """Let a read wait for the next `seal`."""
        assert ticket not in self._by_ticket, f"ticket {ticket} is in use"
        read = self._by_ticket[ticket] = Read(ticket, operation, floor, wait)
        self._waiting.append(read)

    def seal(self, deadline: Nanos) -> list[Query]:
        """Everything that waits, to be sent to all replicas; unanswered by the deadline it is overdue."""
        waiting, self._waiting = self._waiting, []
        queries = []
        for wait in (True, False):
            for part in _parts([read for read in waiting if read.wait is wait and read.ticket in self._by_ticket]):
                queries.append(self._send(part, deadline, wait=wait))
        return queries

    def _send(self, reads: list[Read], deadline: Nanos, *, wait: bool) -> Query:
        floor = max(read.floor for read in reads)
        query = Query(self._nonce, floor, wait, tuple(read.operation for read in reads))
        sent = self._sent[self._nonce] = Sent(query, deadline, list(reads), len(reads))
        self._nonce += 1
        for place, read in enumerate(reads):
            read.sent, read.place = sent, place
        return query

    def answer(self, replica: int, reply: QueryReply) -> list[Answer | Read]:
        """Count a replica's answers.

        Returns:
            What is over with that: agreed answers, and reads for which enough equal ones can no longer come.
        """
        sent = self._sent.get(reply.nonce)
        over: list[Answer | Read] = []
        if sent is None:
            return over
        needed, seq, epoch = self._needed(sent.query), reply.seq, reply.epoch
        for given, read in zip(reply.answers, sent.reads[reply.first :], strict=False):
            if read is None or replica in read.heard:
                continue
            heard = read.heard
            heard.add(replica)
            key = (epoch, given.status, given.value)
            seqs = read.groups.get(key)
            if seqs is None:
                seqs = read.groups[key] = [seq]
            else:
                seqs.append(seq)
            if len(seqs) >= needed:
                self._forget(read)
                self._agreed += 1
                latest = max(seqs)
                self.floor = max(self.floor, latest)
                over.append(Answer(read.ticket, given.status, given.value, min(seqs), latest))
            elif len(heard) > len(seqs) and self._is_hopeless(read, needed):
                self._forget(read)
                over.append(read)
        return over

    def refuse(self, replica: int, nonce: int) -> list[Answer | Read]:
        """A replica does not answer this query; returns the reads that are over with that."""
        sent = self._sent.get(nonce)
        over: list[Answer | Read] = []
        if sent is None:
            return over
        for read in list(sent.reads):
            if read is None:
                continue
            read.heard.add(replica)
            if self._is_hopeless(read, self._needed(sent.query)):
                self._forget(read)
                over.append(read)
        return over

    def _needed(self, query: Query) -> int:
        return self._quorums.strong if query.wait else self._quorums.weak

    def _is_hopeless(self, read: Read, needed: int) -> bool:
        """True if not even equal answers of all others would make a quorum."""
        most = max(map(len, read.groups.values()), default=0)
        return most + self._quorums.n - len(read.heard) < needed

    def order(self, ticket: int) -> None:
        """A read that is over has been sent as an ordinary operation."""
        if self.floor:
            self.ordered[ticket] = self._agreed

    def on_ordered(self, ticket: int) -> None:
        """An operation has its result; if it is a read, and nothing was seen since it was sent, the floor falls."""
        if self.ordered and self.ordered.pop(ticket, -1) == self._agreed:
            self.floor = 0

    def enter(self, quorums: Quorums) -> list[Query]:
        """Another epoch: answers of the one before count no more; returns what to ask its members."""
        self._quorums = quorums
        for read in self._by_ticket.values():
            read.heard.clear()
            read.groups.clear()
        return [sent.query for sent in self._sent.values()]

    def unanswered_by(self, replica: int) -> list[Query]:
        """What a replica has been asked and not answered, or not all of it."""
        return [sent.query for sent in self._sent.values() if any(_is_open(read, replica) for read in sent.reads)]

    def cancel(self, ticket: int) -> bool:
        """Forget a read; False if there is none of this ticket."""
        read = self._by_ticket.get(ticket)
        if read is None:
            return False
        self._forget(read)
        return True

    def overdue(self, now: Nanos) -> list[Read]:
        """Reads past their deadline, now forgotten."""
        late = [sent for sent in self._sent.values() if sent.deadline <= now]
        reads = [read for sent in late for read in sent.reads if read is not None]
        for read in reads:
            self._forget(read)
        return reads

    def _forget(self, read: Read) -> None:
        del self._by_ticket[read.ticket]
        sent = read.sent
        if sent is None:
            return  # `seal` passes it over
        sent.reads[read.place] = None
        sent.left -= 1
        if not sent.left:
            del self._sent[sent.query.nonce]


def _parts(reads: list[Read]) -> Iterator[list[Read]]:
    """Split into queries within their bounds."""
    part: list[Read] = []
    size = 0
    for read in reads:
        size += len(read.operation)
        if part and (len(part) == QUERY_OPERATIONS_MAX or size > QUERY_BYTES_MAX):
            yield part
            part, size = [], len(read.operation)
        part.append(read)
    if part:
        yield part


def _is_open(read: Read | None, replica: int) -> bool:
    return read is not None and replica not in read.heard
