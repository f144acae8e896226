"""Run Bracha's reliable broadcast, the pattern behind PREPARE and COMMIT, for comparison [Br87].

    the commander sends his order; on his order: echo it; on ceil((n + m + 1) / 2) echoes or m + 1 readies:
    say ready; on 2m + 1 readies: deliver.

It needs no rounds: everything happens on messages, so the runner's rounds only bound the waiting. In exchange
it promises less: with a treacherous commander perhaps nobody delivers (then all obey the default), but if one
loyal lieutenant delivers, all do, and the same order. In *rounds* "nobody yet" and "never" can differ by one
hop, so the runner must give `rounds` steps: a traitor who feeds one lieutenant in the very last step can
still split the others between "delivered" and "default" (`test_bracha_is_not_broadcast_with_a_deadline`).
This is why PBFT does not decide by time-out, and why this file is a demonstration and not a solution of the
generals' problem.
"""

from __future__ import annotations

from collections.abc import Sequence

from bft.generals.ids import GeneralId, Order
from bft.generals.plan import Plan
from bft.generals.seam import (
    Decide,
    Deliver,
    Echo,
    Effect,
    Event,
    Fault,
    Message,
    Opening,
    Ready,
    Report,
    RoundEnds,
    RoundStarts,
    Send,
    dispatch,
)


def rounds(plan: Plan) -> int:
    """Return enough steps for loyal messages: order, echo, ready, and one for readies that follow readies."""
    return 4


class BrachaGeneral:
    """Be one loyal general of Bracha's broadcast. `delivered` is None until 2m + 1 readies came."""

    def __init__(self, me: GeneralId, plan: Plan) -> None:
        """Take part as `me`."""
        self.me = me
        self.plan = plan
        self.round = 0
        self.delivered: Order | None = None
        self.outbox: list[Message] = []
        self.said: dict[type[Message], Order] = {}
        self.echoes: dict[GeneralId, Order] = {}
        self.readies: dict[GeneralId, Order] = {}

    def step(self, event: Event, now: int, /) -> Sequence[Effect]:
        """Take one event; time plays no part."""
        return dispatch(self, event)

    def on_round_starts(self, event: RoundStarts, /) -> Sequence[Effect]:
        """Send what the messages of the round before gave rise to."""
        self.round = event.round
        if self.round == 1 and self.me == self.plan.commander:
            self.outbox.append(Opening(self.plan.order))
            self._say(Echo(self.plan.order))
        messages, self.outbox = self.outbox, []
        return [Send(to, message) for message in messages for to in self.plan.others(self.me)]

    def on_deliver(self, event: Deliver, /) -> Sequence[Effect]:
        """Count one message and see what follows."""
        message = event.message
        if not isinstance(message, Opening | Echo | Ready):
            return [Report(event.sender, Fault.WRONG_KIND)]
        if message.value not in self.plan.orders:
            return [Report(event.sender, Fault.UNKNOWN_ORDER)]
        if isinstance(message, Opening) and event.sender != self.plan.commander:
            return [Report(event.sender, Fault.WRONG_SENDER)]

        if isinstance(message, Opening):
            self._say(Echo(message.value))
        else:
            book = self.echoes if isinstance(message, Echo) else self.readies
            book.setdefault(event.sender, message.value)
            self._count()
        return []

    def on_round_ends(self, event: RoundEnds, /) -> Sequence[Effect]:
        """After the last round obey what was delivered, the commander his own order."""
        if self.round < rounds(self.plan):
            return []
        if self.me == self.plan.commander:
            return [Decide(self.plan.order)]
        return [Decide(self.plan.default if self.delivered is None else self.delivered)]

    def _say(self, message: Echo | Ready) -> None:
        """Say each kind of thing once, to myself too."""
        if type(message) in self.said:
            return
        self.said[type(message)] = message.value
        self.outbox.append(message)
        book = self.echoes if isinstance(message, Echo) else self.readies
        book[self.me] = message.value
        self._count()

    def _count(self) -> None:
        m = self.plan.m
        echoes, readies = list(self.echoes.values()), list(self.readies.values())
        for order in self.plan.orders:
            if 2 * echoes.count(order) > self.plan.n + m or readies.count(order) > m:
                self._say(Ready(order))
        for order in self.plan.orders:
            if self.delivered is None and list(self.readies.values()).count(order) > 2 * m:
                self.delivered = order
