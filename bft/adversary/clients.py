"""Hostile clients: they hold their own key, and no replica's (C01-C12 of the catalogue).

Expected of the cluster, whatever they do: correct clients are served, no operation executes twice, no replica fails,
tables stay bounded. What becomes of the hostile client's own operations is its own affair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random

import msgspec

from bft.errors import ConfigError
from bft.ids import Nanos
from bft.messages import FetchEvents, Packet, Query, Request, SignedRequest
from bft.ports import Signer
from bft.wire.codec import encode

Sends = Iterator[tuple[int, Packet]]
OLD_MAX = 64


@dataclass(slots=True)
class Hostile:
    """What a hostile client knows and can do.

    Attributes:
        session: its present incarnation.
        number: the next operation's number.
        old: envelopes made before, oldest first.
        window: the cluster's session window.
        mint: makes another key; with open enrolment they are free. None where the cluster knows its clients.
    """

    client: bytes
    signer: Signer
    n: int
    random: Random
    now: Nanos
    session: int
    number: int = 1
    old: list[SignedRequest] = field(default_factory=list)
    window: int = 64
    mint: Callable[[], tuple[bytes, Signer]] | None = None

    def operation(self) -> bytes:
        """A write to keys of this client's own, so that checkers without the agreed log can leave it aside."""
        return msgspec.msgpack.encode(["put", f"h{self.random.randrange(4)}", f"hostile-{self.random.randrange(1000)}"])

    def signed(self, request: Request) -> SignedRequest:
        """An envelope under the own signature, remembered for replays."""
        payload = encode(request)
        packet = SignedRequest(self.client, payload, self.signer.sign(payload))
        self.old = [*self.old[-OLD_MAX:], packet]
        return packet

    def envelope(self, operations: int = 1, after: tuple[int, ...] = ()) -> SignedRequest:
        """The next envelope of the session, as a correct client makes it."""
        number = self.number
        self.number += operations
        acknowledged = max(1, number - 32)
        content = tuple(self.operation() for _ in range(operations))
        return self.signed(Request(self.session, number, acknowledged, content, after))

    def to_all(self, packet: Packet) -> Sends:
        """The same to every replica."""
        for replica in range(self.n):
            yield replica, packet


def two_faces(hostile: Hostile) -> Sends:
    """Two operations under one number, to different replicas (C01)."""
    first = hostile.envelope()
    hostile.number -= 1
    second = hostile.envelope()
    for replica in range(hostile.n):
        yield replica, first if replica % 2 else second


def skip_numbers(hostile: Hostile) -> Sends:
    """Numbers with gaps, outside the window; acknowledgements ahead of themselves and backwards (C02)."""
    random = hostile.random
    number = max(1, hostile.number + random.choice((-3, 0, 1, 5, 63, 64, 65, 1000, 1 << 40)))
    acknowledged = max(0, number + random.choice((-70, -64, -5, 0, 1)))
    hostile.number += 1
    request = Request(hostile.session, number, acknowledged, (hostile.operation(),), ())
    yield from hostile.to_all(hostile.signed(request))


def never_acknowledge(hostile: Hostile) -> Sends:
    """Full windows of results that are never acknowledged (C03)."""
    number = (hostile.number - 1) % 64 + 1
    hostile.number += 8
    operations = tuple(hostile.operation() for _ in range(min(8, 65 - number)))
    yield from hostile.to_all(hostile.signed(Request(hostile.session, number, 1, operations, ())))


def one_backup(hostile: Hostile) -> Sends:
    """Requests to one replica only, a backup as often as not (C04, C05)."""
    yield hostile.random.randrange(hostile.n), hostile.envelope()


def flood(hostile: Hostile) -> Sends:
    """Valid requests, many at a time (C06)."""
    for _ in range(4):
        yield from hostile.to_all(hostile.envelope(hostile.random.randint(1, 8)))


def garbage_signatures(hostile: Hostile) -> Sends:
    """Signatures that do not hold, own or in another client's name (C07, C08)."""
    honest = hostile.envelope()
    for replica in range(hostile.n):
        flipped = bytes((honest.signature[0] ^ 1,)) + honest.signature[1:]
        yield replica, SignedRequest(honest.client, honest.payload, flipped)
        yield replica, SignedRequest(hostile.random.randbytes(32), honest.payload, honest.signature)


def huge(hostile: Hostile) -> Sends:
    """Large, empty and senseless operations (C09)."""
    random = hostile.random
    content = random.choice((b"", b"\xc1", random.randbytes(20_000), b"\x91" * 900))
    number = hostile.number
    hostile.number += 1
    yield from hostile.to_all(hostile.signed(Request(hostile.session, number, max(1, number - 32), (content,), ())))


