"""Changes of membership as values: what replicas accept, and the chain that leads from the cluster file to today."""

from __future__ import annotations

import msgspec
import pytest

from bft.config import AdminEntry, Cluster, Protocol, ReplicaEntry
from bft.crypto.keys import KeyPair
from bft.crypto.signatures import Ed25519Signer, Ed25519Verifier
from bft.digests import state_digest
from bft.epochs import (
    OPERATION_BYTES_MAX,
    READY_WINDOWS,
    SYSTEM_PREFIX,
    Chain,
    ChainError,
    Configuration,
    activation,
    approved,
    change_bytes,
    genesis,
    open_operation,
    operation_flaw,
    system_operation,
    verify_chain,
)
from bft.headers import Header, Member, Pending, Ready, Reconfigure
from bft.ids import ClientId, ReplicaId
from bft.messages import Checkpoint, CheckpointCertificate, Endorsement, EpochLink, Signed
from bft.wire.codec import encode

PROTOCOL = Protocol(checkpoint_interval=8, window=16)


class Town:
    """A cluster's keys, and the administrators' pens. Keys are real: the rules are about who signed what."""

    def __init__(self, n: int = 4, admins: int = 3, threshold: int = 2) -> None:
        self.pairs = {replica: self.pair(f"r{replica}") for replica in range(12)}
        self.admins = sorted((self.pair(f"a{index}") for index in range(admins)), key=lambda pair: pair.public)
        self.cluster = Cluster(
            name="town",
            protocol=PROTOCOL,
            replica=tuple(
                ReplicaEntry(index, "host", 7000 + index, self.pairs[index].public_hex) for index in range(n)
            ),
            admin=tuple(AdminEntry(f"a{index}", pair.public_hex) for index, pair in enumerate(self.admins)),
            admin_threshold=threshold,
        )
        self.verifier = Ed25519Verifier(self.cluster.id, (), None)
        self.genesis = genesis(self.cluster)

    @staticmethod
    def pair(name: str) -> KeyPair:
        return KeyPair.of_seed(name.encode().ljust(32, b"."))

    def member(self, replica: int, key: KeyPair | None = None) -> Member:
        return Member(replica, (key or self.pairs[replica]).public, "host", 7000 + replica)

    def sign_as(self, replica: int, payload: bytes, key: KeyPair | None = None) -> bytes:
        return Ed25519Signer(self.cluster.id, ReplicaId(replica), (key or self.pairs[replica]).seed).sign(payload)

    def approve(self, change: bytes, who: tuple[int, ...] = (0, 1)) -> dict[bytes, bytes]:
        pairs = [self.admins[index] for index in who]
        return {
            pair.public: Ed25519Signer(self.cluster.id, ClientId(pair.public), pair.seed).sign(change) for pair in pairs
        }

    def ready(self, replica: int, epoch: int = 0, seq: int = 8, key: KeyPair | None = None, by: KeyPair | None = None):
        payload = encode(Ready(epoch, seq, (key or self.pairs[replica]).public))
        return Signed(replica, payload, self.sign_as(replica, payload, by or key))

    def change(self, *ids: int, epoch: int = 0, who: tuple[int, ...] = (0, 1), seq: int = 8) -> Reconfigure:
        """A good change to these members; newcomers are those beyond the first four."""
        change = change_bytes(epoch, [self.member(replica) for replica in ids])
        return approved(change, self.approve(change, who), [self.ready(i, epoch, seq) for i in ids if i >= 4])

    def flaw(self, operation: Reconfigure, seq: int = 10, at: Configuration | None = None) -> str | None:
        return operation_flaw(at or self.genesis, operation, seq, PROTOCOL, self.verifier)

    def link(self, at: Configuration, operation: Reconfigure, seq: int, signers: list[int] | None = None) -> EpochLink:
        """The end of an epoch, certified by its members."""
        header = encode(Header(at.epoch, seq, bytes(32), 1, 1, bytes(32), at.digest, Pending(seq, operation)))
        vote = encode(Checkpoint(at.epoch, seq, state_digest(header)))
        chosen = signers if signers is not None else list(at.quorums.members[: at.quorums.strong])
        endorsements = tuple(Endorsement(replica, self.sign_as(replica, vote)) for replica in chosen)
        return EpochLink(header, CheckpointCertificate(at.epoch, seq, state_digest(header), endorsements))


@pytest.fixture(scope="module")
def town() -> Town:
    return Town()


