"""State transfer and repair: catching up from lying, silent and honest peers."""

from __future__ import annotations

import msgspec
import pytest

from bft.config import MILLISECOND
from bft.core.evidence import file_of
from bft.core.sources import Sources
from bft.core.verdict import verdict
from bft.digests import batch_digest, page_digest
from bft.engine import PAGES_WINDOW_BYTES, Engine
from bft.events import Deliver, Persist, Progress, Rejected, Send
from bft.headers import Manifest
from bft.messages import (
    BatchBody,
    Checkpoint,
    FetchBatch,
    FetchManifest,
    FetchPages,
    ManifestBody,
    PageBodies,
    PagesServed,
    Prepare,
    Reply,
    Status,
)
from bft.sim.service import Registers
from bft.wire.codec import encode


def _begin(bench, source) -> None:
    """Show the laggard a proof and let it find out that ordinary repair does not help."""
    digest = source.store.load().snapshot.digest
    bench.deliver(2, bench.checkpoint_certificate(8, digest))
    bench.wait(500)


def _answer(bench, source, effects, corrupt=lambda packet: packet) -> None:
    """Let the source serve what the laggard asks for, whoever it asks."""
    asked = [effect for effect in effects if isinstance(effect, Send)]
    while asked:
        effect = asked.pop(0)
        if isinstance(effect.packet, FetchManifest | FetchPages):
            served = source.deliver(bench.me, effect.packet)
            for answer in [item for item in served if isinstance(item, Send)]:
                asked += [
                    item
                    for item in bench.deliver(int(str(effect.to)), corrupt(answer.packet))
                    if isinstance(item, Send)
                ]


def test_laggard_installs_a_verified_checkpoint_and_goes_on(bench, source):
    """After the transfer it executes the next slot like everybody else."""
    _begin(bench, source)
    assert bench.sent(FetchManifest)
    _answer(bench, source, bench.out)
    assert (bench.executed, bench.stable) == (8, 8)
    bench.order(9, bench.batch(bench.request(9, ["get", "k3"])))
    assert bench.executed == 9
    assert bench.replica.summary()["chain"] != "", "chain goes on"


def test_transferred_state_survives_a_restart(bench, source):
    """The snapshot is durable before it is used."""
    _begin(bench, source)
    _answer(bench, source, bench.out)
    bench.restart()
    assert (bench.executed, bench.stable) == (8, 8)


def test_replies_come_with_the_state(bench, source):
    """A replica that caught up answers retransmissions: kept replies are part of the checkpoint."""
    _begin(bench, source)
    _answer(bench, source, bench.out)
    bench.deliver(bytes(range(32)), bench.request(3))
    assert len(bench.sent(Reply)) == 1


@pytest.mark.parametrize(
    "corrupt",
    [
        lambda packet: ManifestBody(packet.manifest + b"x") if isinstance(packet, ManifestBody) else packet,
        lambda packet: ManifestBody(b"") if isinstance(packet, ManifestBody) else packet,
        lambda packet: PageBodies(packet.signed, (b"lies",)) if isinstance(packet, PageBodies) else packet,
        lambda packet: (
            PageBodies(packet.signed, (*packet.pages[:-1], packet.pages[-1] + b"x"))
            if isinstance(packet, PageBodies)
            else packet
        ),
    ],
)
def test_nothing_unverified_is_installed(bench, source, corrupt):
    """Every byte is held against the certified digest; another peer is asked instead. [CL99 4.3]"""
    _begin(bench, source)
    _answer(bench, source, bench.out, corrupt)
    assert bench.executed == 0
    for _ in range(3):
        _answer(bench, source, bench.wait(400))
    assert bench.executed == 8


