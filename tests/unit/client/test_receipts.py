"""Receipts: what f + 1 replicas signed convinces anybody; what a liar signed convicts it."""

from __future__ import annotations

from random import Random

import msgspec
import pytest
import trio

import bft
from bft.adversary.live import Corruption
from bft.client.receipts import BOGUS_MAX, SLOTS_KEPT_MAX, Receipt, Receipts
from bft.core.evidence import EvidenceFile, file_of
from bft.core.verdict import verdict
from bft.crypto.signatures import Ed25519Verifier
from bft.digests import bundle_digest
from bft.epochs import Chain
from bft.errors import EvidenceError
from bft.events import Evidence
from bft.messages import Bundle, Reply, ReplyStatement, Result, SignedReply
from bft.runtime.local import local_cluster
from bft.sim.keys import KeyVault
from bft.sim.scenario import Scenario
from bft.sim.world import simulated_cluster
from bft.wire.codec import encode
from tests.unit.test_epochs import Town

CONFIG = simulated_cluster(Scenario(seed=0, signed_replies=True))
CLIENT = bytes(range(32))
SESSION = 7


def _bundle(value: bytes) -> bytes:
    return encode(Bundle((Result(1, 0, 0, value),), ()))


class Desk:
    """A client's receipts; the test is every replica."""

    def __init__(self) -> None:
        self.vault = KeyVault(0)
        self.verifier = self.vault.verifier(4)
        self.receipts = Receipts(CONFIG, self.verifier, CLIENT)

    def reply(self, replica: int, value: bytes = b"yes", *, seq: int = 1, body: bool = True) -> SignedReply:
        """A reply that the replica has signed."""
        bundle = _bundle(value)
        digest = bundle_digest(bundle)
        payload = encode(ReplyStatement(0, CLIENT, SESSION, seq, digest))
        signature = self.vault.replica_signer(replica).sign(payload)
        return SignedReply(Reply(SESSION, seq, 0, 0, digest, bundle if body else b""), signature)

    def add(self, replica: int, value: bytes = b"yes", **options: object) -> list[tuple[int, str]]:
        """(accused, kind) of what it brings to light; each piece is judged, and must hold."""
        return self.take(replica, self.reply(replica, value, **options))  # type: ignore[arg-type]

    def take(self, replica: int, packet: SignedReply) -> list[tuple[int, str]]:
        """As `add`, for any packet."""
        found = self.receipts.add(replica, packet)
        for evidence in found:
            assert verdict(file_of(evidence, CONFIG.id), CONFIG, self.verifier) is None
        return [(evidence.accused, evidence.kind) for evidence in found]


@pytest.fixture
def desk() -> Desk:
    """Nothing said yet."""
    return Desk()


def test_weak_quorum_of_equal_statements_is_a_receipt(desk):
    """One too few is none; which of them sent the bytes does not matter."""
    desk.add(2, body=False)
    assert desk.receipts.receipt(SESSION, 1) is None
    desk.add(0)
    receipt = desk.receipts.receipt(SESSION, 1)
    assert receipt is not None and [item.replica for item in receipt.statements] == [0, 2]
    again = Receipt.from_json(receipt.to_json())
    assert again.proven(CONFIG, desk.verifier) == (Result(1, 0, 0, b"yes"),)


def test_receipt_needs_bytes_that_somebody_sent(desk):
    """Digests alone prove nothing that can be read."""
    desk.add(0, body=False)
    desk.add(1, body=False)
    assert desk.receipts.receipt(SESSION, 1) is None
    junk = desk.reply(2)
    desk.take(2, SignedReply(msgspec.structs.replace(junk.reply, bundle=b"junk"), junk.signature))
    assert desk.receipts.receipt(SESSION, 1) is None
    desk.add(0)
    assert desk.receipts.receipt(SESSION, 1) is not None


def test_signature_that_does_not_hold_is_no_voice(desk):
    """It may have been counted for the result, as the channel vouches for it; it does not get into a receipt."""
    desk.add(0)
    desk.take(1, msgspec.structs.replace(desk.reply(1), signature=bytes(64)))
    assert desk.receipts.receipt(SESSION, 1) is None
    desk.add(3)
    receipt = desk.receipts.receipt(SESSION, 1)
    assert receipt is not None and [item.replica for item in receipt.statements] == [0, 3]


