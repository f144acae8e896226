"""Epochs: who the replicas are, how that changes, and how anybody learns of it from the cluster file alone.

PURE. An epoch is a membership, and with it quorums and primaries. A change of membership is an ordered operation that
administrators signed; executed at slot s it makes `activation(s)` the last slot of the epoch:

    upon RECONFIGURE at s:                      check it; pending = (A, operation), A = ceil_K(s + L)
    upon a strong quorum's CHECKPOINTs at A:    epoch + 1 begins at A, in view 0, with the new members

Why s + L: a replica that has not executed s has its low watermark below s, so its window ends before A: nobody votes
in the old epoch for a slot beyond A without knowing that the epoch ends there (mutant R01).

The header of the checkpoint at A names the next members, and the old ones certified it: that is a *link*. A chain of
links leads from the genesis members of the cluster file to today's (`verify_chain`), each certified by the one before.
Administrators signed every step, so keys of former replicas that leak later cannot fork the chain by themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from bft.config import Cluster, Protocol, new_view_bytes_max
from bft.digests import members_digest, state_digest
from bft.headers import Approval, Header, Member, MembershipChange, Reconfigure
from bft.ids import KEY_BYTES, SIGNATURE_BYTES, Nanos
from bft.membership import REPLICAS_MAX, REPLICAS_MIN, Quorums
from bft.messages import PAYLOAD_BYTES_MAX, Checkpoint, CheckpointCertificate, EpochLink, Signed
from bft.ports import KeyVerifier
from bft.wire.codec import Malformed, decode_change, decode_header, decode_ready, decode_reconfigure, encode

SYSTEM_PREFIX = b"\xc1bft\0"
"""Begins the operations that are not for the service: MessagePack never uses 0xc1, so no typed operation begins so."""
OPERATION_BYTES_MAX = 128 * 1024
"""A change of membership must fit into a header."""
LINKS_PER_ANSWER = 16
ANSWER_BYTES_MAX = 512 * 1024
LINK_BYTES = KEY_BYTES + SIGNATURE_BYTES
"""Who asks for links is sent no more at once; it asks again from where they lead."""
READY_WINDOWS = 8
"""A newcomer's word that it holds the state is good for this many windows of slots."""


