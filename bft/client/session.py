"""One client session: many outstanding operations, each executed once, each outcome vouched for [CL99 4.1].

PURE: `step(event, now)` returns effects. The rules:

- What waits when the link is free leaves as one envelope of consecutive numbers under one signature, to the presumed
  primary. Past its deadline the same bytes go to all replicas, with capped exponential back-off.
- A result is believed when `weak` replicas sent its slot's bundle (`bft.client.tally`); the replicas' view hints name
  the primary: the highest view that `weak` of them have reached, so no f liars can point elsewhere for long.
- `acknowledged` is the lowest number without a final outcome, and no envelope reaches `session_window` beyond it.
- An operation of a lane names its unfinished predecessor; a finished one needs no mention, since it has executed.
- Reads (`bft.client.reads`) that find no agreement in time are ordered instead.
- Replies of different epochs never count together. A later epoch than the session's is believed by its chain of proofs
  only (`bft.epochs.Chain`); then everything unfinished goes to the new members, and to each exactly once as before.
- While replicas say that they have no room, nothing new leaves (`bft.client.refusals`).

Deviation: an envelope is sent to one replica first and to all after a quarter of the request timeout, well before a
backup that knew of it would suspect the primary. Now and then one goes to all at once (`bft.client.witness`).
"""

from __future__ import annotations

from bft.client.inbox import EventVotes, Inbox
from bft.client.reads import Answer, Read, Reads
from bft.client.refusals import EARLY_NS, Refusals
from bft.client.seam import Ask as Ask
from bft.client.seam import Cancel as Cancel
from bft.client.seam import Completed as Completed
from bft.client.seam import EpochEntered as EpochEntered
from bft.client.seam import EventArrived as EventArrived
from bft.client.seam import EventsMissed as EventsMissed
from bft.client.seam import Flush as Flush
from bft.client.seam import Lost as Lost
from bft.client.seam import LostReason
from bft.client.seam import SessionEffect as SessionEffect
from bft.client.seam import SessionInput as SessionInput
from bft.client.seam import Submit as Submit
from bft.client.seam import Unreachable as Unreachable
from bft.client.tally import Tally
from bft.client.window import Envelope, Window
from bft.client.witness import Witness
from bft.config import MILLISECOND, Protocol
from bft.digests import first_nonce
from bft.epochs import Chain, Configuration
from bft.events import Deliver, Send, SetTimer, Tick
from bft.ids import Nanos, Peer, ReplicaId
from bft.membership import Quorums
from bft.messages import (
    OPERATION_BYTES_MAX,
    EpochProof,
    Event,
    EventBodies,
    FetchEpochs,
    FetchEvents,
    Packet,
    QueryReply,
    Refusal,
    Reply,
    SignedRequest,
)
from bft.ports import Signer
from bft.wire.codec import Malformed, decode_bundle, encode

BACKOFF_EXPONENT_MAX = 4
RESEND_BYTES_MAX = 4 * 1024 * 1024
"""Retransmitted per tick, oldest first; the rest follows a little later."""


