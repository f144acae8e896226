"""Who is at the other end: the dialer pins the server's key, the server challenges the dialer.

    dialer                                   server (replica j)
      ---------- TLS 1.3 ------------------->   shows a self-signed certificate over its replica key
      key of the certificate == pinned key?
      <--------- Challenge(nonce) -----------
      ---------- Hello(name, signature) ---->   over nonce, cluster and j: good for this server and this connection only
      <--------- Welcome or Refused ---------

A faulty server that passes another server's challenge on gains nothing, since the signature names the server.
Until `Welcome` everything is small, short-lived and counted (`bft.transport.listener`).

A replica that is to join is in nobody's membership yet: it shows a *voucher*, by which an administrator (or the key
that it is to replace) lets the holder of a key in under a name. It may listen and fetch; voting is another matter.

A dialer whose pin does not fit, since the members or their keys have changed meanwhile, names nobody and signs nothing:
it asks a stranger for links (`WhoAreYou` ... `EpochProof`), which prove themselves, and dials again with what they say.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Protocol, TypeVar

import anyio
import msgspec
from msgspec import Meta

from bft.crypto.keys import KeyPair
from bft.crypto.signatures import Ed25519Verifier, is_valid_key, sender_bytes, verify_signed
from bft.crypto.tls import certificate_key, vouches_for
from bft.errors import TransportError
from bft.ids import (
    U63,
    ClientId,
    DigestBytes,
    KeyBytes,
    Peer,
    ReplicaId,
    ReplicaIndex,
    SignatureBytes,
    peer_name,
    printable,
)
from bft.messages import EpochLink, EpochProof, Message
from bft.transport.channel import Channel
from bft.wire.codec import DECODE_ERRORS, encode

T = TypeVar("T")
HELLO_DOMAIN = b"bft/1 hello\0"
VOUCHER_DOMAIN = b"bft/1 voucher\0"
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


class Voucher(Message, frozen=True):
    """A signature by `by`, an administrator or the key that is replaced, under `voucher_bytes`."""

    by: KeyBytes
    signature: SignatureBytes


class LearnerHello(Message, frozen=True, tag=65):
    """The answer of a replica that is to join, or to come back, with a key that no epoch names yet."""

    replica: ReplicaIndex
    key: KeyBytes
    voucher: Voucher
    signature: SignatureBytes


class WhoAreYou(Message, frozen=True, tag=66):
    """The answer of somebody who wants the links from epoch `epoch` on, and nothing else."""

    epoch: U63


class Welcome(Message, frozen=True, tag=63):
    """The server knows the dialer; frames may follow."""


class Refused(Message, frozen=True, tag=64):
    """The server closes, and why."""

    reason: Annotated[str, Meta(max_length=200)]


_challenge = msgspec.msgpack.Decoder(Challenge)
_hello = msgspec.msgpack.Decoder(ReplicaHello | ClientHello | LearnerHello | WhoAreYou)
_answer = msgspec.msgpack.Decoder(Welcome | Refused)
_links = msgspec.msgpack.Decoder(EpochProof | Refused)


class Visited(TransportError):
    """The dialer wanted links, and has them."""


class WrongIdentity(TransportError):
    """The server holds another key than the one expected, or does not let us in: the membership may have changed."""


class Prover(Protocol):
    """Signs a hello: a `KeyPair`, or an agent that holds one."""

    @property
    def public(self) -> bytes:
        """The 32-byte public key."""
        ...

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
        voucher: lets a replica in whose key no epoch names yet.
    """

    cluster_id: bytes
    me: Peer
    keys: Prover
    voucher: Voucher | None = None


def _no_links(epoch: int) -> Sequence[EpochLink]:
    return ()


@dataclass(slots=True)
class Host:
    """Who listens, and who is let in: changed in place when the epoch changes.

    Attributes:
        cluster_id: 32 bytes.
        me: the listening replica.
        context: from `bft.crypto.tls.server_context`.
        verifier: knows replicas' and clients' keys.
        vouching: keys of administrators.
        former: ids that were removed, for whom nobody's word is good any more: ids are never used again.
        links: the links from an epoch on, for whoever asks.
    """

    cluster_id: bytes
    me: ReplicaId
    context: ssl.SSLContext
    verifier: Ed25519Verifier
    vouching: frozenset[bytes] = frozenset()
    former: frozenset[int] = frozenset()
    links: Callable[[int], Sequence[EpochLink]] = _no_links


def hello_bytes(cluster_id: bytes, server: ReplicaId, nonce: bytes, dialer: Peer) -> bytes:
    """What a dialer signs."""
    return HELLO_DOMAIN + cluster_id + server.to_bytes(4, "big") + nonce + sender_bytes(dialer)


def voucher_bytes(cluster_id: bytes, replica: int, key: bytes) -> bytes:
    """What is signed to let the holder of `key` in as `replica`."""
    return VOUCHER_DOMAIN + cluster_id + replica.to_bytes(4, "big") + key


def vouch(cluster_id: bytes, replica: int, key: bytes, by: KeyPair) -> Voucher:
    """Let the holder of `key` in as `replica`, until it is a member."""
    return Voucher(by.public, by.sign(voucher_bytes(cluster_id, replica, key)))