class ChainError(ValueError):
    """A link does not follow from the one before; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """An epoch.

    Attributes:
        members: ascending by id.
        base: the slot after which the epoch begins; 0 for the first.
        former: ids of all that were members before and are no more: they are never used again.
        admins: public keys of those who may change the membership; empty if nobody may.
        threshold: how many of them must sign a change.
        quorums: the membership's thresholds.
    """

    epoch: int
    members: tuple[Member, ...]
    base: int
    former: frozenset[int]
    admins: frozenset[bytes]
    threshold: int
    quorums: Quorums = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "quorums", Quorums.among(member.id for member in self.members))

    @property
    def keys(self) -> dict[int, bytes]:
        """Public keys by replica id, 32 bytes each."""
        return {member.id: member.key for member in self.members}

    @property
    def digest(self) -> bytes:
        """32-byte digest of epoch, ids and keys; addresses may move, and cluster files may differ in them."""
        return members_digest(encode((self.epoch, [(member.id, member.key) for member in self.members])))

    @property
    def next_id(self) -> int:
        """The lowest id above all that were ever used: a good one for whoever joins."""
        return max((*self.quorums.members, *self.former)) + 1

    def member(self, replica: int) -> Member | None:
        """The member of this id, if it is one."""
        return next((member for member in self.members if member.id == replica), None)


def genesis(cluster: Cluster) -> Configuration:
    """The first epoch: the replicas of the cluster file."""
    members = tuple(Member(entry.id, bytes.fromhex(entry.key), entry.host, entry.port) for entry in cluster.replica)
    return Configuration(0, members, 0, frozenset(), cluster.admin_keys, cluster.admin_threshold)


def activation(seq: int, protocol: Protocol) -> int:
    """The last slot of an epoch whose change executes at `seq`: the first checkpoint at or beyond `seq` + L."""
    interval = protocol.checkpoint_interval
    return -(-(seq + protocol.window) // interval) * interval


# --- the operation --------------------------------------------------------------------------------------------------


def system_operation(operation: Reconfigure) -> bytes:
    """The bytes that a client submits, alone in an envelope."""
    return SYSTEM_PREFIX + encode(operation)


def open_operation(operation: bytes) -> Reconfigure | None:
    """The change in an operation that begins with `SYSTEM_PREFIX`; None if it is malformed."""
    if len(operation) > OPERATION_BYTES_MAX:
        return None
    try:
        return decode_reconfigure(operation[len(SYSTEM_PREFIX) :])
    except Malformed:
        return None


def change_bytes(epoch: int, members: Iterable[Member]) -> bytes:
    """What administrators sign to let `members` follow the members of `epoch`."""
    return encode(MembershipChange(epoch, tuple(sorted(members, key=lambda member: member.id))))


def operation_flaw(
    configuration: Configuration, operation: Reconfigure, seq: int, protocol: Protocol, verifier: KeyVerifier
) -> str | None:
    """Why a change must not follow `configuration` when it executes at `seq`; None if it may.

    A function of replicated state and of the operation's bytes alone: all correct replicas answer alike. Cheap checks
    come first, and the first signature that fails ends it.
    """
    try:
        change = decode_change(operation.change)
    except Malformed:
        return "malformed"
    if change.epoch != configuration.epoch:
        return "other-epoch"
    return (
        _members_flaw(configuration, change.members, protocol)
        or _approvals_flaw(configuration, operation, verifier)
        or _ready_flaw(configuration, change.members, operation.ready, seq, protocol, verifier)
    )


def _members_flaw(configuration: Configuration, members: Sequence[Member], protocol: Protocol) -> str | None:
    if not REPLICAS_MIN <= len(members) <= REPLICAS_MAX:
        return "bad-size"
    ids = [member.id for member in members]
    if ids != sorted(set(ids)):
        return "ids-not-ascending"
    if len({member.key for member in members}) != len(members):
        return "key-twice"
    if len({(member.host, member.port) for member in members}) != len(members):
        return "address-twice"
    if not all(member.host.isascii() and member.host.isprintable() for member in members):
        return "bad-address"
    if any(member.id in configuration.former for member in members):
        return "id-used-before"
    if tuple(members) == configuration.members:
        return "nothing-changes"
    if new_view_bytes_max(len(members), protocol.window) > PAYLOAD_BYTES_MAX:
        return "window-too-large"
    return None


def _approvals_flaw(configuration: Configuration, operation: Reconfigure, verifier: KeyVerifier) -> str | None:
    """`threshold` distinct administrators, each signature checked by itself (mutant R07)."""
    keys = [approval.key for approval in operation.approvals]
    if not configuration.admins or not configuration.admins.issuperset(keys):
        return "not-an-administrator"
    if keys != sorted(set(keys)):
        return "approvals-not-ascending"
    if len(keys) < configuration.threshold:
        return "too-few-approvals"
    for approval in operation.approvals:
        if not verifier.verify_key(approval.key, approval.key, operation.change, approval.signature):
            return "bad-approval"
    return None


def _ready_flaw(
    configuration: Configuration,
    members: Sequence[Member],
    ready: Sequence[Signed],
    seq: int,
    protocol: Protocol,
    verifier: KeyVerifier,
) -> str | None:
    """Whoever votes with a new key has said so with it, and who changes its key with the old one as well.

    A quorum of the new members must be there when the epoch begins: n = 4 -> 7 with three absent newcomers would need
    5 of 4 (mutant R08).
    """
    expected: list[tuple[int, bytes, bytes]] = []
    old = configuration.keys
    for member in members:
        before = old.get(member.id)
        if before == member.key:
            continue
        if before is not None:
            expected.append((member.id, before, member.key))
        expected.append((member.id, member.key, member.key))
    if [signed.sender for signed in ready] != [replica for replica, _, _ in expected]:
        return "not-ready"
    for signed, (replica, signing, named) in zip(ready, expected, strict=True):
        try:
            word = decode_ready(signed.payload)
        except Malformed:
            return "bad-ready"
        if (word.epoch, word.key) != (configuration.epoch, named) or word.seq > seq:
            return "bad-ready"
        if word.seq + READY_WINDOWS * protocol.window < seq:
            return "stale-ready"
        if not verifier.verify_key(signing, replica, signed.payload, signed.signature):
            return "bad-ready"
    return None


# --- the chain ------------------------------------------------------------------------------------------------------


def successor(configuration: Configuration, header: Header) -> Configuration | None:
    """The epoch that begins after the checkpoint with this header; None if it ends no epoch.

    The header is trusted: the caller has executed it, or checked a link.
    """
    pending = header.pending
    if header.epoch != configuration.epoch or pending is None or pending.activation != header.seq:
        return None
    members = decode_change(pending.operation.change).members
    former = (configuration.former | configuration.quorums.ids) - {member.id for member in members}
    return Configuration(
        configuration.epoch + 1, members, header.seq, former, configuration.admins, configuration.threshold
    )


def link_flaw(configuration: Configuration, link: EpochLink, verifier: KeyVerifier) -> str | None:
    """Why a link does not lead on from `configuration`; None if it does.

    The members certified the checkpoint (that is what makes it the end of *this* history), and the administrators
    signed who comes next. What replicas checked at execution beyond that (sizes, who is ready) a strong quorum vouches
    for.
    """
    try:
        header = decode_header(link.header)
        change = decode_change(header.pending.operation.change) if header.pending is not None else None
    except Malformed:
        return "malformed"
    if header.epoch != configuration.epoch:
        return "other-epoch"
    if header.pending is None or change is None or header.pending.activation != header.seq:
        return "ends-no-epoch"
    if header.seq <= configuration.base or header.members != configuration.digest:
        return "other-members"
    if change.epoch != configuration.epoch or not _is_membership(change.members):
        return "bad-change"
    found = _certificate_flaw(configuration, header, link, verifier)
    return found or _approvals_flaw(configuration, header.pending.operation, verifier)


def _is_membership(members: Sequence[Member]) -> bool:
    ids = [member.id for member in members]
    return REPLICAS_MIN <= len(ids) <= REPLICAS_MAX and ids == sorted(set(ids))


def _certificate_flaw(
    configuration: Configuration, header: Header, link: EpochLink, verifier: KeyVerifier
) -> str | None:
    certificate = link.certificate
    stated = (certificate.epoch, certificate.seq, certificate.digest)
    if stated != (header.epoch, header.seq, state_digest(link.header)):
        return "certifies-another-checkpoint"
    quorums = configuration.quorums
    signers = [endorsement.replica for endorsement in certificate.checkpoints]
    if len(signers) != quorums.strong or signers != sorted(set(signers)) or not quorums.ids.issuperset(signers):
        return "wrong-quorum"
    payload = encode(Checkpoint(certificate.epoch, certificate.seq, certificate.digest))
    keys = configuration.keys
    for endorsement in certificate.checkpoints:
        key = keys[endorsement.replica]
        if not verifier.verify_key(key, endorsement.replica, payload, endorsement.signature):
            return "bad-signature"
    return None


def some_links(links: Sequence[EpochLink], epoch: int) -> tuple[EpochLink, ...]:
    """The links from an epoch on, a part at a time: at least one if there is one, and not many bytes."""
    part: list[EpochLink] = []
    size = 0
    for link in links[epoch : epoch + LINKS_PER_ANSWER]:
        size += len(link.header) + LINK_BYTES * len(link.certificate.checkpoints)
        if part and size > ANSWER_BYTES_MAX:
            break
        part.append(link)
    return tuple(part)


def follow(configuration: Configuration, link: EpochLink) -> Configuration:
    """The epoch after a link that was checked before; links of one's own store are."""
    found = successor(configuration, decode_header(link.header))
    assert found is not None, f"a checked link leads on from epoch {configuration.epoch}"
    return found