class Session:
    """The client's side of one session.

    Attributes:
        incarnation: the session's name among those of the same key; later ones must be higher.
        seq: the highest slot known to be executed, from outcomes of ordered operations and reads.
        primary: where the next envelope goes first.
        expired: the session is over; every further operation is lost.
        clock: (agreed time, own time) when it expired, as far as replicas said: for the name of the next session.
        is_early: it expired since it was dated too far ahead: the next one must be dated lower.
        timer_at: when it wants the next `Tick`; None for never.
    """

    def __init__(
        self,
        protocol: Protocol,
        quorums: Quorums,
        client: bytes,
        signer: Signer,
        incarnation: int,
        *,
        retry_ns: Nanos | None = None,
        chain: Chain | None = None,
    ) -> None:
        """Begin a session.

        Args:
            protocol: the cluster's parameters.
            quorums: its thresholds.
            client: the client's 32-byte public key.
            signer: signs for the client.
            incarnation: above that of any earlier session of this key: a clock reading in nanoseconds.
            retry_ns: first patience with a silent replica; a quarter of the request timeout by default.
            chain: follows changes of membership; `quorums` must be those of its epoch. Without it the session stays in
                the epoch that it began in.
        """
        self.incarnation = incarnation
        self.seq = 0
        self.primary = ReplicaId(quorums.primary(0))
        self.expired = False
        self.clock: tuple[Nanos, Nanos] = (0, 0)
        self.is_early = False
        self._client = client
        self._quorums = quorums
        self._signer = signer
        self._refusals = Refusals(quorums)
        self._window = Window(protocol)
        self._witness = Witness(protocol.witness_interval_ms * MILLISECOND, signer)
        self._reads_max = protocol.session_window
        self._retry_ns = retry_ns or protocol.request_timeout_ms * MILLISECOND // 4
        self._latency_ns = 0
        self._chain = chain
        self._everybody = [ReplicaId(replica) for replica in quorums.members]
        self._views = dict.fromkeys(quorums.members, 0)
        self._tally = Tally(quorums, protocol.session_window)
        self._reads = Reads(quorums, first_nonce(incarnation))
        self._bodiless: dict[int, Nanos] = {}
        self._inbox = Inbox(4 * self._retry_ns)
        self._event_votes = EventVotes(quorums)
        self.timer_at: Nanos | None = None
        self._now = 0
        self._out: list[SessionEffect] = []

    @property
    def disagreements(self) -> dict[int, int]:
        """Per replica, how many of its replies differ from what was believed."""
        return self._tally.disagreements

    @property
    def outstanding(self) -> int:
        """Operations and reads without an outcome."""
        return len(self._window) + len(self._reads)

    @property
    def is_busy(self) -> bool:
        """True while replicas that have no room keep new operations back."""
        return self._refusals.until > self._now

    def holds_back(self, ticket: int) -> bool:
        """True if no byte of this operation has been sent: it is certain not to execute, unless it is sent later."""
        return self._window.is_waiting(ticket)

    def succeed(self, before: Session) -> None:
        """Go on for an expired one of the same epoch: reads belong to no session, and what was seen stays seen."""
        self.seq, self._reads = before.seq, before._reads
        self._tally.disagreements = before.disagreements
        if self._reads.deadline is not None:
            self._wake_at(self._reads.deadline)

    def step(self, event: SessionInput, now: Nanos) -> list[SessionEffect]:
        """Take one input at time `now` (never decreasing) and return the effects, in order."""
        self._now = now
        match event:
            case Deliver():
                self._deliver(event.peer, event.packet)
            case Submit():
                self._submit(event.ticket, event.operation, event.lane)
            case Flush():
                self._flush()
            case Ask():
                self._ask(event)
            case Cancel():
                if not self._reads.cancel(event.ticket) and self._window.cancel(event.ticket):
                    self._reads.ordered.pop(event.ticket, None)
            case Unreachable():
                self._resend(event.replica)
            case Tick():
                self._tick()
        out, self._out = self._out, []
        return out

    # --- operations out -------------------------------------------------------------------------------------------

    def _submit(self, ticket: int, operation: bytes, lane: int = 0) -> bool:
        assert len(operation) <= OPERATION_BYTES_MAX, f"an operation of {len(operation)} bytes"
        if self.expired:
            self._out.append(Lost(ticket, "session-expired"))
            return False
        is_taken = self._window.add(ticket, operation, lane)
        if not is_taken:
            self._out.append(Lost(ticket, "overloaded"))
        return is_taken

    def _flush(self) -> None:
        self._send_reads()
        while self._window.may_send and not self.is_busy:
            envelope, request = self._window.seal(self.incarnation, self._now)
            payload = encode(request)
            envelope.packet = SignedRequest(self._client, payload, self._signer.sign(payload))
            self._send(envelope, to_all=self._window.late > 0 or self._witness.is_due(self._now, self.seq))

    def _send(self, envelope: Envelope, *, to_all: bool) -> None:
        for replica in self._everybody if to_all else (self.primary,):
            self._out.append(Send(replica, envelope.signed))
        envelope.deadline = self._now + (self._patience << min(envelope.attempts, BACKOFF_EXPONENT_MAX))
        self._wake_at(envelope.deadline)

    @property
    def _patience(self) -> Nanos:
        """Four times the usual latency, within bounds: a loaded cluster is not loaded further by impatience."""
        return min(max(self._retry_ns, 4 * self._latency_ns), 8 * self._retry_ns)

    # --- replies in -----------------------------------------------------------------------------------------------

    def _deliver(self, peer: Peer, packet: Packet) -> None:
        if isinstance(packet, EpochProof):
            if self._chain is not None and self._chain.learn(packet.links):
                self._enter(self._chain.configuration)
            return
        if not isinstance(peer, int) or peer not in self._quorums.ids:
            return
        match packet:
            case Reply():
                if self._is_of_this_epoch(peer, packet.epoch) and packet.session == self.incarnation:
                    self._on_reply(peer, packet)
            case QueryReply():
                if self._is_of_this_epoch(peer, packet.epoch):
                    self._on_answers(self._reads.answer(peer, packet))
            case Refusal():
                self._on_refusal(peer, packet)
            case EventBodies():
                self._on_events(peer, packet)
            case _:
                pass

    def _on_reply(self, replica: int, reply: Reply) -> None:
        if reply.view != self._views[replica]:
            self._views[replica] = reply.view
            reached = sorted(self._views.values(), reverse=True)[self._quorums.weak - 1]
            self.primary = ReplicaId(self._quorums.primary(reached))
        content = self._tally.add(replica, reply)
        if content is None:
            return
        if content:
            self._believe(reply.seq, content)
        elif reply.seq not in self._bodiless:
            self._bodiless[reply.seq] = self._now + self._patience // 4
            self._wake_at(self._bodiless[reply.seq])

    def _believe(self, seq: int, content: bytes) -> None:
        """Report the results and events of a bundle that a correct replica sent."""
        try:
            bundle = decode_bundle(content)
        except Malformed:
            return  # weak replicas agree on bytes of another version: not ours to judge
        self._bodiless.pop(seq, None)
        self.seq = max(self.seq, seq)
        self._take_events(bundle.events)
        for result in bundle.results:
            ticket = self._close(result.number)
            if ticket is not None:
                self._out.append(Completed(ticket, result.status, result.value, seq, result.index))
                self._reads.on_ordered(ticket)
        self._acknowledge()

    def _take_events(self, events: tuple[Event, ...]) -> None:
        was_complete = self._inbox.deadline is None
        self._out += self._inbox.add(events, self._now)
        if self._inbox.deadline is not None:
            self._wake_at(self._inbox.deadline)
            if was_complete:
                self._ask_for_events()

    def _ask_for_events(self) -> None:
        """Some may be missing: ask all replicas for what they keep after the last one handed out."""
        self._event_votes.clear()
        for replica in self._everybody:
            self._out.append(Send(replica, FetchEvents(self.incarnation, self._inbox.last)))

    def _on_events(self, replica: int, bodies: EventBodies) -> None:
        if bodies.session != self.incarnation:
            return
        first, certain = self._event_votes.add(replica, bodies)
        self._out += self._inbox.skip_to(first)
        self._take_events(certain)

    def _close(self, number: int) -> int | None:
        """An operation has its outcome: forget it; returns its ticket, None if it had one before."""
        closed = self._window.close(number)
        if closed is None:
            return None
        ticket, envelope = closed
        if envelope.left == 0 and not envelope.attempts:
            self._latency_ns = (7 * self._latency_ns + self._now - envelope.sent_at) // 8
        return ticket

    def _acknowledge(self) -> None:
        """Move the window; send what waited for it."""
        was_full, was_busy = self._window.is_full, self._refusals.ease()
        self._window.acknowledge()
        if was_full or was_busy:
            self._flush()

    def _hurry(self) -> None:
        """A digest is believed and its bytes are overdue: ask everybody. Which envelope it answers is unknown."""
        overdue = [seq for seq, at in self._bodiless.items() if at <= self._now]
        for seq in overdue:
            since = self._bodiless.pop(seq) - self._patience // 4
            for envelope in self._window.envelopes.values():
                if envelope.sent_at <= since:
                    envelope.deadline = min(envelope.deadline, self._now)

    def _on_refusal(self, replica: int, refusal: Refusal) -> None:
        """A hint, believed from `weak` replicas or more; a single one only ends its sender's say in a read."""
        if refusal.session == 0:
            self._on_answers(self._reads.refuse(replica, refusal.number))
            return
        envelope = self._window.envelopes.get(refusal.number)
        if refusal.session != self.incarnation or envelope is None:
            return
        match self._refusals.take(replica, refusal, envelope):
            case "busy":
                self._refusals.press(envelope, self._now, self._patience)
                self._wake_at(self._refusals.until)
            case "session-early":
                self._on_early(envelope)
            case "session-expired":
                self._expire()
            case "result-unavailable":
                envelope.is_unavailable = True  # other results of it may still be on their way: until its deadline
            case _ if refusal.reason == "busy" and replica == self.primary and not envelope.attempts:
                self._refusals.wait_for(envelope)

    def _on_early(self, envelope: Envelope) -> None:
        """The session lies ahead of the agreed time, and others like it fill the room for such."""
        ahead = self.incarnation - self._refusals.agreed_time()
        if ahead > EARLY_NS:
            self.is_early = True
            self._expire()
        else:
            envelope.refusals.clear()
            envelope.deadline = self._now + max(ahead, self._patience)
            self._wake_at(envelope.deadline)

    def _expire(self) -> None:
        self.expired = True
        self.clock = (self._refusals.agreed_time(), self._now)
        self._out += [Lost(ticket, "session-expired") for ticket in self._window.drop_all()]
        self._reads.ordered.clear()

    # --- epochs ---------------------------------------------------------------------------------------------------

    @property
    def configuration(self) -> Configuration:
        """The epoch whose members are asked and believed; for sessions that follow a chain."""
        assert self._chain is not None, "the session stays in the epoch that it began in"
        return self._chain.configuration

    @property
    def epoch(self) -> int:
        """The number of that epoch."""
        return self._chain.configuration.epoch if self._chain is not None else 0

    def _is_of_this_epoch(self, replica: int, epoch: int) -> bool:
        """False for an answer of another epoch; one of a later epoch is the reason to ask for the way there."""
        if self._chain is None or epoch == self.epoch:
            return True
        if epoch > self.epoch and self._chain.should_ask(replica, self._now, self._patience):
            self._out.append(Send(ReplicaId(replica), FetchEpochs(self.epoch)))
        return False

    def _ask_for_epochs(self) -> None:
        """Nobody answers: perhaps those who would are no members any more, or too few of them are."""
        if self._chain is None:
            return
        for replica in self._everybody:
            if self._chain.should_ask(replica, self._now, self._patience):
                self._out.append(Send(replica, FetchEpochs(self.epoch)))

    def _enter(self, configuration: Configuration) -> None:
        """Ask and believe the members of a later epoch; whatever has no outcome goes to all of them."""
        quorums = self._quorums = configuration.quorums
        self._everybody = [ReplicaId(replica) for replica in quorums.members]
        self._views = dict.fromkeys(quorums.members, 0)
        self.primary = ReplicaId(quorums.primary(0))
        self._tally.enter(quorums)
        self._refusals.enter(quorums)
        self._event_votes = EventVotes(quorums)
        self._out.append(EpochEntered(configuration))
        for query in self._reads.enter(quorums):
            for replica in self._everybody:
                self._out.append(Send(replica, query))
        if self._inbox.deadline is not None:
            self._ask_for_events()
        for envelope in self._window.envelopes.values():
            envelope.refusals.clear()
            envelope.deadline = self._now
        self._retransmit()
        self._flush()  # what former members had no room for

    # --- reads ----------------------------------------------------------------------------------------------------

    def _ask(self, event: Ask) -> None:
        assert len(event.operation) <= OPERATION_BYTES_MAX, f"an operation of {len(event.operation)} bytes"
        if len(self._reads) >= self._reads_max:
            self._out.append(Lost(event.ticket, "overloaded"))
            return
        floor = event.floor if event.wait else max(event.floor, self.seq, self._reads.floor)
        self._reads.add(event.ticket, event.operation, floor, wait=event.wait)

    def _send_reads(self) -> None:
        deadline = self._now + self._patience
        for query in self._reads.seal(deadline):
            for replica in self._everybody:
                self._out.append(Send(replica, query))
            self._wake_at(deadline)

    def _on_answers(self, over: list[Answer | Read]) -> None:
        must_order = False
        for found in over:
            if isinstance(found, Answer):
                self.seq = max(self.seq, found.seq_min)
                self._out.append(Completed(found.ticket, found.status, found.value, found.seq_min, -1))
            else:
                self._order(found)
                must_order = True
        if must_order:
            self._flush()

    def _order(self, read: Read) -> None:
        """No agreement without ordering: send the read as an ordinary operation."""
        if self._submit(read.ticket, read.operation):
            self._reads.order(read.ticket)

    # --- time -----------------------------------------------------------------------------------------------------

    def _wake_at(self, at: Nanos) -> None:
        if self.timer_at is None or at < self.timer_at:
            self.timer_at = at
            self._out.append(SetTimer(at))

    def _tick(self) -> None:
        if self.timer_at is None or self._now < self.timer_at:
            return  # a timer that was replaced
        self.timer_at = None
        if self._refusals.is_over(self._now):
            self._flush()
        self._out += self._inbox.expire(self._now)
        overdue = self._reads.overdue(self._now)
        for read in overdue:
            self._order(read)
        if overdue:
            self._flush()
        self._hurry()
        self._retransmit()
        deadlines = [*self._bodiless.values(), *([self._refusals.until] if self._refusals.until else [])]
        deadlines += [envelope.deadline for envelope in self._window.envelopes.values()]
        deadlines += [at for at in (self._reads.deadline, self._inbox.deadline) if at is not None]
        if deadlines:
            self._wake_at(max(min(deadlines), self._now + self._patience // 8))

    def _retransmit(self) -> None:
        """Send what is overdue to everybody, the same bytes, oldest first."""
        room = RESEND_BYTES_MAX
        for envelope in list(self._window.envelopes.values()):
            if envelope.deadline > self._now:
                continue
            if envelope.is_unavailable:
                self._abandon(envelope, "result-unavailable")
                continue
            if room <= 0:
                break
            room -= len(envelope.signed.payload)
            self._window.late += envelope.attempts == 0
            envelope.attempts += 1
            if envelope.attempts > 1:
                self._ask_for_epochs()
            self._send(envelope, to_all=True)

    def _resend(self, replica: int) -> None:
        """A replica may have lost what it was sent. If it is the primary, nobody else may have it."""
        if self._inbox.last:
            self._ask_for_events()
        for query in self._reads.unanswered_by(replica):
            self._out.append(Send(ReplicaId(replica), query))
        room = RESEND_BYTES_MAX
        for envelope in self._window.envelopes.values():
            if envelope.attempts and room > 0:
                room -= len(envelope.signed.payload)
                self._out.append(Send(ReplicaId(replica), envelope.signed))
            elif not envelope.attempts and replica == self.primary:
                envelope.deadline = self._now
        self._retransmit()

    def _abandon(self, envelope: Envelope, reason: LostReason) -> None:
        """Report what is left of an envelope as lost. Its numbers count as acknowledged: nobody waits for them."""
        for number in self._window.numbers(envelope):
            ticket = self._close(number)
            assert ticket is not None, f"operation {number} is open"
            self._out.append(Lost(ticket, reason))
        self._acknowledge()
