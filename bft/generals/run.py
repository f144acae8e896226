"""Fight one battle in memory: drive the generals round by round, and write a chronicle of every message.

Within a round the loyal generals send first and their messages reach the traitors before these send
(rushing). The chronicle is all that pictures, stories and counts are made from; the socket runner of the
command line writes the same one. Read next: `conditions` for the verdict, `explain` and `svg` for what is
made of the chronicle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from bft.generals.algorithms import Algorithm, make_general, require_feasible
from bft.generals.conditions import Verdict, judge
from bft.generals.ids import Dice, GeneralId, GeneralsError, Order, Path
from bft.generals.plan import Plan
from bft.generals.seam import (
    Chain,
    Courier,
    Decide,
    Deliver,
    Fault,
    General,
    Message,
    Oral,
    Report,
    RoundEnds,
    RoundStarts,
    Send,
    Withheld,
)
from bft.generals.signatures import Notary, SymbolicNotary, signers_of
from bft.generals.traitors import Coalition, Crime, Traitor, View

ROUND_NS = 1_000_000_000


class _NoDice:
    """Always throw zero, where no dice were handed in."""

    def randrange(self, stop: int, /) -> int:
        return 0


@dataclass(frozen=True, slots=True)
class Flight:
    """Tell the fate of one message. `sent` is False where a traitor withheld it, `fault` says why it was
    refused."""

    round: int
    sender: GeneralId
    receiver: GeneralId
    message: Message
    truthful: bool = True
    sent: bool = True
    fault: Fault | None = None

    @property
    def path(self) -> Path:
        """Return the generals whose words these are, the sender last."""
        match self.message:
            case Chain():
                return self.message.signers
            case Oral() | Courier():
                return self.message.path
            case _:
                return (self.sender,)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Hold a finished battle."""

    algorithm: str
    plan: Plan
    rounds: int
    traitors: tuple[tuple[GeneralId, str], ...]
    flights: tuple[Flight, ...]
    decisions: dict[GeneralId, Order]
    verdict: Verdict

    @property
    def traitor_ids(self) -> tuple[GeneralId, ...]:
        """Return who the traitors are."""
        return tuple(general for general, _ in self.traitors)

    @property
    def loyal_lieutenants(self) -> tuple[GeneralId, ...]:
        """Return the lieutenants whose decisions count."""
        return tuple(general for general in self.plan.lieutenants if general not in self.traitor_ids)

    @property
    def messages(self) -> int:
        """Return the number of messages that were sent."""
        return sum(1 for flight in self.flights if flight.sent)

    def inbox(self, general: GeneralId) -> tuple[Flight, ...]:
        """Return what a general received and did not refuse, in order."""
        return tuple(f for f in self.flights if f.receiver == general and f.sent and f.fault is None)

    def heard(self, general: GeneralId) -> dict[Path, Order]:
        """Return what a lieutenant of OM(m) heard along each path."""
        return {f.message.path: f.message.value for f in self.inbox(general) if isinstance(f.message, Oral)}

    def collected(self, general: GeneralId) -> tuple[Order, ...]:
        """Return the set V of a lieutenant of SM(m), in the order of arrival."""
        return tuple(
            dict.fromkeys(f.message.value for f in self.inbox(general) if isinstance(f.message, Chain))
        )


@dataclass(slots=True)
class _Field:
    """Hold a battle under way."""

    plan: Plan
    generals: Mapping[GeneralId, General]
    traitors: Mapping[GeneralId, Crime]
    flights: list[Flight] = field(default_factory=list)
    decisions: dict[GeneralId, Order] = field(default_factory=dict)

    def fight_round(self, round_: int) -> None:
        """Open the round, deliver everything sent in it, close it."""
        now = round_ * ROUND_NS
        loyal = self._start(
            round_, now, [general for general in self.generals if general not in self.traitors]
        )
        self._deliver([pair for pair in loyal if pair[1].to in self.traitors], round_, now)
        treacherous = self._start(
            round_, now, [general for general in self.generals if general in self.traitors]
        )
        self._deliver([pair for pair in loyal if pair[1].to not in self.traitors], round_, now)
        self._deliver(treacherous, round_, now)
        for general, machine in self.generals.items():
            for effect in machine.step(RoundEnds(round_), now + ROUND_NS):
                if isinstance(effect, Decide):
                    self.decisions[general] = effect.order

    def _start(self, round_: int, now: int, rank: Sequence[GeneralId]) -> list[tuple[GeneralId, Send]]:
        """Let some generals send, and note in the chronicle what they withhold."""
        sent: list[tuple[GeneralId, Send]] = []
        for general in rank:
            for effect in self.generals[general].step(RoundStarts(round_), now):
                if isinstance(effect, Send) and self.plan.has_road(general, effect.to):
                    sent.append((general, effect))
                elif isinstance(effect, Withheld):
                    self.flights.append(
                        Flight(round_, general, effect.to, effect.message, truthful=False, sent=False)
                    )
        return sent

    def _deliver(self, sent: Sequence[tuple[GeneralId, Send]], round_: int, now: int) -> None:
        for sender, send in sent:
            effects = self.generals[send.to].step(Deliver(sender, send.message), now)
            faults = [effect.fault for effect in effects if isinstance(effect, Report)]
            fault = faults[0] if faults else None
            self.flights.append(Flight(round_, sender, send.to, send.message, send.truthful, fault=fault))


