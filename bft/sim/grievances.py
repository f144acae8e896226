"""Checkers of service: what clients must get beside hostile ones, and what a correct primary must not be blamed for.

Listed with all others in `bft.sim.checkers`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from bft.core.monitor import PERFORMANCE
from bft.core.proofs import opened
from bft.membership import Quorums
from bft.messages import Suspect
from bft.sim.history import History

CALM_NS = 500_000_000
"""After the stabilisation time, until what was delayed before it is measured no more."""
FLOOR_NS = 20_000_000
"""A tenth of the default `slow_floor_ms`: unfairness and waste show long before requests are slow."""


def no_framing(history: History) -> Iterator[str]:
    """A correct primary that serves within bounds keeps its place, whatever f liars complain of.

    Looks at views that are deposed after the network has been calm for a while, by complaints about performance alone:
    some call of a correct client must have been open for longer than any theta allows, the least of which is a floor.
    """
    if any(configuration.epoch for _, configuration in history.epochs):
        return  # views begin again with every epoch, and the timeline does not say of which it speaks
    quorums = Quorums.of(history.n)
    calm = history.gst + CALM_NS
    entered: dict[int, int] = {0: 0}
    reasons: dict[int, set[str]] = {}
    for replica, at, progress in history.timeline:
        if progress.what == "new-view":
            entered.setdefault(progress.view, at)
        elif progress.what == "suspect":
            reasons.setdefault(progress.view, set()).add(progress.detail)
        elif progress.what == "view-change":
            left = progress.view - 1
            since = entered.pop(left, None)
            if since is None or since < calm or quorums.primary(left) not in history.correct:
                continue
            if reasons.get(left, set()) <= set(PERFORMANCE) and _longest_call(history, since, at) < FLOOR_NS:
                yield f"r{replica} deposed r{quorums.primary(left)} in view {left}, which was within bounds"


def _longest_call(history: History, since: int, until: int) -> int:
    """How long a correct client's call was open at most, counting only what lies between the two times."""
    spans = (
        min(operation.completed or until, until) - max(operation.invoked, since) for operation in history.operations
    )
    return max(spans, default=0)


def fairness(history: History) -> Iterator[str]:
    """While an operation of a correct client waits, hostile clients get a bounded number of theirs executed.

    The bound is the share of a client that is served in turn; what reached the primary before it is in flight.
    """
    if not history.fair_share:
        return
    correct = {operation.client for operation in history.operations}
    slots = _hostile_slots(history, correct)
    for operation in history.operations:
        if operation.is_query:
            continue
        until = operation.completed if operation.completed is not None else history.end
        begin = bisect_left(slots, (operation.invoked, 0))
        passed = sum(count for _, count in slots[begin : bisect_left(slots, (until, 0))])
        if passed > history.fair_share:
            yield (
                f"operation {operation.ticket} of {operation.client.hex()[:8]} waited while {passed} operations of"
                f" hostile clients executed; a fair share is {history.fair_share}"
            )


def _hostile_slots(history: History, correct: set[bytes]) -> list[tuple[int, int]]:
    """(time, operations of others than the correct clients) of every slot, when a replica first executed it."""
    first: dict[int, tuple[int, int]] = {}
    for execution in history.executions:
        count = sum(call.client not in correct for call in execution.effect.calls)
        first.setdefault(execution.effect.seq, (execution.at, count))
    return sorted(first.values())


def no_groundless_suspicion(history: History) -> Iterator[str]:
    """Without lies, faults and losses nobody complains of a primary, whatever clients send.

    Else a client could depose one correct primary after another, and nobody would be served.
    """
    if not history.fair_share:
        return
    for replica in history.correct:
        for signed in history.signed.get(replica, []):
            message = opened(signed)
            if isinstance(message, Suspect):
                yield f"r{replica} complains of the primary of view {message.view}: {message.reason}"