def replay(hostile: Hostile) -> Sends:
    """The own old envelopes again, those of an earlier session too (C10)."""
    yield from hostile.to_all(hostile.envelope())
    if hostile.number % 8 == 0:
        hostile.session += 1
        hostile.number = 1
    yield from hostile.to_all(hostile.random.choice(hostile.old))


def churn(hostile: Hostile) -> Sends:
    """A new session per request, old and far ones among them (C11)."""
    hostile.session += hostile.random.choice((1, 1, 1000, -1, 7_200_000_000_000))
    hostile.number = 1
    yield from hostile.to_all(hostile.envelope())


def query_flood(hostile: Hostile) -> Sends:
    """Reads without end: of writes, of states far ahead, of nonsense (C12)."""
    for _ in range(4):
        hostile.number += 1
        floor = hostile.random.choice((0, 1, 10, 1 << 40))
        operation = hostile.random.choice((hostile.operation(), b"\xc1", b""))
        yield from hostile.to_all(Query(hostile.number, floor, bool(hostile.random.randrange(2)), (operation,)))


def crossed_lanes(hostile: Hostile) -> Sends:
    """Lanes with two successors of one operation, cycles, and predecessors that never come."""
    random = hostile.random
    number = hostile.number
    after = tuple(random.choice((0, max(0, number - 1), number, number + place - 1)) for place in range(1, 4))
    operations = tuple(hostile.operation() for _ in after)
    hostile.number += random.choice((3, 3, 4))
    request = Request(hostile.session, number, max(1, number - 32), operations, after)
    yield from hostile.to_all(hostile.signed(request))


TORRENT_ENVELOPES = 16
TORRENT_OPERATIONS = 6


def torrent(hostile: Hostile) -> Sends:
    """More valid requests than the cluster can order, and now and then one that the first primary does not get (C06).

    Nothing here is invalid: a cluster without fair shares serves nobody else, and one whose backups count every
    request's age takes a primary that is merely busy for one that censors.
    """
    for place in range(TORRENT_ENVELOPES):
        number = hostile.number
        hostile.number += TORRENT_OPERATIONS
        acknowledged = max(1, hostile.number - hostile.window + 1)
        content = tuple(hostile.operation() for _ in range(TORRENT_OPERATIONS))
        packet = hostile.signed(Request(hostile.session, number, acknowledged, content, ()))
        for replica in range(0 if place else 1, hostile.n):
            yield replica, packet


def reuse_numbers(hostile: Hostile) -> Sends:
    """Numbers again that were used before, with other operations under them and in other envelopes (C01, C02)."""
    yield from hostile.to_all(hostile.envelope(3))
    for back, count in ((3, 3), (2, 5), (1, 1)):
        number = max(1, hostile.number - back)
        content = tuple(hostile.operation() for _ in range(count))
        yield from hostile.to_all(hostile.signed(Request(hostile.session, number, max(1, number - 32), content, ())))


def never_reads(hostile: Hostile) -> Sends:
    """Asks for everything again and again, replies and events, and reads nothing of it (C03)."""
    yield from hostile.to_all(hostile.envelope(8))
    for packet in hostile.old:
        yield from hostile.to_all(packet)
    for after in range(8):
        yield from hostile.to_all(FetchEvents(hostile.session, after))


KEYS_PER_ROUND = 8
AHEAD_NS = 3_000_000_000_000


def future_sessions(hostile: Hostile) -> Sends:
    """Sessions of ever new keys, dated most of an hour ahead: to fill the table, and to push its floor (C11)."""
    for _ in range(KEYS_PER_ROUND):
        client, signer = hostile.mint() if hostile.mint is not None else (hostile.client, hostile.signer)
        hostile.number += 1
        payload = encode(Request(hostile.now + AHEAD_NS + hostile.number, 1, 1, (hostile.operation(),), ()))
        yield from hostile.to_all(SignedRequest(client, payload, signer.sign(payload)))


HOSTILE: dict[str, Callable[[Hostile], Sends]] = {
    "churn": churn,
    "crossed_lanes": crossed_lanes,
    "flood": flood,
    "future_sessions": future_sessions,
    "garbage_signatures": garbage_signatures,
    "huge": huge,
    "never_acknowledge": never_acknowledge,
    "never_reads": never_reads,
    "one_backup": one_backup,
    "query_flood": query_flood,
    "replay": replay,
    "reuse_numbers": reuse_numbers,
    "skip_numbers": skip_numbers,
    "torrent": torrent,
    "two_faces": two_faces,
}


def hostile_behaviour(name: str) -> Callable[[Hostile], Sends]:
    """The behaviour of that name.

    Raises:
        ConfigError: there is none.
    """
    found = HOSTILE.get(name)
    if found is None:
        raise ConfigError(f"no hostile client does {name!r}; there are {', '.join(HOSTILE)}")
    return found
