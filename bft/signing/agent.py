"""The signing agent: a process that holds a replica's key and signs no two votes that exclude each other.

It listens on a Unix socket of mode 0600 and asks the system whose process is at the other end (SO_PEERCRED). One
connection at a time votes. A refusal is an answer and is counted; a frame that breaks the protocol ends the connection.
The key itself never leaves: there is no request that signs arbitrary bytes.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import stat
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from bft.crypto.keys import KeyPair
from bft.crypto.signatures import Ed25519Signer, sender_bytes
from bft.crypto.tls import endpoint_certificate
from bft.errors import BFTError, StorageError
from bft.ids import DIGEST_BYTES, ReplicaId, peer_name
from bft.messages import ReplicaMessage
from bft.signing.frames import (
    FRAME_BYTES_MAX,
    LENGTH,
    PAYLOADS_MAX,
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
    decode_request,
    pack,
)
from bft.signing.guard import Guard
from bft.signing.rules import Refused
from bft.storage.guard import claim, read_mark
from bft.transport.handshake import HELLO_DOMAIN
from bft.wire.codec import DECODE_ERRORS, Malformed, decode_replica_message

CONNECTIONS_MAX = 8
SEND_SECONDS = 5.0
DETAIL_CHARACTERS_MAX = 1000
_CREDENTIALS = struct.Struct("3i")


class Agent:
    """Answers requests with one key and its guard.

    Attributes:
        counts: answers by kind, refusals as `refused-CODE`, dropped connections as `dropped-REASON`.
    """

    def __init__(self, cluster_id: bytes, replica: ReplicaId, keys: KeyPair, guard: Guard, marker: Path | None) -> None:
        """Sign as `replica` of the cluster.

        Args:
            cluster_id: 32 bytes.
            replica: whose key it is.
            keys: the key.
            guard: what was signed before.
            marker: the file beside the key that says with which store it votes, as for a key without an agent.
        """
        self._cluster_id = cluster_id
        self._replica = replica
        self._keys = keys
        self._guard = guard
        self._marker = marker
        self._signer = Ed25519Signer(cluster_id, replica, keys.seed)
        self._voter: object | None = None
        self.counts: Counter[str] = Counter()

    def answer(self, caller: object, request: Request) -> Answer:
        """Answer one request of a connection, which `caller` stands for.

        Raises:
            StorageError: the guard cannot be written; the agent must stop.
        """
        try:
            found = self._answer(caller, request)
        except Refused as refused:
            self.counts[f"refused-{refused.code}"] += 1
            return Denied(refused.code, refused.detail[:DETAIL_CHARACTERS_MAX])
        self.counts[type(request).__name__.lower()] += 1
        return found

    def forget(self, caller: object) -> None:
        """A connection has ended: another one may vote."""
        if self._voter is caller:
            self._voter = None

    def _answer(self, caller: object, request: Request) -> Answer:
        match request:
            case Who():
                return Identified(self._cluster_id, self._replica, self._keys.public)
            case Certify(endpoint):
                return Certificate(endpoint_certificate(self._keys, endpoint, peer_name(self._replica)))
            case Hello(data):
                return Signatures((self._keys.sign(self._checked_hello(data)),))
            case Open():
                return self._open(caller, request)
            case Sign():
                return self._sign(caller, request)
            case Report():
                return Reported(json.dumps(self.report()).encode())

    def report(self) -> dict[str, object]:
        """For people."""
        ledger = self._guard.ledger
        return {
            "replica": self._replica,
            "cluster": self._cluster_id.hex(),
            "public": self._keys.public_hex,
            "store": self._guard.store,
            "stable": ledger.stable,
            "votes": len(ledger.votes),
            "view": max((vote.view for vote in ledger.views.values()), default=0),
            "voting": self._voter is not None,
            "counts": dict(self.counts),
        }

    def _checked_hello(self, data: bytes) -> bytes:
        """Only a hello of this replica in this cluster: domain, cluster, server (4), nonce (32), who we are."""
        head, tail = HELLO_DOMAIN + self._cluster_id, sender_bytes(self._replica)
        if len(data) != len(head) + 4 + DIGEST_BYTES + len(tail) or not (data.startswith(head) and data.endswith(tail)):
            raise Refused("not-a-vote", "no hello of this replica")
        return data

    def _open(self, caller: object, request: Open) -> Opened:
        if (request.cluster, request.replica) != (self._cluster_id, self._replica):
            raise Refused("wrong-identity", f"this agent signs for r{self._replica} of {self._cluster_id.hex()[:12]}")
        if self._voter not in (None, caller):
            raise Refused("busy", "another connection votes")
        self._guard.check(request.store, request.stable)
        if self._marker is not None:
            self._claim(self._marker, request.store, request.stable)
        self._guard.bind(request.store, request.stable)
        self._voter = caller
        ledger = self._guard.ledger
        views = {kind: vote.payload for kind, vote in ledger.views.items()}
        proposals = tuple(ledger.proposals()[-PAYLOADS_MAX:])
        return Opened(views.get("view-change", b""), views.get("new-view", b""), proposals)

    def _claim(self, marker: Path, store: str, stable: int) -> None:
        """Before the guard is bound: a key that came from a replica's own files goes on with that replica's store."""
        try:
            mark = read_mark(marker)
        except StorageError as error:
            raise Refused("bad-marker", str(error)) from None
        if mark is not None and mark.store != store:
            raise Refused("other-store", f"{marker} says that the key was used with store {mark.store}, not {store}")
        if mark is not None and mark.refused:
            raise Refused("must-not-vote", f"{marker} says that the replica must not vote: {mark.refused}")
        if mark is not None and stable < mark.stable:
            why = f"{marker} says that checkpoint {mark.stable} was stable, the store knows {stable}: it is an old copy"
            raise Refused("rolled-back", why)
        claim(marker, store)

    def _sign(self, caller: object, request: Sign) -> Signatures:
        if self._voter is not caller:
            raise Refused("not-open", "open first")
        messages = [(self._message(payload), payload) for payload in request.payloads]
        self._guard.admit(messages, request.stable)
        self.counts["signatures"] += len(messages)
        return Signatures(tuple(self._signer.sign(payload) for payload in request.payloads))

    def _message(self, payload: bytes) -> ReplicaMessage:
        try:
            return decode_replica_message(payload)
        except Malformed as error:
            raise Refused("not-a-vote", str(error)) from None


class Connection:
    """One accepted socket: collects frames."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = bytearray()

    def requests(self) -> list[bytes] | None:
        """Whole frames that have come; None when the other side has closed.

        Raises:
            ValueError: a frame is announced that is too long.
        """
        part = self.sock.recv(1 << 20)
        if not part:
            return None
        self._buffer += part
        found = []
        while len(self._buffer) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self._buffer)
            if length > FRAME_BYTES_MAX:
                raise ValueError(f"a frame of {length} bytes, allowed are {FRAME_BYTES_MAX}")
            if len(self._buffer) < LENGTH.size + length:
                break
            found.append(bytes(self._buffer[LENGTH.size : LENGTH.size + length]))
            del self._buffer[: LENGTH.size + length]
        return found


