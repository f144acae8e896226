"""A client session as a pure state machine: many outstanding operations, f + 1 matching replies [CL99 4.1].

    upon calls waiting and the link free:  one envelope with consecutive numbers, signed once; send to the primary
    upon no answer for a while:            send the same bytes to all replicas, with capped exponential back-off
    upon weak equal bundles (by digest) and the bundle's bytes: the results of its operations are final
    upon a query:                          ask all; strong equal answers (weak ones for a weak read), else order it

A result is believed when a weak quorum of distinct replicas sent replies equal in (session, slot, digest): one of
them is correct. View hints are not part of the match: correct replicas may be in different views. Memory is bounded
against hostile replicas: per replica, replies for a bounded number of slots are kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from bft.config import MILLISECOND, Protocol
from bft.digests import bundle_digest
from bft.events import Deliver, Send, SetTimer, Tick
from bft.ids import Nanos
from bft.membership import Quorums
from bft.messages import (
    ENVELOPE_BYTES_MAX,
    Query,
    QueryReply,
    Refusal,
    Reply,
    Request,
    SignedRequest,
)
from bft.ports import Signer
from bft.wire.codec import Malformed, decode_bundle, encode

BACKLOG_MAX = 65536
SLOTS_PER_REPLICA_MAX = 1024
FINISHED_SLOTS_MAX = 4096
BACKOFF_EXPONENT_MAX = 5
ENVELOPE_OVERHEAD = 1024
OPERATION_OVERHEAD = 16
TICKS_PER_TIMEOUT = 4


@dataclass(frozen=True, slots=True)
class Submit:
    """Order an operation. `ticket` is the caller's own name for it; `lane` 0 means no order among calls."""

    ticket: int
    operation: bytes
    lane: int = 0


@dataclass(frozen=True, slots=True)
class Ask:
    """Answer a read-only operation; `wait` asks for linearizability, `floor` for a state at or after that slot."""

    ticket: int
    operation: bytes
    floor: int = 0
    wait: bool = True


@dataclass(frozen=True, slots=True)
class Flush:
    """The link is free: whatever waits may go out."""


@dataclass(frozen=True, slots=True)
class Unreachable:
    """The connection to a replica broke: what it was sent may be lost."""

    replica: int


@dataclass(frozen=True, slots=True)
class Completed:
    """A call has its final result; `index` is -1 for an answer that was not ordered."""

    ticket: int
    status: int
    value: bytes
    seq: int
    index: int


@dataclass(frozen=True, slots=True)
class Lost:
    """A call ends without a result: `overloaded` (never sent), `session-expired` or `result-unavailable`."""

    ticket: int
    reason: str


@dataclass(frozen=True, slots=True)
class EventArrived:
    """The service emitted an event for this session; numbers count from 1, a jump is a gap."""

    number: int
    payload: bytes


SessionInput = Submit | Ask | Flush | Unreachable | Deliver | Tick
SessionEffect = Send | SetTimer | Completed | Lost | EventArrived


@dataclass(slots=True)
class _Envelope:
    signed: SignedRequest
    first: int
    unfinished: int
    sent: Nanos
    attempts: int = 0


@dataclass(slots=True)
class _Question:
    ask: Ask
    sent: Nanos
    answers: dict[int, QueryReply] = field(default_factory=dict)
    refused: set[int] = field(default_factory=set)