def make_army(
    algorithm: Algorithm, plan: Plan, traitors: Mapping[GeneralId, Crime], notary: Notary, dice: Dice
) -> dict[GeneralId, General]:
    """Make all generals, the traitors among them wrapped and sharing one coalition."""
    coalition = Coalition(tuple(sorted(traitors)), signers_of(notary, traitors), dice)
    return {me: make_member(algorithm, me, plan, traitors.get(me), coalition, notary) for me in plan.generals}


def make_member(
    algorithm: Algorithm,
    me: GeneralId,
    plan: Plan,
    crime: Crime | None,
    coalition: Coalition,
    notary: Notary,
) -> General:
    """Make one general: loyal when there is no crime, else a traitor of the coalition."""
    general = make_general(algorithm, me, plan, notary)
    if crime is None:
        return general
    return Traitor(general, crime, View(me, plan, algorithm.rounds(plan), coalition))


def fight(
    algorithm: Algorithm,
    plan: Plan,
    traitors: Mapping[GeneralId, Crime] | None = None,
    *,
    notary: Notary | None = None,
    dice: Dice | None = None,
) -> Outcome:
    """Fight one battle and judge it.

    Without a notary signatures are symbolic; without dice every throw is zero.

    Raises:
        GeneralsError: the algorithm is not made for this plan, or a traitor is not one of the generals.
    """
    criminals = dict(sorted((traitors or {}).items()))
    for general in criminals:
        if not 0 <= general < plan.n:
            raise GeneralsError(f"traitor {general} is not one of the generals 0..{plan.n - 1}")
    require_feasible(algorithm, plan)
    army = make_army(algorithm, plan, criminals, notary or SymbolicNotary(), dice or _NoDice())
    return fight_with(army, algorithm, plan, criminals)


def fight_for_all(
    algorithm: Algorithm,
    plan: Plan,
    held: Mapping[GeneralId, Order],
    traitors: Mapping[GeneralId, Crime],
    *,
    notary: Notary | None = None,
    dice: Dice | None = None,
) -> dict[GeneralId, tuple[Order, ...]]:
    """Reach interactive consistency: every general commands once; return the vectors of the loyal [PSL80].

    `held` is what each general would order. Entry i of a vector is what its owner takes general i to hold.
    """
    outcomes = [
        fight(
            algorithm,
            replace(
                plan, commander=commander, order=held[commander], instance=f"{plan.instance}/{commander}"
            ),
            traitors,
            notary=notary,
            dice=dice,
        )
        for commander in plan.generals
    ]
    loyal = [general for general in plan.generals if general not in traitors]
    return {general: tuple(outcome.decisions[general] for outcome in outcomes) for general in loyal}


def fight_with(
    army: Mapping[GeneralId, General], algorithm: Algorithm, plan: Plan, traitors: Mapping[GeneralId, Crime]
) -> Outcome:
    """Fight with generals made elsewhere: `fight` for the loyal, a test for its mutants."""
    battle = _Field(plan, army, traitors)
    rounds = algorithm.rounds(plan)
    for round_ in range(1, rounds + 1):
        battle.fight_round(round_)
    return conclude(algorithm, plan, traitors, battle.flights, battle.decisions)


def conclude(
    algorithm: Algorithm,
    plan: Plan,
    traitors: Mapping[GeneralId, Crime],
    flights: Sequence[Flight],
    decisions: Mapping[GeneralId, Order],
) -> Outcome:
    """Put the chronicle in order and judge it."""
    return Outcome(
        algorithm=algorithm.name,
        plan=plan,
        rounds=algorithm.rounds(plan),
        traitors=tuple((general, crime.name) for general, crime in traitors.items()),
        flights=tuple(sorted(flights, key=lambda f: (f.round, f.sender, f.path, f.receiver))),
        decisions=dict(decisions),
        verdict=judge(plan, list(traitors), decisions),
    )
