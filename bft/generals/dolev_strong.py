"""Run Dolev-Strong broadcast: SM with at most two orders passed on [DS83].

Two properly signed orders prove that the commander is a traitor; a third adds nothing, since `choice` already
returns the default. So a general remembers and passes on the first two orders only, and the cost no longer
grows with the number of orders: at most (n - 1) + 2 (n - 1)(n - 2) messages from loyal generals. Rounds (m +
1) and the acceptance rule are SM's.

Why it agrees: when a loyal general first remembers an order in round r <= m, he passes it on and all others
remember it, or two others, by round r + 1; a chain that he first accepts in round m + 1 carries m + 1
signatures, one of them loyal, whose owner did so before.
"""

from __future__ import annotations

from collections.abc import Sequence

from bft.generals.ids import GeneralId
from bft.generals.plan import Plan
from bft.generals.seam import Chain, Deliver, Effect, Event, RoundEnds, RoundStarts, dispatch
from bft.generals.signatures import Signer, Verifier
from bft.generals.signed import SignedGeneral

ORDERS_KEPT = 2


class DolevStrongGeneral:
    """Be one loyal general: an SM general who goes deaf once he holds two orders."""

    def __init__(self, me: GeneralId, plan: Plan, signer: Signer, verifier: Verifier) -> None:
        """Take part as `me`, with my own signer only."""
        self.inner = SignedGeneral(me, plan, signer, verifier)

    def step(self, event: Event, now: int, /) -> Sequence[Effect]:
        """Take one event; time plays no part, the runner keeps the rounds."""
        return dispatch(self, event)

    def on_round_starts(self, event: RoundStarts, /) -> Sequence[Effect]:
        """Send what SM sends."""
        return self.inner.on_round_starts(event)

    def on_deliver(self, event: Deliver, /) -> Sequence[Effect]:
        """Ignore, unchecked, whatever comes once the commander is proven a traitor."""
        if len(self.inner.collected) >= ORDERS_KEPT and isinstance(event.message, Chain):
            return []
        return self.inner.on_deliver(event)

    def on_round_ends(self, event: RoundEnds, /) -> Sequence[Effect]:
        """Decide as SM does."""
        return self.inner.on_round_ends(event)
