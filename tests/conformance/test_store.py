"""What every `Store` does: the memory store, SQLite at both durabilities, and what tells an agent of its writes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bft.digests import NULL_DIGEST, batch_digest, page_digest, pages_digest, state_digest
from bft.events import Accepted, Doubted, Epoch, Pages, Prepared, Snapshot, Stable, ViewRecord
from bft.headers import Header, Manifest, MembershipChange, Pending, Reconfigure
from bft.messages import (
    Checkpoint,
    CheckpointCertificate,
    Endorsement,
    EpochLink,
    PreparedCertificate,
    PrePrepare,
    Signed,
)
from bft.ports import Store
from bft.signing.client import FollowedStore
from bft.storage.memory import MemoryStore
from bft.storage.sqlite import SqliteStore
from bft.wire.codec import encode

SIGNATURE = bytes(64)
CLUSTER = b"c" * 32


class Bench:
    """A store, and how to open it again as the next process would."""

    def __init__(self, make: Callable[[], Store], persistent: bool) -> None:
        self._make = make
        self._persistent = persistent
        self.store = make()

    def reopen(self) -> Store:
        if self._persistent:
            self.store.close()
            self.store = self._make()
        return self.store


class Agent:
    """What a store that is followed tells its signing agent."""

    stable = 0


@pytest.fixture(params=["memory", "process", "power", "followed"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    if request.param == "memory":
        bench = Bench(MemoryStore, persistent=False)
    elif request.param == "followed":
        path = tmp_path / "s" / "r.db"
        bench = Bench(lambda: FollowedStore(SqliteStore(path, CLUSTER, 1, "process"), Agent()), persistent=True)  # type: ignore[arg-type]
    else:
        bench = Bench(lambda: SqliteStore(tmp_path / "s" / "r.db", CLUSTER, 1, request.param), persistent=True)
    yield bench
    bench.store.close()


def accepted(seq: int, view: int = 0, batch: bytes = b"batch") -> Accepted:
    digest = batch_digest(batch) if batch else NULL_DIGEST
    return Accepted(seq, view, Signed(0, encode(PrePrepare(0, view, seq, digest)), SIGNATURE), batch)


def prepared(seq: int, view: int = 0) -> Prepared:
    endorsements = (Endorsement(1, SIGNATURE), Endorsement(2, SIGNATURE))
    return Prepared(seq, PreparedCertificate(accepted(seq, view).pre_prepare, endorsements))


def pages(*bodies: bytes) -> dict[bytes, bytes]:
    return {page_digest(body): body for body in bodies}


def snapshot(seq: int, *bodies: bytes, give: dict[bytes, bytes] | None = None, fetched: bool = False) -> Snapshot:
    service = tuple(pages(*bodies))
    header = encode(Header(0, seq, bytes(32), 0, 0, pages_digest(service, ()), bytes(32), None))
    manifest = encode(Manifest(header, service, ()))
    digest = state_digest(header)
    vote = None if fetched else Signed(1, encode(Checkpoint(0, seq, digest)), SIGNATURE)
    return Snapshot(seq, digest, manifest, pages(*bodies) if give is None else give, vote)


def stable(seq: int) -> Stable:
    return Stable(seq, CheckpointCertificate(0, seq, bytes(32), (Endorsement(0, SIGNATURE),)))


def kept(store: Store, *bodies: bytes) -> list[bytes]:
    return store.read_pages([page_digest(body) for body in bodies])


def test_new_store_is_empty(bench: Bench) -> None:
    """A new replica recovers nothing."""
    recovered = bench.reopen().load()

    assert (recovered.view, recovered.stable, recovered.snapshot) == (None, None, None)
    assert (recovered.votes, recovered.accepted, recovered.prepared) == ([], [], [])


def test_store_has_a_name_of_its_own(bench: Bench) -> None:
    """The same for the next process, and another one for another store."""
    name = bench.store.store_id

    assert re.fullmatch("[0-9a-f]{32}", name)
    bench.store.write([accepted(1)])
    assert bench.reopen().store_id == name != MemoryStore().store_id


def test_store_returns_slots_in_order(bench: Bench) -> None:
    """Accepted slots come back by (seq, view), null batches included."""
    records = [accepted(2, 1), accepted(1, 0, b""), accepted(2, 0, b"other")]
    bench.store.write(records)

    assert bench.reopen().load().accepted == [records[1], records[2], records[0]]


def test_store_keeps_prepared_certificate_of_highest_view(bench: Bench) -> None:
    """A certificate of an older view does not replace a newer one."""
    bench.store.write([prepared(1, 2), prepared(2, 0)])
    bench.store.write([prepared(1, 1), prepared(2, 3)])

    assert bench.reopen().load().prepared == [prepared(1, 2), prepared(2, 3)]


def test_store_keeps_last_view_record(bench: Bench) -> None:
    """The last view record replaces the others."""
    last = ViewRecord(3, True, None, Signed(3, b"new view", SIGNATURE))
    bench.store.write([ViewRecord(3, False, Signed(1, b"view change", SIGNATURE), None), last])

    assert bench.reopen().load().view == last


def test_stable_checkpoint_drops_slots_at_or_below_it(bench: Bench) -> None:
    """Slots in the watermark window above the stable checkpoint stay."""
    bench.store.write([accepted(1), accepted(2), accepted(3), prepared(2), prepared(3)])
    bench.store.write([stable(2)])

    recovered = bench.reopen().load()
    assert recovered.accepted == [accepted(3)]
    assert recovered.prepared == [prepared(3)]
    assert recovered.stable == stable(2).certificate


def test_late_record_of_a_dropped_slot_is_not_recovered(bench: Bench) -> None:
    """A slot at or below the stable checkpoint that is written after it does not come back."""
    bench.store.write([stable(2), accepted(2), prepared(1)])

    recovered = bench.reopen().load()
    assert (recovered.accepted, recovered.prepared) == ([], [])


def test_older_stable_checkpoint_is_ignored(bench: Bench) -> None:
    """The low watermark never goes back."""
    bench.store.write([stable(4), stable(2)])

    assert bench.reopen().load().stable == stable(4).certificate


def test_snapshot_comes_back_with_all_pages_and_votes(bench: Bench) -> None:
    """Pages unchanged since the last snapshot need not be given again."""
    bench.store.write([snapshot(2, b"a", b"b")])
    bench.store.write([snapshot(4, b"a", b"c", give=pages(b"c"))])

    recovered = bench.reopen().load()
    assert recovered.snapshot == snapshot(4, b"a", b"c")
    assert recovered.votes == [snapshot(2, b"a", b"b").vote, snapshot(4, b"a", b"c").vote]


def test_votes_at_or_below_stable_checkpoint_are_not_recovered(bench: Bench) -> None:
    """A vote that a certificate supersedes is history."""
    bench.store.write([snapshot(2, b"a"), stable(2), snapshot(4, b"a", give={})])

    assert bench.reopen().load().votes == [snapshot(4, b"a").vote]


def test_fetched_snapshot_counts_once_it_is_stable(bench: Bench) -> None:
    """A fetched snapshot has no own vote: without its certificate the older one is recovered."""
    bench.store.write([snapshot(2, b"a"), snapshot(8, b"b", fetched=True)])
    before = bench.reopen().load().snapshot
    bench.store.write([stable(8)])
    after = bench.reopen().load().snapshot

    assert (before, after) == (snapshot(2, b"a"), snapshot(8, b"b", fetched=True))


def test_snapshots_older_than_previous_stable_go_with_their_pages(bench: Bench) -> None:
    """The last two stable checkpoints can be served to replicas that lag."""
    for seq, bodies in ((2, (b"a", b"x")), (4, (b"b", b"x")), (6, (b"c", b"x"))):
        bench.store.write([snapshot(seq, *bodies), stable(seq)])

    store = bench.reopen()
    assert kept(store, b"a", b"b", b"c", b"x") == [b"b", b"c", b"x"]
    assert store.read_manifest(snapshot(2, b"a", b"x").digest) is None
    assert store.read_manifest(snapshot(4, b"b", b"x").digest) == snapshot(4, b"b", b"x").manifest


def test_page_that_returns_in_a_later_snapshot_is_kept(bench: Bench) -> None:
    """A page dropped from one snapshot and back in the next belongs to the next."""
    for seq, body in ((2, b"a"), (4, b"b"), (6, b"a")):
        bench.store.write([snapshot(seq, body), stable(seq)])

    assert kept(bench.reopen(), b"a", b"b") == [b"a", b"b"]


def test_snapshot_that_takes_the_place_of_a_wrong_one_leaves_no_pages_of_it(bench: Bench) -> None:
    """After a divergence a checkpoint is fetched, or taken again, in the place of the wrong one."""
    bench.store.write([snapshot(2, b"a", b"wrong", b"b")])
    bench.store.write([Pages(pages(b"right"))])
    bench.store.write([snapshot(2, b"a", b"right", give={}, fetched=True), stable(2)])
    assert kept(bench.store, b"a", b"wrong", b"b", b"right") == [b"a", b"right"]
    bench.store.write([snapshot(4, b"a", b"right", b"wrong"), snapshot(4, b"a", b"b"), stable(4)])
    assert kept(bench.store, b"a", b"wrong", b"b", b"right") == [b"a", b"b", b"right"]
    recovered = bench.reopen().load()
    assert recovered.snapshot == snapshot(4, b"a", b"b")


def test_newest_snapshot_survives_a_stable_checkpoint_without_one(bench: Bench) -> None:
    """A replica that learns certificates faster than it fetches states keeps the state it has."""
    bench.store.write([snapshot(2, b"a"), stable(2)])
    bench.store.write([stable(4), stable(6), stable(8)])

    assert bench.reopen().load().snapshot == snapshot(2, b"a")


def test_fetched_pages_resume_after_restart_and_complete_a_snapshot(bench: Bench) -> None:
    """Pages of an unfinished transfer are kept; the finished one drops those that it does not use."""
    bench.store.write([Pages(pages(b"a", b"b", b"odd"))])
    store = bench.reopen()
    assert kept(store, b"a", b"b", b"odd") == [b"a", b"b", b"odd"]

    store.write([snapshot(8, b"a", b"b", b"c", give=pages(b"c"), fetched=True), stable(8)])
    assert bench.reopen().load().snapshot == snapshot(8, b"a", b"b", b"c", fetched=True)
    assert kept(bench.store, b"odd") == []


def test_snapshots_in_doubt_are_not_recovered_but_their_votes_are(bench: Bench) -> None:
    """What was said stays said; the state is that of the last checkpoint below, until another takes its place."""
    wrong = [snapshot(seq, b"wrong%d" % seq) for seq in (4, 6)]
    bench.store.write([snapshot(2, b"a"), stable(2), *wrong, Doubted(4, 7)])
    recovered = bench.reopen().load()
    assert recovered.snapshot == snapshot(2, b"a") and recovered.doubted == 7
    assert recovered.votes == [snapshot.vote for snapshot in wrong]

    bench.store.write([snapshot(4, b"b", fetched=True)])
    assert bench.reopen().load().votes == recovered.votes, "also that at the very checkpoint that was fetched"
    bench.store.write([stable(4)])
    recovered = bench.reopen().load()
    assert recovered.snapshot.digest == snapshot(4, b"b").digest and recovered.votes == [wrong[1].vote]
    assert kept(bench.store, b"wrong4", b"wrong6") == [b"wrong6"], "replaced, its pages are nobody's"

    bench.store.write([snapshot(6, b"c"), Doubted(100, 5)])
    recovered = bench.reopen().load()
    assert recovered.snapshot == snapshot(6, b"c") and recovered.doubted == 7, "executed again, it is as good as any"


def test_certified_after_all_is_in_doubt_no_longer(bench: Bench) -> None:
    """A state that was wrong at one checkpoint may be right at the next, and then so are those after it."""
    bench.store.write([snapshot(2, b"wrong"), snapshot(4, b"a"), snapshot(6, b"b"), Doubted(2, 6)])
    assert bench.reopen().load().snapshot is None
    bench.store.write([stable(4)])
    assert bench.reopen().load().snapshot == snapshot(6, b"b")


def test_fetched_page_outlives_the_snapshot_that_also_had_it(bench: Bench) -> None:
    """A page wanted by a transfer is not collected with an old snapshot."""
    bench.store.write([snapshot(2, b"a"), stable(2), snapshot(4, b"b"), stable(4), Pages(pages(b"a"))])
    bench.store.write([snapshot(6, b"c"), stable(6)])

    assert kept(bench.reopen(), b"a") == [b"a"]


def test_pages_of_abandoned_transfer_go_after_two_own_checkpoints(bench: Bench) -> None:
    """A replica that caught up by itself does not keep fetched pages for ever."""
    bench.store.write([Pages(pages(b"odd", b"b"))])
    for seq in (2, 4, 6):
        bench.store.write([snapshot(seq, b"b"), stable(seq)])

    assert kept(bench.reopen(), b"odd", b"b") == [b"b"]


def test_snapshot_without_its_pages_is_a_bug(bench: Bench) -> None:
    """A snapshot must be re-readable when its vote leaves: others may ask for it at once."""
    with pytest.raises(AssertionError, match="lacks"):
        bench.store.write([snapshot(2, b"a", give={})])


def test_absent_pages_are_left_out(bench: Bench) -> None:
    """Pages come in the order asked, absent ones left out."""
    bench.store.write([snapshot(2, b"a", b"b")])

    assert kept(bench.reopen(), b"b", b"none", b"a") == [b"b", b"a"]


def link(epoch: int, seq: int) -> EpochLink:
    pending = Pending(seq, Reconfigure(encode(MembershipChange(epoch, ())), (), ()))
    header = encode(Header(epoch, seq, bytes(32), 0, 0, bytes(32), bytes(32), pending))
    certificate = CheckpointCertificate(epoch, seq, state_digest(header), (Endorsement(0, SIGNATURE),))
    return EpochLink(header, certificate)


def test_next_epoch_voids_views_and_votes_of_the_one_before(bench: Bench) -> None:
    """What was accepted or prepared, and the view, belong to an epoch; checkpoints and the chain of epochs stay."""
    first, second = link(0, 2), link(1, 4)
    bench.store.write([accepted(3), prepared(3), snapshot(2, b"a"), ViewRecord(3, False, None, None)])
    bench.store.write([Stable(2, first.certificate), Epoch(first)])
    recovered = bench.reopen().load()
    assert (recovered.view, recovered.accepted, recovered.prepared) == (None, [], [])
    assert (recovered.stable, recovered.epochs) == (first.certificate, [first])
    assert recovered.snapshot is not None

    bench.store.write([accepted(5), ViewRecord(0, True, None, None)])
    bench.store.write([Epoch(second), accepted(6)])
    recovered = bench.reopen().load()
    assert (recovered.view, recovered.accepted, recovered.epochs) == (None, [accepted(6)], [first, second])
