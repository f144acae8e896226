"""The codec under generated values and under bytes from anybody."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bft.messages import (
    BatchBody,
    Checkpoint,
    CheckpointCertificate,
    Commit,
    CommitCertificate,
    Endorsement,
    FetchPages,
    Message,
    NewView,
    PageBodies,
    PagesServed,
    Prepare,
    PreparedCertificate,
    PrePrepare,
    Query,
    QueryReply,
    ReadAnswer,
    Reply,
    ReplyStatement,
    Request,
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
    decode_manifest,
    decode_packet,
    decode_replica_message,
    decode_request,
    encode,
)

DECODERS: list[Callable[[bytes], object]] = [
    decode_packet,
    decode_replica_message,
    decode_request,
    decode_batch,
    decode_bundle,
    decode_manifest,
]
NUMBER = st.integers(0, 2**63 - 1)
REPLICA = st.integers(0, 255)
DIGEST = st.binary(min_size=32, max_size=32)
SIGNATURE = st.binary(min_size=64, max_size=64)
DIGESTS = st.lists(DIGEST, min_size=1, max_size=3).map(tuple)
BYTES = st.binary(max_size=40)
ANSWERS = st.lists(st.builds(ReadAnswer, st.integers(0, 255), BYTES), min_size=1, max_size=3).map(tuple)
SIGNED = st.builds(Signed, REPLICA, BYTES, SIGNATURE)
ENDORSEMENTS = st.lists(st.builds(Endorsement, REPLICA, SIGNATURE), min_size=1, max_size=4).map(tuple)
CHECKPOINT_PROOF = st.builds(CheckpointCertificate, NUMBER, NUMBER, DIGEST, ENDORSEMENTS)
PREPARED = st.builds(PreparedCertificate, SIGNED, ENDORSEMENTS)
REPLICA_MESSAGES = st.one_of(
    *(st.builds(kind, NUMBER, NUMBER, NUMBER, DIGEST) for kind in (PrePrepare, Prepare, Commit)),
    st.builds(Checkpoint, NUMBER, NUMBER, DIGEST),
    st.builds(Suspect, NUMBER, NUMBER, st.text(max_size=32)),
    st.builds(ReplyStatement, NUMBER, DIGEST, NUMBER, NUMBER, DIGEST),
    st.builds(PagesServed, NUMBER, DIGESTS, DIGESTS),
    st.builds(ViewChange, NUMBER, NUMBER, st.none() | CHECKPOINT_PROOF, st.lists(PREPARED, max_size=3).map(tuple)),
    st.builds(
        NewView,
        NUMBER,
        NUMBER,
        st.lists(SIGNED, min_size=1, max_size=3).map(tuple),
        st.lists(SIGNED, max_size=3).map(tuple),
    ),
)
REPLIES = st.builds(Reply, NUMBER, NUMBER, NUMBER, NUMBER, DIGEST, BYTES)
PACKETS = st.one_of(
    SIGNED,
    st.builds(SignedRequest, DIGEST, BYTES, SIGNATURE),
    st.builds(CommitCertificate, NUMBER, NUMBER, NUMBER, DIGEST, ENDORSEMENTS),
    CHECKPOINT_PROOF,
    REPLIES,
    st.builds(SignedReply, REPLIES, SIGNATURE),
    st.builds(Query, NUMBER, NUMBER, st.booleans(), st.lists(BYTES, min_size=1, max_size=3).map(tuple)),
    st.builds(QueryReply, NUMBER, NUMBER, NUMBER, st.integers(0, 63), ANSWERS),
    st.builds(
        Status,
        NUMBER,
        NUMBER,
        st.booleans(),
        NUMBER,
        NUMBER,
        st.lists(REPLICA, max_size=4).map(tuple),
        st.binary(max_size=32),
    ),
    st.builds(BatchBody, BYTES),
    st.builds(FetchPages, st.lists(DIGEST, min_size=1, max_size=4).map(tuple)),
    st.builds(PageBodies, st.none() | SIGNED, st.lists(BYTES, min_size=1, max_size=4).map(tuple)),
)
REQUESTS = st.builds(
    Request,
    NUMBER,
    NUMBER,
    NUMBER,
    st.lists(BYTES, min_size=1, max_size=4).map(tuple),
    st.lists(NUMBER, max_size=4).map(tuple),
)


@given(PACKETS)
def test_packets_round_trip(packet: Message) -> None:
    """What is encoded decodes to an equal value, and encodes to equal bytes."""
    assert decode_packet(encode(packet)) == packet


@given(REPLICA_MESSAGES)
def test_replica_messages_round_trip(message: Message) -> None:
    """The same for what replicas sign."""
    assert decode_replica_message(encode(message)) == message


@given(REQUESTS)
def test_requests_round_trip(request: Request) -> None:
    """The same for what clients sign."""
    assert decode_request(encode(request)) == request


@pytest.mark.parametrize("decode", DECODERS)
@given(data=st.binary(max_size=300))
@settings(max_examples=150)
def test_random_bytes_raise_nothing_but_malformed(decode: Callable[[bytes], object], data: bytes) -> None:
    """Bytes from anybody are refused in one way; what is accepted has exactly these bytes as its encoding."""
    try:
        value = decode(data)
    except Malformed:
        return
    assert encode(value) == data


@pytest.mark.parametrize("decode", DECODERS)
@given(value=st.one_of(PACKETS, REPLICA_MESSAGES, REQUESTS), data=st.data())
@settings(max_examples=150)
def test_damaged_encodings_raise_nothing_but_malformed(
    decode: Callable[[bytes], object], value: Message, data: st.DataObject
) -> None:
    """One byte changed, cut off or added: nearly valid input takes the deeper paths of a decoder."""
    frame = bytearray(encode(value))
    place = data.draw(st.integers(0, len(frame) - 1))
    match data.draw(st.integers(0, 2)):
        case 0:
            frame[place] = data.draw(st.integers(0, 255))
        case 1:
            del frame[place:]
        case _:
            frame += data.draw(st.binary(min_size=1, max_size=3))
    try:
        decoded = decode(bytes(frame))
    except Malformed:
        return
    assert encode(decoded) == bytes(frame)


@given(PACKETS, st.binary(min_size=1, max_size=4))
def test_trailing_bytes_are_refused(packet: Message, tail: bytes) -> None:
    """There is one encoding per value: nothing may follow it."""
    with pytest.raises(Malformed):
        decode_packet(encode(packet) + tail)
