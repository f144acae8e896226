"""A change of membership from the command line: who signs it, who is ready, how it is ordered, when it takes effect.

What administrators sign depends on nothing but the epoch and the members to come, so that each can sign on a machine of
its own (`--sign-only`, `bft cluster submit`). That a newcomer is ready is said by the newcomer, when the change is
submitted.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import msgspec

from bft.cli.probe import Account, front, probe, probe_all
from bft.cli.terminal import passphrase_from_environment
from bft.client.client import Client
from bft.config import Cluster
from bft.crypto.keys import KeyPair, load_key
from bft.crypto.signatures import Ed25519Signer, Ed25519Verifier
from bft.epochs import SYSTEM_PREFIX, Configuration, approved, change_bytes, system_operation
from bft.errors import BFTError, ConfigError, OutcomeUnknown, Overloaded, ServiceError
from bft.headers import Member
from bft.ids import ClientId
from bft.messages import Signed
from bft.runtime.joining import ready_from
from bft.transport.handshake import Identity
from bft.wire.codec import Malformed, decode_change

ASK_SECONDS = 0.2
BEAT_SECONDS = 0.02
Say = Callable[[str], None]

REFUSALS = {
    "malformed": "the change is malformed",
    "conflict": "another change of the membership is on its way: wait until it has taken effect, and run this again",
    "other-epoch": "the membership has changed meanwhile: run this again (signatures hold for one epoch)",
    "bad-size": "a cluster has 4 to 100 replicas",
    "ids-not-ascending": "a replica is named twice",
    "key-twice": "two replicas have the same key",
    "address-twice": "two replicas have the same address",
    "bad-address": "an address has characters that no host name has",
    "id-used-before": "a replica's id was used before: ids are never used again",
    "nothing-changes": "these are the members already",
    "window-too-large": "with so many replicas a view change would not fit into a message: the cluster was set up with"
    " protocol.window too large for this size",
    "not-an-administrator": "somebody who signed is no administrator of this cluster",
    "approvals-not-ascending": "an administrator has signed twice",
    "too-few-approvals": "too few administrators have signed",
    "bad-approval": "an administrator's signature does not hold",
    "not-ready": "a replica that is to vote with a new key has not said that it is ready",
    "bad-ready": "what a replica said about being ready does not hold",
    "stale-ready": "a replica was ready too long ago: run this again",
}


class ChangeRefused(BFTError):
    """The cluster has ordered the change and refused it; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Change:
    """The members that are to follow those of an epoch.

    Attributes:
        before: the epoch that it ends.
        members: who comes, ascending by id.
    """

    before: Configuration
    members: tuple[Member, ...]

    @classmethod
    def to(cls, before: Configuration, members: Sequence[Member]) -> Change:
        """A change to these members, in any order."""
        return cls(before, tuple(sorted(members, key=lambda member: member.id)))

    @classmethod
    def rekeyed(cls, before: Configuration, member: Member, key: bytes) -> Change:
        """The same members, of which one has another key."""
        others = [other for other in before.members if other.id != member.id]
        return cls.to(before, [*others, msgspec.structs.replace(member, key=key)])

    @property
    def signed_bytes(self) -> bytes:
        """What administrators sign."""
        return change_bytes(self.before.epoch, self.members)

    @property
    def newly_keyed(self) -> list[Member]:
        """Members whose key the epoch before does not know under their id; they must say that they are ready."""
        keys = self.before.keys
        return [member for member in self.members if keys.get(member.id) != member.key]

    def describe(self) -> str:
        """In words."""
        old, new = set(self.before.quorums.ids), {member.id for member in self.members}
        keys = self.before.keys
        rekeyed = [member.id for member in self.members if member.id in old and keys[member.id] != member.key]
        parts = [
            f"{word} {', '.join(f'r{replica}' for replica in sorted(replicas))}"
            for word, replicas in (("add", new - old), ("remove", old - new), ("new key for", rekeyed))
            if replicas
        ]
        return f"epoch {self.before.epoch}: n = {len(old)} -> {len(new)}: {'; '.join(parts) or 'new addresses'}"


@dataclass(slots=True)
class Approvals:
    """Administrators' signatures under one change: administrator's key -> signature."""

    change: Change
    signatures: dict[bytes, bytes] = field(default_factory=dict)

    def sign(self, cluster: Cluster, key: KeyPair) -> None:
        """Add an administrator's. Raises as `require_administrator`."""
        require_administrator(cluster, key)
        signer = Ed25519Signer(cluster.id, ClientId(key.public), key.seed)
        self.signatures[key.public] = signer.sign(self.change.signed_bytes)

    def require_enough(self) -> None:
        """Fail early and clearly.

        Raises:
            ConfigError: too few have signed.
        """
        require_threshold(len(self.signatures), self.change.before)


