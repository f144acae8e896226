"""The Byzantine generals on the simulated network: virtual time, delays, loss, and rounds that end by the clock.

The paper assumes that the absence of a message can be detected [LSP82 3, A3]. Here that assumption is what it is in a
real system: a deadline. A message that arrives after its round is absent, so a link that is slower than the round, or
that loses messages, makes its loyal sender look like a traitor.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

from bft.config import MILLISECOND
from bft.generals.algorithms import Algorithm
from bft.generals.conditions import Verdict, judge
from bft.generals.ids import GeneralId, Order
from bft.generals.plan import Plan
from bft.generals.run import make_army
from bft.generals.seam import Decide, Deliver, General, Message, RoundEnds, RoundStarts, Send
from bft.generals.signatures import Notary, SymbolicNotary
from bft.generals.traitors import Crime
from bft.ids import Nanos
from bft.sim.network import SimulatedNetwork
from bft.sim.scenario import Network

MESSAGE_BYTES = 256


@dataclass(slots=True)
class SimulatedBattle:
    """Outcome of a battle in virtual time.

    Attributes:
        decisions: what every general obeys.
        verdict: IC1 and IC2 over the loyal lieutenants.
        sent, late: messages sent, and those that came after their round or never.
        ended: virtual time at the end, in nanoseconds.
    """

    decisions: dict[GeneralId, Order]
    verdict: Verdict
    sent: int
    late: int
    ended: Nanos


@dataclass(slots=True)
class _Battle:
    plan: Plan
    generals: Mapping[GeneralId, General]
    network: SimulatedNetwork
    round_ns: Nanos
    decisions: dict[GeneralId, Order] = field(default_factory=dict)
    queue: list[tuple[Nanos, int, GeneralId, GeneralId, Message]] = field(default_factory=list)
    sent: int = 0
    delivered: int = 0

    def fight_round(self, round_: int) -> None:
        """Everybody sends at the start; what arrives before the end is delivered, the rest is absent."""
        start = (round_ - 1) * self.round_ns
        for general in self.generals:
            for effect in self.generals[general].step(RoundStarts(round_), start):
                if isinstance(effect, Send) and self.plan.has_road(general, effect.to):
                    self._post(general, effect.to, effect.message, start)
        end = start + self.round_ns
        while self.queue and self.queue[0][0] < end:
            now, _, sender, receiver, message = heapq.heappop(self.queue)
            self.delivered += 1
            self.generals[receiver].step(Deliver(sender, message), now)
        self.queue.clear()
        for general, machine in self.generals.items():
            for effect in machine.step(RoundEnds(round_), end):
                if isinstance(effect, Decide):
                    self.decisions[general] = effect.order

    def _post(self, sender: GeneralId, receiver: GeneralId, message: Message, now: Nanos) -> None:
        self.sent += 1
        for when in self.network.arrivals(int(sender), int(receiver), MESSAGE_BYTES, now)[:1]:
            heapq.heappush(self.queue, (when, self.sent, sender, receiver, message))


def fight_in_network(
    algorithm: Algorithm,
    plan: Plan,
    traitors: Mapping[GeneralId, Crime] | None = None,
    *,
    seed: int = 0,
    network: Network | None = None,
    round_ms: int = 100,
    notary: Notary | None = None,
) -> SimulatedBattle:
    """Fight one battle in virtual time; one seed, one battle.

    Args:
        algorithm: how they agree.
        plan: how many they are, what is ordered, how many traitors they must bear.
        traitors: who betrays, and how.
        seed: of the network and of the traitors' dice.
        network: delays and losses; up to 2 ms and none by default.
        round_ms: length of a round.
        notary: signatures; symbolic ones by default.

    Raises:
        GeneralsError: the algorithm is not made for this plan.
    """
    criminals = dict(sorted((traitors or {}).items()))
    army = make_army(algorithm, plan, criminals, notary or SymbolicNotary(), Random(f"{seed}/traitors"))
    wires = SimulatedNetwork(network or Network(), Random(f"{seed}/network"))
    battle = _Battle(plan, army, wires, round_ms * MILLISECOND)
    rounds = algorithm.rounds(plan)
    for round_ in range(1, rounds + 1):
        battle.fight_round(round_)
    verdict = judge(plan, tuple(criminals), battle.decisions)
    late = battle.sent - battle.delivered
    return SimulatedBattle(battle.decisions, verdict, battle.sent, late, rounds * battle.round_ns)