def test_transfer_resumes_with_the_pages_it_has(bench, source):
    """Pages are kept durably as they come, so that a crash in the middle loses no work."""
    _begin(bench, source)
    served = source.deliver(1, bench.sent(FetchManifest)[0])
    bench.deliver(2, next(item.packet for item in served if isinstance(item, Send)))
    wanted = [digest for message in bench.sent(FetchPages) for digest in message.digests]
    page = source.store.read_pages(wanted[:1])[0]
    bench.deliver(2, bench.pages(2, page))
    assert any(isinstance(effect, Persist) for effect in bench.out)
    bench.restart()
    _begin(bench, source)
    bench.deliver(2, next(item.packet for item in served if isinstance(item, Send)))
    again = [digest for message in bench.sent(FetchPages) for digest in message.digests]
    assert wanted[0] not in again
    assert set(again) == set(wanted[1:])


def test_weak_certificate_is_no_certificate(bench, source):
    """f + 1 votes prove the digest right, not that the state can be had: refused (mutant M12)."""
    digest = source.store.load().snapshot.digest
    bench.deliver(2, bench.checkpoint_certificate(8, digest, [0, 2]))
    assert bench.rejections() == ["wrong-quorum"]


def test_commit_certificate_decides_without_votes(bench):
    """A transferable proof brings a laggard forward; the missing batch is asked for."""
    batch = bench.batch()
    bench.deliver(3, bench.commit_certificate(1, batch_digest(batch)))
    assert bench.executed == 0
    assert bench.sent(FetchBatch)
    bench.deliver(3, BatchBody(batch))
    assert bench.executed == 1


def test_status_of_a_laggard_is_answered_oldest_first_and_not_too_often(bench):
    """Holes are filled in order; a flood of STATUS is answered once per interval."""
    for seq in range(1, 5):
        bench.order(seq, bench.batch(bench.request(seq)))
    lagging = Status(0, 0, True, 0, 0, ())
    bench.now += 10**9
    bench.deliver(3, lagging)
    sent = [effect.packet.seq for effect in bench.out if isinstance(effect, Send) and hasattr(effect.packet, "commits")]
    assert sent == [1, 2, 3, 4]
    bench.deliver(3, lagging)
    assert not bench.out


def test_own_state_that_differs_from_the_stable_one_is_replaced(bench, source):
    """A replica whose state diverged says so and fetches the certified one. [CL99 4.3]"""
    for seq in range(1, 9):
        bench.order(seq, bench.batch(bench.request(seq, ["put", "other", f"{seq}"])))
    digest = source.store.load().snapshot.digest
    bench.deliver(2, bench.checkpoint_certificate(8, digest))
    assert any(getattr(effect, "what", "") == "diverged" for effect in bench.out)
    _answer(bench, source, bench.out)
    assert bench.stable == 8
    assert bench.replica.summary()["state_digest"] == digest.hex()


def test_repaired_replica_goes_on_without_voting_twice(bench, source):
    """It had voted for a later checkpoint of its wrong state: the vote stands, the right state is kept."""
    for seq in range(1, 9):
        bench.order(seq, bench.batch(bench.request(seq, ["put", "other", f"{seq}"])))
    for seq in range(9, 17):
        bench.order(seq, bench.batch(bench.request(seq)))
    given = bench.store.load().votes[-1]
    digest = source.store.load().snapshot.digest
    bench.deliver(2, bench.checkpoint_certificate(8, digest))
    _answer(bench, source, bench.out)
    assert bench.executed == 16, "the decided suffix was executed again"
    assert not [vote for vote in bench.sent(Checkpoint) if vote.seq == 16]
    assert bench.store.load().votes[-1] == given
    for seq in range(17, 24):
        bench.order(seq, bench.batch(bench.request(seq)))
    for seq in range(9, 24):
        source.order(seq, source.batch(source.request(seq)))
    bench.deliver(2, bench.checkpoint_certificate(16, source.store.load().snapshot.digest))
    assert bench.stable == 16


