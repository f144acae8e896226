"""Complaints without cause (B21, X05, C04). Expected: a weak quorum is needed; correct primaries stay."""

from __future__ import annotations

from collections.abc import Iterable

from bft.adversary.strategy import Context, Strategy
from bft.adversary.tools import is_colleague
from bft.events import Deliver, Input
from bft.ids import Peer
from bft.messages import Packet, Suspect, ViewChange


class _Storm(Strategy):
    def unprompted(self, context: Context) -> Iterable[tuple[Peer, Packet]]:
        signed = context.sign(Suspect(context.epoch, context.view, "request-timeout"))
        for target in context.others():
            yield target, signed


class _Depose(Strategy):
    """Joins every complaint of a correct replica at once: one flaky replica and f liars make a view change."""

    def incoming(self, context: Context, event: Deliver) -> Iterable[Input]:
        message = event.message
        if isinstance(message, Suspect) and not is_colleague(context, event):
            for member in sorted(context.coalition.signers):
                for target in context.others():
                    context.send(target, context.sign(Suspect(context.epoch, message.view, message.reason), member))
        elif isinstance(message, ViewChange):
            context.coalition.notes["deposed"] = message.view
        return (event,)


def suspect_storm() -> Strategy:
    """Complain of every primary, on every tick (B21)."""
    return _Storm()


def depose() -> Strategy:
    """Join every complaint with all of the coalition's voices (X05)."""
    return _Depose()