# --- the operation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ids", [(0, 1, 2, 3, 4), (0, 1, 2, 3, 4, 5, 6), (1, 2, 3, 9), (4, 5, 6, 7)])
def test_good_change_is_accepted(town, ids):
    """Growing, replacing one, replacing all."""
    assert town.flaw(town.change(*ids)) is None


def test_change_of_another_epoch_is_refused(town):
    """Compare and set: what was signed for another epoch does not happen in this one."""
    assert town.flaw(town.change(0, 1, 2, 3, 4, epoch=1)) == "other-epoch"


@pytest.mark.parametrize(
    ("ids", "flaw"),
    [((0, 1, 2), "bad-size"), ((0, 1, 2, 3), "nothing-changes")],
)
def test_membership_must_make_sense(town, ids, flaw):
    """Fewer than four tolerate nothing; no change is none."""
    assert town.flaw(town.change(*ids)) == flaw


def _signed_change(town: Town, members: list[Member]) -> Reconfigure:
    from bft.headers import MembershipChange

    change = encode(MembershipChange(0, tuple(members)))
    return approved(change, town.approve(change))


def test_members_are_distinct_in_every_respect(town):
    """Ids ascend, keys and addresses differ: one machine or key must not vote twice."""
    four = [town.member(replica) for replica in range(4)]
    twin = msgspec.structs.replace(town.member(5), key=four[0].key)
    neighbour = msgspec.structs.replace(town.member(5), port=four[0].port)
    assert town.flaw(_signed_change(town, [*four, twin])) == "key-twice"
    assert town.flaw(_signed_change(town, [*four, neighbour])) == "address-twice"
    assert town.flaw(_signed_change(town, [*four, four[3]])) == "ids-not-ascending"
    assert town.flaw(_signed_change(town, [town.member(5), *four])) == "ids-not-ascending"
    odd = msgspec.structs.replace(town.member(5), host="host\n")
    assert town.flaw(_signed_change(town, [*four, odd])) == "bad-address"


def test_ids_are_never_used_again(town):
    """A replica that was removed does not come back under its name: old votes must not pass for new ones."""
    five = town.change(0, 1, 2, 3, 4)
    second = verify_chain(town.genesis, [town.link(town.genesis, five, 24)], town.verifier)
    without = town.change(0, 1, 2, 3, epoch=1)
    third = verify_chain(second, [town.link(second, without, 48)], town.verifier)
    assert town.flaw(town.change(0, 1, 2, 3, 4, epoch=2), at=third) == "id-used-before"
    assert town.flaw(town.change(0, 1, 2, 3, 5, epoch=2), at=third) is None


def test_quorum_that_no_new_view_could_carry_is_refused(town):
    """The new membership must be able to change views with a full window."""
    wide = Protocol(checkpoint_interval=128, window=4096)
    many = [Member(i, bytes([i]) * 32, "host", 1000 + i) for i in range(4, 54)]
    operation = _signed_change(town, [town.member(0), *many])
    assert operation_flaw(town.genesis, operation, 10, wide, town.verifier) == "window-too-large"


@pytest.mark.parametrize(
    ("who", "flaw"), [((0,), "too-few-approvals"), ((), "too-few-approvals"), ((0, 1), None), ((0, 1, 2), None)]
)
def test_threshold_of_administrators_must_sign(town, who, flaw):
    """One of three is not enough where two are asked for."""
    assert town.flaw(town.change(0, 1, 2, 3, 4, who=who)) == flaw


def test_every_approval_is_checked_by_itself(town):
    """An administrator counted twice, a stranger, and a signature under something else are worth nothing."""
    good = town.change(0, 1, 2, 3, 4)
    first, second = good.approvals
    replace = msgspec.structs.replace
    assert town.flaw(replace(good, approvals=(first, first))) == "approvals-not-ascending"
    assert town.flaw(replace(good, approvals=(second, first))) == "approvals-not-ascending"
    assert town.flaw(replace(good, approvals=(first, replace(second, signature=first.signature)))) == "bad-approval"
    other = town.change(0, 1, 2, 3, 5)
    assert town.flaw(replace(good, approvals=other.approvals)) == "bad-approval"
    stranger = replace(second, key=town.pairs[0].public)
    assert town.flaw(replace(good, approvals=(first, stranger))) == "not-an-administrator"


def test_without_administrators_nothing_changes():
    """A cluster file without administrators fixes the membership for good."""
    town = Town(admins=0, threshold=1)
    change = change_bytes(0, [town.member(replica) for replica in (0, 1, 2, 3, 4)])
    assert town.flaw(approved(change, {}, [town.ready(4)])) == "not-an-administrator"


