"""Ask replicas how they are, over an authenticated connection each: what `status` shows.

An account is a replica's own word: a lying one may say anything, and nothing but tables for people is built on it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from bft.config import Cluster
from bft.crypto.keys import KeyPair, load_key
from bft.epochs import genesis
from bft.errors import BFTError, KeyFileError, TransportError
from bft.headers import Member
from bft.ids import ClientId, ReplicaId, printable
from bft.membership import Quorums
from bft.messages import Probe, ProbeReply
from bft.transport.dial import dial
from bft.transport.handshake import Identity
from bft.wire.codec import Malformed, decode_packet, encode

PROBE_SECONDS = 3.0
OVERTAKEN_MANY = 5
"""A lagging replica may be overtaken a few times before it catches up; not so often."""


@dataclass(frozen=True, slots=True)
class Account:
    """What came of asking one replica.

    Attributes:
        report: its account; empty if it did not answer.
        failure: why it did not answer; empty if it did.
    """

    replica: int
    address: str
    report: dict[str, object] = field(default_factory=dict)
    failure: str = ""

    @property
    def answered(self) -> bool:
        """True if there is a report."""
        return not self.failure

    def number(self, name: str) -> int:
        """A number of the report; 0 if it is not there."""
        value = self.report.get(name)
        return value if isinstance(value, int) else 0

    @property
    def chases(self) -> str:
        """What to add to "fetches the state" when checkpoint after checkpoint is gone before it is here."""
        fetch = self.report.get("fetch")
        overtaken = fetch.get("overtaken") if isinstance(fetch, dict) else None
        if not isinstance(overtaken, int) or overtaken < OVERTAKEN_MANY:
            return ""
        return f", which changes faster than it comes: {overtaken} checkpoints were overtaken"

    def counts(self, name: str) -> dict[str, int]:
        """A table of the report, such as `rejected`."""
        value = self.report.get(name)
        if not isinstance(value, dict):
            return {}
        return {str(key): count for key, count in value.items() if isinstance(count, int)}


def probe_identity(cluster: Cluster, key_file: Path, *, required: bool, passphrase: bytes | None = None) -> Identity:
    """Who asks: the client key, or a key made up for the occasion where enrolment lets anybody in.

    Raises:
        KeyFileError: the key is missing and needed, or cannot be loaded.
    """
    if not key_file.exists() and not required and cluster.enrolment == "open":
        keys = KeyPair.generate()
    elif not key_file.exists() and cluster.enrolment == "known":
        raise KeyFileError(f"{key_file}: no such key file; this cluster answers known clients only: give --key")
    else:
        keys = load_key(key_file, passphrase)
    return Identity(cluster.id, ClientId(keys.public), keys)


async def probe_all(
    cluster: Cluster, identity: Identity, seconds: float = PROBE_SECONDS, members: Sequence[Member] | None = None
) -> list[Account]:
    """Ask all replicas of the cluster file, or these, at once; never raises for what a replica does or is."""
    accounts: list[Account] = []

    async def ask(member: Member) -> None:
        accounts.append(await probe(member, identity, seconds))

    async with anyio.create_task_group() as tasks:
        for member in genesis(cluster).members if members is None else members:
            tasks.start_soon(ask, member)
    return sorted(accounts, key=lambda account: account.replica)


def front(accounts: Sequence[Account], quorums: Quorums, name: str) -> int:
    """A slot that a correct member has reached: the f + 1st highest claim, beyond any liar's boast.

    With so few answers that all may be lies it is the lowest claim, and 0 with none.

    Args:
        accounts: what was answered; only members' count.
        quorums: the members'.
        name: of the number that is claimed: "executed", "stable".
    """
    members = [account for account in accounts if account.answered and account.replica in quorums.ids]
    claims = sorted((account.number(name) for account in members), reverse=True)
    return claims[quorums.weak - 1] if len(claims) >= quorums.weak else min(claims, default=0)


async def probe(member: Member, identity: Identity, seconds: float = PROBE_SECONDS) -> Account:
    """Ask one replica."""
    address = f"{member.host}:{member.port}"
    try:
        with anyio.fail_after(seconds):
            return Account(member.id, address, await _ask(member, identity))
    except TimeoutError:
        return Account(member.id, address, failure=f"no answer within {seconds:g} s")
    except BFTError as error:
        return Account(member.id, address, failure=str(error))
    except (Malformed, ValueError, RecursionError) as error:
        return Account(member.id, address, failure=f"its answer is malformed: {error}")


async def _ask(member: Member, identity: Identity) -> dict[str, object]:
    server = ReplicaId(member.id)
    channel = await dial(member.host, member.port, server=server, server_key=member.key, identity=identity)
    try:
        channel.send([encode(Probe(1))])
        while True:
            packet = decode_packet(await channel.receive_one())
            if isinstance(packet, ProbeReply) and packet.nonce == 1:
                break
    finally:
        channel.close()
    return report_in(packet.report)


def report_in(answer: bytes) -> dict[str, object]:
    """What a replica says of itself.

    Raises:
        TransportError: it is no JSON object.
        ValueError, RecursionError: it is no JSON.
    """
    report = _printable(json.loads(answer))
    if not isinstance(report, dict):
        raise TransportError("its answer is no JSON object")
    return report


def _printable(value: object) -> object:
    """The same with nothing in its texts that ends a line or commands a terminal."""
    match value:
        case str():
            return printable(value)
        case list():
            return [_printable(item) for item in value]
        case dict():
            return {_printable(key): _printable(item) for key, item in value.items()}
        case _:
            return value
