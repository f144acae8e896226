"""Between records and the bytes of a database row; everything that is read back is checked.

Signatures are not verified again on load: the file belongs to the replica, and whoever can write it can read the key
beside it. What is checked is damage: digests, types, and that a row is what its columns say.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from bft.digests import NULL_DIGEST, batch_digest, state_digest
from bft.errors import VotesLost
from bft.events import Accepted, Prepared, ViewRecord
from bft.messages import CheckpointCertificate, EpochLink, PreparedCertificate, PrePrepare, Signed
from bft.wire.codec import DECODE_ERRORS, Malformed, decode_header, decode_replica_message, encode

T = TypeVar("T")

_signed = msgspec.msgpack.Decoder(Signed)
_prepared = msgspec.msgpack.Decoder(PreparedCertificate)
_checkpoint = msgspec.msgpack.Decoder(CheckpointCertificate)
_link = msgspec.msgpack.Decoder(EpochLink)


def signed_blob(signed: Signed | None) -> bytes | None:
    """A signed message as a column."""
    return None if signed is None else encode(signed)


def signed_from(blob: bytes | None, where: str) -> Signed | None:
    """A signed message from a column; `where` names the row in errors."""
    return None if blob is None else _decoded(_signed, blob, where)


def checkpoint_certificate_from(blob: bytes, where: str) -> CheckpointCertificate:
    """A checkpoint certificate from a column."""
    return _decoded(_checkpoint, blob, where)


def stable_from(seq: int, blob: bytes) -> CheckpointCertificate:
    """The stable checkpoint's certificate from its row.

    Raises:
        VotesLost: it cannot be decoded or is of another slot.
    """
    found = checkpoint_certificate_from(blob, "stable checkpoint certificate")
    if found.seq != seq:
        raise VotesLost(f"stable checkpoint certificate is of seq {found.seq}, not {seq}")
    return found


def link_from(epoch: int, blob: bytes) -> EpochLink:
    """A link from its row.

    Raises:
        VotesLost: it cannot be decoded, or does not end that epoch, or its certificate is of another header.
    """
    where = f"end of epoch {epoch}"
    link = _decoded(_link, blob, where)
    try:
        header = decode_header(link.header)
    except Malformed as error:
        raise VotesLost(f"{where} is corrupt: {error}") from error
    if (header.epoch, link.certificate.epoch) != (epoch, epoch) or header.pending is None:
        raise VotesLost(f"{where} is corrupt: it ends epoch {header.epoch}")
    if state_digest(link.header) != link.certificate.digest:
        raise VotesLost(f"{where} is corrupt: its header does not have digest {link.certificate.digest.hex()}")
    return link


def pre_prepare_of(signed: Signed, where: str) -> PrePrepare:
    """The PRE-PREPARE that a stored message carries."""
    try:
        message = decode_replica_message(signed.payload)
    except Malformed as error:
        raise VotesLost(f"{where} is corrupt: {error}") from error
    if not isinstance(message, PrePrepare):
        raise VotesLost(f"{where} is corrupt: found a {type(message).__name__}, expected a PrePrepare")
    return message


def prepared_view(certificate: PreparedCertificate) -> int:
    """The view of a prepared certificate."""
    return pre_prepare_of(certificate.pre_prepare, "prepared certificate").view


def accepted_from(seq: int, view: int, pre_prepare: bytes, batch: bytes) -> Accepted:
    """An `Accepted` from its row.

    Raises:
        VotesLost: the message is not of this slot and view, or the batch does not have the digest it names.
    """
    where = f"accepted pre-prepare at seq {seq}, view {view}"
    signed = _decoded(_signed, pre_prepare, where)
    message = pre_prepare_of(signed, where)
    if (message.seq, message.view) != (seq, view):
        raise VotesLost(f"{where} is corrupt: the message is of seq {message.seq}, view {message.view}")
    if not isinstance(batch, bytes) or message.digest != (batch_digest(batch) if batch else NULL_DIGEST):
        raise VotesLost(f"{where} is corrupt: its batch does not have digest {message.digest.hex()}")
    return Accepted(seq, view, signed, batch)


def prepared_from(seq: int, certificate: bytes) -> Prepared:
    """A `Prepared` from its row.

    Raises:
        VotesLost: the certificate cannot be decoded or is of another slot.
    """
    where = f"prepared certificate at seq {seq}"
    decoded = _decoded(_prepared, certificate, where)
    message = pre_prepare_of(decoded.pre_prepare, where)
    if message.seq != seq:
        raise VotesLost(f"{where} is corrupt: it is of seq {message.seq}")
    return Prepared(seq, decoded)


def view_record_from(view: int, active: int, view_change: bytes | None, new_view: bytes | None) -> ViewRecord:
    """A `ViewRecord` from its row."""
    return ViewRecord(
        view,
        bool(active),
        signed_from(view_change, f"view-change for view {view}"),
        signed_from(new_view, f"new-view for view {view}"),
    )


def _decoded(decoder: msgspec.msgpack.Decoder[T], blob: bytes, where: str) -> T:
    try:
        return decoder.decode(blob)
    except DECODE_ERRORS as error:
        raise VotesLost(f"{where} is corrupt: {error}") from error
