"""Argue the paradox of the two generals by running it: no finite exchange of messengers makes a joint attack
safe.

Generals A and B attack together or not at all, and messengers between them may be caught [Gray78]. A protocol
is a schedule of messages and, for each general, a rule from what reached him to "attack" or "hold". Take the
run in which everything arrives, and catch the messengers one by one from the last: two neighbouring runs
differ only for the receiver of one message, so the other general acts the same in both. So either both act
the same in all runs (then they attack without a single message, or never), or somewhere on the way one of
them attacks alone, and `find_lone_attack` returns that run.

What remains is to make it improbable: `alone_with_messengers` and `alone_with_acknowledgements`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from itertools import product
from typing import TypeAlias

from bft.generals.ids import Dice, GeneralsError

MESSAGES_MAX = 16  # 2^16 patterns of loss are still enumerated at once

Rule: TypeAlias = Callable[[tuple[int, ...]], bool]
"""From the numbers of the messages that reached me to whether I attack."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """Describe a protocol: who sends the messages 1, 2, ..., and when each general attacks.

    With `is_chained` a message is sent only if the one before it arrived: order, acknowledgement,
    acknowledgement of that.
    """

    schedule: str
    rule_a: Rule
    rule_b: Rule
    is_chained: bool = True

    def __post_init__(self) -> None:
        """Refuse other letters and too many messages."""
        if not self.schedule or any(sender not in "AB" for sender in self.schedule):
            raise GeneralsError(f"schedule {self.schedule!r}, expected letters A and B, such as ABAB")
        if len(self.schedule) > MESSAGES_MAX:
            raise GeneralsError(f"schedule of {len(self.schedule)} messages, expected {MESSAGES_MAX} at most")


@dataclass(frozen=True, slots=True)
class Run:
    """Hold one run: which messages arrived, and what each general does."""

    delivered: tuple[int, ...]
    attack_a: bool
    attack_b: bool

    @property
    def is_lone(self) -> bool:
        """Say whether exactly one attacks."""
        return self.attack_a != self.attack_b


class Flaw(Enum):
    """Say what is wrong with a protocol; one of these always is."""

    LONE = "in some run one general attacks alone"
    BLIND = "both attack though not a single message arrived"
    NEVER = "nobody attacks though every message arrived"


@dataclass(frozen=True, slots=True)
class Paradox:
    """Hold the argument against one protocol: the chain of runs, from everything delivered to nothing, and
    the flaw.

    `unaware[i]` is the general who cannot tell `chain[i]` from `chain[i + 1]`.
    """

    chain: tuple[Run, ...]
    unaware: tuple[str, ...]
    flaw: Flaw
    lone: Run | None


def exchange(schedule: str, needs_a: int | None = None, needs_b: int | None = None) -> Exchange:
    """Make the usual protocol: attack when so many messages reached me; by default when all that are due did.

    A, who knows the plan, attacks from the start when `needs_a` is 0.
    """
    due_a, due_b = schedule.count("B"), schedule.count("A")
    a, b = due_a if needs_a is None else needs_a, due_b if needs_b is None else needs_b
    return Exchange(schedule, lambda seen: len(seen) >= a, lambda seen: len(seen) >= b)


def play(protocol: Exchange, arrives: tuple[bool, ...]) -> Run:
    """Play the protocol when exactly these messengers would get through."""
    delivered: list[int] = []
    for number, gets_through in enumerate(arrives, 1):
        is_sent = not protocol.is_chained or number == 1 or number - 1 in delivered
        if is_sent and gets_through:
            delivered.append(number)
    reached_a = tuple(number for number in delivered if protocol.schedule[number - 1] == "B")
    reached_b = tuple(number for number in delivered if protocol.schedule[number - 1] == "A")
    return Run(tuple(delivered), protocol.rule_a(reached_a), protocol.rule_b(reached_b))


def every_run(protocol: Exchange) -> Iterator[Run]:
    """Play all 2^k patterns of loss."""
    for arrives in product((True, False), repeat=len(protocol.schedule)):
        yield play(protocol, arrives)


def find_lone_attack(protocol: Exchange) -> Paradox:
    """Find the run in which one general attacks alone, or show that the protocol attacks blindly or never."""
    k = len(protocol.schedule)
    chain = tuple(
        play(protocol, (True,) * arrived + (False,) * (k - arrived)) for arrived in range(k, -1, -1)
    )
    # Message `arrived` makes the difference between chain steps; its sender never learns of it.
    unaware = tuple(protocol.schedule[arrived - 1] for arrived in range(k, 0, -1))
    lone = next((run for run in chain if run.is_lone), None)
    if lone is not None:
        return Paradox(chain, unaware, Flaw.LONE, lone)
    return Paradox(chain, unaware, Flaw.BLIND if chain[0].attack_a else Flaw.NEVER, None)


@dataclass(frozen=True, slots=True)
class RuleCount:
    """Count all pairs of decision rules of one schedule by their flaw; none is without."""

    tried: int
    lone: int
    blind: int
    never: int


def every_rule(schedule: str) -> RuleCount:
    """Try every pair of decision rules on what can reach each general through a chained schedule."""
    views_a, views_b = schedule.count("B") + 1, schedule.count("A") + 1
    if views_a + views_b > MESSAGES_MAX:
        raise GeneralsError(
            f"schedule of {len(schedule)} messages, expected {MESSAGES_MAX - 2} at most for all rules"
        )
    flaws = [
        find_lone_attack(Exchange(schedule, _table_rule(table_a), _table_rule(table_b))).flaw
        for table_a in product((False, True), repeat=views_a)
        for table_b in product((False, True), repeat=views_b)
    ]
    return RuleCount(len(flaws), flaws.count(Flaw.LONE), flaws.count(Flaw.BLIND), flaws.count(Flaw.NEVER))


def _table_rule(table: tuple[bool, ...]) -> Rule:
    """Return the rule that looks up how many messages came."""
    return lambda seen: table[len(seen)]


def probability_alone(protocol: Exchange, loss: Fraction) -> Fraction:
    """Return the exact probability that one attacks alone, when each messenger is caught with probability
    `loss`."""
    total = Fraction(0)
    for arrives in product((True, False), repeat=len(protocol.schedule)):
        if play(protocol, arrives).is_lone:
            weight = Fraction(1)
            for gets_through in arrives:
                weight *= 1 - loss if gets_through else loss
            total += weight
    return total


def alone_with_messengers(k: int, loss: Fraction) -> Fraction:
    """Return loss^k: A attacks anyway and sends k messengers, B attacks when one gets through."""
    return loss**k


def alone_with_acknowledgements(k: int, loss: Fraction) -> Fraction:
    """Return (1 - loss)^(k-1) loss: k messages in a chain, each attacks when all that are due to him came.

    Only the loss of the very last message splits the two; losing an earlier one stops both.
    """
    return (1 - loss) ** (k - 1) * loss


def simulate_messengers(k: int, loss: Fraction, trials: int, dice: Dice) -> Fraction:
    """Estimate `alone_with_messengers` by throwing the dice."""
    lone = sum(
        all(dice.randrange(loss.denominator) < loss.numerator for _ in range(k)) for _ in range(trials)
    )
    return Fraction(lone, trials)
