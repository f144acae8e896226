"""The replica's side of a signing agent: a `Signer` whose key lives in another process.

Calls wait for the agent, in the replica's own thread: the core signs in the middle of a step. An agent that was killed
has a few seconds to come back, in which the replica stands still; a refusal is for ever, and stops the replica.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import msgspec

from bft.errors import SigningError
from bft.events import Record, Recovered, Stable
from bft.ports import Store
from bft.signing.frames import (
    ANSWER_BYTES_MAX,
    LENGTH,
    Answer,
    Certificate,
    Certify,
    Denied,
    Hello,
    Identified,
    Open,
    Opened,
    Report,
    Reported,
    Request,
    Sign,
    Signatures,
    Who,
    decode_answer,
    pack,
)
from bft.signing.rules import CODES
from bft.wire.codec import DECODE_ERRORS

T = TypeVar("T", Identified, Certificate, Opened, Signatures, Reported)
ANSWER_SECONDS = 10.0
RETURN_SECONDS = 5.0
"""How long a replica waits for its agent to come back."""
RETRY_SECONDS = 0.05
SCHEME = "unix:"


class AgentSigner:
    """Signs for one replica through its agent.

    Attributes:
        stable: stable checkpoint that is durable in the store; the next request tells it to the agent.
    """

    def __init__(self, path: Path, *, seconds: float = RETURN_SECONDS) -> None:
        """Connect to the agent that listens at `path`, within `seconds`.

        Raises:
            SigningError: nobody listens there, or it speaks something else.
        """
        self._path = path
        self._seconds = seconds
        self._socket: socket.socket | None = None
        self._opening: Open | None = None
        self._given_up: SigningError | None = None
        self.stable = 0
        found = self._ask(Who(), Identified)
        self.cluster_id, self.replica, self.public = found.cluster, found.replica, found.public

    # --- what it signs --------------------------------------------------------------------------------------------

    def open(self, store: str, stable: int) -> Opened:
        """Begin to vote with a store; returns what was signed before and may be missing in it.

        Raises:
            SigningError: the agent refuses this store, or another process votes.
        """
        request = Open(self.cluster_id, self.replica, store, stable)
        found = self._ask(request, Opened)
        self.stable = stable
        self._opening = request
        return found

    def sign(self, payload: bytes, /) -> bytes:
        """64-byte signature of a message of the protocol.

        Raises:
            SigningError: the agent refuses, or does not come back.
        """
        return self.sign_many((payload,))[0]

    def sign_many(self, payloads: Sequence[bytes], /) -> tuple[bytes, ...]:
        """Signatures of several messages, for one wait and one write: all or none. Raises as `sign`."""
        signatures = self._ask(Sign(self.stable, tuple(payloads)), Signatures).signatures
        if len(signatures) != len(payloads):
            raise self._broken(f"{len(signatures)} signatures for {len(payloads)} messages")
        return signatures

    def certificate(self, endpoint: bytes) -> bytes:
        """A DER certificate over a TLS key of this process. Raises as `sign`."""
        return self._ask(Certify(endpoint), Certificate).der

    def prove(self, data: bytes, /) -> bytes:
        """Signature under a hello. Raises as `sign`."""
        return self._ask(Hello(data), Signatures).signatures[0]

    def report(self) -> dict[str, object]:
        """The agent's counters. Raises as `sign`."""
        found = msgspec.json.decode(self._ask(Report(), Reported).text)
        assert isinstance(found, dict), "our own agent reports an object"
        return found

    def close(self) -> None:
        """Leave the agent; another process may vote then."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __enter__(self) -> AgentSigner:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    # --- asking ---------------------------------------------------------------------------------------------------

    def _ask(self, request: Request, kind: type[T]) -> T:
        """Ask, and ask again on a new connection if the agent has gone meanwhile: every request may be repeated."""
        if self._given_up is not None:  # what still runs in a replica that stops must not wait once more each
            raise self._given_up
        deadline = time.monotonic() + self._seconds
        while True:
            try:
                answer = self._exchange(request)
            except OSError as error:
                self.close()
                if time.monotonic() >= deadline:
                    self._given_up = SigningError(
                        "unavailable", f"{self._path}: the signing agent does not answer: {error.strerror or error}"
                    )
                    raise self._given_up from error
                time.sleep(RETRY_SECONDS)
                continue
            if isinstance(answer, Denied):
                meaning = CODES.get(answer.code, "the agent refuses")
                raise SigningError(answer.code, f"{self._path}: {meaning}: {answer.detail}")
            if not isinstance(answer, kind):
                raise self._broken(f"{type(answer).__name__} where {kind.__name__} was expected")
            return answer

    def _exchange(self, request: Request) -> Answer:
        if self._socket is None:
            self._connect()
        assert self._socket is not None, "connected above"
        self._socket.sendall(pack(request))
        return self._receive(self._socket)

    def _connect(self) -> None:
        """Connect; after the first `open`, open again as what the replica has become."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(ANSWER_SECONDS)
        try:
            sock.connect(str(self._path))
            if self._opening is not None:
                again = Open(self.cluster_id, self.replica, self._opening.store, self.stable)
                sock.sendall(pack(again))
                answer = self._receive(sock)
                if isinstance(answer, Denied):
                    raise SigningError(answer.code, f"{self._path}: {CODES.get(answer.code, '')}: {answer.detail}")
        except BaseException:  # also an interrupt must not leave the socket open
            sock.close()
            raise
        self._socket = sock

    def _receive(self, sock: socket.socket) -> Answer:
        (length,) = LENGTH.unpack(_exactly(sock, LENGTH.size))
        if length > ANSWER_BYTES_MAX:
            raise self._broken(f"an answer of {length} bytes")
        try:
            return decode_answer(_exactly(sock, length))
        except DECODE_ERRORS as error:
            raise self._broken(str(error)) from error

    def _broken(self, why: str) -> SigningError:
        return SigningError("protocol", f"{self._path}: this is no signing agent: {why}")


