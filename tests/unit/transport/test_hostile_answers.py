"""Whoever answers at a member's address may be anybody: a dialer ends its attempt with `TransportError`, and lives."""

from __future__ import annotations

import random
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from bft.crypto.keys import KeyPair, save_key
from bft.crypto.tls import certificate_key, vouches_for
from bft.errors import TransportError
from bft.ids import ReplicaId
from bft.transport.dial import ask_for_links, connect, dial
from bft.transport.frames import pack
from bft.transport.handshake import Challenge, Identity, Refused
from bft.wire.codec import encode
from tests.unit.transport.rig import ALICE, CLUSTER, KEYS

DER = x509.load_pem_x509_certificate(KEYS[0].certificate_pem("r0")).public_bytes(Encoding.DER)
VERSION = bytes.fromhex("a003020102")
"""How DER says that a certificate is of version 3."""


def of_version_four(der: bytes) -> bytes:
    return der.replace(VERSION, VERSION[:-1] + b"\x03", 1)


@contextmanager
def answering(folder: Path, *frames: bytes, change: Callable[[bytes], bytes] = lambda der: der) -> Iterator[int]:
    """A TLS server under replica 0's key that says these frames to everybody, with a certificate of its own making."""
    key, pem = folder / "key.pem", folder / "certificate.pem"
    save_key(key, KEYS[0])
    pem.write_text(ssl.DER_cert_to_PEM_cert(change(DER)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)

    def serve() -> None:
        while True:
            try:
                sock, _ = server.accept()
                with context.wrap_socket(sock, server_side=True) as tls:
                    for frame in frames:
                        tls.sendall(pack([frame]))
                        tls.recv(4096)
            except ssl.SSLError:
                continue
            except OSError:
                if server.fileno() < 0:
                    return

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    thread.join(5)


async def dial_it(port: int) -> None:
    identity = Identity(CLUSTER, ReplicaId(1), KEYS[1])
    await dial("127.0.0.1", port, server=ReplicaId(0), server_key=KEYS[0].public, identity=identity)


async def ask_it(port: int) -> None:
    await ask_for_links("127.0.0.1", port, CLUSTER, 0)


CHALLENGE = encode(Challenge(CLUSTER, b"n" * 32))
BAD_TEXT = encode(Refused("abcd")).replace(b"abcd", b"\xff\xfe\xfd\xfc")


@pytest.mark.parametrize("attempt", [dial_it, ask_it])
@pytest.mark.parametrize(
    "frames", [(BAD_TEXT,), (CHALLENGE, BAD_TEXT), (b"\x91" * 400,), (CHALLENGE, b"\xdf\xff\xff\xff\xff")]
)
async def test_answer_that_does_not_decode_ends_the_attempt(
    tmp_path: Path, attempt: Callable[[int], object], frames: tuple[bytes, ...]
) -> None:
    """A text that is no UTF-8, nesting without end, a map without end: msgspec has several words for it."""
    with answering(tmp_path, *frames) as port, pytest.raises(TransportError):
        await attempt(port)  # type: ignore[misc]


async def test_reason_of_a_refusal_forges_no_line_of_the_log(tmp_path: Path) -> None:
    """The failure is logged and shown on terminals: what the other side says must neither end a line nor command."""
    refusal = encode(Refused("no\n2026-01-01 ERROR all is lost \x1b[2J\u202e"))
    with answering(tmp_path, CHALLENGE, refusal) as port, pytest.raises(TransportError) as failure:
        await dial_it(port)
    assert str(failure.value).endswith("refuses r1: no?2026-01-01 ERROR all is lost ?[2J?")


@pytest.mark.parametrize("attempt", [dial_it, ask_it])
async def test_certificate_of_an_unknown_version_ends_the_attempt(
    tmp_path: Path, attempt: Callable[[int], object]
) -> None:
    """TLS does not mind: whether the key is the right one is for us to say."""
    with answering(tmp_path, CHALLENGE, change=of_version_four) as port, pytest.raises(TransportError):
        await attempt(port)  # type: ignore[misc]


def test_no_certificate_raises() -> None:
    """Every byte of it may be anything."""
    assert of_version_four(DER) != DER
    dice = random.Random(7)
    assert certificate_key(of_version_four(DER)) is None
    assert not vouches_for(ALICE.public, of_version_four(DER))
    for _ in range(3000):
        changed = bytearray(DER)
        for _ in range(dice.randint(1, 3)):
            changed[dice.randrange(len(changed))] = dice.randrange(256)
        key = certificate_key(bytes(changed[: dice.choice((len(changed), dice.randrange(len(changed))))]))
        assert key is None or len(key) == 32
        vouches_for(ALICE.public, bytes(changed))


async def test_no_descriptor_left_is_a_connection_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dialing goes on later, when there are some again."""

    def exhausted(*arguments: object) -> socket.socket:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("bft.transport.dial.socket.socket", exhausted)
    with pytest.raises(TransportError, match="Too many open files"):
        await connect("127.0.0.1", 9)


def test_key_pairs_differ() -> None:
    """The rig's keys are those that the certificates are about."""
    assert KeyPair.of_seed(KEYS[0].seed).public == KEYS[0].public == certificate_key(DER)
