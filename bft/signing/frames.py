"""What a replica and its signing agent say to each other over a Unix socket: 4 bytes of length, then MessagePack.

    replica                                agent
      -- Who() ------------------------->    which key is this?
      <- Identified(public key) ---------
      -- Certify(endpoint key) --------->    a TLS certificate for this process's own key
      <- Certificate(DER) ---------------
      -- Open(cluster, store, stable) -->    from here on this connection votes; one at a time
      <- Opened(memory) -----------------    what was signed and may have been lost with the process
      -- Sign(stable, payloads) -------->    recorded durably, all or none, then signed
      <- Signatures(...) | Denied(...) --

Strict and bounded: a frame that breaks a rule ends the connection; every request has exactly one answer.
"""

from __future__ import annotations

import struct
from typing import Annotated

import msgspec
from msgspec import Meta

from bft.ids import U63, DigestBytes, KeyBytes, SignatureBytes
from bft.messages import PAYLOAD_BYTES_MAX

LENGTH = struct.Struct(">I")
PAYLOADS_MAX = 4096
"""A NEW-VIEW proposes at most this many slots, and signs them in one go."""
PROPOSAL_BYTES_MAX = 80
"""A PRE-PREPARE's payload: numbers and a digest."""
FRAME_BYTES_MAX = PAYLOAD_BYTES_MAX + 64 * 1024
"""Of a request: one payload of the largest size, or many small ones."""
ANSWER_BYTES_MAX = 2 * PAYLOAD_BYTES_MAX + PAYLOADS_MAX * (PROPOSAL_BYTES_MAX + 2) + 64 * 1024
"""Of an answer: `Opened` at its largest."""
Payload = Annotated[bytes, Meta(max_length=PAYLOAD_BYTES_MAX)]
Payloads = Annotated[tuple[Payload, ...], Meta(max_length=PAYLOADS_MAX)]
Proposals = Annotated[tuple[Annotated[bytes, Meta(max_length=PROPOSAL_BYTES_MAX)], ...], Meta(max_length=PAYLOADS_MAX)]


class Frame(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of all frames: `[tag, field, ...]`."""


class Who(Frame, frozen=True, tag=1):
    """Ask for the public key."""


class Identified(Frame, frozen=True, tag=2):
    """Cluster, replica and public key that this agent signs for."""

    cluster: DigestBytes
    replica: U63
    public: KeyBytes


class Certify(Frame, frozen=True, tag=3):
    """Ask for a certificate over a TLS key that the replica process has made for itself."""

    endpoint: KeyBytes


class Certificate(Frame, frozen=True, tag=4):
    """An X.509 certificate over the endpoint's key, signed by the replica's; DER."""

    der: bytes


class Open(Frame, frozen=True, tag=5):
    """Begin to vote.

    Attributes:
        store: id of the replica's store, 32 hex digits.
        stable: sequence number of the stable checkpoint in that store.
    """

    cluster: DigestBytes
    replica: U63
    store: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
    stable: U63


class Opened(Frame, frozen=True, tag=6):
    """What has been signed and may be missing in the store, since a process can die between signing and writing.

    Attributes:
        view_change, new_view: payloads of the last ones signed; empty for none.
        proposals: payloads of the PRE-PREPAREs signed in the highest view in which there were any; of the highest
            slots, if there are too many.
    """

    view_change: Payload
    new_view: Payload
    proposals: Proposals


class Sign(Frame, frozen=True, tag=7):
    """Sign messages, all or none.

    Attributes:
        stable: the stable checkpoint that is durable in the store by now; votes at or below it may be forgotten.
    """

    stable: U63
    payloads: Payloads


class Hello(Frame, frozen=True, tag=8):
    """Sign the answer to a server's challenge (`bft.transport.handshake.hello_bytes`)."""

    data: Annotated[bytes, Meta(max_length=256)]


class Signatures(Frame, frozen=True, tag=9):
    """64-byte signatures, in the order asked."""

    signatures: tuple[SignatureBytes, ...]


class Denied(Frame, frozen=True, tag=10):
    """The agent refuses, durably so: it will refuse the same again.

    Attributes:
        code: one of `bft.signing.rules.CODES`.
    """

    code: Annotated[str, Meta(max_length=32)]
    detail: Annotated[str, Meta(max_length=1024)]


class Report(Frame, frozen=True, tag=11):
    """Ask for the agent's counters; any connection may."""


class Reported(Frame, frozen=True, tag=12):
    """The counters as JSON."""

    text: bytes


Request = Who | Certify | Open | Sign | Hello | Report
Answer = Identified | Certificate | Opened | Signatures | Denied | Reported
encode = msgspec.msgpack.Encoder().encode
_request: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_answer: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


def decode_request(body: bytes) -> Request:
    """A request. Raises msgspec.DecodeError for anything else."""
    return _request.decode(body)


def decode_answer(body: bytes) -> Answer:
    """An answer. Raises msgspec.DecodeError for anything else."""
    return _answer.decode(body)


def pack(frame: Frame) -> bytes:
    """Length and content."""
    body = encode(frame)
    return LENGTH.pack(len(body)) + body