def test_vote_for_another_state_is_never_counted_for_this_one(bench):
    """Executed for the third time with the outcome of the second: what was voted for is the first one's.

    Counted for this state it would be a signature that does not hold, in a certificate of this replica's making.
    """
    for seq in range(1, 9):
        bench.order(seq, bench.batch(bench.request(seq)))
    right, _ = bench.replica._state.own_checkpoints[8]
    wrong = bench.signed(1, Checkpoint(0, 8, bytes(32)))
    bench.store._snapshots.clear()
    bench.restart()
    bench.replica._state.own_checkpoints[8] = (right, wrong)
    for seq in range(1, 9):
        bench.order(seq, bench.batch(bench.request(seq)))
    assert not bench.sent(Checkpoint)
    for replica in (0, 2):
        bench.deliver(replica, bench.signed(replica, Checkpoint(0, 8, right)))
    assert bench.stable == 0, "two have voted for this state"
    bench.deliver(3, bench.signed(3, Checkpoint(0, 8, right)))
    assert bench.stable == 8


# --- sources, cap, progress ------------------------------------------------------------------------------------------


def _left(effects) -> list[str]:
    return [effect.detail for effect in effects if isinstance(effect, Progress) and effect.what == "source-left"]


def _asked_for_pages(effects) -> list[Send]:
    return [effect for effect in effects if isinstance(effect, Send) and isinstance(effect.packet, FetchPages)]


def _later(make_bench, last: int) -> dict[int, tuple[bytes, bytes]]:
    """Slot -> (digest, manifest) of the checkpoints that others take up to `last`, all of one content."""
    bench = make_bench(me=2)
    found = {}
    for seq in range(1, last + 1):
        bench.order(seq, bench.batch(bench.request(seq, ["put", "later", f"{seq}"])))
        if seq % 8 == 0:
            snapshot = bench.store.load().snapshot
            found[seq] = (snapshot.digest, snapshot.manifest)
            for replica in (0, 3):
                bench.deliver(replica, bench.signed(replica, Checkpoint(0, seq, snapshot.digest)))
    return found


def _with_manifest(bench, source) -> Send:
    """Begin a transfer, give the manifest; returns the first request for pages."""
    _begin(bench, source)
    asked = next(
        effect for effect in bench.out if isinstance(effect, Send) and isinstance(effect.packet, FetchManifest)
    )
    manifest = source.deliver(bench.me, asked.packet)[0]
    bench.deliver(int(str(asked.to)), manifest.packet)
    return _asked_for_pages(bench.out)[0]


def test_source_that_sends_what_nobody_asked_for_is_named_and_left(bench, source):
    """A lie is told at once, and the next request goes to somebody else."""
    asked = _with_manifest(bench, source)
    out = bench.deliver(asked.to, bench.pages(int(str(asked.to)), b"a lie"))
    assert _left(out) == [f"r{asked.to}: lying: sent a page that nobody asked for"]
    again = _asked_for_pages(out)
    assert again and all(effect.to != asked.to for effect in again)
    _answer(bench, source, again)
    bench.wait(1000)
    _answer(bench, source, _asked_for_pages(bench.out))
    assert bench.executed == 8
    report = bench.replica.summary()["last_transfer"]
    assert "lying: sent a page that nobody asked for" in report["sources"][f"r{asked.to}"]["named"]


def test_source_with_the_manifest_of_another_state_is_named_and_left(bench, source):
    """It is stale or lies: whichever, somebody else is asked."""
    _begin(bench, source)
    asked = next(
        effect for effect in bench.out if isinstance(effect, Send) and isinstance(effect.packet, FetchManifest)
    )
    out = bench.deliver(asked.to, ManifestBody(encode(Manifest(b"another", (), ()))))
    assert _left(out) == [f"r{asked.to}: stale or lying: sent the manifest of another state"]
    targets = {
        effect.to
        for effect in bench.wait(2000)
        if isinstance(effect, Send) and isinstance(effect.packet, FetchManifest)
    }
    assert targets and asked.to not in targets


