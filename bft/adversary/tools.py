"""Small tools of crime: open one's own packets, change and sign them again, gather certificates from what was heard."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from bft.adversary.strategy import Context, opened_message
from bft.core.proofs import prepared_header
from bft.digests import batch_digest
from bft.events import Deliver
from bft.messages import (
    Batch,
    Commit,
    Endorsement,
    NewView,
    Packet,
    Prepare,
    PreparedCertificate,
    PrePrepare,
    Proposal,
    ReplicaMessage,
    Signed,
    ViewChange,
)
from bft.wire.codec import Malformed, decode_batch, decode_replica_message, encode

SLOTS_REMEMBERED = 256


def own_message(context: Context, packet: Packet) -> ReplicaMessage | None:
    """The message in a packet that this corrupted replica itself signed."""
    signed = packet.signed if isinstance(packet, Proposal) else packet
    if not isinstance(signed, Signed) or signed.sender != context.me:
        return None
    return opened_message(packet)


def is_colleague(context: Context, event: Deliver) -> bool:
    """True if another member of the coalition sent it: reacting to each other, colluders would drown in echoes."""
    return event.peer in context.coalition.signers


def own_proposal(context: Context, packet: Packet) -> tuple[PrePrepare, Batch, bytes] | None:
    """(PRE-PREPARE, batch, its bytes) of a proposal of this replica's own."""
    if not isinstance(packet, Proposal) or packet.signed.sender != context.me:
        return None
    message = opened_message(packet)
    if not isinstance(message, PrePrepare):
        return None
    try:
        return message, decode_batch(packet.batch), packet.batch
    except Malformed:
        return None  # another crime has been at it before


def proposal(context: Context, message: PrePrepare, body: bytes, **changes: int) -> Proposal:
    """A proposal of these bytes, properly signed, under the slot of `message` or with the `changes` given."""
    return Proposal(context.sign(msgspec.structs.replace(message, digest=batch_digest(body), **changes)), body)


def variant(batch: Batch, which: int) -> bytes:
    """The `which`-th other batch with the same requests: valid in itself, a different value all the same."""
    return encode(msgspec.structs.replace(batch, time_ns=batch.time_ns + which))


def votes(context: Context, view: int, seq: int, digest: bytes) -> list[Signed]:
    """Every vote that the coalition can cast for a value: PREPAREs of its backups and COMMITs of all."""
    primary = context.quorums.primary(view)
    cast = []
    for member in sorted(context.coalition.signers):
        if member != primary:
            cast.append(context.sign(Prepare(context.epoch, view, seq, digest), member))
        cast.append(context.sign(Commit(context.epoch, view, seq, digest), member))
    return cast


def other_digest(context: Context) -> bytes:
    """A digest that no batch has."""
    return batch_digest(context.random.randbytes(8))


@dataclass(slots=True)
class Gathered:
    """PRE-PREPAREs and PREPAREs heard by the coalition, to build every prepared certificate that it can."""

    proposals: dict[tuple[int, int, bytes], Signed] = field(default_factory=dict)
    prepares: dict[tuple[int, int, bytes], dict[int, bytes]] = field(default_factory=dict)

    def note(self, context: Context, signed: Signed) -> None:
        """Remember a vote, or what a NEW-VIEW or VIEW-CHANGE holds."""
        message = decode_replica_message(signed.payload)
        match message:
            case PrePrepare() if len(self.proposals) < SLOTS_REMEMBERED:
                self.proposals.setdefault((message.view, message.seq, message.digest), signed)
            case Prepare() if len(self.prepares) < SLOTS_REMEMBERED:
                key = (message.view, message.seq, message.digest)
                self.prepares.setdefault(key, {})[signed.sender] = signed.signature
            case NewView():
                for inner in message.pre_prepares:
                    self.note(context, inner)
            case ViewChange():
                for certificate in message.prepared:
                    header = prepared_header(certificate)
                    key = (header.view, header.seq, header.digest)
                    self.proposals.setdefault(key, certificate.pre_prepare)
                    for item in certificate.prepares:
                        self.prepares.setdefault(key, {})[item.replica] = item.signature
            case _:
                pass

    def certificates(self, context: Context) -> list[tuple[PrePrepare, PreparedCertificate]]:
        """All that can be proven, by the votes heard and the coalition's own, ascending by (seq, view)."""
        found = []
        for (view, seq, digest), signed in self.proposals.items():
            held = dict(self.prepares.get((view, seq, digest), {}))
            primary = context.quorums.primary(view)
            for member in sorted(context.coalition.signers):
                if member != primary:
                    held[member] = context.sign(Prepare(context.epoch, view, seq, digest), member).signature
            held.pop(primary, None)
            if len(held) >= context.quorums.prepares:
                chosen = sorted(held)[: context.quorums.prepares]
                endorsements = tuple(Endorsement(replica, held[replica]) for replica in chosen)
                header = PrePrepare(context.epoch, view, seq, digest)
                found.append((header, PreparedCertificate(signed, endorsements)))
        return sorted(found, key=lambda item: (item[0].seq, item[0].view, item[0].digest))


def gathered(context: Context) -> Gathered:
    """The coalition's common collection."""
    held = context.coalition.notes.setdefault("gathered", Gathered())
    assert isinstance(held, Gathered), "the note is ours"
    return held


def listen(context: Context, event: Deliver) -> None:
    """Add what a delivered packet holds to the collection."""
    packet = event.packet
    signed = packet.signed if isinstance(packet, Proposal) else packet
    if isinstance(signed, Signed) and event.message is not None:
        gathered(context).note(context, signed)