async def introduce(
    channel: Channel, identity: Identity, server: ReplicaId, server_key: bytes, frame_bytes_max: int
) -> None:
    """The dialer's side, on a fresh channel; frames up to `frame_bytes_max` bytes are allowed once the key is right.

    Raises:
        WrongIdentity: the server holds another key, or refuses us.
        TransportError: the server is of another cluster, or went away.
    """
    await channel.handshake()
    where = f"{peer_name(server)} at {channel.address}"
    certificate = channel.certificate or b""
    if not vouches_for(server_key, certificate):
        shown = certificate_key(certificate)
        found = "no Ed25519 key" if shown is None else f"key {shown.hex()}"
        raise WrongIdentity(f"{where} shows {found}, expected is {server_key.hex()}")
    channel.allow_frames(frame_bytes_max)
    challenge = _decoded(_challenge, await channel.receive_one(), where)
    if challenge.cluster != identity.cluster_id:
        raise TransportError(
            f"{where} runs cluster {challenge.cluster.hex()}, the cluster file has id {identity.cluster_id.hex()}"
        )
    signature = identity.keys.sign(hello_bytes(identity.cluster_id, server, challenge.nonce, identity.me))
    channel.send([encode(_hello_of(identity, signature))])
    answer = _decoded(_answer, await channel.receive_one(), where)
    if isinstance(answer, Refused):
        raise WrongIdentity(f"{where} refuses {peer_name(identity.me)}: {printable(answer.reason)}")


def _hello_of(identity: Identity, signature: bytes) -> ReplicaHello | ClientHello | LearnerHello:
    me = identity.me
    if not isinstance(me, int):
        return ClientHello(me, signature)
    if identity.voucher is None:
        return ReplicaHello(me, signature)
    return LearnerHello(me, identity.keys.public, identity.voucher, signature)


async def inquire(channel: Channel, cluster_id: bytes, epoch: int, frame_bytes_max: int) -> tuple[EpochLink, ...]:
    """The asker's side, on a fresh channel: the links from `epoch` on, unproven, from a server that may be anybody.

    Raises:
        TransportError: the server is of another cluster, does not answer, or went away.
    """
    await channel.handshake()
    channel.allow_frames(frame_bytes_max)
    challenge = _decoded(_challenge, await channel.receive_one(), channel.address)
    if challenge.cluster != cluster_id:
        raise TransportError(f"{channel.address} runs cluster {challenge.cluster.hex()}, not {cluster_id.hex()}")
    channel.send([encode(WhoAreYou(epoch))])
    answer = _decoded(_links, await channel.receive_one(), channel.address)
    return answer.links if isinstance(answer, EpochProof) else ()


async def interview(channel: Channel, host: Host) -> Peer:
    """The server's side, on a fresh channel, up to but without `Welcome`: the caller decides whether there is room.

    Raises:
        Visited: the dialer wanted links only.
        TransportError: the dialer cannot say who it is, is nobody we let in, or went away.
    """
    await channel.handshake()
    nonce = os.urandom(32)
    channel.send([encode(Challenge(host.cluster_id, nonce))])
    hello = _decoded(_hello, await channel.receive_one(), channel.address)
    if isinstance(hello, WhoAreYou):
        await _show_links(channel, host.links(hello.epoch))
        raise Visited(f"{channel.address} asked for links and went")
    dialer: Peer = ClientId(hello.key) if isinstance(hello, ClientHello) else ReplicaId(hello.replica)
    key = _key_of(hello, host)
    if key is None:
        refuse(channel, "unknown key: neither a member of the present epoch nor a client that is let in")
        raise TransportError(f"{channel.address} says it is {peer_name(dialer)}, which is not let in")
    if not verify_signed(key, hello.signature + hello_bytes(host.cluster_id, host.me, nonce, dialer)):
        refuse(channel, "the signature under the hello does not verify")
        raise TransportError(f"{channel.address} says it is {peer_name(dialer)}, but cannot sign as such")
    channel.proven = key
    return dialer


def _key_of(hello: ReplicaHello | ClientHello | LearnerHello, host: Host) -> bytes | None:
    """The key that must have signed the hello; None if its holder is not let in."""
    if isinstance(hello, ClientHello):
        return hello.key if host.verifier.may_use(hello.key) else None
    if isinstance(hello, ReplicaHello):
        return host.verifier.replica_key(hello.replica) if hello.replica != host.me else None
    voucher = hello.voucher
    if hello.replica == host.me or hello.replica in host.former or not is_valid_key(hello.key):
        return None
    if voucher.by not in host.vouching and voucher.by != host.verifier.replica_key(hello.replica):
        return None
    covered = voucher_bytes(host.cluster_id, hello.replica, hello.key)
    return hello.key if verify_signed(voucher.by, voucher.signature + covered) else None


async def _show_links(channel: Channel, links: Sequence[EpochLink]) -> None:
    """Answer somebody who wants links, and wait until it has them: closing at once could take them back."""
    channel.send([encode(EpochProof(tuple(links)) if links else Refused("there is no later epoch"))])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(channel.run_writer)
        with suppress(TransportError):
            await channel.receive_one()
        tasks.cancel_scope.cancel()


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
    except DECODE_ERRORS as error:
        raise TransportError(f"{where} does not follow the handshake: {error}") from error
