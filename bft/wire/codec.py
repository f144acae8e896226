"""Bytes to messages and back: strict, bounded, one encoding per value.

A frame, a payload or an attachment is accepted only if it decodes to the types and limits of `bft.messages` *and*
re-encodes to the very bytes received: no trailing bytes, no second spelling of an integer, no padding. The layout is
in `FORMAT.md`; frozen fixtures guard it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypeVar

import msgspec

from bft.digests import pages_digest
from bft.headers import Header, Manifest, MembershipChange, Ready, Reconfigure
from bft.messages import QUERY_OPERATIONS_MAX, Batch, Bundle, Packet, ReplicaMessage, Request

T = TypeVar("T")

_encoder = msgspec.msgpack.Encoder()
encode = _encoder.encode
"""Encode any message or packet; the only encoder in the library."""

_packet: msgspec.msgpack.Decoder[Packet] = msgspec.msgpack.Decoder(Packet)
_replica_message: msgspec.msgpack.Decoder[ReplicaMessage] = msgspec.msgpack.Decoder(ReplicaMessage)
_request = msgspec.msgpack.Decoder(Request)
_batch = msgspec.msgpack.Decoder(Batch)
_bundle = msgspec.msgpack.Decoder(Bundle)
_manifest = msgspec.msgpack.Decoder(Manifest)
_header = msgspec.msgpack.Decoder(Header)
_change = msgspec.msgpack.Decoder(MembershipChange)
_ready = msgspec.msgpack.Decoder(Ready)
_reconfigure = msgspec.msgpack.Decoder(Reconfigure)
_operations = Annotated[tuple[msgspec.Raw, ...], msgspec.Meta(max_length=QUERY_OPERATIONS_MAX)]
_query = msgspec.msgpack.Decoder(tuple[int, int, int, bool, _operations])
QUERY_TAG = b"\x06"
"""The tag of `bft.messages.Query`, the second byte of its frame."""

DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, OverflowError, RecursionError)
"""What msgspec raises for bytes that somebody made up: not one of its own classes only."""


class Malformed(Exception):
    """Bytes that are not the one encoding of an allowed value. Internal: admission turns it into a rejection."""


def decode_packet(frame: bytes) -> Packet:
    """Decode what a frame carries.

    Raises:
        Malformed: the bytes are not the one encoding of a packet.
    """
    return _strict(_packet, frame)


def reads_in(frame: bytes) -> int:
    """How many operations a frame asks to have read, by a look at its outline only; 0 if it is no query."""
    if frame[1:2] != QUERY_TAG:
        return 0
    try:
        return len(_query.decode(frame)[4])
    except DECODE_ERRORS:
        return 0


def decode_replica_message(payload: bytes) -> ReplicaMessage:
    """Decode the payload of a `Signed`. Raises `Malformed` as `decode_packet` does."""
    return _strict(_replica_message, payload)


def decode_request(payload: bytes) -> Request:
    """Decode the payload of a `SignedRequest`. Raises `Malformed` as `decode_packet` does."""
    return _strict(_request, payload)


def decode_batch(batch: bytes) -> Batch:
    """Decode a batch. Raises `Malformed` as `decode_packet` does."""
    return _strict(_batch, batch)


def decode_bundle(bundle: bytes) -> Bundle:
    """Decode a reply bundle. Raises `Malformed` as `decode_packet` does."""
    return _strict(_bundle, bundle)


def decode_manifest(manifest: bytes) -> Manifest:
    """Decode a checkpoint manifest. Raises `Malformed` as `decode_packet` does."""
    return _strict(_manifest, manifest)


def decode_header(header: bytes) -> Header:
    """Decode a checkpoint header. Raises `Malformed` as `decode_packet` does."""
    return _strict(_header, header)


def decode_change(change: bytes) -> MembershipChange:
    """Decode what administrators signed. Raises `Malformed` as `decode_packet` does."""
    return _strict(_change, change)


def decode_ready(ready: bytes) -> Ready:
    """Decode a newcomer's word. Raises `Malformed` as `decode_packet` does."""
    return _strict(_ready, ready)


def decode_reconfigure(operation: bytes) -> Reconfigure:
    """Decode a change of membership. Raises `Malformed` as `decode_packet` does."""
    return _strict(_reconfigure, operation)


@dataclass(frozen=True, slots=True)
class Opened:
    """A manifest whose lists are those that its header commits to.

    Attributes:
        header_bytes: their digest is the state digest.
    """

    header: Header
    header_bytes: bytes
    service: tuple[bytes, ...]
    sessions: tuple[bytes, ...]


def open_manifest(body: bytes) -> Opened:
    """Decode a manifest and its header, and hold the lists against the header.

    Raises:
        Malformed: it does not decode, or the header commits to other lists.
    """
    manifest = decode_manifest(body)
    header = decode_header(manifest.header)
    if pages_digest(manifest.service, manifest.sessions) != header.pages:
        raise Malformed("the header commits to other pages")
    return Opened(header, manifest.header, manifest.service, manifest.sessions)


def _strict(decoder: msgspec.msgpack.Decoder[T], data: bytes) -> T:
    try:
        value = decoder.decode(data)
    except DECODE_ERRORS as error:
        raise Malformed(str(error)) from error
    if encode(value) != data:
        raise Malformed("not the canonical encoding")
    return value
