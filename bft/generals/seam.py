"""Define how a general is driven: events in, effects out, and the messages between generals.

A general is a state machine `step(event, now) -> effects`. It neither waits nor sends: the runner (`run` in
memory, the socket runner of the command line between processes) says when a round starts and ends, which is
assumption A3 of [LSP82 3], *the absence of a message can be detected*. Within a round the order of deliveries
is arbitrary.

Assumption A2, *the receiver knows who sent a message*, is the field `Deliver.sender`, which the runner fills
in; no message carries a second sender to disagree with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypeAlias, assert_never

import msgspec

from bft.generals.ids import GeneralId, Order, Path


class Oral(msgspec.Struct, frozen=True, array_like=True, tag="oral"):
    """Say what the last general of the path says that the one before said ... that the commander ordered."""

    path: Path
    value: Order


class Courier(msgspec.Struct, frozen=True, array_like=True, tag="courier"):
    """Carry an oral message one road further towards `destination`, along the public route of its path."""

    path: Path
    destination: GeneralId
    value: Order


class Link(msgspec.Struct, frozen=True, array_like=True):
    """Hold one general's signature over an order and all links before it."""

    general: GeneralId
    signature: bytes


class Chain(msgspec.Struct, frozen=True, array_like=True, tag="chain"):
    """Carry an order signed by the commander and then by each general that passed it on: `attack:0:2:1`."""

    value: Order
    links: tuple[Link, ...]

    @property
    def signers(self) -> Path:
        """Return who signed, in order."""
        return tuple(link.general for link in self.links)


class Opening(msgspec.Struct, frozen=True, array_like=True, tag="opening"):
    """Carry the commander's order to those who will then agree on what they heard (King, Bracha)."""

    value: Order


class Ballot(msgspec.Struct, frozen=True, array_like=True, tag="ballot"):
    """Tell everybody the order that the sender holds at the start of a phase of King."""

    phase: int
    value: Order


class Proposal(msgspec.Struct, frozen=True, array_like=True, tag="proposal"):
    """Tell everybody the order that the sender saw in n - m ballots."""

    phase: int
    value: Order


class Crown(msgspec.Struct, frozen=True, array_like=True, tag="crown"):
    """Tell everybody what the king of this phase holds."""

    phase: int
    value: Order


class Echo(msgspec.Struct, frozen=True, array_like=True, tag="echo"):
    """Say which order the sender heard from the commander (Bracha)."""

    value: Order


class Ready(msgspec.Struct, frozen=True, array_like=True, tag="ready"):
    """Say which order the sender is ready to deliver (Bracha)."""

    value: Order


Message: TypeAlias = Oral | Courier | Chain | Opening | Ballot | Proposal | Crown | Echo | Ready


class Fault(Enum):
    """Say why a message was refused: the sender's fault, never ours."""

    WRONG_SENDER = "the sender is not the last general of the path"
    WRONG_ROUND = "the length of the path or chain does not fit the round"
    WRONG_PATH = "the path is not one that this general waits for"
    WRONG_KIND = "the message is not one of this algorithm"
    REPEATED = "the same thing was already said"
    UNKNOWN_ORDER = "the order is not one of the agreed orders"
    UNKNOWN_SIGNER = "a signer is not one of the generals"
    NOT_THE_COMMANDER = "the first signature is not the commander's"
    REPEATED_SIGNER = "a general signed twice"
    OWN_SIGNATURE = "the chain already passed through its receiver"
    BAD_SIGNATURE = "a signature does not fit the order and the signatures before it"


@dataclass(frozen=True, slots=True)
class RoundStarts:
    """Tell a general to send what it sends in this round; rounds count from 1."""

    round: int


@dataclass(frozen=True, slots=True)
class Deliver:
    """Hand over a message of the current round."""

    sender: GeneralId
    message: Message


@dataclass(frozen=True, slots=True)
class RoundEnds:
    """Tell a general that no more messages of this round can arrive: what is missing is absent."""

    round: int


Event: TypeAlias = RoundStarts | Deliver | RoundEnds


@dataclass(frozen=True, slots=True)
class Send:
    """Ask for a message to be delivered in this round. Only a traitor's is ever not `truthful`."""

    to: GeneralId
    message: Message
    truthful: bool = True


@dataclass(frozen=True, slots=True)
class Withheld:
    """Note, for the chronicle only, that a traitor does not send what a loyal general would."""

    to: GeneralId
    message: Message


@dataclass(frozen=True, slots=True)
class Decide:
    """Announce the order that this general obeys; once, in the last round."""

    order: Order


@dataclass(frozen=True, slots=True)
class Report:
    """Announce that a message was refused."""

    sender: GeneralId
    fault: Fault


Effect: TypeAlias = Send | Withheld | Decide | Report


class General(Protocol):
    """Be driven: honest general or traitor, in memory or behind a socket."""

    def step(self, event: Event, now: int, /) -> Sequence[Effect]:
        """Take one event at time `now` (nanoseconds) and return what follows from it."""
        ...


class Handlers(Protocol):
    """Handle the three kinds of event apart; what `dispatch` needs."""

    def on_round_starts(self, event: RoundStarts, /) -> Sequence[Effect]:
        """Send what this general sends in the round."""
        ...

    def on_deliver(self, event: Deliver, /) -> Sequence[Effect]:
        """Accept or refuse one message."""
        ...

    def on_round_ends(self, event: RoundEnds, /) -> Sequence[Effect]:
        """Fill in what is absent, and decide when it was the last round."""
        ...


def dispatch(general: Handlers, event: Event) -> Sequence[Effect]:
    """Hand an event to its handler."""
    match event:
        case RoundStarts():
            return general.on_round_starts(event)
        case Deliver():
            return general.on_deliver(event)
        case RoundEnds():
            return general.on_round_ends(event)
        case _:
            assert_never(event)
