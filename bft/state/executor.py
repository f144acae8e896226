"""The executor: carries out `Execute`, `AnswerQuery` and `InstallState` effects on a service.

The one place where agreement meets a service. Strictly sequential; whatever the service raises is passed on, since a
state machine turns its own errors into results. What is left over, such as a lack of memory, need not happen to the
other replicas: it must stop this one before its state becomes another one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bft.events import AnswerQuery, Execute, Executed, InstallState, OperationCall, QueryAnswered
from bft.messages import STATUS_ERROR
from bft.ports import ExecutionContext, StateMachine
from bft.state.context import Context
from bft.wire.codec import encode

SLOT_RESULT_BYTES_MAX = 32 * 1024 * 1024
"""Results of one slot beyond this are replaced by an error, alike on every replica: reads of large values must not fill
the memory of all of them at once."""
QUERY_ANSWER_BYTES = 2 * 1024 * 1024
"""With this much the reads of one query are answered as far as they are: a small question must not fill the memory."""
Together = Callable[[Sequence[OperationCall], Context], Sequence[tuple[int, bytes]]]
"""What a state machine may offer as `execute_slot` beside its port: the calls of a slot in one go, for one that lives
in another process. Their events go into the context."""
RESULTS_TOO_LARGE = (STATUS_ERROR, encode(("ResultTooLarge", "the results of the slot are too large together")))


class Executor:
    """Runs one service. `seq` is the slot after which its state stands; 0 at first."""

    __slots__ = ("_context", "_together", "machine", "seq")

    def __init__(self, machine: StateMachine) -> None:
        self.machine = machine
        self.seq = 0
        self._context = Context()
        self._together: Together | None = getattr(machine, "execute_slot", None)

    def execute(self, effect: Execute) -> Executed:
        """Execute the next slot, which must be above `seq`."""
        assert effect.seq > self.seq, f"slots execute in order: {effect.seq} after {self.seq}"
        self.seq = effect.seq

        context, run = self._context, self.machine.execute
        context.seq, context.time_ns, context.lease_ns = effect.seq, effect.time_ns, effect.lease_ns
        context.slot_seed, context.events = effect.seed, []
        results: list[tuple[int, bytes]] = []
        append = results.append
        room = SLOT_RESULT_BYTES_MAX
        if self._together is not None:
            run = self._in_turn(self._together(effect.calls, context))
        for call in effect.calls:
            context.client = call.client
            context.session = call.session
            context.number = call.number
            context.index = call.index
            outcome = run(call.operation, context)
            room -= len(outcome[1])
            append(outcome if room >= 0 else RESULTS_TOO_LARGE)

        if not effect.checkpoint:
            return Executed(effect.seq, results, context.events)
        pages, fresh = self.machine.checkpoint()
        return Executed(effect.seq, results, context.events, pages, fresh)

    @staticmethod
    def _in_turn(outcomes: Sequence[tuple[int, bytes]]) -> Callable[[bytes, ExecutionContext], tuple[int, bytes]]:
        """Hand out what a machine that takes whole slots has answered."""
        left = iter(outcomes)
        return lambda operation, context: next(left)

    def answer(self, effect: AnswerQuery) -> QueryAnswered:
        """Answer read-only operations from the present state, which must be at or after the effect's slot."""
        assert self.seq >= effect.seq, f"a query cannot be answered from the past: {self.seq} before {effect.seq}"
        room = QUERY_ANSWER_BYTES
        answers: list[tuple[int, bytes]] = []
        for operation in effect.operations:
            if room <= 0:
                break
            answer = self.machine.query(operation)
            room -= len(answer[1])
            answers.append(answer)
        is_all = len(answers) == len(effect.operations)
        return QueryAnswered(effect.client, effect.nonce, self.seq, answers, is_all)

    def install(self, effect: InstallState) -> None:
        """Replace the service's state."""
        self.machine.restore(effect.pages)
        self.seq = effect.seq