def test_changed_receipt_proves_nothing(desk):
    """Whatever is exchanged, a signature does not hold for it any more."""
    for replica in range(3):
        desk.add(replica)
    receipt = desk.receipts.receipt(SESSION, 1)
    assert receipt is not None
    one, other = receipt.statements
    for changes, why in (
        ({"bundle": _bundle(b"no")}, "does not hold"),
        ({"seq": 2}, "does not hold"),
        ({"session": 8}, "does not hold"),
        ({"client": bytes(32)}, "does not hold"),
        ({"epoch": 1}, "of epoch 1.*nothing here says who"),
        ({"statements": (one,)}, "too few"),
        ({"statements": (one, one)}, "distinct"),
        ({"statements": (other, one)}, "ascending"),
        ({"cluster": bytes(32)}, "another cluster"),
    ):
        with pytest.raises(EvidenceError, match=why):
            msgspec.structs.replace(receipt, **changes).proven(CONFIG, desk.verifier)
    for content in (b"", b"{}", b"[" * 100_000, b"\xff", receipt.to_json().replace(b'"version":1', b'"version":2')):
        with pytest.raises(EvidenceError, match="no receipt"):
            Receipt.from_json(content)


def test_two_replies_of_one_replica_are_evidence(desk):
    """In either order, once (E11)."""
    assert desk.add(3, b"no") == []
    assert desk.add(3, b"yes") == [(3, "two-replies")]
    assert desk.add(3, b"maybe") == []


def test_wrong_reply_is_evidence_when_a_weak_quorum_of_others_agrees(desk):
    """Before or after theirs."""
    assert desk.add(3, b"no") == []
    assert desk.add(0) == []
    assert desk.add(1) == [(3, "wrong-reply")]
    other = Desk()
    assert other.add(0) == other.add(1) == []
    assert other.add(3, b"no") == [(3, "wrong-reply")]


def test_nobody_is_convicted_by_signatures_that_do_not_hold(desk):
    """Neither the liar that sends one under its lie, nor a correct replica that liars contradict with such."""
    bogus = msgspec.structs.replace(desk.reply(3, b"no"), signature=bytes(64))
    assert desk.take(3, bogus) == []
    assert desk.add(0) == desk.add(1) == [] and desk.add(3) == []
    again = Desk()
    assert again.add(0) == []
    for replica in (2, 3):
        packet = msgspec.structs.replace(again.reply(replica, b"no"), signature=bytes(64))
        assert again.take(replica, packet) == []


def test_flood_evicts_the_flooders_own_statements_only(desk):
    """Bounded, and nobody else's receipts are lost."""
    desk.add(0)
    desk.add(1)
    for seq in range(2, SLOTS_KEPT_MAX + 50):
        desk.add(3, seq=seq)
    assert len(desk.receipts) == SLOTS_KEPT_MAX + 2
    assert desk.receipts.receipt(SESSION, 1) is not None


def test_bogus_signatures_are_not_verified_for_ever(desk):
    """Who sends nothing else is not listened to any more."""
    for seq in range(1, BOGUS_MAX + 4):
        desk.add(0, seq=seq)
        desk.add(1, seq=seq)
        desk.take(3, msgspec.structs.replace(desk.reply(3, b"no", seq=seq), signature=bytes(64)))
    assert desk.take(3, desk.reply(3, b"no", seq=99)) == [] and desk.add(0, seq=99) == desk.add(1, seq=99) == []


PUT = msgspec.msgpack.encode(["put", "k", "v"])


async def test_cluster_that_does_not_sign_gives_no_receipts():
    """The setting is off by default."""
    async with local_cluster() as local, bft.connect(local.cluster, key=local.client) as client:
        result = await client.call(PUT)
        with pytest.raises(EvidenceError, match="signed_replies"):
            await client.receipt(result)


