"""Bit rot: stored pages that are no longer what their digests say come back from the other replicas.

The service in memory is not touched: pages are read at a restart and to serve others. A page is believed by its digest,
so it does not matter who sends it; whom to ask is a matter of turn, among all, since all keep the stable checkpoint.

A page may be one that nobody can send: the others have left its checkpoint, or the own store has. It waits its turn at
the end of the row, so that it is in nobody's way, until the scrub says that no kept snapshot refers to it any more.
"""

from __future__ import annotations

from itertools import islice

from bft.core.state import State
from bft.digests import page_digest
from bft.events import Pages, PagesRotten
from bft.messages import FetchPages, PageBodies

ROTTEN_MAX = 4096
PAGES_PER_REQUEST = 32


def on_rotten(state: State, event: PagesRotten) -> None:
    """Remember what is missing, and ask for it; forget what is of no use any more."""
    for digest in event.unused:
        state.rotten.pop(digest, None)
    if not event.digests:
        return
    for digest in event.digests:
        if len(state.rotten) < ROTTEN_MAX:
            state.rotten.setdefault(digest, (-1, 0))
    state.progress("rot", state.log.low, f"{len(event.digests)} pages are damaged")
    ask(state)


def ask(state: State) -> None:
    """Ask for what has not come, each page from one replica after the other; what was asked for goes to the end."""
    patience = 2 * state.status_interval_ns
    due = (digest for digest, (at, _) in state.rotten.items() if at < 0 or state.now - at >= patience)
    wanted = tuple(islice(due, PAGES_PER_REQUEST))
    if not wanted:
        return
    others = [replica for replica in state.quorums.members if replica != state.me]
    target = others[(state.me + state.rotten[wanted[0]][1]) % len(others)]
    for digest in wanted:
        _, times = state.rotten.pop(digest)
        state.rotten[digest] = (state.now, times + 1)
    state.note_asked(wanted)
    state.send(target, FetchPages(wanted))


def take(state: State, message: PageBodies) -> None:
    """Write back what was damaged."""
    if not state.rotten:
        return
    found = {digest: page for page in message.pages if (digest := page_digest(page)) in state.rotten}
    if not found:
        return
    for digest in found:
        del state.rotten[digest]
    state.repaired += len(found)
    state.persist(Pages(found))
    state.progress("repaired", state.log.low, f"{len(found)} pages, {len(state.rotten)} to come")