def test_silent_source_is_named_and_left_and_forgiven_when_all_are(bench, source):
    """Two requests in a row without any answer; when nobody is left to ask, everybody is asked again."""
    _with_manifest(bench, source)
    out = bench.wait(10_000)
    assert {line.split(": ")[1] for line in _left(out)} == {"silent"}
    named = {line.split(":")[0] for line in _left(out)}
    assert len(named) >= 2, "every signer of the certificate was tried"
    last = _asked_for_pages(out)[-1]
    _answer(bench, source, [last])
    bench.wait(1000)
    _answer(bench, source, _asked_for_pages(bench.out))
    assert bench.executed == 8


def test_late_answer_is_no_lie(bench, source):
    """A page that somebody else has brought meanwhile is dropped, and nobody is blamed."""
    asked = _with_manifest(bench, source)
    served = [effect.packet for effect in source.deliver(bench.me, asked.packet) if isinstance(effect, Send)]
    for packet in served:
        bench.deliver(asked.to, packet)
    for packet in served:
        assert _left(bench.deliver(asked.to, packet)) == []


def test_pages_are_asked_from_several_sources_at_once(make_bench):
    """Each starts with few pages; who answers gets more."""
    sources = Sources()
    sources.know([0, 2, 3])
    asked = []
    pages = [bytes([number]) * 32 for number in range(40)]
    for _ in range(3):
        replica = sources.next_for_pages()
        source = sources.by_replica[replica]
        source.open.update(dict.fromkeys(pages[: source.batch], 0))
        del pages[: source.batch]
        asked.append(replica)
    assert sorted(asked) == [0, 2, 3]
    for digest in list(sources.by_replica[2].open):
        sources.took_page(2, digest, 100, 5)
    assert sources.by_replica[2].batch == 8
    assert sources.next_for_pages() == 2, "the idle one is asked next"


def test_bandwidth_cap_spreads_a_transfer_over_time(bench, source):
    """With a cap the next page is asked for only when the last ones are paid for."""
    bench.replica._state.transfer_rate = 100  # bytes a second; the pages have some tens each
    asked = _with_manifest(bench, source)
    assert len(asked.packet.digests) == 1, "no more than may pass between two looks"
    began = bench.now
    _answer(bench, source, [asked])
    assert bench.executed == 0
    while bench.executed == 0:
        _answer(bench, source, bench.wait(20))
        assert bench.now - began < 600 * 10**9
    report = bench.replica.summary()["last_transfer"]
    assert report["fetched"] >= 3
    last = 2 * max(map(len, source.store.load().snapshot.pages.values()))
    assert (bench.now - began) / 10**9 >= (report["bytes"] - last) / 100


def test_progress_of_a_transfer_is_told(bench, source):
    """Pages of how many, bytes, and from whom; the last transfer stays to be looked at."""
    asked = _with_manifest(bench, source)
    told = bench.replica.summary()["fetch"]
    assert told["seq"] == 8 and told["pages"] >= told["missing"] > 0 and told["fetched"] == 0
    _answer(bench, source, [asked, *_asked_for_pages(bench.out)])
    bench.wait(1000)
    _answer(bench, source, _asked_for_pages(bench.out))
    summary = bench.replica.summary()
    assert summary["fetch"] is None
    assert summary["last_transfer"]["fetched"] == sum(
        item["pages"] for item in summary["last_transfer"]["sources"].values()
    )
    assert summary["transferred"] == {
        "count": 1, **{name: summary["last_transfer"][name] for name in ("fetched", "bytes", "milliseconds")}
    }


def test_what_was_fetched_for_an_overtaken_checkpoint_counts(bench, source):
    """It is one transfer: a replica under load is overtaken again and again, and 100 MB are not "1 page"."""
    asked = _with_manifest(bench, source)
    peer = int(str(asked.to))
    bench.deliver(peer, bench.pages(peer, source.store.read_pages(asked.packet.digests[:1])[0]))
    before = bench.replica.summary()["fetch"]
    assert before["fetched"] == 1 and before["bytes"] > 0
    bench.deliver(2, bench.checkpoint_certificate(16, bytes(32)))
    bench.wait(1000)
    after = bench.replica.summary()["fetch"]
    assert after["seq"] == 16
    assert {name: after[name] for name in ("fetched", "bytes")} == {name: before[name] for name in ("fetched", "bytes")}
    assert after["milliseconds"] >= 1000
    assert (before["overtaken"], after["overtaken"]) == (0, 1)


