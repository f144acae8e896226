"""Damaged pages come back from whoever has them, by their digests, and the replica goes on meanwhile."""

from __future__ import annotations

from bft.digests import page_digest
from bft.events import Pages, PagesRotten, Persist, Send
from bft.messages import FetchPages
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
