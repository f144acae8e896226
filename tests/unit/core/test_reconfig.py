"""One replica through a change of membership, played by hand: the rules of `bft.core.reconfig` one by one.

K = 8 and L = 16, so a change that executes in slot 1 ends the first epoch at slot 24.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import pytest

from bft.core.evidence import BEYOND_EPOCH, file_of
from bft.core.proofs import opened_pre_prepare
from bft.core.recovery import rules_of
from bft.core.replica import Replica
from bft.core.verdict import verdict
from bft.digests import NULL_DIGEST, batch_digest, page_digest
from bft.engine import Engine
from bft.epochs import approved, change_bytes, genesis, system_operation, verify_chain
from bft.events import (
    Broadcast,
    Deliver,
    Effect,
    Epoch,
    EpochEntered,
    Evidence,
    Persist,
    Recovered,
    Rejected,
    Retired,
    Stable,
    Start,
)
from bft.headers import Member, Ready
from bft.messages import (
    STATUS_ERROR,
    STATUS_OK,
    Batch,
    Checkpoint,
    Commit,
    EpochProof,
    FetchEpochs,
    FetchPages,
    PageBodies,
    PagesServed,
    Prepare,
    PrePrepare,
    Proposal,
    Query,
    QueryReply,
    Reply,
    ReplyStatement,
    Request,
    Signed,
    SignedReply,
    SignedRequest,
    Status,
    Suspect,
    ViewChange,
)
from bft.sim.scenario import Change, Scenario
from bft.sim.service import Registers
from bft.sim.world import ADMINS, EPOCH_NS
from bft.storage.memory import MemoryStore
from bft.wire.codec import decode_batch, decode_bundle, decode_replica_message, encode
from tests.conftest import CLIENT, Bench

LAST = 24


@dataclass
class EpochBench(Bench):
    """A bench whose cluster has three administrators, of whom two must sign."""

    signed_replies: bool = False

    def __post_init__(self) -> None:
        self.entered: list[EpochEntered] = []
        self.everything: list[Effect] = []
        super().__post_init__()
        self.genesis = genesis(self.cluster)

    def scenario(self) -> Scenario:
        return Scenario(seed=0, changes=(Change(at_ms=0),), signed_replies=self.signed_replies)

    def step(self, event):
        super().step(event)
        self.everything += self.out
        for effect in self.out:
            if isinstance(effect, EpochEntered):
                self.entered.append(effect)
                here = effect.configuration
                self.admission.enter(self.vault.verifier(here.keys), rules_of(self.cluster, here), effect.links)
        return self.out

    def member(self, replica: int) -> Member:
        return Member(replica, self.vault.replica_key(replica), "simulated", replica + 1)

    def change(self, *ids: int, admins: int = 2, epoch: int = 0) -> bytes:
        """A change to these members, ready newcomers included."""
        payload = change_bytes(epoch, [self.member(replica) for replica in ids])
        keys = [self.vault.client_key(index) for index in ADMINS[:admins]]
        words = []
        for replica in ids:
            if replica >= 4:
                word = encode(Ready(epoch, 0, self.vault.replica_key(replica)))
                words.append(Signed(replica, word, self.vault.replica_signer(replica).sign(word)))
        return system_operation(
            approved(payload, {key: self.vault.client_signer(key).sign(payload) for key in keys}, words)
        )

    def envelope(self, number: int, *operations: bytes) -> SignedRequest:
        payload = encode(Request(EPOCH_NS, number, 1, operations, ()))
        return SignedRequest(CLIENT, payload, self.vault.client_signer(CLIENT).sign(payload))

    def results(self) -> list[tuple[int, object]]:
        """(status, value) of all that was answered."""
        replies = self.sent(Reply, self.everything)
        return [
            (result.status, msgspec.msgpack.decode(result.value))
            for reply in replies
            for result in decode_bundle(reply.bundle).results
        ]

    def fill(self, until: int, start: int = 2) -> None:
        """Order empty batches, and make every checkpoint on the way stable but the one at `until`."""
        for seq in range(start, until + 1):
            self.order(seq, encode_empty(self.now + seq))
            if seq % 8 == 0 and seq < until:
                self.certify(seq)

    def certify(self, seq: int) -> None:
        """The others vote for the checkpoint that this replica took."""
        digest = next(vote.digest for vote in self.votes if vote.seq == seq)
        for replica in [other for other in range(4) if other != self.me][: self.quorums.strong]:
            self.deliver(replica, self.signed(replica, Checkpoint(0, seq, digest)))

    @property
    def votes(self) -> list[Checkpoint]:
        """Checkpoints of the store: also those that became stable."""
        return [Checkpoint(0, snapshot.seq, snapshot.digest) for snapshot in self.store._snapshots.values()]

    def to_the_end(self, *ids: int) -> None:
        """The change executes in slot 1, and the last slot of the epoch too; its checkpoint is not stable yet."""
        self.order(1, self.batch(self.envelope(1, self.change(*ids))))
        self.fill(LAST)
        assert self.executed == LAST

    def switch(self, *ids: int) -> None:
        """All the way into the second epoch."""
        self.to_the_end(*ids)
        self.certify(LAST)
        assert self.replica.configuration.epoch == 1


def encode_empty(time_ns: int) -> bytes:
    """A batch that only fills its slot."""
    return encode(Batch(time_ns, ()))


@pytest.fixture
def bench() -> EpochBench:
    """Replica 1, which is the second primary of the first epoch."""
    return EpochBench()


# --- the operation --------------------------------------------------------------------------------------------------


def test_change_is_answered_with_the_epoch_to_come_and_the_last_slot(bench):
    """L slots later at the earliest, at a checkpoint; the service never sees the operation."""
    bench.order(1, bench.batch(bench.envelope(1, bench.change(0, 1, 2, 3, 4))))
    assert bench.results() == [(STATUS_OK, [1, LAST])]
    assert bench.replica.summary()["epoch_ends"] == LAST
    assert bench.replica.configuration.epoch == 0


def test_second_of_two_changes_in_one_batch_is_a_conflict(bench):
    """One change per epoch: the first stands."""
    first, second = bench.envelope(1, bench.change(0, 1, 2, 3, 4)), bench.envelope(2, bench.change(0, 1, 2, 3, 5))
    put = msgspec.msgpack.encode(["put", "k", "v"])
    bench.order(1, bench.batch(first, bench.envelope(3, put), second))
    assert bench.results() == [
        (STATUS_OK, [1, LAST]),
        (STATUS_OK, None),
        (STATUS_ERROR, ["ReconfigureRefused", "conflict"]),
    ]


@pytest.mark.parametrize(
    ("operation", "why"),
    [
        (lambda bench: bench.change(0, 1, 2, 3, 4, admins=1), "too-few-approvals"),
        (lambda bench: bench.change(0, 1, 2, 3, 4, epoch=1), "other-epoch"),
        (lambda bench: bench.change(0, 1, 2), "bad-size"),
        (lambda bench: system_operation_of(b""), "malformed"),
    ],
)
def test_refused_change_changes_nothing(bench, operation, why):
    """It says why, and the cluster goes on."""
    bench.order(1, bench.batch(bench.envelope(1, operation(bench))))
    assert bench.results() == [(STATUS_ERROR, ["ReconfigureRefused", why])]
    assert bench.replica.summary()["epoch_ends"] is None


def system_operation_of(content: bytes) -> bytes:
    from bft.epochs import SYSTEM_PREFIX

    return SYSTEM_PREFIX + content


def test_change_among_other_operations_is_the_services_business(bench):
    """A change stands alone in its envelope: the ordinary path never looks into operations."""
    put = msgspec.msgpack.encode(["put", "k", "v"])
    bench.order(1, bench.batch(bench.envelope(1, put, bench.change(0, 1, 2, 3, 4))))
    assert [status for status, _ in bench.results()] == [STATUS_OK, STATUS_ERROR]
    assert bench.replica.summary()["epoch_ends"] is None


# --- the last slots -------------------------------------------------------------------------------------------------


def test_no_slot_beyond_the_last_is_accepted(bench):
    """The window ends where the epoch ends."""
    bench.order(1, bench.batch(bench.envelope(1, bench.change(0, 1, 2, 3, 4))))
    bench.fill(16)
    bench.certify(16)
    assert bench.stable == 16
    for seq, votes in ((LAST, 1), (LAST + 1, 0)):
        bench.deliver(0, bench.proposal(seq, encode_empty(bench.now + seq)))
        assert len(bench.sent(Prepare)) == votes


def test_primary_fills_the_slots_up_to_the_last():
    """Nothing waits, and the epoch ends all the same: with empty batches."""
    bench = EpochBench(me=0)
    bench.deliver(CLIENT, bench.envelope(1, bench.change(0, 1, 2, 3, 4)))
    for seq in range(1, LAST + 1):
        bodies = {
            header.seq: packet.batch
            for packet in bench.sent(Proposal, bench.everything)
            if (header := opened_pre_prepare(packet.signed)) is not None
        }
        assert (len(decode_batch(bodies[seq]).requests) == 0) == (seq > 1)
        digest = batch_digest(bodies[seq])
        for replica in (1, 2, 3):
            bench.deliver(replica, bench.signed(replica, Prepare(0, 0, seq, digest)))
        for replica in (1, 2, 3):
            bench.deliver(replica, bench.signed(replica, Commit(0, 0, seq, digest)))
        assert bench.executed == seq
        if seq % 8 == 0:
            bench.certify(seq)
    assert bench.replica.configuration.epoch == 1
    assert max(bodies) == LAST


def test_unfilled_slots_are_a_grievance(bench):
    """A primary that leaves the epoch without an end is suspected, though no request waits."""
    bench.order(1, bench.batch(bench.envelope(1, bench.change(0, 1, 2, 3, 4))))
    assert bench.sent(Suspect, bench.wait(600))


def test_no_linearizable_read_between_the_epochs(bench):
    """When the last slot has executed, a write may be complete in the next epoch: this one answers no more."""
    bench.to_the_end(0, 1, 2, 3, 4)
    get = msgspec.msgpack.encode(["get", "k"])
    bench.deliver(CLIENT, Query(1, 0, True, (get,)))
    assert not bench.sent(QueryReply)
    bench.certify(LAST)
    bench.wait(100)
    bench.deliver(CLIENT, Query(2, 0, True, (get,)))
    (first, second) = bench.sent(QueryReply, bench.everything)
    assert (first.nonce, first.epoch, second.nonce, second.epoch) == (1, 1, 2, 1)


# --- the switch -----------------------------------------------------------------------------------------------------


def test_stable_last_checkpoint_begins_the_next_epoch(bench):
    """View 0 of the new members, from the last slot of the old ones; the record comes before anything is said."""
    bench.switch(0, 1, 2, 3, 4)
    summary = bench.replica.summary()
    assert (summary["epoch"], summary["view"], summary["stable"], summary["executed"]) == (1, 0, LAST, LAST)
    assert summary["members"] == [0, 1, 2, 3, 4]
    kinds = [type(effect.record) if isinstance(effect, Persist) else type(effect) for effect in bench.everything]
    assert kinds.index(Epoch) < kinds.index(EpochEntered) < kinds.index(Broadcast, kinds.index(Epoch))


def test_switch_equals_a_restart(bench):
    """The running replica and one rebuilt from its store are in the same state."""
    bench.switch(0, 1, 2, 3, 4)
    before = bench.replica.summary()
    bench.restart()
    assert bench.replica.summary() == before


def test_switch_is_redone_after_a_crash_before_it_was_recorded(bench):
    """The stable certificate at the last slot and the header under it are enough (mutant R05)."""
    bench.switch(0, 1, 2, 3, 4)
    before = bench.replica.summary()
    bench.store._epochs.clear()
    bench.entered.clear()
    bench.restart()
    assert [effect.configuration.epoch for effect in bench.entered] == [1]
    assert bench.replica.summary() == before
    assert len(bench.store.load().epochs) == 1


def test_nothing_of_the_old_epoch_counts_in_the_new_one(bench):
    """Neither votes nor complaints nor view changes; they are dropped without a word (mutant R03)."""
    bench.switch(0, 1, 2, 3, 4)
    before = bench.replica.summary()
    for replica in (0, 2, 3):
        for message in (
            Prepare(0, 0, LAST + 1, bytes(32)),
            Commit(0, 0, LAST + 1, bytes(32)),
            Suspect(0, 0, "spam"),
            Checkpoint(0, LAST + 8, bytes(32)),
            ViewChange(0, 1, None, ()),
        ):
            assert bench.deliver(replica, bench.signed(replica, message)) == []
    assert bench.replica.summary() == before


def test_new_epoch_takes_the_new_members_quorum(bench):
    """Five members need four: three COMMITs that were enough before are not."""
    bench.switch(0, 1, 2, 3, 4)
    seq, body = LAST + 1, encode_empty(bench.now + 100)
    digest = batch_digest(body)
    header = PrePrepare(1, 0, seq, digest)
    bench.deliver(0, Proposal(bench.signed(0, header), body))
    for replica in (2, 3):
        bench.deliver(replica, bench.signed(replica, Prepare(1, 0, seq, digest)))
    assert bench.sent(Commit)
    for replica in (0, 2):
        bench.deliver(replica, bench.signed(replica, Commit(1, 0, seq, digest)))
    assert bench.executed == LAST
    bench.deliver(4, bench.signed(4, Commit(1, 0, seq, digest)))
    assert bench.executed == seq


def test_waiting_requests_and_sessions_go_over(bench):
    """What was executed is answered again, what waits goes to the new primary."""
    bench.to_the_end(1, 2, 3, 4)
    put = bench.envelope(2, msgspec.msgpack.encode(["put", "k", "v"]))
    bench.deliver(CLIENT, put)
    bench.certify(LAST)
    assert bench.replica.summary()["pending"] == 1
    assert bench.replica.summary()["primary"] == 1
    (proposal,) = bench.sent(Proposal, bench.everything)  # the new primary proposes it
    assert decode_batch(proposal.batch).requests == (put,)
    bench.deliver(CLIENT, bench.envelope(1, bench.change(1, 2, 3, 4)))
    (reply,) = bench.sent(Reply)
    assert reply.epoch == 1


# --- those who leave, and those who were away -----------------------------------------------------------------------


def test_removed_replica_says_nothing_more():
    """It votes in no view of the next epoch, complains of nobody, and stops when the others can do without it."""
    bench = EpochBench(me=3)
    bench.switch(0, 1, 2, 4)
    assert bench.replica.summary()["member"] is False
    seq, body = LAST + 1, encode_empty(bench.now + 100)
    bench.deliver(0, Proposal(bench.signed(0, PrePrepare(1, 0, seq, batch_digest(body))), body))
    out = [*bench.out, *bench.wait(3000)]
    assert not bench.sent(Prepare, out)
    assert not bench.sent(Suspect, out)
    assert not bench.sent(ViewChange, out)
    assert bench.sent(Status, out)
    assert not [effect for effect in out if isinstance(effect, Retired)]
    out = bench.wait(60 * 400)
    assert len([effect for effect in out if isinstance(effect, Retired)]) == 1


def test_chain_is_shown_to_whoever_asks_and_proves_itself(bench):
    """To clients and replicas that know an earlier epoch only."""
    bench.switch(0, 1, 2, 3, 4)
    bench.deliver(CLIENT, FetchEpochs(0))
    (proof,) = bench.sent(EpochProof)
    assert verify_chain(bench.genesis, proof.links, bench.vault) == bench.replica.configuration
    bench.deliver(2, Status(0, 0, True, 8, 9, ()))
    assert bench.sent(EpochProof) == [proof]
    bench.deliver(CLIENT, FetchEpochs(1))
    assert not bench.sent(EpochProof)


def test_replica_that_was_away_follows_the_chain_and_fetches_the_state(bench):
    """It never saw the change: the links prove it, and the state at the base comes from others."""
    bench.switch(0, 1, 2, 3, 4)
    bench.deliver(CLIENT, FetchEpochs(0))
    (proof,) = bench.sent(EpochProof)
    away = EpochBench(me=2)
    away.deliver(0, proof)
    summary = away.replica.summary()
    assert (summary["epoch"], summary["stable"], summary["executed"], summary["fetching"]) == (1, LAST, 0, LAST)
    away.restart()
    summary = away.replica.summary()
    assert (summary["epoch"], summary["executed"], summary["fetching"]) == (1, 0, LAST)


@pytest.mark.parametrize("holds_key", [True, False])
def test_who_passes_an_epoch_unseen_was_its_member_if_it_holds_the_key(bench, holds_key):
    """In one go or after a restart: whoever waits for its new key to be accepted is no removed replica."""
    bench.switch(0, 1, 2, 3, 4)
    bench.deliver(CLIENT, FetchEpochs(0))
    (proof,) = bench.sent(EpochProof)
    away = EpochBench(me=2)
    key = away.vault.replica_key(2) if holds_key else bytes(32)
    signers = {key: away.vault.replica_signer(2)}
    away.replica = Replica(away.cluster, 2, signers, Recovered(), away.vault)
    away.engine = Engine(away.replica, Registers(), away.store)
    away.step(Start())
    away.deliver(0, proof)
    again = Replica(away.cluster, 2, signers, away.store.load(), away.vault)
    assert away.replica.configuration.epoch == 1
    assert away.replica._state.was_member is again._state.was_member is holds_key


def test_forged_proof_is_refused(bench):
    """A signature that fails, a link of the wrong epoch: nothing changes."""
    bench.switch(0, 1, 2, 3, 4)
    bench.deliver(CLIENT, FetchEpochs(0))
    (proof,) = bench.sent(EpochProof)
    link = proof.links[0]
    first = link.certificate.checkpoints[0]
    broken = msgspec.structs.replace(
        link.certificate,
        checkpoints=(msgspec.structs.replace(first, signature=bytes(64)), *link.certificate.checkpoints[1:]),
    )
    away = EpochBench(me=2)
    away.deliver(0, EpochProof((msgspec.structs.replace(link, certificate=broken),)))
    assert away.rejections() == ["bad-epoch-proof"]
    assert away.replica.configuration.epoch == 0


def test_newcomer_is_ready_only_when_it_holds_the_state(bench):
    """A member is not asked; a newcomer in the first epoch's genesis state is ready for slot 0."""
    assert bench.replica.ready(bench.vault.replica_key(1)) == ()
    newcomer = EpochBench(me=4)
    (word,) = newcomer.replica.ready(newcomer.vault.replica_key(4))
    assert word.payload == encode(Ready(0, 0, newcomer.vault.replica_key(4)))
    newcomer.deliver(0, newcomer.checkpoint_certificate(LAST, bytes(32)))
    assert newcomer.replica.ready(newcomer.vault.replica_key(4)) == ()


