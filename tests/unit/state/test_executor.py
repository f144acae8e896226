"""The executor: order, context, checkpoints."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from bft.digests import operation_seed
from bft.events import AnswerQuery, Execute, InstallState, OperationCall
from bft.ids import ClientId
from bft.ports import ExecutionContext
from bft.state.executor import QUERY_ANSWER_BYTES, Executor


class Recorder:
    """Writes down what each operation is told."""

    def __init__(self) -> None:
        self.seen: list[tuple[object, ...]] = []
        self.pages: Sequence[bytes] = ()

    def execute(self, operation: bytes, context: ExecutionContext, /) -> tuple[int, bytes]:
        if operation == b"crash":
            raise MemoryError
        if operation == b"emit":
            context.emit(context.client, context.session, b"event")
        position = (context.seq, context.index, context.number)
        self.seen.append(
            (operation, *position, context.time_ns, context.lease_ns, context.seed, context.random().random())
        )
        return 0, operation

    def query(self, operation: bytes, /) -> tuple[int, bytes]:
        return 0, operation

    def checkpoint(self) -> tuple[tuple[bytes, ...], dict[bytes, bytes]]:
        return (b"d",), {b"d": b"page"}

    def restore(self, pages: Sequence[bytes], /) -> None:
        self.pages = pages


def slot(seq: int, *operations: bytes, checkpoint: bool = False) -> Execute:
    calls = [OperationCall(b"c" * 32, 9, 100 + index, index, operation) for index, operation in enumerate(operations)]
    return Execute(seq, 1000 + seq, 500 + seq, bytes([seq]) * 32, calls, checkpoint)


def test_executor_tells_each_operation_its_place_time_and_seed() -> None:
    """One context object serves all, with the values of the present operation."""
    machine = Recorder()
    executed = Executor(machine).execute(slot(3, b"a", b"b"))
    assert executed.results == [(0, b"a"), (0, b"b")]
    assert [entry[:6] for entry in machine.seen] == [(b"a", 3, 0, 100, 1003, 503), (b"b", 3, 1, 101, 1003, 503)]
    assert [entry[6] for entry in machine.seen] == [operation_seed(bytes([3]) * 32, index) for index in (0, 1)]
    other = Recorder()
    Executor(other).execute(slot(3, b"a", b"b"))
    assert other.seen == machine.seen
    assert machine.seen[0][7] != machine.seen[1][7]


def test_executor_reports_events_and_pages() -> None:
    """Events are of the slot that emitted them; pages only when asked for."""
    executor = Executor(Recorder())
    first = executor.execute(slot(1, b"emit", b"emit"))
    second = executor.execute(slot(2, b"a", checkpoint=True))
    assert first.events == [(b"c" * 32, 9, b"event")] * 2 and first.pages is None
    assert second.events == [] and second.pages == (b"d",) and second.fresh == {b"d": b"page"}


def test_executor_refuses_slots_out_of_order() -> None:
    """A slot is executed once; a gap below a restored state is fine."""
    executor = Executor(Recorder())
    executor.execute(slot(2))
    with pytest.raises(AssertionError):
        executor.execute(slot(2))
    executor.install(InstallState(10, (b"page",)))
    assert executor.seq == 10
    with pytest.raises(AssertionError):
        executor.execute(slot(10))
    executor.execute(slot(11))


def test_executor_answers_queries_from_the_present_state() -> None:
    """The answer names the slot after which the state stands."""
    executor = Executor(Recorder())
    executor.execute(slot(4))
    answer = executor.answer(AnswerQuery(ClientId(b"c" * 32), 7, 4, (b"q", b"q")))
    assert (answer.nonce, answer.seq, answer.answers) == (7, 4, [(0, b"q"), (0, b"q")])
    with pytest.raises(AssertionError):
        executor.answer(AnswerQuery(ClientId(b"c" * 32), 7, 5, (b"q",)))


def test_answers_of_one_query_are_bounded() -> None:
    """What is left out is said to be; a single answer is given whatever its size."""
    executor = Executor(Recorder())
    large = bytes(QUERY_ANSWER_BYTES - 1)
    answer = executor.answer(AnswerQuery(ClientId(b"c" * 32), 7, 0, (large, large, b"q")))
    assert [len(value) for _, value in answer.answers] == [len(large), len(large)] and not answer.is_all
    answer = executor.answer(AnswerQuery(ClientId(b"c" * 32), 7, 0, (large + large,)))
    assert len(answer.answers) == 1 and answer.is_all


def test_executor_lets_environment_errors_stop_the_replica() -> None:
    """What the service raises is no result: other replicas may not meet it."""
    with pytest.raises(MemoryError):
        Executor(Recorder()).execute(slot(1, b"crash"))


def test_context_bounds_events() -> None:
    """An event has at most 1 MiB."""
    executor = Executor(Recorder())
    executor.execute(slot(1))
    with pytest.raises(ValueError):
        executor._context.emit(b"c" * 32, 1, bytes(2**20 + 1))
    executor._context.emit(b"c" * 32, 1, bytes(2**20))


class Derived(bytes):
    """No type that can be encoded."""


@pytest.mark.parametrize(
    "wrong", [("c" * 32, 1, b""), (b"c" * 32, "1", b""), (b"c" * 32, 1, "text"), (b"c" * 32, 1, Derived(b"x"))]
)
def test_event_of_another_type_fails_where_it_is_emitted(wrong: tuple[bytes, int, bytes]) -> None:
    """It would be encoded in a checkpoint, and no replica could decode that."""
    executor = Executor(Recorder())
    with pytest.raises(TypeError, match="an event has"):
        executor._context.emit(*wrong)
    assert executor._context.events == []