def verify_chain(configuration: Configuration, links: Sequence[EpochLink], verifier: KeyVerifier) -> Configuration:
    """Go forward from an epoch that is trusted along links that are not.

    Args:
        configuration: where the first link begins: `genesis(cluster)`, or an epoch verified before.

    Raises:
        ChainError: a link does not lead on; everything before it is void as well.
    """
    for link in links:
        found = link_flaw(configuration, link, verifier)
        if found is not None:
            raise ChainError(f"the link that should end epoch {configuration.epoch} does not hold: {found}")
        configuration = follow(configuration, link)
    return configuration


def approved(change: bytes, signatures: dict[bytes, bytes], ready: Iterable[Signed] = ()) -> Reconfigure:
    """Put a change together from what administrators (key -> signature) and newcomers signed."""
    approvals = tuple(Approval(key, signatures[key]) for key in sorted(signatures))
    return Reconfigure(change, approvals, tuple(sorted(ready, key=lambda signed: signed.sender)))


def base_certificate(links: Sequence[EpochLink]) -> CheckpointCertificate | None:
    """Proof of the checkpoint from which the epoch after `links` begins; None for the first epoch."""
    return links[-1].certificate if links else None


class Chain:
    """The newest epoch that is proven to somebody who follows the cluster, and the way there.

    A replica that answers in a later epoch is asked for the links that lead there. The members before it certified
    each, and administrators signed it, so it does not matter who sends them. One that says so and sends nothing is only
    asked again when the pause is over.

    Attributes:
        configuration: its members.
        links: the way to it from the epoch that the chain began with; evidence and receipts bring it along.
    """

    __slots__ = ("_asked", "_known", "_verifier", "configuration", "links")

    def __init__(self, configuration: Configuration, verifier: KeyVerifier) -> None:
        """Begin at an epoch that is trusted: genesis, or one proven and kept before."""
        self.configuration = configuration
        self.links: tuple[EpochLink, ...] = ()
        self._known = {configuration.epoch: configuration}
        self._verifier = verifier
        self._asked: dict[int, Nanos] = {}

    def should_ask(self, replica: int, now: Nanos, pause: Nanos) -> bool:
        """True if a replica may be asked for links now; remembers that it was.

        Never where there are no administrators: there is one epoch then.
        """
        if not self.configuration.admins or now - self._asked.get(replica, -(1 << 62)) < pause:
            return False
        self._asked[replica] = now
        return True

    def learn(self, links: Sequence[EpochLink]) -> bool:
        """Go on along links that may begin at an earlier epoch, as far as they hold; True if they led to a later one.

        Links already known are skipped by their certificate's epoch, a number that proves nothing: what is left must
        hold from the present epoch on, and ends at the first link that does not.
        """
        before = self.configuration.epoch
        for link in links:
            if link.certificate.epoch < self.configuration.epoch:
                continue
            if link_flaw(self.configuration, link, self._verifier) is not None:
                break
            self.configuration = follow(self.configuration, link)
            self.links += (link,)
            self._known[self.configuration.epoch] = self.configuration
        if self.configuration.epoch == before:
            return False
        self._asked = {}
        return True

    @property
    def epochs(self) -> list[Configuration]:
        """All that are proven, the latest first."""
        return [self._known[epoch] for epoch in sorted(self._known, reverse=True)]

    def at(self, epoch: int) -> Configuration | None:
        """The members of a proven epoch, the first of which is where the chain began."""
        return self._known.get(epoch)