@pytest.mark.parametrize("is_equal", [True, False])
def test_own_state_is_held_against_the_proof(bench, is_equal):
    """The last CHECKPOINTs were lost, and the proof comes first: the own state is kept if it is the certified one."""
    bench.switch(0, 1, 2, 3, 4)
    bench.deliver(CLIENT, FetchEpochs(0))
    (proof,) = bench.sent(EpochProof)
    other = EpochBench(me=2)
    other.to_the_end(0, 1, 2, 3, 4)
    if not is_equal:
        _, vote = other.replica._state.own_checkpoints[LAST]
        other.replica._state.own_checkpoints[LAST] = (bytes(32), vote)
    other.deliver(0, proof)
    for _ in range(2):
        summary = other.replica.summary()
        assert (summary["epoch"], summary["executed"]) == (1, LAST)
        assert summary["fetching"] == (None if is_equal else LAST)
        assert summary["serves"] is is_equal and summary["divergences"] == (not is_equal)
        if is_equal:
            other.restart()


def _in_doubt_at_the_end(bench) -> tuple[EpochProof, EpochBench]:
    """The proof of an epoch's end, and a replica that got there with a state that was wrong at 16, but not at 24."""
    bench.switch(0, 1, 2, 3, 4)
    bench.deliver(CLIENT, FetchEpochs(0))
    (proof,) = bench.sent(EpochProof)
    other = EpochBench(me=2)
    other.order(1, other.batch(other.envelope(1, other.change(0, 1, 2, 3, 4))))
    other.fill(16)
    for seq in range(17, LAST + 1):
        other.order(seq, encode_empty(other.now + seq))
    digest, vote = other.replica._state.own_checkpoints[16]
    other.replica._state.own_checkpoints[16] = (bytes(32), vote)
    other.deliver(0, other.checkpoint_certificate(16, digest))
    return proof, other


