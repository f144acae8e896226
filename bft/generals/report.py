"""Turn results into plain data for `--json`: dictionaries, lists, numbers, strings.

The chronicle's entries have the fields of the neutral trace: round, source, destination, path, value,
truthful, sent, fault.
"""

from __future__ import annotations

from typing import TypeAlias

from bft.generals.certificates import Certificate, Counterexample
from bft.generals.matrix import label_of
from bft.generals.run import Flight, Outcome
from bft.generals.two_generals import Paradox, Run

Plain: TypeAlias = "bool | int | float | str | list[Plain] | dict[str, Plain] | None"


def flight_data(flight: Flight) -> Plain:
    """Return one message and its fate."""
    return {
        "round": flight.round,
        "source": flight.sender,
        "destination": flight.receiver,
        "kind": type(flight.message).__name__.lower(),
        "words": label_of(flight),
        "path": [int(general) for general in flight.path],
        "value": flight.message.value,
        "truthful": flight.truthful,
        "sent": flight.sent,
        "fault": None if flight.fault is None else flight.fault.name.lower(),
    }


def outcome_data(outcome: Outcome) -> dict[str, Plain]:
    """Return a battle."""
    plan, verdict = outcome.plan, outcome.verdict
    return {
        "algorithm": outcome.algorithm,
        "n": plan.n,
        "m": plan.m,
        "order": plan.order,
        "orders": list(plan.orders),
        "commander": int(plan.commander),
        "traitors": {str(general): crime for general, crime in outcome.traitors},
        "rounds": outcome.rounds,
        "messages": outcome.messages,
        "decisions": {
            str(general): order
            for general, order in outcome.decisions.items()
            if general not in outcome.traitor_ids
        },
        "ic1": verdict.ic1,
        "ic2": verdict.ic2,
        "chronicle": [flight_data(flight) for flight in outcome.flights],
    }


def certificate_data(certificate: Certificate) -> dict[str, Plain]:
    """Return what a search found."""
    found = certificate.counterexample
    return {
        "algorithm": certificate.algorithm,
        "n": certificate.n,
        "m": certificate.m,
        "holds": certificate.holds,
        "method": certificate.method.value,
        "runs": certificate.runs,
        "evaluated": certificate.evaluated,
        "ic1_violations": certificate.ic1_violations,
        "ic2_violations": certificate.ic2_violations,
        "counterexample": None if found is None else counterexample_data(found),
    }


def counterexample_data(found: Counterexample) -> Plain:
    """Return one violation."""
    return {
        "condition": found.condition,
        "order": found.plan.order,
        "traitors": [int(traitor) for traitor in found.traitors],
        "lies": [
            {"path": [int(general) for general in path], "to": int(receiver), "say": order}
            for (path, receiver), order in found.lies
        ],
        "decisions": {str(general): order for general, order in found.decisions},
    }


def run_data(run: Run) -> Plain:
    """Return one run of the two generals."""
    return {"delivered": list(run.delivered), "a_attacks": run.attack_a, "b_attacks": run.attack_b}


def paradox_data(paradox: Paradox) -> dict[str, Plain]:
    """Return the argument against one protocol of the two generals."""
    return {
        "flaw": paradox.flaw.name.lower(),
        "chain": [run_data(run) for run in paradox.chain],
        "unaware": list(paradox.unaware),
        "lone": None if paradox.lone is None else run_data(paradox.lone),
    }