class FollowedStore:
    """A store that tells the signer which stable checkpoint is durable by now: the agent forgets what is below.

    Safety: the floor is raised after the write, never before. Else a replica that dies between the two would come back
    with a store that the agent takes for rolled back.
    """

    def __init__(self, store: Store, signer: AgentSigner) -> None:
        """Follow the writes to `store`."""
        self._store = store
        self._signer = signer

    @property
    def store_id(self) -> str:
        """See `bft.ports.Store`."""
        return self._store.store_id

    def load(self) -> Recovered:
        """See `bft.ports.Store`."""
        return self._store.load()

    def write(self, records: Sequence[Record], /) -> None:
        """See `bft.ports.Store`."""
        self._store.write(records)
        for record in records:
            if isinstance(record, Stable):
                self._signer.stable = max(self._signer.stable, record.seq)

    def read_pages(self, digests: Sequence[bytes], /) -> list[bytes]:
        """See `bft.ports.Store`."""
        return self._store.read_pages(digests)

    def kept_pages(self) -> list[bytes]:
        """See `bft.ports.Store`."""
        return self._store.kept_pages()

    def damaged(self, digests: Sequence[bytes], /) -> list[bytes]:
        """See `bft.ports.Store`."""
        return self._store.damaged(digests)

    def read_manifest(self, digest: bytes, /) -> bytes | None:
        """See `bft.ports.Store`."""
        return self._store.read_manifest(digest)

    def close(self) -> None:
        """See `bft.ports.Store`."""
        self._store.close()


def socket_path(signer: str) -> Path:
    """The path in `unix:/path`."""
    assert signer.startswith(SCHEME), f"the configuration checks the form of {signer!r}"
    return Path(signer.removeprefix(SCHEME))


def _exactly(sock: socket.socket, count: int) -> bytes:
    found = bytearray()
    while len(found) < count:
        part = sock.recv(min(count - len(found), 1 << 20))
        if not part:
            raise ConnectionResetError("the connection ended")
        found += part
    return bytes(found)
