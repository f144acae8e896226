"""Who is at the other end: the dialer pins the server's key, the server challenges the dialer.

    dialer                                   server (replica j)
      ---------- TLS 1.3 ------------------->   shows a self-signed certificate over its replica key
      key of the certificate == pinned key?
      <--------- Challenge(nonce) -----------
      ---------- Hello(name, signature) ---->   over nonce, cluster and j: good for this server and this connection only
      <--------- Welcome or Refused ---------

A faulty server that passes another server's challenge on gains nothing, since the signature names the server.
Until `Welcome` everything is small, short-lived and counted (`bft.transport.listener`).
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from typing import Annotated, Protocol, TypeVar

import msgspec
from msgspec import Meta

from bft.crypto.signatures import Ed25519Verifier, sender_bytes, verify_signed
from bft.crypto.tls import certificate_key, vouches_for
from bft.errors import TransportError
from bft.ids import ClientId, DigestBytes, KeyBytes, Peer, ReplicaId, ReplicaIndex, SignatureBytes, peer_name
from bft.messages import Message
from bft.transport.channel import Channel
from bft.wire.codec import encode

T = TypeVar("T")
HELLO_DOMAIN = b"bft/1 hello\0"
GREETING_BYTES_MAX = 512
HANDSHAKE_SECONDS = 5.0


class Challenge(Message, frozen=True, tag=60):
    """The server's question; `cluster` lets the dialer say clearly that it is at the wrong place."""

    cluster: DigestBytes
    nonce: DigestBytes


class ReplicaHello(Message, frozen=True, tag=61):
    """A replica's answer."""

    replica: ReplicaIndex
    signature: SignatureBytes


class ClientHello(Message, frozen=True, tag=62):
    """A client's answer."""

    key: KeyBytes
    signature: SignatureBytes


class Welcome(Message, frozen=True, tag=63):
    """The server knows the dialer; frames may follow."""


class Refused(Message, frozen=True, tag=64):
    """The server closes, and why."""

    reason: Annotated[str, Meta(max_length=200)]


_challenge = msgspec.msgpack.Decoder(Challenge)
_hello = msgspec.msgpack.Decoder(ReplicaHello | ClientHello)
_answer = msgspec.msgpack.Decoder(Welcome | Refused)


class Prover(Protocol):
    """Signs a hello: a `KeyPair`, or an agent that holds one."""

    def sign(self, data: bytes, /) -> bytes:
        """64-byte signature over exactly `data`."""
        ...


@dataclass(frozen=True, slots=True)
class Identity:
    """Who dials.

    Attributes:
        cluster_id: 32 bytes.
        me: replica id, or client key.
        keys: what proves it.
    """

    cluster_id: bytes
    me: Peer
    keys: Prover


@dataclass(frozen=True, slots=True)
class Host:
    """Who listens.

    Attributes:
        cluster_id: 32 bytes.
        me: the listening replica.
        context: from `bft.crypto.tls.server_context`.
        verifier: knows replicas' and clients' keys.
    """

    cluster_id: bytes
    me: ReplicaId
    context: ssl.SSLContext
    verifier: Ed25519Verifier


def hello_bytes(cluster_id: bytes, server: ReplicaId, nonce: bytes, dialer: Peer) -> bytes:
    """What a dialer signs."""
    return HELLO_DOMAIN + cluster_id + server.to_bytes(4, "big") + nonce + sender_bytes(dialer)


async def introduce(
    channel: Channel, identity: Identity, server: ReplicaId, server_key: bytes, frame_bytes_max: int
) -> None:
    """The dialer's side, on a fresh channel; frames up to `frame_bytes_max` bytes are allowed once the key is right.

    Raises:
        TransportError: the server is not who the cluster file says, is of another cluster, refuses us, or went away.
    """
    await channel.handshake()
    where = f"{peer_name(server)} at {channel.address}"
    certificate = channel.certificate or b""
    if not vouches_for(server_key, certificate):
        shown = certificate_key(certificate)
        found = "no Ed25519 key" if shown is None else f"key {shown.hex()}"
        raise TransportError(f"{where} shows {found}, the cluster file says {server_key.hex()}")
    channel.allow_frames(frame_bytes_max)
    challenge = _decoded(_challenge, await channel.receive_one(), where)
    if challenge.cluster != identity.cluster_id:
        raise TransportError(
            f"{where} runs cluster {challenge.cluster.hex()}, the cluster file has id {identity.cluster_id.hex()}"
        )
    signature = identity.keys.sign(hello_bytes(identity.cluster_id, server, challenge.nonce, identity.me))
    me = identity.me
    channel.send([encode(ReplicaHello(me, signature) if isinstance(me, int) else ClientHello(me, signature))])
    answer = _decoded(_answer, await channel.receive_one(), where)
    if isinstance(answer, Refused):
        raise TransportError(f"{where} refuses {peer_name(me)}: {answer.reason}")


async def interview(channel: Channel, host: Host) -> Peer:
    """The server's side, on a fresh channel, up to but without `Welcome`: the caller decides whether there is room.

    Raises:
        TransportError: the dialer cannot say who it is, is nobody we let in, or went away.
    """
    await channel.handshake()
    nonce = os.urandom(32)
    channel.send([encode(Challenge(host.cluster_id, nonce))])
    hello = _decoded(_hello, await channel.receive_one(), channel.address)
    dialer: Peer
    if isinstance(hello, ReplicaHello):
        dialer = ReplicaId(hello.replica)
        key = host.verifier.replica_key(hello.replica) if hello.replica != host.me else None
    else:
        dialer = ClientId(hello.key)
        key = hello.key if host.verifier.may_use(hello.key) else None
    if key is None:
        refuse(channel, "unknown key: it is not in the server's cluster file")
        raise TransportError(f"{channel.address} says it is {peer_name(dialer)}, which is not let in")
    if not verify_signed(key, hello.signature + hello_bytes(host.cluster_id, host.me, nonce, dialer)):
        refuse(channel, "the signature under the hello does not verify")
        raise TransportError(f"{channel.address} says it is {peer_name(dialer)}, but cannot sign as such")
    return dialer


def welcome(channel: Channel, frame_bytes_max: int) -> None:
    """Let the dialer in."""
    channel.allow_frames(frame_bytes_max)
    channel.send([encode(Welcome())])


def refuse(channel: Channel, reason: str) -> None:
    """Tell the dialer why, and close."""
    channel.send([encode(Refused(reason))])
    channel.close(f"refused: {reason}")


def _decoded(decoder: msgspec.msgpack.Decoder[T], frame: bytes, where: str) -> T:
    try:
        return decoder.decode(frame)
    except msgspec.DecodeError as error:
        raise TransportError(f"{where} does not follow the handshake: {error}") from error
