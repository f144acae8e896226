"""Drive a service with operations through two processes, and find out what a difference comes from.

Beside comparing after every operation, the check takes checkpoints, as replicas do, and gives the second process's
state to a fresh process now and then, as a replica that restarts or catches up does.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from bft.determinism.pair import CheckedMachine, ServiceStopped, words
from bft.determinism.surroundings import ASPECTS, UNCONTROLLED, Surroundings, changed, pair
from bft.errors import NonDeterminism
from bft.events import OperationCall
from bft.ids import KEY_BYTES
from bft.messages import STATUS_ERROR, STATUS_OK
from bft.services.interface import Kind
from bft.state.context import Context

SLOT_OPERATIONS = 64
SLOTS_PER_CHECKPOINT = 4
CHECKPOINTS_PER_RESTART = 8
CLIENTS = 3
START_NS = 1_700_000_000_000_000_000
STEP_NS = 1_234_567
HIDDEN = (
    "state outside the service's attributes (module globals, class attributes, caches), which a replica that restarts"
    " or catches up does not have"
)
TOGETHER = "nothing that shows alone: it came with two processes that differ in everything, and not again since"


@dataclass(slots=True)
class Tally:
    """What a check has run.

    Attributes:
        outcomes: per method, how often it ended with "ok", with a declared "error", or "failed" with another one.
    """

    operations: int = 0
    checkpoints: int = 0
    restarts: int = 0
    outcomes: dict[str, Counter[str]] = field(default_factory=dict)

    def note(self, operation: bytes, status: int) -> None:
        """Count one outcome."""
        kind = {STATUS_OK: "ok", STATUS_ERROR: "error"}.get(status, "failed")
        self.outcomes.setdefault(words(operation)[0], Counter())[kind] += 1
        self.operations += 1


@dataclass(slots=True)
class _Recording:
    """What has happened since the last checkpoint: enough to let it happen again.

    Attributes:
        pages: of that checkpoint, in order; empty before the first one.
        steps: slots and queries since.
    """

    pages: list[bytes] = field(default_factory=list)
    steps: list[tuple[int, list[tuple[Kind, bytes]]]] = field(default_factory=list)


class Check:
    """One run. `run` raises at the first difference, whose `cause` then says what it comes from."""

    def __init__(self, path: str, *, seed: int = 1) -> None:
        """Check the service at `package.module:Class`.

        Args:
            path: the service.
            seed: chooses hash seeds and dice of both processes.
        """
        self._path = path
        self._seed = seed
        self._known: dict[bytes, bytes] = {}
        self._recording = _Recording()
        self._slot = 0
        self.tally = Tally()

    def run(
        self,
        operations: Iterable[tuple[Kind, bytes]],
        *,
        goes_on: Callable[[], bool] = lambda: True,
        progress: Callable[[Tally], None] = lambda tally: None,
    ) -> Tally:
        """Execute operations until they end or `goes_on` says no; asked, like `progress`, after every slot.

        Raises:
            NonDeterminism: two runs differ.
            ServiceStopped: the service raised what would stop every replica.
            ConfigError: the service cannot be loaded.
        """
        with CheckedMachine(self._path, seed=self._seed) as machine:
            try:
                self._run(machine, operations, goes_on, progress)
            except NonDeterminism as error:
                error.cause = error.cause or self._cause()
                raise
        return self.tally

    def _run(
        self,
        machine: CheckedMachine,
        operations: Iterable[tuple[Kind, bytes]],
        goes_on: Callable[[], bool],
        progress: Callable[[Tally], None],
    ) -> None:
        slot: list[tuple[Kind, bytes]] = []
        for operation in operations:
            slot.append(operation)
            if len(slot) < SLOT_OPERATIONS:
                continue
            self._step(machine, slot)
            slot = []
            progress(self.tally)
            if not goes_on():
                break
        if slot:
            self._step(machine, slot)
        self._checkpoint(machine)

    def _step(self, machine: CheckedMachine, operations: list[tuple[Kind, bytes]]) -> None:
        self._slot += 1
        self._recording.steps.append((self._slot, operations))
        for operation, status in execute(machine, self._slot, operations):
            self.tally.note(operation, status)
        if self._slot % SLOTS_PER_CHECKPOINT == 0:
            self._checkpoint(machine)

    def _checkpoint(self, machine: CheckedMachine) -> None:
        digests, fresh = machine.checkpoint()
        self.tally.checkpoints += 1
        self._known.update(fresh)
        self._known = {digest: self._known[digest] for digest in digests}
        self._recording = _Recording([self._known[digest] for digest in digests])
        if self.tally.checkpoints % CHECKPOINTS_PER_RESTART == 1:
            machine.restart_second()
            self.tally.restarts += 1

    # --- causes ---------------------------------------------------------------------------------------------------

    def _cause(self) -> str:
        """What the difference comes from: what led to it is repeated in pairs that differ in one thing at a time."""
        same, _ = pair(self._seed)
        if self._differs(same, same):
            return UNCONTROLLED
        found = [aspect for aspect in ASPECTS if self._differs(same, changed(same, aspect, self._seed))]
        if found:
            return "; ".join(f"{aspect}: {ASPECTS[aspect]}" for aspect in found)
        return HIDDEN if self.tally.restarts else TOGETHER

    def _differs(self, first: Surroundings, second: Surroundings) -> bool:
        with CheckedMachine(self._path, surroundings=(first, second)) as machine:
            try:
                if self._recording.pages:
                    machine.restore(self._recording.pages)
                for number, operations in self._recording.steps:
                    for _ in execute(machine, number, operations):
                        continue
                machine.checkpoint()
            except NonDeterminism:
                return True
            except ServiceStopped:
                return False
        return False


def execute(machine: CheckedMachine, slot: int, operations: Sequence[tuple[Kind, bytes]]) -> list[tuple[bytes, int]]:
    """Execute one slot of operations by a few clients, its queries also without ordering, before and after it.

    Before: what a query changes may be the same ever after. Everything that an operation can know is a function of the
    slot's number.
    """
    queries = [operation for kind, operation in operations if kind == "query"]
    for operation in queries:
        machine.query(operation)
    context = Context()
    context.seq, context.time_ns, context.lease_ns = slot, START_NS + slot * STEP_NS, slot * STEP_NS
    context.slot_seed = hashlib.blake2b(b"bft check %d" % slot, digest_size=KEY_BYTES).digest()
    calls = [
        OperationCall(bytes([1 + index % CLIENTS]) * KEY_BYTES, 1, slot * SLOT_OPERATIONS + index, index, operation)
        for index, (_, operation) in enumerate(operations)
    ]
    outcomes = machine.execute_slot(calls, context)
    for operation in queries:
        machine.query(operation)
    return [(call.operation, status) for call, (status, _) in zip(calls, outcomes, strict=True)]
