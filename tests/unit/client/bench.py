"""A session under test: the test plays all replicas, honest and hostile."""

from __future__ import annotations

from dataclasses import dataclass, field

from bft.client.seam import Ask, Completed, EventArrived, EventsMissed, Flush, Lost, SessionInput, Submit
from bft.client.session import Session
from bft.config import MILLISECOND, Protocol
from bft.digests import bundle_digest, first_nonce
from bft.events import Deliver, Send, SetTimer, Tick
from bft.ids import ReplicaId
from bft.membership import Quorums
from bft.messages import (
    Bundle,
    Event,
    Packet,
    Query,
    QueryReply,
    ReadAnswer,
    Refusal,
    Reply,
    Request,
    Result,
    SignedRequest,
)
from bft.wire.codec import decode_request, encode

CLIENT = bytes(range(32))
INCARNATION = 77
RETRY = 100 * MILLISECOND


class CountingSigner:
    """Signs by numbering, so that a second signature under the same payload shows."""

    def __init__(self) -> None:
        self.count = 0

    def sign(self, payload: bytes, /) -> bytes:
        self.count += 1
        return self.count.to_bytes(64, "big")


@dataclass
class Bench:
    """One session, the time, and everything that it has said so far."""

    n: int = 4
    incarnation: int = INCARNATION
    protocol: dict[str, int] = field(default_factory=dict)
    now: int = 1_000_000_000
    sent: list[Send] = field(default_factory=list)
    outcomes: list[Completed | Lost] = field(default_factory=list)
    events: list[EventArrived | EventsMissed] = field(default_factory=list)
    timer: int | None = None
    ticket: int = 0

    def __post_init__(self) -> None:
        self.signer = CountingSigner()
        self.quorums = Quorums.of(self.n)
        protocol = Protocol(**{"witness_interval_ms": 0, **self.protocol})
        self.session = Session(protocol, self.quorums, CLIENT, self.signer, self.incarnation, retry_ns=RETRY)

    def do(self, event: SessionInput) -> None:
        for effect in self.session.step(event, self.now):
            match effect:
                case Send():
                    self.sent.append(effect)
                case SetTimer():
                    self.timer = effect.at_ns
                case Completed() | Lost():
                    self.outcomes.append(effect)
                case _:
                    self.events.append(effect)

    def submit(self, *operations: bytes, lane: int = 0, flush: bool = True) -> list[int]:
        tickets = []
        for operation in operations:
            self.ticket += 1
            tickets.append(self.ticket)
            self.do(Submit(self.ticket, operation, lane))
        if flush:
            self.do(Flush())
        return tickets

    def ask(self, operation: bytes = b"q", *, wait: bool = True, floor: int = 0) -> int:
        self.ticket += 1
        self.do(Ask(self.ticket, operation, floor, wait))
        self.do(Flush())
        return self.ticket

    def take(self) -> list[Send]:
        """What was sent since the last call."""
        sent, self.sent = self.sent, []
        return sent

    def take_requests(self) -> list[tuple[int, Request]]:
        """Envelopes sent since the last call: (to, request)."""
        taken = self.take()
        return [(int(s.to), decode_request(s.packet.payload)) for s in taken if isinstance(s.packet, SignedRequest)]

    def take_queries(self) -> list[tuple[int, Query]]:
        return [(int(send.to), send.packet) for send in self.take() if isinstance(send.packet, Query)]

    def finished(self) -> list[Completed | Lost]:
        """Outcomes since the last call."""
        outcomes, self.outcomes = self.outcomes, []
        return outcomes

    def fire(self) -> None:
        """Let the timer fire."""
        assert self.timer is not None, "no timer is set"
        self.now, self.timer = max(self.now, self.timer), None
        self.do(Tick())

    def wait(self, span: int) -> None:
        """Let time pass, with the timer."""
        end = self.now + span
        while self.timer is not None and self.timer <= end:
            self.fire()
        self.now = end

    def deliver(self, replica: int, packet: Packet) -> None:
        self.do(Deliver(ReplicaId(replica), packet))

    def reply(
        self,
        replica: int,
        seq: int,
        content: bytes,
        *,
        view: int = 0,
        epoch: int = 0,
        session: int = INCARNATION,
        bare: bool = False,
        body: bytes | None = None,
    ) -> None:
        """One replica's reply; `bare` sends the digest only, `body` other bytes than the digest's."""
        sent = b"" if bare else content if body is None else body
        self.deliver(replica, Reply(session, seq, epoch, view, bundle_digest(content), sent))

    def answer(self, replica: int, query: int, value: bytes, *, seq: int = 5, epoch: int = 0, status: int = 0) -> None:
        """One replica's answer to the session's `query`-th query."""
        self.deliver(replica, QueryReply(nonce(query), seq, epoch, 0, (ReadAnswer(status, value),)))

    def refuse(self, replica: int, number: int, reason: str, *, session: int = INCARNATION) -> None:
        """One replica's refusal of the envelope from `number` on; of the `number`-th query if `session` is 0."""
        self.deliver(replica, Refusal(session, number if session else nonce(number), reason))


def nonce(query: int) -> int:
    """What the session named its `query`-th query."""
    return first_nonce(INCARNATION) + query - 1


def bundle(*numbers: int, value: bytes = b"ok", events: tuple[tuple[int, bytes], ...] = ()) -> bytes:
    """A slot's bundle: results of these operations, each with its number in its value."""
    results = tuple(Result(number, index, 0, value + b"%d" % number) for index, number in enumerate(numbers))
    return encode(Bundle(results, tuple(Event(number, payload) for number, payload in events)))


def done(*entries: tuple[int, bytes, int, int]) -> list[Completed | Lost]:
    """Outcomes: (ticket, value, slot, index) each."""
    return [Completed(ticket, 0, value, seq, index) for ticket, value, seq, index in entries]