def test_proof_ends_a_repair_that_it_overtakes(bench):
    """The state that ends the epoch is the certified one: what was to be fetched below it is needed no more."""
    proof, other = _in_doubt_at_the_end(bench)
    assert other.replica.summary()["serves"] is False
    other.deliver(0, proof)
    summary = other.replica.summary()
    assert (summary["epoch"], summary["fetching"], summary["serves"]) == (1, None, True)


def test_state_that_was_only_voted_for_is_not_held(bench):
    """After a restart from before it: the proof of the epoch's end is a reason to fetch it, not to go on without."""
    proof, other = _in_doubt_at_the_end(bench)
    other.restart()
    assert other.executed == 8
    other.deliver(0, proof)
    summary = other.replica.summary()
    assert (summary["epoch"], summary["fetching"]) == (1, LAST)


def test_links_are_sent_within_a_budget(bench):
    """A question of a few bytes has an answer of kilobytes: nobody gets it as often as it likes."""
    bench.switch(0, 1, 2, 3, 4)
    answers = 0
    for _ in range(1000):
        bench.deliver(CLIENT, FetchEpochs(0))
        answers += len(bench.sent(EpochProof))
    assert 0 < answers < 100
    assert "asks-too-much" in bench.rejections()


def test_request_passed_on_at_the_start_of_an_epoch_counts_from_there(bench):
    """The new primary has it from this replica: how long it waits is watched."""
    bench.to_the_end(0, 1, 2, 3, 4)
    bench.deliver(CLIENT, bench.envelope(2, msgspec.msgpack.encode(["put", "k", "v"])))
    bench.certify(LAST)
    (pending,) = bench.replica._state.pool
    assert (pending.stage, pending.forwarded) == (1, bench.now)