def test_what_a_cap_is_owed_for_an_overtaken_checkpoint_is_still_owed(bench, source):
    """Else whoever is overtaken again and again under load gets a page for nothing each time."""
    rate = bench.replica._state.transfer_rate = 10  # bytes a second: a page takes seconds
    asked = _with_manifest(bench, source)
    peer = int(str(asked.to))
    (page,) = source.store.read_pages(asked.packet.digests[:1])
    owed = bench.now + len(page) * 10**9 // rate
    bench.deliver(peer, bench.pages(peer, page))
    for seq in range(9, 17):
        source.order(seq, source.batch(source.request(seq)))
    bench.deliver(2, bench.checkpoint_certificate(16, source.store.load().snapshot.digest))
    asked = next(effect for effect in bench.wait(1000) if isinstance(effect, Send) and effect.to != bench.me)
    assert isinstance(asked.packet, FetchManifest) and asked.packet.seq == 16
    bench.deliver(int(str(asked.to)), source.deliver(bench.me, asked.packet)[0].packet)
    assert bench.now < owed
    while bench.now < owed:
        assert not _asked_for_pages(bench.out)
        bench.wait(20)
    assert _asked_for_pages(bench.wait(500))


@pytest.mark.parametrize("targets", [(16,), (16, 24)])
def test_late_answer_about_an_overtaken_checkpoint_is_no_lie(bench, source, make_bench, targets):
    """A source that is slow, and sends what an earlier target had to do with, is neither named nor left."""
    _begin(bench, source)
    asked = next(
        effect for effect in bench.out if isinstance(effect, Send) and isinstance(effect.packet, FetchManifest)
    )
    manifest = next(effect.packet for effect in source.deliver(1, asked.packet) if isinstance(effect, Send))
    pages = dict(source.store.load().snapshot.pages)
    bench.deliver(asked.to, manifest)
    later = _later(make_bench, targets[-1])
    for seq in targets:
        bench.deliver(2, bench.checkpoint_certificate(seq, later[seq][0]))
        bench.wait(1000)
        assert bench.replica.summary()["fetching"] == seq
    peer = int(str(asked.to))
    assert _left(bench.deliver(peer, manifest)) == []
    bench.deliver(3, ManifestBody(later[targets[-1]][1]))
    assert _left(bench.deliver(peer, bench.pages(peer, *pages.values()))) == []


def test_late_answer_about_a_transfer_that_is_over_is_no_lie(bench, source, make_bench):
    """A replica that falls behind again soon hears from a slow source what it asked for the last time."""
    asked = _with_manifest(bench, source)
    pages = source.store.read_pages(asked.packet.digests)
    _answer(bench, source, [asked, *_asked_for_pages(bench.out)])
    bench.wait(1000)
    _answer(bench, source, _asked_for_pages(bench.out))
    assert bench.executed == 8
    digest, manifest = _later(make_bench, 16)[16]
    bench.deliver(2, bench.checkpoint_certificate(16, digest))
    bench.wait(1000)
    bench.deliver(2, ManifestBody(manifest))
    assert bench.replica.summary()["fetching"] == 16
    peer = int(str(asked.to))
    assert _left(bench.deliver(peer, bench.pages(peer, *pages))) == []


def test_receiver_goes_on_voting_above_the_checkpoint_it_fetches(bench, source):
    """PREPARE for a slot above the target, none for one below it: votes rest on batches, not on the state."""
    _with_manifest(bench, source)
    for seq, votes in ((7, 0), (9, 1)):
        bench.deliver(0, bench.proposal(seq, bench.batch(bench.request(seq))))
        assert len(bench.sent(Prepare)) == votes