def test_approval_of_another_cluster_is_worth_nothing(town):
    """Signatures cover the cluster's id, and administrators belong to it."""
    other = Town(threshold=1)
    assert other.cluster.id != town.cluster.id
    assert town.flaw(other.change(0, 1, 2, 3, 4)) == "bad-approval"


def test_newcomers_must_have_said_that_they_are_ready(town):
    """Each of them, with the key that it will vote with, for this epoch, about a recent state."""
    good = town.change(0, 1, 2, 3, 4, 5)
    replace = msgspec.structs.replace
    limit = 8 + READY_WINDOWS * PROTOCOL.window
    assert town.flaw(good, seq=limit) is None
    assert town.flaw(good, seq=limit + 1) == "stale-ready"
    assert town.flaw(good, seq=7) == "bad-ready"
    assert town.flaw(replace(good, ready=())) == "not-ready"
    assert town.flaw(replace(good, ready=good.ready[:1])) == "not-ready"
    assert town.flaw(replace(good, ready=(*good.ready, town.ready(6)))) == "not-ready"
    for word in (town.ready(5, epoch=1), town.ready(5, key=town.pairs[6]), town.ready(5, by=town.pairs[6])):
        assert town.flaw(replace(good, ready=(good.ready[0], word))) == "bad-ready"
    garbage = Signed(5, b"\xc0", town.sign_as(5, b"\xc0"))
    assert town.flaw(replace(good, ready=(good.ready[0], garbage))) == "bad-ready"


def test_changed_key_is_vouched_for_by_the_old_and_the_new_one(town):
    """Key rotation: the same members, one with a new key."""
    new = town.pair("new key of r2")
    members = [town.member(0), town.member(1), town.member(2, new), town.member(3)]
    change = change_bytes(0, members)
    old, own = town.ready(2, key=new, by=town.pairs[2]), town.ready(2, key=new)
    signatures = town.approve(change)
    assert town.flaw(Reconfigure(change, approved(change, signatures).approvals, (old, own))) is None
    for ready in ((own,), (old,), (own, own), (old, old), (own, old)):
        assert town.flaw(Reconfigure(change, approved(change, signatures).approvals, ready)) in (
            "not-ready",
            "bad-ready",
        )


def test_operation_is_recognised_and_bounded(town):
    """Its first byte begins no MessagePack value; what is too large for a header is no change."""
    operation = town.change(0, 1, 2, 3, 4)
    assert system_operation(operation).startswith(SYSTEM_PREFIX)
    assert open_operation(system_operation(operation)) == operation
    assert open_operation(system_operation(operation) + b"x") is None
    large = msgspec.structs.replace(operation, ready=(Signed(4, bytes(OPERATION_BYTES_MAX), bytes(64)),))
    assert open_operation(system_operation(large)) is None
    with pytest.raises(msgspec.DecodeError):
        msgspec.msgpack.decode(SYSTEM_PREFIX)


@pytest.mark.parametrize(("seq", "last"), [(1, 24), (8, 24), (9, 32), (16, 32), (17, 40)])
def test_epoch_ends_a_window_after_the_change(seq, last):
    """The first checkpoint at or beyond s + L: nobody's window reaches beyond it before it knows."""
    assert activation(seq, PROTOCOL) == last


# --- the chain ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def history(town) -> tuple[list[EpochLink], list[Configuration]]:
    """Three changes: 4 -> 7 -> another 7 -> 4, of which only replica 3 was there from the beginning."""
    steps = [((0, 1, 2, 3, 4, 5, 6), 24), ((3, 4, 5, 6, 7, 8, 9), 48), ((3, 7, 8, 9), 80)]
    configurations, links = [town.genesis], []
    for ids, seq in steps:
        at = configurations[-1]
        change = change_bytes(at.epoch, [town.member(replica) for replica in ids])
        newcomers = [replica for replica in ids if replica not in at.quorums.ids]
        ready = [town.ready(replica, at.epoch, seq - 16) for replica in newcomers]
        operation = approved(change, town.approve(change), ready)
        assert town.flaw(operation, seq - 16, at) is None
        links.append(town.link(at, operation, seq))
        configurations.append(verify_chain(at, links[-1:], town.verifier))
    return links, configurations


