"""Show that three generals cannot survive one traitor with oral messages, in three ways [LSP82 2].

`every_relay_protocol` tries every protocol in which the commander sends one of two orders, each lieutenant
tells the other one of two words, and then decides: no cleverness helps. `twin_scenarios` finds, for a
counterexample of OM(1), the other scenario in which one lieutenant hears exactly the same words: the picture
of the paper. For more generals, three camps of at most m generals each play the three parts [LSP82 2], so n
<= 3m is hopeless too.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TypeAlias

from bft.generals import exhaustive
from bft.generals.certificates import Counterexample
from bft.generals.ids import GeneralId, Order
from bft.generals.plan import Plan
from bft.generals.run import Outcome

_Relay: TypeAlias = tuple[int, ...]  # what is passed on, by what was ordered
_Rule: TypeAlias = tuple[int, ...]  # what is done, by 2 * ordered + told


@dataclass(frozen=True, slots=True)
class RelayProtocols:
    """Count the protocols of the shape "commander orders, each tells the other, each decides" that survive
    one traitor."""

    tried: int
    obeying: int  # those that satisfy IC2 at least
    surviving: int


def every_relay_protocol() -> RelayProtocols:
    """Try all 4 * 4 * 16 * 16 deterministic protocols of that shape against one traitor."""
    relays: list[_Relay] = list(product((0, 1), repeat=2))
    rules: list[_Rule] = list(product((0, 1), repeat=4))
    tried = obeying = surviving = 0
    for relay1, relay2 in product(relays, repeat=2):
        for rule1, rule2 in product(rules, repeat=2):
            tried += 1
            # IC2: with either lieutenant a traitor, the other obeys whatever he is told.
            obeys = all(
                rule1[2 * order + told] == order and rule2[2 * order + told] == order
                for order in (0, 1)
                for told in (0, 1)
            )
            # IC1: a traitorous commander orders differently, both lieutenants pass on honestly.
            agrees = all(
                rule1[2 * first + relay2[second]] == rule2[2 * second + relay1[first]]
                for first in (0, 1)
                for second in (0, 1)
            )
            obeying += obeys
            surviving += obeys and agrees
    return RelayProtocols(tried, obeying, surviving)


@dataclass(frozen=True, slots=True)
class TwinScenarios:
    """Hold two battles that `witness` cannot tell apart: in `first` he must obey, so in `second` he is
    misled."""

    first: Outcome
    second: Outcome
    witness: GeneralId


def find_counterexample(n: int = 3, m: int = 1) -> Counterexample | None:
    """Search OM(m) for its first violation, trying everything in order."""
    for t in range(1, m + 1):
        for plan, members, _ in exhaustive.patterns(n, t, ("retreat", "attack"), m):
            found = exhaustive.search(exhaustive.make_space(plan, members)).counterexample
            if found is not None:
                return found
    return None


def twin_scenarios() -> TwinScenarios | None:
    """Search the runs of OM(1) with three generals for a violation of IC2 and a scenario with the same inbox.

    The first scenario has a loyal commander, the second a traitor; `witness` is loyal in both. Whatever rule
    the witness follows, he decides the same in both, so a rule that is right in the first obeys a traitor in
    the second, and by symmetry so does his colleague, who heard the opposite.
    """
    found = find_counterexample()
    if found is None:
        return None
    first = exhaustive.refight(found)
    witness = first.loyal_lieutenants[0]
    wanted = _words(first, witness)
    traitors = (GeneralId(0),)
    space = exhaustive.make_space(Plan(n=3, m=1), traitors)
    slots = [slot for rows in (space.shared, space.private) for row in rows for slot in row]
    for filling in product(space.symbols, repeat=len(slots)):
        lies: dict[tuple[tuple[GeneralId, ...], GeneralId], Order | None]
        lies = dict(zip(slots, filling, strict=True))
        decisions = exhaustive.make_counterexample(space, lies)
        second = exhaustive.refight(decisions)
        if _words(second, witness) == wanted:
            return TwinScenarios(first, second, witness)
    return None


def _words(outcome: Outcome, general: GeneralId) -> list[tuple[GeneralId, Order]]:
    return [(flight.sender, flight.message.value) for flight in outcome.inbox(general)]