def require_threshold(have: int, before: Configuration) -> None:
    """Raises ConfigError if so many administrators are too few to change the membership."""
    if have < before.threshold:
        raise ConfigError(
            f"{have} of {before.threshold} administrators have signed: give more --admin KEY, or have the others sign a"
            f" file (--sign-only FILE, bft cluster submit --approval FILE)"
        )


def load_admins(folder: Path, files: Sequence[Path]) -> list[KeyPair]:
    """Administrators' keys: those asked for, or the one that `cluster init` made.

    Raises:
        ConfigError: none is given, and none is where `cluster init` puts it.
        KeyFileError: one cannot be used.
    """
    default = folder / "keys" / "admin.pem"
    chosen = list(files) or ([default] if default.exists() else [])
    if not chosen:
        raise ConfigError(f"an administrator must sign this: give --admin KEY ({default} does not exist)")
    return [load_key(file, passphrase_from_environment()) for file in chosen]


def require_administrators(cluster: Cluster) -> None:
    """Raises ConfigError where nobody may change the membership."""
    if not cluster.admin:
        raise ConfigError(
            f"cluster {cluster.name} has no administrators: its membership cannot change"
            f" (bft cluster init --admins 1 makes one that can)"
        )


def require_administrator(cluster: Cluster, key: KeyPair) -> None:
    """Raises ConfigError if a key is none that may change the membership."""
    if key.public not in cluster.admin_keys:
        raise ConfigError(f"the key {key.public_hex} is no administrator's of cluster {cluster.name}")


# --- files of signatures --------------------------------------------------------------------------------------------


def save_approvals(file: Path, approvals: Approvals) -> None:
    """Write a change and its signatures, for other administrators to sign; signatures there already are kept.

    Raises:
        ConfigError: the file is about another change, or cannot be written.
    """
    if file.exists():
        other = load_approvals(file, approvals.change.before)
        if other.change.signed_bytes != approvals.change.signed_bytes:
            raise ConfigError(f"{file}: is about another change ({other.change.describe()})")
        approvals.signatures = {**other.signatures, **approvals.signatures}
    tree = {
        "what": approvals.change.describe(),
        "change": approvals.change.signed_bytes.hex(),
        "approvals": {key.hex(): signature.hex() for key, signature in sorted(approvals.signatures.items())},
    }
    try:
        file.write_text(json.dumps(tree, indent=2) + "\n")
    except OSError as error:
        raise ConfigError(f"{file}: cannot be written: {error.strerror}") from error


