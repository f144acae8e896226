"""From bytes to authentic messages: the only way into a node.

A frame is decoded strictly, filtered cheaply (`wants`: can it still matter?), checked for structure, and only then
are its signatures verified, each once: a bounded memo remembers what held, since certificates present the same votes
again. Whatever fails is a `Rejected` with a fixed reason, never an exception.

A replica signs nothing that the checks here would refuse (`State.sign`): what was properly signed and is refused all
the same convicts its signer, so such a `Rejected` carries evidence. That costs nothing where nothing is refused.
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
from bft.digests import batch_digest, page_digest, payload_digest, signature_digest
from bft.events import Deliver, Evidence, OpenedBatch, Rejected
from bft.ids import Peer
from bft.messages import (
    ENVELOPE_BYTES_MAX,
    BatchBody,
    Checkpoint,
    CheckpointCertificate,
    CommitCertificate,
    EpochLink,
    Message,
    NewView,
    Packet,
    PageBodies,
    PagesServed,
    Prepare,
    PrePrepare,
    Proposal,
    Request,
    Signed,
    SignedRequest,
    ViewChange,
)
from bft.ports import Verifier
from bft.wire.codec import Malformed, decode_batch, decode_packet, decode_replica_message, decode_request

Wants = Callable[[Peer, Packet, Message | None], bool]

INVALID_BATCH = "invalid-batch"
CRIMES: dict[type[Message], str] = {
    PrePrepare: "proposal-by-backup",
    Prepare: "prepare-by-primary",
    Checkpoint: "invalid-checkpoint",
    ViewChange: "invalid-view-change",
    NewView: "invalid-new-view",
    PagesServed: "lying-page",
}
"""What it is called to have signed a message of that type which has a flaw."""
NO_CRIME = ("other-epoch", "not-a-member")
"""Flaws that depend on who looks: a message of another epoch is judged by the rules of that one."""


class Limits:
    """Replicated limits on what clients and primaries may send."""

    __slots__ = ("batch_bytes_max", "batch_operations_max", "session_window")

    def __init__(self, session_window: int, batch_operations_max: int, batch_bytes_max: int) -> None:
        self.session_window = session_window
        self.batch_operations_max = batch_operations_max
        self.batch_bytes_max = batch_bytes_max


class _Refused(Exception):
    def __init__(self, reason: str, evidence: Evidence | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.evidence = evidence


class Admission:
    """Admits frames for one node.

    Args:
        verifier: checks single signatures.
        rules: structural rules of the epoch.
        limits: size limits.
        memo_max: verified signatures remembered; about 100 bytes each.
        links: the way from genesis to the epoch, for evidence.
    """

    def __init__(
        self,
        verifier: Verifier,
        rules: Rules,
        limits: Limits,
        memo_max: int = 65536,
        links: tuple[EpochLink, ...] = (),
    ) -> None:
        self._verifier = verifier
        self._rules = rules
        self._limits = limits
        self._memo_max = memo_max
        self._memo: dict[bytes, None] = {}
        self._links = links
        self._convicted: dict[tuple[int, str], None] = {}

    def enter(self, verifier: Verifier, rules: Rules, links: tuple[EpochLink, ...]) -> None:
        """Another epoch: its members' keys and its rules hold from now on; what the old keys signed is forgotten."""
        self._verifier = verifier
        self._rules = rules
        self._links = links
        self._memo = {}
        self._convicted = {}

    def admit(self, frame: bytes, peer: Peer, wants: Wants) -> Deliver | Rejected | None:
        """Check one frame from `peer`; None when it is sound so far but no longer matters."""
        try:
            return self._admit(decode_packet(frame), peer, wants)
        except Malformed:
            return Rejected(peer, "malformed")
        except _Refused as refusal:
            return Rejected(peer, refusal.reason, refusal.evidence)

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
            case PageBodies():
                return self._pages(packet, peer, wants)
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
            raise self._convict(packet, CRIMES.get(type(message)), found)
        self._require_replica(packet.sender, packet.payload, packet.signature)
        try:
            self._require_all(nested(message))
        except _Refused as refusal:
            raise self._convict(packet, CRIMES.get(type(message)), refusal.reason) from None
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
            raise self._convict(signed, CRIMES[PrePrepare], found)
        if batch_digest(packet.batch) != message.digest:
            raise _Refused("digest-mismatch")
        self._require_replica(signed.sender, signed.payload, signed.signature)
        try:
            batch = self._batch(message.digest, packet.batch)
        except Malformed:
            raise self._convict(signed, INVALID_BATCH, "malformed", packet.batch) from None
        except _Refused as refusal:
            raise self._convict(signed, INVALID_BATCH, refusal.reason, packet.batch) from None
        return Deliver(peer, packet, message, batch)

    def _convict(self, signed: Signed, crime: str | None, reason: str, attachment: bytes = b"") -> _Refused:
        """The refusal of a message that its signer should not have signed, with the evidence if it really did.

        Once per signer and crime: who sends a lot of it makes no work and no files.
        """
        if crime is None or reason in NO_CRIME or (signed.sender, crime) in self._convicted:
            return _Refused(reason)
        try:
            self._require_replica(signed.sender, signed.payload, signed.signature)
        except _Refused:
            return _Refused(reason)  # anybody can have made it
        self._convicted[signed.sender, crime] = None
        return _Refused(reason, Evidence(signed.sender, crime, signed, attachment=attachment, links=self._links))

    def _pages(self, packet: PageBodies, peer: Peer, wants: Wants) -> Deliver | None:
        """Pages under somebody's word for them; without it they do not count, or nobody would have to give his word.

        Only of who is no member nobody here has the key: its pages count by their digests alone.
        """
        signed = packet.signed
        if peer not in self._rules.quorums.ids:
            return Deliver(peer, packet) if wants(peer, packet, None) else None
        if signed is None:
            return None  # of another epoch, where the sender is no member; or of a liar that will not be held to it
        message = decode_replica_message(signed.payload)
        if not isinstance(message, PagesServed):
            raise _Refused("malformed")
        if not wants(peer, packet, message):
            return None
        if message.served != tuple(page_digest(page) for page in packet.pages):
            raise _Refused("digest-mismatch")
        found = flaw(message, signed.sender, self._rules)
        if found is not None:
            raise self._convict(signed, CRIMES[PagesServed], found)
        self._require_replica(signed.sender, signed.payload, signed.signature)
        return Deliver(peer, packet)

    def _request(self, packet: SignedRequest, peer: Peer, wants: Wants) -> Deliver | None:
        """An envelope: replicas pass on anybody's, a client sends its own.

        Else one connection could speak for any number of keys, and shares and quotas by key would bound nobody.
        """
        if isinstance(peer, bytes) and packet.client != peer:
            raise _Refused("another-clients")
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
        digest = payload_digest(packet.payload)
        key = signature_digest(b"C" + packet.client + packet.signature + digest)
        if key in self._memo:
            return
        if not self._verifier.verify_client(packet.client, digest, packet.signature):
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