def test_member_without_its_key_starts_and_says_nothing(bench):
    """Its store knows votes that it cannot sign again: it takes no part, but is no reason to end."""
    batch = encode(Batch(bench.now + 1, (bench.envelope(1, msgspec.msgpack.encode(["put", "k", "v"])),)))
    bench.order(1, batch)
    stranger = bench.vault.replica_signer(9)
    lost = Replica(bench.cluster, bench.me, {bytes(32): stranger}, bench.store.load(), bench.vault)
    lost.step(Start(), bench.now)
    assert lost.summary()["member"] is False and lost.summary()["slots"] == 0


def test_process_may_die_between_any_two_records(bench):
    """Even a store that tears writes apart leaves a replica that is in one epoch or the other, and gets to the next.

    What it said before stays said: a checkpoint that it signed is the one that it sends again.
    """
    bench.switch(0, 1, 2, 3, 4)
    records = [effect.record for effect in bench.everything if isinstance(effect, Persist)]
    signed = {message.seq: message for message in bench.sent(Checkpoint, bench.everything)}
    bench.deliver(CLIENT, FetchEpochs(0))
    (proof,) = bench.sent(EpochProof)
    switched = next(index for index, record in enumerate(records) if isinstance(record, Epoch))
    stable = next(i for i, record in enumerate(records) if isinstance(record, Stable) and record.seq == LAST)
    assert stable < switched
    for count in range(len(records) + 1):
        other = EpochBench()
        other.store = MemoryStore()
        other.store.write(records[:count])
        other.restart()
        assert other.replica.configuration.epoch == (1 if count > stable else 0), count
        for message in other.sent(Checkpoint, other.everything):
            assert message == signed[message.seq]
        other.deliver(0, proof)
        summary = other.replica.summary()
        assert (summary["epoch"], summary["stable"]) == (1, LAST)
        assert summary["fetching"] == (None if summary["executed"] == LAST else LAST)
        other.restart()
        assert other.replica.summary()["epoch"] == 1