class Session:
    """One session of one client key.

    Args:
        protocol: the cluster's parameters.
        quorums: its thresholds.
        client: the client's public key.
        signer: signs for the client.
        incarnation: above that of any earlier session of this key: a clock reading in nanoseconds.
    """

    def __init__(self, protocol: Protocol, quorums: Quorums, client: bytes, signer: Signer, incarnation: int) -> None:
        self._protocol = protocol
        self._quorums = quorums
        self._client = client
        self._signer = signer
        self.incarnation = incarnation
        self._timeout: Nanos = protocol.request_timeout_ms * MILLISECOND // TICKS_PER_TIMEOUT
        self._now: Nanos = 0
        self._next = 1
        self._low = 1
        self._waiting: deque[Submit] = deque()
        self._open: dict[int, tuple[int, _Envelope]] = {}
        self._envelopes: dict[int, _Envelope] = {}
        self._lanes: dict[int, int] = {}
        self._votes: dict[int, dict[int, bytes]] = {}
        self._bundles: dict[bytes, bytes] = {}
        self._slots_of: dict[int, int] = {}
        self._finished: dict[int, bytes] = {}
        self.disagreements: dict[int, int] = {}
        self._questions: dict[int, _Question] = {}
        self._nonce = 0
        self._views: dict[int, int] = {}
        self._refusals: dict[tuple[int, str], set[int]] = {}
        self._last_event = 0
        self._timer_set = False
        self._out: list[SessionEffect] = []
        self.expired = False
        self.seq = 0

    # --- what callers see -----------------------------------------------------------------------------------------

    @property
    def outstanding(self) -> int:
        """Calls without a result."""
        return len(self._open) + len(self._waiting) + len(self._questions)

    @property
    def primary(self) -> int:
        """Where requests go: the primary of a view that a correct replica is in or beyond, by the latest hints."""
        views = sorted(self._views.values(), reverse=True)
        view = views[self._quorums.weak - 1] if len(views) >= self._quorums.weak else 0
        return self._quorums.primary(view)

    def step(self, event: SessionInput, now: Nanos, /) -> Sequence[SessionEffect]:
        """Take one input at time `now` and return the effects, in order."""
        self._now = now
        match event:
            case Deliver():
                self._deliver(event)
            case Submit():
                self._submit(event)
            case Flush():
                self._flush()
            case Ask():
                self._ask(event)
            case Tick():
                self._tick()
            case Unreachable():
                self._resend_from(event.replica)
        if self.outstanding and not self._timer_set:
            self._timer_set = True
            self._out.append(SetTimer(now + self._timeout // 2))
        effects = self._out
        self._out = []
        return effects

    # --- ordering -------------------------------------------------------------------------------------------------

    def _submit(self, submit: Submit) -> None:
        if self.expired:
            self._out.append(Lost(submit.ticket, "session-expired"))
        elif len(self._waiting) >= BACKLOG_MAX or len(submit.operation) > ENVELOPE_BYTES_MAX - ENVELOPE_OVERHEAD:
            self._out.append(Lost(submit.ticket, "overloaded"))
        else:
            self._waiting.append(submit)

    def _flush(self) -> None:
        while self._waiting and self._next < self._low + self._protocol.session_window:
            self._send_envelope()

    def _send_envelope(self) -> None:
        """Everything that waits, up to the limits, under one signature."""
        first = self._next
        room = min(self._protocol.batch_operations_max, self._low + self._protocol.session_window - first)
        space = min(self._protocol.batch_bytes_max, ENVELOPE_BYTES_MAX - ENVELOPE_OVERHEAD)
        taken: list[Submit] = []
        while self._waiting and len(taken) < room:
            space -= len(self._waiting[0].operation) + OPERATION_OVERHEAD
            if space < 0 and taken:
                break
            taken.append(self._waiting.popleft())
        after = self._lane_predecessors(first, taken)
        request = Request(self.incarnation, first, self._low, tuple(item.operation for item in taken), after)
        payload = encode(request)
        signed = SignedRequest(self._client, payload, self._signer.sign(payload))
        envelope = _Envelope(signed, first, len(taken), self._now)
        self._envelopes[first] = envelope
        for place, item in enumerate(taken):
            self._open[first + place] = (item.ticket, envelope)
        self._next = first + len(taken)
        self._out.append(Send(self.primary, signed))

    def _lane_predecessors(self, first: int, taken: list[Submit]) -> tuple[int, ...]:
        """Per operation, the unfinished operation of its lane that it must follow; empty if none has a lane."""
        if not any(item.lane for item in taken):
            return ()
        after = []
        for place, item in enumerate(taken):
            before = self._lanes.get(item.lane, 0) if item.lane else 0
            after.append(before if before in self._open or before >= first else 0)
            if item.lane:
                self._lanes[item.lane] = first + place
        return tuple(after)

    def _tick(self) -> None:
        self._timer_set = False
        for envelope in list(self._envelopes.values()):
            if self._now - envelope.sent >= self._timeout << min(envelope.attempts, BACKOFF_EXPONENT_MAX):
                self._send_to_all(envelope)
        for nonce, question in list(self._questions.items()):
            if self._now - question.sent >= self._timeout:
                self._order_instead(nonce)
        self._flush()

    def _resend_from(self, replica: int) -> None:
        if replica == self.primary:
            for envelope in list(self._envelopes.values()):
                if envelope.attempts == 0:
                    self._send_to_all(envelope)

    def _send_to_all(self, envelope: _Envelope) -> None:
        envelope.attempts += 1
        envelope.sent = self._now
        for replica in range(self._quorums.n):
            self._out.append(Send(replica, envelope.signed))

    # --- replies --------------------------------------------------------------------------------------------------

    def _deliver(self, event: Deliver) -> None:
        peer = event.peer
        if not isinstance(peer, int) or not 0 <= peer < self._quorums.n:
            return
        packet = event.packet
        match packet:
            case Reply():
                self._on_reply(peer, packet)
            case QueryReply():
                self._on_answer(peer, packet)
            case Refusal():
                self._on_refusal(peer, packet)
            case _:
                pass

    def _on_reply(self, peer: int, reply: Reply) -> None:
        if reply.session != self.incarnation:
            return
        self._views[peer] = reply.view
        agreed = self._finished.get(reply.seq)
        if agreed is not None:
            self._note_disagreement(peer, reply.digest, agreed)
            return
        if not self._note_vote(peer, reply):
            return
        votes = self._votes[reply.seq]
        equal = sum(digest == reply.digest for digest in votes.values())
        if equal < self._quorums.weak:
            return
        bundle = self._bundles.get(reply.digest)
        if bundle is None:
            self._ask_for_bytes()
            return
        self._finish_slot(reply.seq, reply.digest)
        self._complete(reply.seq, bundle)

    def _note_vote(self, peer: int, reply: Reply) -> bool:
        """Keep a replica's vote for a slot (its latest stands), within bounds; False if it is not worth counting."""
        if reply.bundle:
            if bundle_digest(reply.bundle) != reply.digest:
                return False
            if reply.digest not in self._bundles:
                self._bundles[reply.digest] = reply.bundle
        votes = self._votes.setdefault(reply.seq, {})
        before = votes.get(peer)
        if before is None:
            self._slots_of[peer] = self._slots_of.get(peer, 0) + 1
        elif before != reply.digest:
            self._forget_bundle(reply.seq, before, peer)
        votes[peer] = reply.digest
        if self._slots_of[peer] > SLOTS_PER_REPLICA_MAX:
            oldest = next(seq for seq, voters in self._votes.items() if peer in voters)
            self._drop_vote(oldest, peer)
        return peer in self._votes.get(reply.seq, ())

    def _forget_bundle(self, seq: int, digest: bytes, peer: int) -> None:
        others = (held for voter, held in self._votes[seq].items() if voter != peer)
        if digest not in others:
            self._bundles.pop(digest, None)

    def _drop_vote(self, seq: int, peer: int) -> None:
        digest = self._votes[seq][peer]
        self._forget_bundle(seq, digest, peer)
        del self._votes[seq][peer]
        self._slots_of[peer] -= 1
        if not self._votes[seq]:
            del self._votes[seq]

    def _finish_slot(self, seq: int, agreed: bytes) -> None:
        for peer, digest in self._votes.pop(seq).items():
            self._slots_of[peer] -= 1
            self._bundles.pop(digest, None)
            self._note_disagreement(peer, digest, agreed)
        self._finished[seq] = agreed
        if len(self._finished) > FINISHED_SLOTS_MAX:
            del self._finished[next(iter(self._finished))]

    def _note_disagreement(self, peer: int, digest: bytes, agreed: bytes) -> None:
        """Count a reply that differs from what a weak quorum agreed on: its sender lies, or is corrupt."""
        if digest != agreed:
            self.disagreements[peer] = self.disagreements.get(peer, 0) + 1

    def _ask_for_bytes(self) -> None:
        """A weak quorum agrees on a digest whose bytes were due from a replica that is slow or lies."""
        for envelope in self._envelopes.values():
            if envelope.attempts == 0 and self._now - envelope.sent >= self._timeout:
                self._send_to_all(envelope)

    def _complete(self, seq: int, encoded: bytes) -> None:
        try:
            bundle = decode_bundle(encoded)
        except Malformed:
            return
        self.seq = max(self.seq, seq)
        for event in bundle.events:
            if event.number > self._last_event:
                self._last_event = event.number
                self._out.append(EventArrived(event.number, event.payload))
        for result in bundle.results:
            entry = self._open.pop(result.number, None)
            if entry is None:
                continue
            ticket, envelope = entry
            self._close_one(envelope)
            self._out.append(Completed(ticket, result.status, result.value, seq, result.index))
        self._advance()

    def _close_one(self, envelope: _Envelope) -> None:
        envelope.unfinished -= 1
        if not envelope.unfinished:
            del self._envelopes[envelope.first]

    def _advance(self) -> None:
        while self._low < self._next and self._low not in self._open:
            self._low += 1
        if len(self._lanes) > BACKLOG_MAX:
            self._lanes = {lane: number for lane, number in self._lanes.items() if number in self._open}

    # --- refusals -------------------------------------------------------------------------------------------------

    def _on_refusal(self, peer: int, refusal: Refusal) -> None:
        """A hint, believed from a weak quorum: one correct replica is among them."""
        if refusal.session == 0:
            self._on_busy(peer, refusal.number)
            return
        if refusal.session != self.incarnation or refusal.reason not in ("session-expired", "result-unavailable"):
            return
        number = 0 if refusal.reason == "session-expired" else refusal.number
        if number and number not in self._envelopes:
            return
        voters = self._refusals.setdefault((number, refusal.reason), set())
        voters.add(peer)
        if len(voters) < self._quorums.weak:
            return
        del self._refusals[number, refusal.reason]
        if number:
            self._lose(self._envelopes[number], refusal.reason)
            self._advance()
            return
        self.expired = True
        for envelope in list(self._envelopes.values()):
            self._lose(envelope, refusal.reason)
        for submit in self._waiting:
            self._out.append(Lost(submit.ticket, refusal.reason))
        self._waiting.clear()

    def _lose(self, envelope: _Envelope, reason: str) -> None:
        numbers = [number for number, entry in self._open.items() if entry[1] is envelope]
        for number in numbers:
            self._out.append(Lost(self._open.pop(number)[0], reason))
        self._envelopes.pop(envelope.first, None)

    # --- queries --------------------------------------------------------------------------------------------------

    def _ask(self, ask: Ask) -> None:
        if len(self._questions) >= BACKLOG_MAX:
            self._out.append(Lost(ask.ticket, "overloaded"))
            return
        self._nonce += 1
        self._questions[self._nonce] = _Question(ask, self._now)
        query = Query(self._nonce, ask.floor, ask.wait, ask.operation)
        for replica in range(self._quorums.n):
            self._out.append(Send(replica, query))

    def _on_answer(self, peer: int, answer: QueryReply) -> None:
        question = self._questions.get(answer.nonce)
        if question is None or answer.seq < question.ask.floor:
            return
        question.answers[peer] = answer
        needed = self._quorums.strong if question.ask.wait else self._quorums.weak
        equal = [
            item
            for item in question.answers.values()
            if (item.status, item.value, item.epoch) == (answer.status, answer.value, answer.epoch)
        ]
        if len(equal) >= needed:
            del self._questions[answer.nonce]
            seq = max(item.seq for item in equal) if question.ask.wait else min(item.seq for item in equal)
            self.seq = max(self.seq, seq if question.ask.wait else 0)
            self._out.append(Completed(question.ask.ticket, answer.status, answer.value, seq, -1))
        elif len(question.answers) + len(question.refused) == self._quorums.n:
            self._order_instead(answer.nonce)

    def _on_busy(self, peer: int, nonce: int) -> None:
        question = self._questions.get(nonce)
        if question is None or peer in question.answers:
            return
        question.refused.add(peer)
        if len(question.answers) + len(question.refused) == self._quorums.n:
            self._order_instead(nonce)

    def _order_instead(self, nonce: int) -> None:
        """No quorum of equal answers: replicas stand at different slots, or lie. An ordered read always ends."""
        ask = self._questions.pop(nonce).ask
        self._submit(Submit(ask.ticket, ask.operation))
        self._flush()
