"""From bytes to authentic messages: the only way into a node.

A frame is decoded strictly, filtered cheaply (`wants`: can it still matter?), checked for structure, and only then
are its signatures verified, each once: a bounded memo remembers what held, since certificates present the same votes
again. Whatever fails is a `Rejected` with a fixed reason, never an exception.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bft.core.clients import envelope_flaw
from bft.core.proofs import (
    Rules,
    checkpoint_certificate_flaw,
    commit_certificate_flaw,
    endorsed,
    flaw,
    nested,
)
from bft.digests import batch_digest, signature_digest
from bft.events import Deliver, OpenedBatch, Rejected
from bft.ids import Peer
from bft.messages import (
    ENVELOPE_BYTES_MAX,
    BatchBody,
    CheckpointCertificate,
    CommitCertificate,
    Message,
    Packet,
    PrePrepare,
    Proposal,
    Request,
    Signed,
    SignedRequest,
)
from bft.ports import Verifier
from bft.wire.codec import Malformed, decode_batch, decode_packet, decode_replica_message, decode_request

Wants = Callable[[Peer, Packet, Message | None], bool]


class Limits:
    """Replicated limits on what clients and primaries may send."""

    __slots__ = ("batch_bytes_max", "batch_operations_max", "session_window")

    def __init__(self, session_window: int, batch_operations_max: int, batch_bytes_max: int) -> None:
        self.session_window = session_window
        self.batch_operations_max = batch_operations_max
        self.batch_bytes_max = batch_bytes_max


class _Refused(Exception):
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Admission:
    """Admits frames for one node.

    Args:
        verifier: checks single signatures.
        rules: structural rules of the epoch.
        limits: size limits.
        memo_max: verified signatures remembered; about 100 bytes each.
    """

    def __init__(self, verifier: Verifier, rules: Rules, limits: Limits, memo_max: int = 65536) -> None:
        self._verifier = verifier
        self._rules = rules
        self._limits = limits
        self._memo_max = memo_max
        self._memo: dict[bytes, None] = {}

    def enter(self, verifier: Verifier, rules: Rules) -> None:
        """Another epoch: its members' keys and its rules hold from now on; what the old keys signed is forgotten."""
        self._verifier = verifier
        self._rules = rules
        self._memo = {}

    def admit(self, frame: bytes, peer: Peer, wants: Wants) -> Deliver | Rejected | None:
        """Check one frame from `peer`; None when it is sound so far but no longer matters."""
        try:
            return self._admit(decode_packet(frame), peer, wants)
        except Malformed:
            return Rejected(peer, "malformed")
        except _Refused as refusal:
            return Rejected(peer, refusal.reason)

    def _admit(self, packet: Packet, peer: Peer, wants: Wants) -> Deliver | None:
        match packet:
            case Signed():
                return self._signed(packet, peer, wants)
            case SignedRequest():
                return self._request(packet, peer, wants)
            case Proposal():
                return self._proposal(packet, peer, wants)
            case BatchBody():
                if not wants(peer, packet, None):
                    return None
                return Deliver(peer, packet, None, self._batch(batch_digest(packet.batch), packet.batch))
            case CommitCertificate():
                return self._certificate(packet, commit_certificate_flaw(packet, self._rules), peer, wants)
            case CheckpointCertificate():
                return self._certificate(packet, checkpoint_certificate_flaw(packet, self._rules), peer, wants)
            case _:
                return Deliver(peer, packet) if wants(peer, packet, None) else None

    def _signed(self, packet: Signed, peer: Peer, wants: Wants) -> Deliver | None:
        message = decode_replica_message(packet.payload)
        if not wants(peer, packet, message):
            return None
        found = flaw(message, packet.sender, self._rules)
        if found is not None:
            raise _Refused(found)
        self._require_replica(packet.sender, packet.payload, packet.signature)
        self._require_all(nested(message))
        return Deliver(peer, packet, message)

    def _proposal(self, packet: Proposal, peer: Peer, wants: Wants) -> Deliver | None:
        signed = packet.signed
        message = decode_replica_message(signed.payload)
        if not isinstance(message, PrePrepare):
            raise _Refused("malformed")
        if not wants(peer, packet, message):
            return None
        found = flaw(message, signed.sender, self._rules)
        if found is not None:
            raise _Refused(found)
        if batch_digest(packet.batch) != message.digest:
            raise _Refused("digest-mismatch")
        self._require_replica(signed.sender, signed.payload, signed.signature)
        return Deliver(peer, packet, message, self._batch(message.digest, packet.batch))

    def _request(self, packet: SignedRequest, peer: Peer, wants: Wants) -> Deliver | None:
        request = self._static(packet)
        if not wants(peer, packet, request):
            return None
        self._require_client(packet)
        return Deliver(peer, packet, request)

    def _certificate(
        self, packet: CommitCertificate | CheckpointCertificate, found: str | None, peer: Peer, wants: Wants
    ) -> Deliver | None:
        if not wants(peer, packet, None):
            return None
        if found is not None:
            raise _Refused(found)
        self._require_all(endorsed(packet))
        return Deliver(peer, packet)

    def _batch(self, digest: bytes, body: bytes) -> OpenedBatch:
        """Open a batch: no check here depends on the replica's state, so all correct replicas agree on it."""
        if len(body) > self._limits.batch_bytes_max + ENVELOPE_BYTES_MAX:
            raise _Refused("batch-too-large")
        batch = decode_batch(body)
        requests = []
        keys = set()
        operations = 0
        for packet in batch.requests:
            request = self._static(packet)
            self._require_client(packet)
            requests.append((packet.client, request))
            keys.add((packet.client, request.session, request.number))
            operations += len(request.operations)
        if len(keys) != len(requests):
            raise _Refused("envelope-twice")
        if len(requests) > 1 and operations > self._limits.batch_operations_max:
            raise _Refused("batch-too-large")
        return OpenedBatch(digest, body, batch.time_ns, tuple(requests))

    def _static(self, packet: SignedRequest) -> Request:
        request = decode_request(packet.payload)
        found = envelope_flaw(request, len(packet.payload), self._limits.session_window)
        if found is not None:
            raise _Refused(found)
        return request

    def _require_client(self, packet: SignedRequest) -> None:
        key = signature_digest(b"C" + packet.client + packet.signature + packet.payload)
        if key in self._memo:
            return
        if not self._verifier.verify_client(packet.client, packet.payload, packet.signature):
            raise _Refused("bad-client-signature")
        self._remember(key)

    def _require_replica(self, sender: int, payload: bytes, signature: bytes) -> None:
        # The role byte keeps a client's signed bytes from ever passing for a replica's.
        key = signature_digest(b"R" + sender.to_bytes(4, "big") + signature + payload)
        if key in self._memo:
            return
        if sender not in self._rules.quorums.ids or not self._verifier.verify_replica(sender, payload, signature):
            raise _Refused("bad-signature")
        self._remember(key)

    def _require_all(self, signatures: Iterator[tuple[int, bytes, bytes]]) -> None:
        for sender, payload, signature in signatures:
            self._require_replica(sender, payload, signature)

    def _remember(self, key: bytes) -> None:
        if len(self._memo) >= self._memo_max:
            del self._memo[next(iter(self._memo))]
        self._memo[key] = None