def test_chain_leads_from_genesis_to_today(town, history):
    """Whoever has the cluster file learns today's members, wherever it begins."""
    links, configurations = history
    assert [len(at.members) for at in configurations] == [4, 7, 7, 4]
    assert configurations[-1].quorums.members == (3, 7, 8, 9)
    assert [configurations[-1].quorums.primary(view) for view in range(5)] == [3, 7, 8, 9, 3]
    assert (configurations[-1].epoch, configurations[-1].base, configurations[-1].next_id) == (3, 80, 10)
    for start, at in enumerate(configurations):
        assert verify_chain(at, links[start:], town.verifier) == configurations[-1]


def test_chain_must_be_whole_and_in_order(town, history):
    """A link that does not begin where the last one ended proves nothing."""
    links, _ = history
    for wrong in (links[1:], [links[0], links[2]], [links[1], links[0]], [links[0], links[0]]):
        with pytest.raises(ChainError):
            verify_chain(town.genesis, wrong, town.verifier)


def test_link_needs_a_strong_quorum_of_the_epoch_that_it_ends(town, history):
    """Too few, one of them twice, the next epoch's members, or strangers: none of these certifies an end."""
    links, _ = history
    operation = town.change(0, 1, 2, 3, 4)
    for signers in ([0, 1], [0, 1, 1], [0, 1, 2, 3], [2, 1, 0], [4, 5, 6], [0, 1, 4]):
        with pytest.raises(ChainError, match="wrong-quorum"):
            verify_chain(town.genesis, [town.link(town.genesis, operation, 24, signers)], town.verifier)
    forged = town.link(town.genesis, operation, 24)
    last = forged.certificate.checkpoints[-1]
    endorsements = (*forged.certificate.checkpoints[:-1], Endorsement(last.replica, bytes(64)))
    certificate = msgspec.structs.replace(forged.certificate, checkpoints=endorsements)
    with pytest.raises(ChainError, match="bad-signature"):
        verify_chain(town.genesis, [EpochLink(forged.header, certificate)], town.verifier)
    with pytest.raises(ChainError, match="certifies-another"):
        verify_chain(town.genesis, [EpochLink(links[0].header, forged.certificate)], town.verifier)


def test_former_members_alone_cannot_fork_the_chain(town):
    """All keys of an old epoch leak: without administrators nobody can be led astray with them."""
    change = change_bytes(0, [town.member(replica) for replica in (0, 1, 2, 3, 11)])
    stolen = town.link(town.genesis, approved(change, {}, [town.ready(11)]), 24)
    with pytest.raises(ChainError, match="too-few-approvals"):
        verify_chain(town.genesis, [stolen], town.verifier)


def test_checkpoint_in_the_middle_of_an_epoch_ends_nothing(town):
    """A certified header with a change still pending is no link: the epoch goes on to its last slot."""
    operation = town.change(0, 1, 2, 3, 4)
    at = town.genesis
    header = encode(Header(0, 16, bytes(32), 1, 1, bytes(32), at.digest, Pending(24, operation)))
    vote = encode(Checkpoint(0, 16, state_digest(header)))
    endorsements = tuple(Endorsement(replica, town.sign_as(replica, vote)) for replica in range(3))
    link = EpochLink(header, CheckpointCertificate(0, 16, state_digest(header), endorsements))
    with pytest.raises(ChainError, match="ends-no-epoch"):
        verify_chain(at, [link], town.verifier)


def test_client_follows_links_from_anybody_and_is_not_misled(town, history):
    """Overlapping and repeated proofs are fine; a broken one leads as far as it holds."""
    links, configurations = history
    chain = Chain(town.genesis, town.verifier)
    broken = EpochLink(links[0].header, links[1].certificate)
    assert not chain.learn([broken])
    partly = Chain(town.genesis, town.verifier)
    assert partly.learn([links[0], broken, *links[1:]])
    assert (partly.configuration, partly.links) == (partly.at(1), tuple(links[:1]))
    assert partly.learn(links)
    assert (partly.configuration, partly.links) == (configurations[-1], tuple(links))
    assert not chain.learn(links[1:])
    assert chain.configuration is town.genesis
    assert chain.learn(links[:2])
    assert not chain.learn(links[:2])
    assert chain.learn(links)
    assert chain.configuration == configurations[-1]


def test_address_may_differ_between_cluster_files(town):
    """Epochs are the same to all whose files agree on ids and keys; old cluster files keep their id."""
    moved = [msgspec.structs.replace(entry, host="elsewhere") for entry in town.cluster.replica]
    other = msgspec.structs.replace(town.cluster, replica=tuple(moved))
    assert other.id == town.cluster.id
    assert genesis(other).digest == town.genesis.digest
