"""A puppet: a corrupted replica that also says what a script tells it to, at the time that the script says.

For directed scenarios, where random search is hopeless and the last message must come from exactly there.
"""

from __future__ import annotations

from collections.abc import Iterable

from bft.adversary.strategy import Context, Strategy
from bft.adversary.tools import gathered, listen, other_digest
from bft.config import MILLISECOND
from bft.digests import NULL_DIGEST
from bft.errors import ConfigError
from bft.events import Deliver, Input
from bft.ids import Nanos, Peer
from bft.messages import Checkpoint, Commit, Packet, Prepare, PrePrepare, ReplicaMessage, Suspect, ViewChange

Step = tuple[int, str, int, int, int, tuple[int, ...]]
"""(milliseconds after the first tick, kind, view, seq, value, targets).

`value` counts the digests heard for that view and slot in order; -1 is the null digest, -2 one that nobody proposed.
"""
KINDS = ("prepare", "commit", "pre-prepare", "checkpoint", "suspect", "view-change")


class _Puppet(Strategy):
    def __init__(self, steps: tuple[Step, ...]) -> None:
        self._steps = sorted(steps)
        self._began: Nanos | None = None

    def incoming(self, context: Context, event: Deliver) -> Iterable[Input]:
        listen(context, event)
        return (event,)

    def unprompted(self, context: Context) -> Iterable[tuple[Peer, Packet]]:
        if self._began is None:
            self._began = context.now
        while self._steps and context.now - self._began >= self._steps[0][0] * MILLISECOND:
            _, kind, view, seq, value, targets = self._steps.pop(0)
            signed = context.sign(_message(context, kind, view, seq, value))
            for target in targets or context.others():
                yield target, signed


def _message(context: Context, kind: str, view: int, seq: int, value: int) -> ReplicaMessage:
    match kind:
        case "prepare":
            return Prepare(context.epoch, view, seq, _digest(context, view, seq, value))
        case "commit":
            return Commit(context.epoch, view, seq, _digest(context, view, seq, value))
        case "pre-prepare":
            return PrePrepare(context.epoch, view, seq, _digest(context, view, seq, value))
        case "checkpoint":
            return Checkpoint(context.epoch, seq, _digest(context, view, seq, value))
        case "suspect":
            return Suspect(context.epoch, view, "request-timeout")
        case _:
            return ViewChange(context.epoch, view, None, ())


def _digest(context: Context, view: int, seq: int, value: int) -> bytes:
    known = [digest for at_view, at_seq, digest in gathered(context).proposals if (at_view, at_seq) == (view, seq)]
    if value == -1:
        return NULL_DIGEST
    return known[value] if 0 <= value < len(known) else other_digest(context)


def puppet(*steps: Step) -> Strategy:
    """Say what the steps say, beside what the honest replica says."""
    for step in steps:
        if len(step) != 6 or step[1] not in KINDS:
            raise ConfigError(f"puppet step {step!r}: (ms, kind, view, seq, value, targets), kinds {', '.join(KINDS)}")
    return _Puppet(tuple(steps))
