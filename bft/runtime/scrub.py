"""The background scrub: reads the stored pages at a low rate, and has damaged ones fetched again."""

from __future__ import annotations

from collections.abc import Callable

import trio

from bft.events import PagesRotten
from bft.ports import Store
from bft.runtime.stats import Stats

PAGES_AT_ONCE = 8


async def scrub_forever(
    store: Store, pages_per_second: int, report: Callable[[PagesRotten], None], stats: Stats
) -> None:
    """Go through all pages of the kept snapshots again and again; of damaged ones also tell when they are of no use.

    Reading happens in a thread, a few pages at a time, so that the event loop never waits for the disk.

    Raises:
        StorageError: a manifest or the file itself is damaged, which nothing that peers have can repair.
    """
    reported: set[bytes] = set()
    while True:
        digests = await trio.to_thread.run_sync(store.kept_pages)
        unused = reported.difference(digests)
        if unused:
            reported -= unused
            report(PagesRotten((), tuple(sorted(unused))))
        for start in range(0, len(digests), PAGES_AT_ONCE):
            group = digests[start : start + PAGES_AT_ONCE]
            damaged = await trio.to_thread.run_sync(store.damaged, group)
            stats.scrubbed += len(group)
            if damaged:
                stats.rotten += len(damaged)
                reported.update(damaged)
                report(PagesRotten(tuple(damaged)))
            await trio.sleep(len(group) / pages_per_second)
        stats.scrubs += 1
        await trio.sleep(PAGES_AT_ONCE / pages_per_second)
