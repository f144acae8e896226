"""Damaged pages come back from whoever has them, by their digests, and the replica goes on meanwhile."""

from __future__ import annotations

from bft.core.rot import PAGES_PER_REQUEST, ROTTEN_MAX
from bft.digests import page_digest
from bft.events import Pages, PagesRotten, Persist, Progress, Rejected, Send
from bft.messages import FetchManifest, FetchPages
from tests.conftest import Bench

PAGE = b"a page of the stable checkpoint"


def _asked(effects: list[object]) -> list[Send]:
    return [effect for effect in effects if isinstance(effect, Send) and isinstance(effect.packet, FetchPages)]


def _written(effects: list[object]) -> list[Pages]:
    return [e.record for e in effects if isinstance(e, Persist) and isinstance(e.record, Pages)]


def test_damaged_page_is_asked_for_in_turn_until_it_comes(bench: Bench) -> None:
    """Silent and lying peers are passed over; what has the digest is written back, and nothing else."""
    first = _asked(bench.step(PagesRotten((page_digest(PAGE),))))
    assert [effect.packet.digests for effect in first] == [(page_digest(PAGE),)]
    assert bench.replica.summary()["rotten"] == 1
    again = _asked(bench.wait(3000))
    assert {effect.to for effect in again} == {0, 2, 3}
    assert _written(bench.deliver(2, bench.pages(2, b"a lie"))) == []
    assert [record.pages for record in _written(bench.deliver(3, bench.pages(3, PAGE)))] == [{page_digest(PAGE): PAGE}]
    assert (bench.replica.summary()["rotten"], bench.replica.summary()["repaired"]) == (0, 1)
    assert _asked(bench.wait(3000)) == []


def test_replica_orders_while_pages_are_missing(bench: Bench) -> None:
    """What is damaged lies on the disk; the state in memory is whole."""
    bench.step(PagesRotten((page_digest(PAGE),)))
    bench.order(1, bench.batch(bench.request(1)))
    assert bench.executed == 1


def _lost(count: int) -> list[bytes]:
    """Digests of pages that nobody has."""
    return [page_digest(b"lost" + number.to_bytes(2, "big")) for number in range(count)]


def test_pages_that_nobody_has_are_in_nobodys_way(bench: Bench) -> None:
    """They wait at the end; every replica is asked for every page, however many requests that takes."""
    lost = _lost(8 * PAGES_PER_REQUEST)
    bench.step(PagesRotten(tuple(lost)))
    bench.wait(3000)
    bench.step(PagesRotten((page_digest(PAGE),)))
    asked = _asked(bench.wait(3000))
    for digest in (page_digest(PAGE), *lost):
        assert {effect.to for effect in asked if digest in effect.packet.digests} == {0, 2, 3}


def test_damaged_page_of_no_use_is_forgotten_and_makes_room(bench: Bench) -> None:
    """Otherwise those that nobody has would fill the table in the end."""
    lost = _lost(ROTTEN_MAX)
    bench.step(PagesRotten(tuple(lost)))
    bench.step(PagesRotten((page_digest(PAGE),)))
    bench.step(PagesRotten((), tuple(lost)))
    assert bench.replica.summary()["rotten"] == 0
    assert _asked(bench.wait(3000)) == []
    bench.step(PagesRotten((page_digest(PAGE),)))
    assert bench.replica.summary()["rotten"] == 1


def test_answer_about_a_damaged_page_is_no_lie_in_a_transfer(bench: Bench, source: Bench) -> None:
    """Neither the first answer, nor one that comes when the page was repaired already."""
    bench.step(PagesRotten((page_digest(PAGE),)))
    bench.deliver(2, bench.checkpoint_certificate(8, source.store.load().snapshot.digest))
    asked = [effect for effect in bench.wait(500) if isinstance(effect, Send)]
    target, request = next((int(str(e.to)), e.packet) for e in asked if isinstance(e.packet, FetchManifest))
    bench.deliver(target, source.deliver(bench.me, request)[0].packet)  # type: ignore[union-attr]
    for peer in (0, 2, 3):
        out = bench.deliver(peer, bench.pages(peer, PAGE))
        assert not any(isinstance(effect, Rejected) for effect in out)
        assert not any(isinstance(effect, Progress) and effect.what == "source-left" for effect in out)
    out = bench.deliver(2, bench.pages(2, b"a lie"))
    assert [e.detail for e in out if isinstance(e, Progress)] == ["r2: lying: sent a page that nobody asked for"]