async def test_real_cluster_gives_receipts_and_evidence_that_verify_offline():
    """Ed25519, sockets, a replica that lies to its clients; judged with the cluster's public keys alone."""
    async with local_cluster(signed_replies=True) as local:
        await local.corrupt(3, Corruption("wrong_reply(True)", 3, 4, Random(1)))
        async with bft.connect(local.cluster, key=local.client) as client:
            result = await client.call(PUT)
            receipt = await client.receipt(result)
            with trio.fail_after(10):
                while not client.evidence:
                    await client.call(PUT)
        assert [item.value for item in receipt.verify(local.cluster)] == [result.value]
        assert (receipt.seq, receipt.client) == (result.seq, client.id)
        verifier = Ed25519Verifier(local.cluster.id, local.cluster.replica_keys, None)
        for item in client.evidence:
            assert item.accused == 3 and item.kind in ("two-replies", "wrong-reply")
            assert verdict(msgspec.json.decode(item.to_json(), type=EvidenceFile), local.cluster, verifier) is None


class Later:
    """A client of a cluster that has grown from four replicas to seven; the test is every replica."""

    def __init__(self) -> None:
        self.town = Town()
        cluster = self.town.cluster
        self.verifier = Ed25519Verifier(cluster.id, cluster.replica_keys, None)
        self.link = self.town.link(self.town.genesis, self.town.change(*range(7)), 24)
        self.chain = Chain(self.town.genesis, self.verifier)
        self.receipts = Receipts(cluster, self.verifier, CLIENT, self.chain)

    def add(self, replica: int, value: bytes = b"yes", *, epoch: int = 1) -> list[Evidence]:
        bundle = _bundle(value)
        reply = Reply(SESSION, 30, epoch, 0, bundle_digest(bundle), bundle)
        signature = self.town.sign_as(replica, encode(ReplyStatement(epoch, CLIENT, SESSION, 30, reply.digest)))
        return self.receipts.add(replica, SignedReply(reply, signature))


def test_receipt_of_a_later_epoch_brings_the_way_there():
    """It takes that epoch's weak quorum, and proves itself from the cluster file."""
    later = Later()
    later.add(4)
    assert len(later.receipts) == 0, "whose word it is is not known yet"
    assert later.chain.learn([later.link])
    for replica in (4, 5):
        later.add(replica)
    for replica in (0, 1):
        later.add(replica, b"no", epoch=0)
    later.add(9)
    old = later.receipts.receipt(SESSION, 30)
    assert old is not None and (old.epoch, old.links) == (0, ()), "two of the first epoch's four, and two of seven"
    later.add(6)
    receipt = later.receipts.receipt(SESSION, 30)
    assert receipt is not None and (receipt.epoch, receipt.links) == (1, (later.link,))
    again = Receipt.from_json(receipt.to_json())
    assert again.verify(later.town.cluster) == (Result(1, 0, 0, b"yes"),)
    with pytest.raises(EvidenceError, match=r"of epoch 1.*nothing here says who"):
        msgspec.structs.replace(receipt, links=()).verify(later.town.cluster)
    forged = later.town.link(later.town.genesis, later.town.change(*range(7), who=(0,)), 24)
    with pytest.raises(EvidenceError, match="too-few-approvals"):
        msgspec.structs.replace(receipt, links=(forged,)).verify(later.town.cluster)
    with pytest.raises(EvidenceError, match="2 signers are too few: one of 3"):
        msgspec.structs.replace(receipt, statements=receipt.statements[:2]).verify(later.town.cluster)


def test_liars_of_a_later_epoch_are_convicted_by_its_members():
    """The evidence brings the links as well; a weak quorum is that epoch's."""
    later = Later()
    assert later.chain.learn([later.link])
    assert later.add(6, b"no") == later.add(0) == later.add(4) == []
    found = [*later.add(5), *later.add(6)]
    assert [(item.accused, item.kind) for item in found] == [(6, "wrong-reply"), (6, "two-replies")]
    for item in found:
        made = file_of(item, later.town.cluster.id)
        assert verdict(made, later.town.cluster, later.verifier) is None
        assert "nothing here says who" in str(
            verdict(msgspec.structs.replace(made, links=()), later.town.cluster, later.verifier)
        )
    few = msgspec.structs.replace(file_of(found[0], later.town.cluster.id), witnesses=found[0].witnesses[:2])
    assert "2 witnesses are too few: one of 3" in str(verdict(few, later.town.cluster, later.verifier))