# --- accountability -------------------------------------------------------------------------------------------------


def test_evidence_of_a_later_epoch_proves_itself_from_the_cluster_file(bench):
    """Its links say whose key the newcomer's is; without them it proves nothing (E12 likewise)."""
    bench.switch(0, 1, 2, 3, 4)
    one, other = (bench.signed(4, Commit(1, 0, LAST + 1, bytes([value]) * 32)) for value in (1, 2))
    bench.deliver(4, one)
    bench.deliver(4, other)
    (accusation,) = [effect for effect in bench.out if isinstance(effect, Evidence)]
    verifier = bench.vault.verifier(4)
    made = file_of(accusation, bench.cluster.id)
    assert (made.accused, made.first, made.second, len(made.links)) == (4, one, other, 1)
    assert verdict(made, bench.cluster, verifier) is None
    unlinked = msgspec.structs.replace(made, links=())
    assert "nothing here says who" in str(verdict(unlinked, bench.cluster, verifier))

    for seq, proven in ((LAST, False), (LAST + 1, True)):
        vote = bench.signed(2, Commit(0, 0, seq, bytes(32)))
        late = msgspec.structs.replace(made, kind=BEYOND_EPOCH, accused=2, first=vote, second=None)
        assert (verdict(late, bench.cluster, verifier) is None) == proven
    wrong = msgspec.structs.replace(late, first=bench.signed(2, Commit(1, 0, LAST + 1, bytes(32))))
    assert "not beyond the epoch's end" in str(verdict(wrong, bench.cluster, verifier))
    twice = msgspec.structs.replace(late, second=late.first)
    assert "one message" in str(verdict(twice, bench.cluster, verifier))


