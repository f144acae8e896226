"""The codec: strict, bounded, one encoding per value, and stable over time."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bft.headers import Approval, Header, Manifest, Member, MembershipChange, Pending, Ready, Reconfigure
from bft.messages import (
    Batch,
    Bundle,
    Checkpoint,
    CheckpointCertificate,
    Commit,
    CommitCertificate,
    Endorsement,
    EpochLink,
    EpochProof,
    Event,
    FetchBatch,
    FetchEpochs,
    Message,
    NewView,
    Packet,
    PageBodies,
    PagesServed,
    Prepare,
    PreparedCertificate,
    PrePrepare,
    Proposal,
    Query,
    QueryReply,
    ReadAnswer,
    Refusal,
    Reply,
    ReplyStatement,
    Request,
    Result,
    Signed,
    SignedReply,
    SignedRequest,
    Status,
    Suspect,
    ViewChange,
)
from bft.wire.codec import (
    Malformed,
    decode_batch,
    decode_bundle,
    decode_change,
    decode_header,
    decode_manifest,
    decode_packet,
    decode_ready,
    decode_reconfigure,
    decode_replica_message,
    decode_request,
    encode,
)

FIXTURES = Path(__file__).parents[2] / "fixtures" / "wire" / "messages.json"
D = bytes(range(32))
S = bytes(range(64))
SIGNED = Signed(1, b"payload", S)
ENDORSEMENTS = (Endorsement(0, S), Endorsement(2, S))
PREPARED = PreparedCertificate(SIGNED, ENDORSEMENTS)
STABLE = CheckpointCertificate(0, 128, D, ENDORSEMENTS)
HEADER = Header(0, 128, D, 5, 6, D, D, None)
CHANGE = MembershipChange(0, (Member(0, D, "host", 7000), Member(300, D, "host", 7001)))
READY = Ready(0, 128, D)
RECONFIGURE = Reconfigure(encode(CHANGE), (Approval(D, S),), (Signed(300, encode(READY), S),))
PENDING = Header(0, 128, D, 5, 6, D, D, Pending(128, RECONFIGURE))

EXAMPLES: dict[str, Message] = {
    "pre_prepare": PrePrepare(0, 1, 2, D),
    "prepare": Prepare(0, 1, 2, D),
    "commit": Commit(0, 1, 2, D),
    "checkpoint": Checkpoint(0, 128, D),
    "suspect": Suspect(0, 3, "request-timeout"),
    "view_change": ViewChange(0, 4, STABLE, (PREPARED,)),
    "view_change_genesis": ViewChange(0, 1, None, ()),
    "new_view": NewView(0, 4, (SIGNED,), (SIGNED,)),
    "request": Request(7, 1, 1, (b"one", b"two"), (0, 1)),
    "batch": Batch(1_700_000_000_000_000_000, (SignedRequest(D, b"payload", S),)),
    "bundle": Bundle((Result(1, 0, 0, b"value"),), (Event(1, b"event"),)),
    "manifest": Manifest(encode(HEADER), (D,), (D, D)),
    "header": HEADER,
    "header_pending": PENDING,
    "membership_change": CHANGE,
    "ready": READY,
    "reconfigure": RECONFIGURE,
    "fetch_epochs": FetchEpochs(3),
    "epoch_proof": EpochProof((EpochLink(encode(PENDING), STABLE),)),
    "signed": SIGNED,
    "signed_request": SignedRequest(D, b"payload", S),
    "proposal": Proposal(SIGNED, b"batch"),
    "reply": Reply(7, 2, 0, 1, D, b"bundle"),
    "refusal": Refusal(7, 1, "session-expired", 1_700_000_000_000_000_000),
    "query": Query(9, 2, True, (b"operation", b"")),
    "query_reply": QueryReply(9, 2, 0, 1, (ReadAnswer(0, b"value"), ReadAnswer(1, b""))),
    "status": Status(0, 1, True, 128, 130, (0, 2), D),
    "reply_statement": ReplyStatement(0, D, 7, 2, D),
    "pages_served": PagesServed(0, (D,), (D,)),
    "page_bodies": PageBodies(SIGNED, (b"page",)),
    "page_bodies_unsigned": PageBodies(None, (b"page",)),
    "signed_reply": SignedReply(Reply(7, 2, 0, 1, D, b"bundle"), S),
    "commit_certificate": CommitCertificate(0, 1, 2, D, ENDORSEMENTS),
    "checkpoint_certificate": STABLE,
    "fetch_batch": FetchBatch(D),
}
DECODERS = {
    "request": decode_request,
    "batch": decode_batch,
    "bundle": decode_bundle,
    "manifest": decode_manifest,
    "header": decode_header,
    "header_pending": decode_header,
    "membership_change": decode_change,
    "ready": decode_ready,
    "reconfigure": decode_reconfigure,
    "reply_statement": decode_replica_message,
    "pages_served": decode_replica_message,
    **dict.fromkeys(
        ["pre_prepare", "prepare", "commit", "checkpoint", "suspect", "view_change", "view_change_genesis", "new_view"],
        decode_replica_message,
    ),
}


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_encoding_round_trips(name):
    """Decoding gives the value back."""
    value = EXAMPLES[name]
    assert DECODERS.get(name, decode_packet)(encode(value)) == value


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_encoding_is_frozen(name):
    """The bytes on the wire do not change by accident: changing them is a commit of its own."""
    frozen = json.loads(FIXTURES.read_text())
    assert encode(EXAMPLES[name]).hex() == frozen[name]


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_trailing_bytes_are_malformed(name):
    """Nothing may follow the value."""
    with pytest.raises(Malformed):
        DECODERS.get(name, decode_packet)(encode(EXAMPLES[name]) + b"\x00")


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_truncation_is_malformed(name):
    """A value cut short is no value, wherever it is cut."""
    encoded = encode(EXAMPLES[name])
    for length in range(len(encoded)):
        with pytest.raises(Malformed):
            DECODERS.get(name, decode_packet)(encoded[:length])


def test_a_second_spelling_of_an_integer_is_malformed():
    """One value has one encoding, else one digest could have two meanings."""
    encoded = encode(Prepare(0, 1, 2, D))
    assert encoded[:5] == bytes([0x95, 11, 0, 1, 2])
    with pytest.raises(Malformed):
        decode_replica_message(bytes([0x95, 11, 0, 0xCC, 1, 2]) + encoded[5:])


def test_an_extra_field_is_malformed():
    """Unknown fields are not skipped."""
    with pytest.raises(Malformed):
        decode_replica_message(msgspec.msgpack.encode([11, 0, 1, 2, D, 9]))


@pytest.mark.parametrize(
    "fields",
    [
        [11, 0, 1, 2, D[:31]],
        [11, 0, 1, 2, D + b"x"],
        [11, 0, 1, -1, D],
        [11, 0, 1, 2**63, D],
        [11, 0, 1, 2.0, D],
        [11, 0, 1, True, D],
        [11, 0, 1, None, D],
        [99, 0, 1, 2, D],
        [11, 0, 1, 2],
        [],
        {},
        "text",
    ],
)
def test_wrong_types_lengths_and_tags_are_malformed(fields):
    """Every field is typed and bounded."""
    with pytest.raises(Malformed):
        decode_replica_message(msgspec.msgpack.encode(fields))


@given(st.binary(max_size=400))
def test_random_bytes_never_raise_anything_else(data):
    """Hostile bytes are malformed, or one canonical packet."""
    try:
        packet = decode_packet(data)
    except Malformed:
        return
    assert isinstance(packet, Packet)
    assert encode(packet) == data


@given(st.sampled_from(sorted(EXAMPLES)), st.integers(0, 10_000), st.integers(0, 255))
def test_a_flipped_byte_never_raises_anything_else(name, place, value):
    """A corrupted frame is malformed, or the one encoding of another value."""
    data = bytearray(encode(EXAMPLES[name]))
    data[place % len(data)] = value
    decode = DECODERS.get(name, decode_packet)
    try:
        decoded = decode(bytes(data))
    except Malformed:
        return
    assert encode(decoded) == bytes(data)
