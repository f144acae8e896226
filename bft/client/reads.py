"""Read-only operations that ask for an answer without ordering (`PROTOCOL.md` 16).

PURE. A linearizable read needs `strong` equal answers from replicas of one epoch, each given under the commit-wait
rule; a weak one `weak` equal answers. An answer's slot is no part of the match: replicas stand at different slots with
the same value. What cannot be answered so is ordered by the session instead.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bft.ids import Nanos
from bft.membership import Quorums
from bft.messages import QueryReply


@dataclass(slots=True)
class Read:
    """A query on its way.

    Attributes:
        needed: how many equal answers it takes.
        answers: by replica, each one's first; None for a replica that refused.
    """

    ticket: int
    operation: bytes
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

    def ask(self, ticket: int, operation: bytes, *, wait: bool, deadline: Nanos) -> int:
        """Begin a read; returns its nonce."""
        assert ticket not in self._nonces, f"ticket {ticket} is in use"
        self._nonce += 1
        needed = self._quorums.strong if wait else self._quorums.weak
        self._by_nonce[self._nonce] = Read(ticket, operation, needed, deadline)
        self._nonces[ticket] = self._nonce
        return self._nonce

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
