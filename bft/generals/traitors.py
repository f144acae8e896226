"""Turn a loyal general into a traitor: what he may see, what he may do, and the wrapper that lets him do it.

A traitor is an unmodified loyal general behind a `Crime`, which sees every message that the general would
send and lets it pass, alters it, drops it, or adds others. Its power is bounded by its view:

- it sees what its own general received, and what fellow traitors wrote on the coalition's board, nothing
else;
- it signs with the traitors' signers, so it can forge a fellow traitor's name but no loyal one's [LSP82 4,
A4];
- the runner names the true sender of a message, so it cannot impersonate anybody [LSP82 3, A2].

It is *rushing*: in memory the loyal generals' messages of a round reach the traitors before they must send
theirs. Crimes with names: `crimes`. Lies written down one by one: `scripts`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from bft.generals.ids import Dice, GeneralId, Order
from bft.generals.plan import Plan
from bft.generals.seam import (
    Chain,
    Deliver,
    Effect,
    Event,
    General,
    Message,
    RoundEnds,
    RoundStarts,
    Send,
    Withheld,
)
from bft.generals.signatures import Signer
from bft.generals.signed import endorse

SENDS_MAX = 4_096  # what one crime may invent in one round


@dataclass(frozen=True, slots=True)
class Seen:
    """Remember a message that a traitor received."""

    round: int
    sender: GeneralId
    receiver: GeneralId
    message: Message


@dataclass(frozen=True, slots=True)
class Coalition:
    """Hold what the traitors share: who they are, their signers, the dice, and a board that all of them read
    and write."""

    members: tuple[GeneralId, ...]
    signers: Mapping[GeneralId, Signer]
    dice: Dice
    board: list[Seen] = field(default_factory=list)


@dataclass(slots=True)
class View:
    """Hold all that a crime may look at."""

    me: GeneralId
    plan: Plan
    rounds: int
    coalition: Coalition
    round: int = 0
    inbox: list[Seen] = field(default_factory=list)


def add_nothing(view: View) -> Sequence[Send]:
    """Invent no messages."""
    return ()


@dataclass(frozen=True, slots=True)
class Crime:
    """Name a way to betray.

    `corrupt` replaces one message that a loyal general would send by any number of others; `invent` adds
    messages at the start of a round.
    """

    name: str
    corrupt: Callable[[Send, View], Sequence[Send]]
    invent: Callable[[View], Sequence[Send]] = add_nothing


class Traitor:
    """Be a general who betrays: a loyal one inside, a crime around him."""

    def __init__(self, honest: General, crime: Crime, view: View) -> None:
        """Wrap a loyal general."""
        self.honest = honest
        self.crime = crime
        self.view = view
        self.is_round_open = False
        self.early: list[Deliver] = []

    def step(self, event: Event, now: int, /) -> Sequence[Effect]:
        """Take one event; note what is received, and corrupt what the loyal general inside wants to send."""
        match event:
            case Deliver():
                return self._receive(event, now)
            case RoundStarts():
                return self._start(event, now)
            case RoundEnds():
                self.is_round_open = False
                return self.honest.step(event, now)

    def _receive(self, event: Deliver, now: int) -> Sequence[Effect]:
        round_ = self.view.round if self.is_round_open else self.view.round + 1
        seen = Seen(round_, event.sender, self.view.me, event.message)
        self.view.inbox.append(seen)
        self.view.coalition.board.append(seen)
        if self.is_round_open:
            return self.honest.step(event, now)
        self.early.append(event)  # rushing: seen before the loyal general inside has opened the round
        return ()

    def _start(self, event: RoundStarts, now: int) -> Sequence[Effect]:
        self.view.round = event.round
        self.is_round_open = True
        effects: list[Effect] = []
        for effect in self.honest.step(event, now):
            if isinstance(effect, Send):
                effects.extend(self._corrupted(effect))
            else:
                effects.append(effect)
        invented = list(self.crime.invent(self.view))[:SENDS_MAX]
        effects.extend(Send(send.to, send.message, truthful=False) for send in invented)
        early, self.early = self.early, []
        for deliver in early:
            effects.extend(self.honest.step(deliver, now))
        return effects

    def _corrupted(self, send: Send) -> list[Effect]:
        instead = self.crime.corrupt(send, self.view)
        effects: list[Effect] = [Send(lie.to, lie.message, truthful=lie == send) for lie in instead]
        if not any(lie.to == send.to for lie in instead):
            effects.append(Withheld(send.to, send.message))
        return effects


def with_value(message: Message, value: Order, view: View) -> Message:
    """Return the message with another order, signed again as far as the coalition holds the keys.

    Where a loyal general has signed before, his signature stays as it is and no longer fits: a forgery that
    will be refused.
    """
    if not isinstance(message, Chain):
        return msgspec.structs.replace(message, value=value)
    chain = Chain(value, ())
    for link in message.links:
        signer = view.coalition.signers.get(link.general)
        if signer is None:
            chain = Chain(value, (*chain.links, link))
        else:
            chain = endorse(view.plan, chain, link.general, signer)
    return chain


def say(send: Send, value: Order | None, view: View) -> Sequence[Send]:
    """Say `value` instead, or nothing when it is None."""
    if value is None:
        return ()
    if value == send.message.value:
        return (send,)
    return (Send(send.to, with_value(send.message, value, view)),)
