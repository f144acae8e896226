"""Run a service twice, in two processes with different surroundings, and compare all that it does.

`CheckedMachine` is a `StateMachine`: a replica, or a command, uses it in the place of the service. Each slot goes to
both processes as one frame, so that the price is two interpreters and not a wait per operation. After every call the
results, the events and a digest of the whole state are compared; only when they differ are the pages fetched.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import BinaryIO, cast

import msgspec

from bft.determinism.frames import (
    Answer,
    Ask,
    Call,
    Done,
    Outcome,
    Pages,
    Request,
    Restore,
    Show,
    Slot,
    Stopped,
    Take,
    decode_answer,
    pack,
    unpack,
)
from bft.determinism.surroundings import Surroundings, pair
from bft.errors import BFTError, ConfigError, NonDeterminism
from bft.events import OperationCall
from bft.ports import ExecutionContext
from bft.services.anatomy import Difference, short, state_differences, value_difference
from bft.state.context import Context

ANSWER_SECONDS = 60.0
"""A service that computes longer for one slot is taken for stuck."""
QUERY_WRITES = "the query changed the state, which is then another one on replicas that have answered it"


class ServiceStopped(BFTError):
    """The service raised, in both processes alike, what would stop every replica."""


class CheckedMachine:
    """A service in two processes. Its results are those of the first one, if the second one agrees.

    Attributes:
        executed: calls compared so far.
    """

    def __init__(
        self, path: str, *, seed: int = 1, surroundings: tuple[Surroundings, Surroundings] | None = None
    ) -> None:
        """Start two processes of the service named by `package.module:Class`.

        Args:
            path: the service.
            seed: chooses the hash seeds and the dice of both.
            surroundings: of the two, instead of what `seed` chooses.

        Raises:
            ConfigError: the service cannot be loaded.
        """
        self._path = path
        self._surroundings = surroundings or pair(seed)
        self._workers: list[_Process] = []
        self.executed = 0
        try:
            for each in self._surroundings:
                self._workers.append(_Process(path, each))
            for worker in self._workers:
                worker.begin()
        except BaseException:  # also an interrupt must not leave a process behind
            self.close()
            raise

    # --- the port -------------------------------------------------------------------------------------------------

    def execute(self, operation: bytes, context: ExecutionContext, /) -> tuple[int, bytes]:
        """Execute one operation twice.

        Raises:
            NonDeterminism: results, events or states differ.
            ServiceStopped: the service raised what stops a replica.
        """
        call = OperationCall(context.client, context.session, context.number, context.index, operation)
        (outcome,) = self.execute_slot([call], cast("Context", context))
        return outcome

    def execute_slot(self, calls: Sequence[OperationCall], context: Context, /) -> list[tuple[int, bytes]]:
        """Execute the calls of a slot twice; events go into the context. Raises as `execute`."""
        if not calls:
            return []
        sent = [Call(call.client, call.session, call.number, call.index, call.operation) for call in calls]
        slot = Slot(context.seq, context.time_ns, context.lease_ns, context.slot_seed, sent)
        first, second = self._both(slot)
        done, others = _outcomes(first), _outcomes(second)
        for index, call in enumerate(calls):
            mine = done[index] if index < len(done) else None
            other = others[index] if index < len(others) else None
            if mine is None or other is None:
                self._stopped(call, first, second, mine, other)
            assert mine is not None and other is not None, "a stopped service was reported"
            if mine != other:
                raise self._difference(call, index, mine, other)
            self.executed += 1
            context.events.extend(mine.events)
        return [(outcome.status, outcome.value) for outcome in done]

    def query(self, operation: bytes, /) -> tuple[int, bytes]:
        """Answer a read-only operation twice. Raises as `execute`, and `NonDeterminism` if it changed the state."""
        first, second = self._both(Ask(operation))
        call = OperationCall(b"", 0, 0, 0, operation)
        mine, other = (_outcomes(answer) for answer in (first, second))
        if not mine or not other:
            self._stopped(call, first, second, mine[0] if mine else None, other[0] if other else None)
        if mine[0] != other[0]:
            raise self._difference(call, -1, mine[0], other[0])
        if mine[0].state:
            worker = self._workers[0]
            found = state_differences(_pages(worker.ask(Show(0))), _pages(worker.ask(Show(-1))))[0]
            raise self._error(*words(operation), found, QUERY_WRITES)
        return mine[0].status, mine[0].value

    def checkpoint(self) -> tuple[tuple[bytes, ...], dict[bytes, bytes]]:
        """See `bft.ports.StateMachine`.

        Raises:
            NonDeterminism: the two states differ, though no operation has shown it.
            ServiceStopped: the state cannot be encoded.
        """
        first, second = self._both(Take())
        if not isinstance(first, Pages) or not isinstance(second, Pages):
            self._stopped(OperationCall(b"", 0, 0, 0, b""), first, second, None, None)
        assert isinstance(first, Pages) and isinstance(second, Pages), "a stopped service was reported"
        if first.digests != second.digests:
            raise self._state_difference("checkpoint", "", -1)
        return tuple(first.digests), first.pages

    def restore(self, pages: Sequence[bytes], /) -> None:
        """Replace the whole state, in both processes."""
        self._both(Restore(list(pages)))

    # --- for checkers ---------------------------------------------------------------------------------------------

    def restart_second(self) -> None:
        """Give the second process's state to a fresh process, as a replica does that restarts or catches up.

        What the service keeps outside its attributes (module globals, class attributes, caches) is lost there.

        Raises:
            NonDeterminism: the states differ already.
        """
        self.checkpoint()
        shown = self._workers[1].ask(Show(-1))
        assert isinstance(shown, Pages), "a service that took a checkpoint shows its pages"
        self._workers.pop().close()
        fresh = _Process(self._path, self._surroundings[1])
        self._workers.append(fresh)
        fresh.begin()
        fresh.ask(Restore([shown.pages[digest] for digest in shown.digests]))

    def close(self) -> None:
        """End both processes; may be called twice."""
        while self._workers:
            self._workers.pop().close()

    def __enter__(self) -> CheckedMachine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    # --- comparing ------------------------------------------------------------------------------------------------

    def _both(self, request: Request) -> tuple[Answer, Answer]:
        if len(self._workers) != 2:
            raise BFTError(f"{self._path}: the check was closed")
        packed = pack(request)
        for worker in self._workers:
            worker.send(packed)
        first, second = (worker.receive() for worker in self._workers)
        return first, second

    def _difference(self, call: OperationCall, index: int, first: Outcome, second: Outcome) -> NonDeterminism:
        """The first thing that is not the same: the result, then the events, then the state."""
        name, arguments = words(call.operation)
        found: Difference
        if first.status != second.status:
            found = Difference("result", _result(first), _result(second))
        elif first.value != second.value:
            found = value_difference("result", first.value, second.value)
        elif first.events != second.events:
            found = _event_difference(first.events, second.events)
        else:
            return self._state_difference(name, arguments, index)
        return self._error(name, arguments, found)

    def _state_difference(self, name: str, arguments: str, index: int) -> NonDeterminism:
        ours, theirs = (_pages(worker.ask(Show(index))) for worker in self._workers)
        return self._error(name, arguments, state_differences(ours, theirs)[0])

    def _error(self, name: str, arguments: str, found: Difference, cause: str = "") -> NonDeterminism:
        number = self.executed + 1
        return NonDeterminism(
            name, arguments, found.path, found.first, found.second, number=number, page=found.page, cause=cause
        )

    def _stopped(
        self, call: OperationCall, first: Answer, second: Answer, mine: Outcome | None, other: Outcome | None
    ) -> None:
        """One of the two raised, or both did."""
        name, arguments = words(call.operation) if call.operation else ("checkpoint", "")
        left = first.error if isinstance(first, Stopped) and mine is None else "returned"
        right = second.error if isinstance(second, Stopped) and other is None else "returned"
        if left.partition(":")[0] != right.partition(":")[0]:
            raise self._error(name, arguments, Difference("outcome", left, right))
        detail = first.detail if isinstance(first, Stopped) else ""
        raise ServiceStopped(f"{name}({arguments}) stops the service, and so would every replica: {left}\n{detail}")


class _Process:
    """One worker process and its two pipes."""

    def __init__(self, path: str, surroundings: Surroundings) -> None:
        seen = os.pathsep.join(entry for entry in sys.path if entry)
        self._path = path
        # Ctrl-C goes to every process of the terminal: it ends the checker, which ends this one, also while it starts
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "bft.determinism.worker", path, msgspec.json.encode(surroundings).decode()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, **surroundings.environment(), "PYTHONPATH": seen},
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        assert self._child.stdin is not None and self._child.stdout is not None, "asked for pipes"
        self._sink: BinaryIO = cast("BinaryIO", self._child.stdin)
        self._source = self._child.stdout.fileno()

    def begin(self) -> None:
        """Wait until the service is loaded.

        Raises:
            ConfigError: it cannot be.
        """
        answer = self.receive()
        if isinstance(answer, Stopped):
            raise ConfigError(answer.error.removeprefix("ConfigError: "))

    def ask(self, request: Request) -> Answer:
        """Send one request and wait for its answer."""
        self.send(pack(request))
        return self.receive()

    def send(self, packed: bytes) -> None:
        """Write a request.

        Raises:
            BFTError: the process has ended.
        """
        try:
            self._sink.write(packed)
            self._sink.flush()
        except OSError:
            raise self._ended() from None

    def receive(self) -> Answer:
        """Wait for an answer.

        Raises:
            BFTError: the process has ended, or takes too long.
        """
        deadline = time.monotonic() + ANSWER_SECONDS

        def read(count: int) -> bytes:
            parts = bytearray()
            while len(parts) < count:
                left = deadline - time.monotonic()
                if left <= 0 or not select.select([self._source], [], [], left)[0]:
                    raise BFTError(f"{self._path}: no answer within {ANSWER_SECONDS:g} s: the service does not end")
                part = os.read(self._source, min(count - len(parts), 1 << 20))
                if not part:
                    break
                parts += part
            return bytes(parts)

        body = unpack(read)
        if body is None:
            raise self._ended()
        answer: Answer = decode_answer(body)
        return answer

    def close(self) -> None:
        """End the process, whatever it does."""
        self._child.kill()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # what was left to flush has no reader any more
                    continue

    def _ended(self) -> BFTError:
        code = self._child.wait()
        return BFTError(f"{self._path}: a process of the check ended by itself with code {code}: see its stderr")


def words(operation: bytes) -> tuple[str, str]:
    """An operation as (name, arguments) for people."""
    try:
        decoded = msgspec.msgpack.decode(operation)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "operation", short(operation)
    if isinstance(decoded, list) and decoded and isinstance(decoded[0], str):
        return decoded[0], ", ".join(map(short, decoded[1:]))
    return "operation", short(decoded)


def _outcomes(answer: Answer) -> list[Outcome]:
    return answer.outcomes if isinstance(answer, Done | Stopped) else []


def _pages(answer: Answer) -> list[bytes]:
    assert isinstance(answer, Pages), f"asked for pages, found {type(answer).__name__}"
    return [answer.pages[digest] for digest in answer.digests]


def _result(outcome: Outcome) -> str:
    try:
        value: object = msgspec.msgpack.decode(outcome.value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        value = outcome.value
    kind = {0: "value", 1: "error", 2: "failure"}.get(outcome.status, f"status {outcome.status}")
    return f"{kind} {short(value)}"


def _event_difference(first: list[tuple[bytes, int, bytes]], second: list[tuple[bytes, int, bytes]]) -> Difference:
    for index, (left, right) in enumerate(zip(first, second, strict=False)):
        if left != right:
            return Difference(f"event {index}", short(left), short(right))
    return Difference("number of events", str(len(first)), str(len(second)))
