"""Bit rot: stored pages that are no longer what their digests say come back from the other replicas.

The service in memory is not touched: pages are read at a restart and to serve others. A page is believed by its digest,
so it does not matter who sends it; whom to ask is a matter of turn, among all, since all keep the stable checkpoint.
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
    """Remember what is missing, and ask for it."""
    for digest in event.digests:
        if len(state.rotten) < ROTTEN_MAX:
            state.rotten.setdefault(digest, -1)
    state.progress("rot", state.log.low, f"{len(event.digests)} pages are damaged")
    ask(state)


def ask(state: State) -> None:
    """Ask the next replica for what has not come; what nobody keeps any more goes out of use here as well."""
    patience = 2 * state.status_interval_ns
    due = (digest for digest, at in state.rotten.items() if at < 0 or state.now - at >= patience)
    wanted = tuple(islice(due, PAGES_PER_REQUEST))
    if not wanted:
        return
    state.rotten.update(dict.fromkeys(wanted, state.now))
    others = [replica for replica in state.quorums.members if replica != state.me]
    state.send(others[state.now // patience % len(others)], FetchPages(wanted))


def take(state: State, message: PageBodies) -> bool:
    """Write back what was damaged; True if the packet brought any of it."""
    if not state.rotten:
        return False
    found = {digest: page for page in message.pages if (digest := page_digest(page)) in state.rotten}
    if not found:
        return False
    for digest in found:
        del state.rotten[digest]
    state.repaired += len(found)
    state.persist(Pages(found))
    state.progress("repaired", state.log.low, f"{len(found)} pages, {len(state.rotten)} to come")
    return True
