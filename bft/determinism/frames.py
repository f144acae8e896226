"""What a checker and its two worker processes say to each other: MessagePack frames of 4 bytes of length over pipes."""

from __future__ import annotations

import struct
from collections.abc import Callable

import msgspec

LENGTH = struct.Struct(">I")


class Frame(msgspec.Struct, array_like=True, frozen=True):
    """Base of all frames: `[tag, field, ...]`."""


class Call(Frame, frozen=True):
    """One operation and who asked for it."""

    client: bytes
    session: int
    number: int
    index: int
    operation: bytes


class Slot(Frame, frozen=True, tag=1):
    """Execute the calls of one slot."""

    seq: int
    time_ns: int
    lease_ns: int
    seed: bytes
    calls: list[Call]


class Ask(Frame, frozen=True, tag=2):
    """Answer a query."""

    operation: bytes


class Take(Frame, frozen=True, tag=3):
    """Take a checkpoint; the pages that were not reported before come along."""


class Restore(Frame, frozen=True, tag=4):
    """Replace the state by these pages."""

    pages: list[bytes]


class Show(Frame, frozen=True, tag=5):
    """Tell all pages of the state after call `index` of the last slot; -1: of the present state.

    After a query that changed the state, index 0 is the state before it.
    """

    index: int


class Outcome(Frame, frozen=True):
    """What a call did: its result, its events, and a digest of the whole state after it (of a query: if it changed)."""

    status: int
    value: bytes
    events: list[tuple[bytes, int, bytes]]
    state: bytes


class Done(Frame, frozen=True, tag=11):
    """Outcomes of a slot or a query."""

    outcomes: list[Outcome]


class Pages(Frame, frozen=True, tag=12):
    """Digests of a state's pages in order, and the bytes of some or all of them."""

    digests: list[bytes]
    pages: dict[bytes, bytes]


class Stopped(Frame, frozen=True, tag=13):
    """The service raised what must stop a replica.

    Attributes:
        outcomes: of the calls before it.
        error: the exception's type and text.
        detail: where it was raised.
    """

    outcomes: list[Outcome]
    error: str
    detail: str


class Ready(Frame, frozen=True, tag=14):
    """The service is loaded."""


Request = Slot | Ask | Take | Restore | Show
Answer = Done | Pages | Stopped | Ready
encode = msgspec.msgpack.Encoder().encode
decode_request = msgspec.msgpack.Decoder(Request).decode
decode_answer = msgspec.msgpack.Decoder(Answer).decode


def pack(frame: Frame) -> bytes:
    """Length and content."""
    body = encode(frame)
    return LENGTH.pack(len(body)) + body


def unpack(read: Callable[[int], bytes]) -> bytes | None:
    """The next frame's content; None at the end. `read` returns exactly as many bytes as asked for, or fewer at the
    end."""
    head = read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    body = read(length)
    return body if len(body) == length else None
