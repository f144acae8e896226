"""Read-only operations that ask for an answer without ordering [CL99 5.1; CL02 5.1.3].

PURE. A linearizable read needs `strong` equal answers from replicas of one epoch, each given under the commit-wait
rule; a weak one `weak` equal answers. An answer's slot is no part of the match: replicas stand at different slots with
the same value. What cannot be answered so is ordered by the session instead.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bft.ids import Nanos
from bft.membership import Quorums
from bft.messages import Query, QueryReply


@dataclass(slots=True)
class Read:
    """A query on its way.

    Attributes:
        query: what was sent.
        needed: how many equal answers it takes.
        answers: by replica, each one's first; None for a replica that refused.
    """

    ticket: int
    query: Query
    needed: int
    deadline: Nanos
    answers: dict[int, QueryReply | None] = field(default_factory=dict)


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
    """The session's unfinished reads, by nonce, in order of deadline."""

    __slots__ = ("_by_nonce", "_nonce", "_nonces", "_quorums")

    def __init__(self, quorums: Quorums) -> None:
        self._quorums = quorums
        self._nonce = 0
        self._by_nonce: dict[int, Read] = {}
        self._nonces: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._by_nonce)

    @property
    def deadline(self) -> Nanos | None:
        """The earliest deadline; None without reads."""
        return min((read.deadline for read in self._by_nonce.values()), default=None)

    def ask(self, ticket: int, operation: bytes, floor: int, *, wait: bool, deadline: Nanos) -> Query:
        """Begin a read; returns what to send to all replicas."""
        assert ticket not in self._nonces, f"ticket {ticket} is in use"
        self._nonce += 1
        needed = self._quorums.strong if wait else self._quorums.weak
        query = Query(self._nonce, floor, wait, operation)
        self._by_nonce[self._nonce] = Read(ticket, query, needed, deadline)
        self._nonces[ticket] = self._nonce
        return query

    def answer(self, replica: int, nonce: int, reply: QueryReply | None) -> Answer | Read | None:
        """Count a replica's answer, or its refusal (None).

        Returns:
            The agreed answer; the read itself, now forgotten, when enough equal answers can no longer come; or None.
        """
        read = self._by_nonce.get(nonce)
        if read is None or replica in read.answers:
            return None
        read.answers[replica] = reply
        groups: dict[tuple[int, int, bytes], list[int]] = {}
        for given in read.answers.values():
            if given is not None:
                groups.setdefault((given.epoch, given.status, given.value), []).append(given.seq)
        (_, status, value), seqs = max(groups.items(), key=lambda item: len(item[1]), default=((0, 0, b""), []))
        if len(seqs) >= read.needed:
            self._forget(read)
            return Answer(read.ticket, status, value, min(seqs), max(seqs))
        if len(seqs) + self._quorums.n - len(read.answers) < read.needed:
            self._forget(read)
            return read
        return None

    def enter(self, quorums: Quorums) -> list[Query]:
        """Another epoch: answers of the one before count no more; returns what to ask its members."""
        self._quorums = quorums
        for read in self._by_nonce.values():
            read.answers = {}
            read.needed = quorums.strong if read.query.wait else quorums.weak
        return [read.query for read in self._by_nonce.values()]

    def unanswered_by(self, replica: int) -> list[Query]:
        """What a replica has been asked and not answered."""
        return [read.query for read in self._by_nonce.values() if replica not in read.answers]

    def cancel(self, ticket: int) -> bool:
        """Forget a read; False if there is none of this ticket."""
        nonce = self._nonces.get(ticket)
        if nonce is None:
            return False
        self._forget(self._by_nonce[nonce])
        return True

    def overdue(self, now: Nanos) -> list[Read]:
        """Reads past their deadline, now forgotten."""
        late = [read for read in self._by_nonce.values() if read.deadline <= now]
        for read in late:
            self._forget(read)
        return late

    def _forget(self, read: Read) -> None:
        del self._by_nonce[self._nonces.pop(read.ticket)]