def load_approvals(file: Path, before: Configuration) -> Approvals:
    """Read a change and its signatures.

    Raises:
        ConfigError: the file cannot be read, is malformed, or is about another epoch.
    """
    try:
        tree = json.loads(file.read_text())
        change = decode_change(bytes.fromhex(tree["change"]))
        signatures = {bytes.fromhex(key): bytes.fromhex(value) for key, value in tree["approvals"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, Malformed) as error:
        raise ConfigError(f"{file}: is no file of approvals: {error}") from error
    if change.epoch != before.epoch:
        raise ConfigError(f"{file}: was signed in epoch {change.epoch}, the cluster is in epoch {before.epoch}")
    return Approvals(Change(before, change.members), signatures)


def require_sound(cluster: Cluster, approvals: Approvals, where: str) -> None:
    """Check signatures that came from a file.

    Raises:
        ConfigError: one is not an administrator's, or does not hold.
    """
    verifier = Ed25519Verifier(cluster.id, (), None)
    for key, signature in approvals.signatures.items():
        if key not in approvals.change.before.admins:
            raise ConfigError(f"{where}: {key.hex()} is no administrator of cluster {cluster.name}")
        if not verifier.verify_key(key, key, approvals.change.signed_bytes, signature):
            raise ConfigError(f"{where}: the signature of {key.hex()} does not hold")


# --- who is ready ---------------------------------------------------------------------------------------------------


async def wait_ready(
    change: Change,
    cluster: Cluster,
    identity: Identity,
    seconds: float,
    say: Say,
    *,
    at: dict[int, bytes] | None = None,
    ended: Callable[[int], str] = lambda replica: "",
) -> tuple[Signed, ...]:
    """Wait until every replica that is to vote with a new key says so, and is not far behind the others.

    Args:
        cluster: its window is by how many slots they may lag.
        identity: who asks them.
        at: the key that a replica shows now, where it is another than the one that it is to have.
        ended: what a replica's process said when it ended; empty while it runs, or is none of ours.

    Raises:
        BFTError: one is not ready in time; the text says why.
    """
    words: dict[int, tuple[Signed, ...]] = {}
    waiting = {member.id: member for member in change.newly_keyed}
    last: dict[int, str] = {}
    with anyio.move_on_after(seconds):
        while waiting:
            members = await probe_all(cluster, identity, seconds=1.0, members=change.before.members)
            stable = front(members, change.before.quorums, "stable")
            for replica, member in list(waiting.items()):
                shown = member if at is None or replica not in at else msgspec.structs.replace(member, key=at[replica])
                account = await probe(shown, identity, seconds=2.0)
                found = _is_ready(account, change, member, stable - cluster.protocol.window)
                if isinstance(found, str):
                    if words_at_end := ended(replica):
                        raise BFTError(f"replica {replica} ended, so nothing was changed: {words_at_end}")
                    if found != last.get(replica):
                        say(f"r{replica}: {found}")
                    last[replica] = found
                    continue
                say(f"r{replica} is ready: it holds the state at slot {account.number('stable')}")
                words[replica] = found
                del waiting[replica]
            if waiting:
                await anyio.sleep(ASK_SECONDS)
    if waiting:
        reasons = "; ".join(f"r{replica}: {last.get(replica, 'no answer')}" for replica in sorted(waiting))
        raise BFTError(f"not ready within {seconds:g} s, so nothing was changed: {reasons}")
    return tuple(word for replica in sorted(words) for word in words[replica])


def _is_ready(account: Account, change: Change, member: Member, floor: int) -> tuple[Signed, ...] | str:
    """The replica's words; or why it is not ready."""
    if not account.answered:
        return account.failure
    if account.number("epoch") != change.before.epoch:
        return f"is in epoch {account.number('epoch')} still, the cluster is in {change.before.epoch}"
    if account.report.get("fetching") is not None:
        return f"fetches the state{account.chases}"
    if account.number("stable") < floor:
        return f"has the state at slot {account.number('stable')}, the others are beyond {floor}"
    words = ready_from(account.report.get("ready"))
    return words if words and words[-1].sender == member.id else "does not say that it is ready"


# --- the change itself ----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Activation:
    """How a change took effect.

    Attributes:
        epoch: the epoch that began.
        ordered: the slot that executed the change.
        last: the last slot of the epoch before.
        seconds: from submission to the new epoch's first answer.
        stall_ms: the longest pause between two answers of the cluster in that time, to one caller.
    """

    epoch: int
    ordered: int
    last: int
    seconds: float = 0.0
    stall_ms: float = 0.0

    def tree(self) -> dict[str, object]:
        """Plain data."""
        return {
            "epoch": self.epoch,
            "ordered_at": self.ordered,
            "activation_slot": self.last,
            "seconds": round(self.seconds, 3),
            "stall_ms": round(self.stall_ms, 1),
        }


async def carry_out(
    client: Client, approvals: Approvals, ready: Sequence[Signed], seconds: float, say: Say
) -> Activation:
    """Order a change, and wait until the next epoch answers.

    Raises:
        ChangeRefused: the cluster refused it.
        OutcomeUnknown: it was not ordered, or not activated, within `seconds`: ask `bft cluster members`.
    """
    started = time.monotonic()
    operation = system_operation(approved(approvals.change.signed_bytes, approvals.signatures, ready))
    try:
        result = await client.call(operation, timeout=seconds)
    except ServiceError as error:
        raise _refusal(error) from error
    epoch, last = msgspec.msgpack.decode(result.value, type=tuple[int, int])
    activation = Activation(epoch, result.seq, last)
    say(f"ordered at slot {result.seq}: epoch {epoch - 1} ends with slot {last}")
    await _beat_until(client, activation, started + seconds, say)
    activation.seconds = time.monotonic() - started
    return activation


def _refusal(error: ServiceError) -> BFTError:
    if error.code != "ReconfigureRefused":
        return error
    return ChangeRefused(f"refused ({error.detail}): {REFUSALS.get(error.detail, 'the replicas give no other reason')}")


async def _beat_until(client: Client, activation: Activation, deadline: float, say: Say) -> None:
    """Have something ordered again and again until the next epoch orders it: that it pauses is the stall.

    What is ordered is a change that cannot be decoded: every replica refuses it alike, whatever the service is.
    """
    answered = time.monotonic()
    told = 0.0
    while True:
        client.ask_for_epochs()
        is_new = client.configuration.epoch >= activation.epoch
        try:
            await client.call(SYSTEM_PREFIX, timeout=max(deadline - time.monotonic(), BEAT_SECONDS))
        except ServiceError:
            now = time.monotonic()
            activation.stall_ms = max(activation.stall_ms, (now - answered) * 1e3)
            answered = now
        except (OutcomeUnknown, Overloaded) as error:
            if time.monotonic() >= deadline:
                raise OutcomeUnknown(
                    f"the change was ordered at slot {activation.ordered}, but slot {activation.last}, after which it"
                    f" takes effect, has not come in time ({error}): ask bft cluster members"
                ) from error
        if is_new:
            return
        if answered - told >= 1.0:
            told = answered
            say(f"slot {client.position} of {activation.last}")
        await anyio.sleep(BEAT_SECONDS)
