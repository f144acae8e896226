"""What a peer is sent because it asked, per tick: a small question with a large answer must not become a weapon.

Answers beyond the budget are dropped and counted; whoever has a right to them asks again (`bft.core.repair`,
`bft.client.session`). The bounds lie above what a correct peer asks for in a tick: a lagging replica wants one window
of batches, a client the replies of its own window. STATUS has a stricter rule of its own, an answer per half interval.
"""

from __future__ import annotations

from bft.core.state import State
from bft.ids import Peer

ANSWERS_PER_TICK = 512
REPLICA_BYTES_PER_TICK = 64 * 1024 * 1024
CLIENT_BYTES_PER_TICK = 8 * 1024 * 1024


def may_answer(state: State, peer: Peer, size: int = 0) -> bool:
    """Count an answer of `size` bytes to `peer`; False, and reported, if it has had enough until the next tick."""
    bytes_max = REPLICA_BYTES_PER_TICK if isinstance(peer, int) else CLIENT_BYTES_PER_TICK
    count, sent = state.served.get(peer, (0, 0))
    if count >= ANSWERS_PER_TICK or sent >= bytes_max:
        state.reject(peer, "asks-too-much")
        return False
    state.served[peer] = (count + 1, sent + size)
    return True


def renew(state: State) -> None:
    """On every tick: everybody may ask again."""
    state.served.clear()