def test_single_message_of_a_later_epoch_is_judged_by_its_rules(bench):
    """A newcomer proposes as a backup: that convicts it, with the links that say who it is."""
    bench.switch(0, 1, 2, 3, 4)
    bench.deliver(4, Proposal(bench.signed(4, PrePrepare(1, 0, LAST + 1, NULL_DIGEST)), b""))
    (refused,) = (effect for effect in bench.out if isinstance(effect, Rejected))
    assert refused.evidence is not None and refused.evidence.kind == "proposal-by-backup"
    made = file_of(refused.evidence, bench.cluster.id)
    verifier = bench.vault.verifier(4)
    assert verdict(made, bench.cluster, verifier) is None
    assert "nothing here says who" in str(verdict(msgspec.structs.replace(made, links=()), bench.cluster, verifier))
    primary = bench.signed(0, PrePrepare(1, 0, LAST + 1, NULL_DIGEST))
    honest = msgspec.structs.replace(made, accused=0, first=primary)
    assert "may have signed" in str(verdict(honest, bench.cluster, verifier))
    stranger = msgspec.structs.replace(made, accused=9)
    assert "no replica 9 in epoch 1" in str(verdict(stranger, bench.cluster, verifier))


def test_pages_and_replies_are_signed_by_members_in_their_epoch():
    """A removed replica still serves and answers, but has no key that others know: it gives no word for either."""
    for ids, is_member in (((0, 1, 2, 3, 4), True), ((0, 2, 3, 4), False)):
        bench = EpochBench(signed_replies=True)
        bench.switch(*ids)
        digests = tuple(bench.store.load().snapshot.pages)
        bench.deliver(4, FetchPages(digests))
        (bodies,) = bench.sent(PageBodies)
        assert [page_digest(page) for page in bodies.pages] == list(digests)
        bench.deliver(CLIENT, bench.envelope(1, b"again"))
        replies, signed = bench.sent(Reply), bench.sent(SignedReply)
        if is_member:
            assert decode_replica_message(bodies.signed.payload) == PagesServed(1, digests, digests)
            (answer,) = signed
            reply = answer.reply
            statement = encode(ReplyStatement(1, CLIENT, reply.session, reply.seq, reply.digest))
            assert reply.epoch == 1 and bench.vault.verifier(4).verify_replica(1, statement, answer.signature)
        else:
            assert bodies.signed is None and [reply.epoch for reply in replies] == [1] and signed == []


def test_pages_without_a_word_count_from_strangers_only(bench):
    """Whose key nobody here has cannot be held to it; a member that gives no word is passed over."""
    page = PageBodies(None, (b"page",))
    everything = lambda *_: True  # noqa: E731
    assert bench.admission.admit(encode(page), 2, everything) is None
    assert bench.admission.admit(encode(page), 9, everything) == Deliver(9, page)