class AgentServer:
    """Serves an agent on a Unix socket, in one thread."""

    def __init__(self, agent: Agent, path: Path, say: Callable[[str], None] = lambda text: None) -> None:
        """Bind the socket.

        Args:
            agent: who answers.
            path: of the socket; what a dead agent left there is replaced.
            say: told of connections, refusals and drops, a line each.

        Raises:
            BFTError: another agent listens there, or the socket cannot be made.
        """
        self._agent = agent
        self._path = path
        self._say = say
        self._selector = selectors.DefaultSelector()
        self._connections: dict[int, Connection] = {}
        self._listener = _listen(path)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._wake, self._waker = socket.socketpair()
        self._selector.register(self._wake, selectors.EVENT_READ)

    def stop(self) -> None:
        """Make `run` return; may be called from a signal handler or another thread."""
        self._waker.send(b"x")

    def run(self) -> None:
        """Serve until `stop`.

        Raises:
            StorageError: the guard cannot be written: nothing is signed any more.
        """
        try:
            while True:
                for key, _ in self._selector.select():
                    if key.fileobj is self._wake:
                        return
                    if key.fileobj is self._listener:
                        self._accept()
                    else:
                        self._serve(self._connections[key.fd])
        finally:
            self._close()

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:  # it went away before it was accepted
            return
        uid = _peer_uid(sock)
        if uid != os.getuid() or len(self._connections) >= CONNECTIONS_MAX:
            self._agent.counts["dropped-stranger" if uid != os.getuid() else "dropped-crowd"] += 1
            self._say(f"refused a connection of user {uid}")
            sock.close()
            return
        sock.settimeout(SEND_SECONDS)
        self._connections[sock.fileno()] = Connection(sock)
        self._selector.register(sock, selectors.EVENT_READ)

    def _serve(self, connection: Connection) -> None:
        try:
            bodies = connection.requests()
            if bodies is None:
                self._drop(connection, "")
                return
            for body in bodies:
                answer = self._agent.answer(connection, decode_request(body))
                if isinstance(answer, Denied):
                    self._say(f"refused: {answer.code}: {answer.detail}")
                connection.sock.sendall(pack(answer))
        except (*DECODE_ERRORS, ValueError) as error:
            self._drop(connection, f"malformed: {error}")
        except OSError as error:
            self._drop(connection, f"gone: {error}")

    def _drop(self, connection: Connection, why: str) -> None:
        if why:
            self._agent.counts[f"dropped-{why.partition(':')[0]}"] += 1
            self._say(f"dropped a connection: {why}")
        self._selector.unregister(connection.sock)
        del self._connections[connection.sock.fileno()]
        connection.sock.close()
        self._agent.forget(connection)

    def _close(self) -> None:
        for connection in list(self._connections.values()):
            self._drop(connection, "")
        for sock in (self._listener, self._wake, self._waker):
            sock.close()
        self._selector.close()
        self._path.unlink(missing_ok=True)


def _listen(path: Path) -> socket.socket:
    """A listening socket that only its owner can reach: made with mode 0600, not changed to it afterwards."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
            if _answers(path):
                raise BFTError(f"{path}: another agent listens here")
            path.unlink()
        mask = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(mask)
        listener.listen(CONNECTIONS_MAX)
    except OSError as error:
        listener.close()
        raise BFTError(f"{path}: the socket cannot be made: {error.strerror or error}") from error
    except BFTError:
        listener.close()
        raise
    return listener


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def _peer_uid(sock: socket.socket) -> int:
    """Whose process is at the other end, as the system knows it."""
    _, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return int(uid)