# --- signed pages ----------------------------------------------------------------------------------------------------


def test_page_that_is_not_what_was_asked_for_convicts_its_sender(bench, source):
    """The sender signs both digests: the lie is in its own words, to be shown to anybody."""
    _begin(bench, source)
    wanted = page_digest(b"wanted")
    lie = bench.signed(3, PagesServed(0, (wanted,), (page_digest(b"lies"),)))
    bench.deliver(3, PageBodies(lie, (b"lies",)))
    (refused,) = (effect for effect in bench.out if isinstance(effect, Rejected))
    assert refused.reason == "other-pages" and refused.evidence is not None
    assert (refused.evidence.accused, refused.evidence.kind) == (3, "lying-page")
    proof = file_of(refused.evidence, bench.cluster.id)
    assert verdict(proof, bench.cluster, bench.vault.verifier(4)) is None
    honest = msgspec.structs.replace(proof, first=bench.signed(3, PagesServed(0, (wanted,), (wanted,))))
    assert "may have signed" in str(verdict(honest, bench.cluster, bench.vault.verifier(4)))


def test_pages_that_were_exchanged_on_the_way_convict_nobody(bench, source):
    """What was signed for is not what came; unsigned pages do not count at all."""
    _begin(bench, source)
    honest = bench.pages(3, b"page")
    for packet, reason in (
        (PageBodies(honest.signed, (b"lies",)), "digest-mismatch"),
        (PageBodies(bench.signed(3, Checkpoint(0, 8, page_digest(b"page"))), (b"page",)), "malformed"),
        (PageBodies(msgspec.structs.replace(honest.signed, signature=bytes(64)), (b"page",)), "bad-signature"),
    ):
        bench.deliver(3, packet)
        assert bench.rejections() == [reason]
        assert [effect.evidence for effect in bench.out if isinstance(effect, Rejected)] == [None]


class _Rotten:
    """A disk on which the first page is not what it was."""

    def __init__(self, pages: dict[bytes, bytes]) -> None:
        self._pages = {**pages, next(iter(pages)): b"rot"}

    def read_pages(self, digests: tuple[bytes, ...]) -> list[bytes]:
        """Whatever is there."""
        return [self._pages[digest] for digest in digests]


def test_page_that_rotted_on_the_disk_is_not_served(source):
    """A correct replica with a bad disk says nothing rather than something false under its name."""
    pages = source.store.load().snapshot.pages
    engine = Engine(source.replica, Registers(), _Rotten(pages))
    (sent,) = source.sent(PageBodies, engine.step(Deliver(1, FetchPages(tuple(pages))), source.now))
    assert b"rot" not in sent.pages and len(sent.pages) == len(pages) - 1


class _Large:
    """A disk full of large pages and manifests."""

    page = bytes(1 << 20)

    def read_pages(self, digests: tuple[bytes, ...]) -> list[bytes]:
        """The page, whatever is asked for."""
        return [self.page for _ in digests]

    def read_manifest(self, digest: bytes) -> bytes:
        """As large as a page."""
        return self.page


@pytest.mark.parametrize("asked", [FetchPages((page_digest(_Large.page),)), FetchManifest(8, bytes(32))])
def test_what_one_peer_gets_of_the_state_is_bounded_in_time(source, asked):
    """A request of 40 bytes brings a megabyte: who asks without end gets what a receiver could use, and no more."""
    engine = Engine(source.replica, Registers(), _Large())

    def answers(milliseconds: int) -> int:
        now = source.now + milliseconds * MILLISECOND
        effects = [effect for _ in range(100) for effect in engine.step(Deliver(1, asked), now)]
        return len([effect for effect in effects if isinstance(effect, Send)])

    assert answers(0) == PAGES_WINDOW_BYTES // len(_Large.page)
    assert answers(400) == 0
    assert answers(500) == PAGES_WINDOW_BYTES // len(_Large.page)
