"""The background scrub tells of damaged pages, and when they are of no use any more."""

from __future__ import annotations

from collections.abc import Sequence

import trio
import trio.testing

from bft.events import PagesRotten
from bft.runtime.scrub import scrub_forever
from bft.runtime.stats import Stats
from bft.storage.memory import MemoryStore

GOOD, BAD, OTHER = b"good", b"bad", b"other"


class _Passes(MemoryStore):
    """What each pass finds; the last one goes on."""

    def __init__(self, *passes: Sequence[bytes]) -> None:
        super().__init__()
        self._passes = list(passes)

    def kept_pages(self) -> list[bytes]:
        return list(self._passes.pop(0) if len(self._passes) > 1 else self._passes[0])

    def damaged(self, digests: Sequence[bytes], /) -> list[bytes]:
        return [digest for digest in digests if digest == BAD]


async def test_damage_is_reported_in_every_pass_and_its_end_once(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """A report that was lost, or found no room, comes again; what no kept snapshot refers to is called off."""
    told: list[PagesRotten] = []
    stats = Stats()
    store = _Passes([GOOD, BAD], [GOOD, BAD], [GOOD, OTHER])
    nursery.start_soon(scrub_forever, store, 8, told.append, stats)
    while stats.scrubs < 5:
        await trio.sleep(0.1)
    assert told == [PagesRotten((BAD,)), PagesRotten((BAD,)), PagesRotten((), (BAD,))]
    nursery.cancel_scope.cancel()
