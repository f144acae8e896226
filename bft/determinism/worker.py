"""One of the two processes of a determinism check: `python -m bft.determinism.worker SERVICE SURROUNDINGS`.

Frames come in on stdin and go out on what was stdout; what the service prints goes to stderr.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import BinaryIO

import msgspec

from bft.determinism.frames import (
    Answer,
    Ask,
    Call,
    Done,
    Outcome,
    Pages,
    Ready,
    Request,
    Restore,
    Show,
    Slot,
    Stopped,
    Take,
    decode_request,
    pack,
    unpack,
)
from bft.determinism.surroundings import Surroundings, enter
from bft.digests import page_digest
from bft.ports import Inspectable, StateMachine
from bft.state.context import Context

TRACE_LINES = 6


class Worker:
    """A service in this process, whose whole state is observed after every call.

    Observing changes nothing: a typed service's attributes are not decoded anew, as a checkpoint does, so that what
    differs between two checkpoints shows. A state machine on bytes is asked for a checkpoint instead, by its contract.
    """

    def __init__(self, machine: StateMachine) -> None:
        self._machine = machine
        self._context = Context()
        self._pages: dict[bytes, bytes] = {}
        self._history: list[tuple[bytes, ...]] = []
        self._unreported: dict[bytes, None] = {}
        self._observe = machine.observe if isinstance(machine, Inspectable) else machine.checkpoint
        self._digests = self._look()

    def answer(self, request: Request) -> Answer:
        """Carry out one request."""
        match request:
            case Slot():
                return self._execute(request)
            case Ask(operation):
                return Done([self._ask(operation)])
            case Take():
                return self._take()
            case Restore(pages):
                self._machine.restore(pages)
                self._digests = tuple(map(page_digest, pages))
                self._pages = dict(zip(self._digests, pages, strict=True))
                self._history, self._unreported = [], {}
                return Ready()
            case Show(index):
                digests = self._history[index] if index >= 0 else self._look()
                return Pages(list(digests), {digest: self._pages[digest] for digest in digests})

    def _look(self) -> tuple[bytes, ...]:
        digests, fresh = self._observe()
        self._pages.update(fresh)
        self._unreported.update(dict.fromkeys(fresh))
        return tuple(digests)

    def _execute(self, slot: Slot) -> Answer:
        kept = dict.fromkeys(self._digests)
        self._pages = {digest: page for digest, page in self._pages.items() if digest in kept}
        self._history = []
        context = self._context
        context.seq, context.time_ns, context.lease_ns = slot.seq, slot.time_ns, slot.lease_ns
        context.slot_seed = slot.seed
        outcomes: list[Outcome] = []
        for call in slot.calls:
            try:
                outcomes.append(self._call(call))
            except Exception as error:  # what stops a replica: told to the checker, which compares it like a result
                return Stopped(outcomes, f"{type(error).__name__}: {error}", _where(error))
        return Done(outcomes)

    def _call(self, call: Call) -> Outcome:
        context = self._context
        context.client, context.session = call.client, call.session
        context.number, context.index = call.number, call.index
        context.events = []
        status, value = self._machine.execute(call.operation, context)
        self._digests = self._look()
        self._history.append(self._digests)
        return Outcome(status, value, context.events, page_digest(b"".join(self._digests)))

    def _ask(self, operation: bytes) -> Outcome:
        before = self._look()
        status, value = self._machine.query(operation)
        after = self._look()
        if after == before:
            return Outcome(status, value, [], b"")
        self._history = [before]
        return Outcome(status, value, [], page_digest(b"".join(after)))

    def _take(self) -> Answer:
        digests, fresh = self._machine.checkpoint()
        self._pages.update(fresh)
        self._digests = tuple(digests)
        due = self._unreported | dict.fromkeys(fresh)
        self._unreported = {}
        return Pages(list(digests), {digest: self._pages[digest] for digest in self._digests if digest in due})


def _where(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)[-TRACE_LINES:])


def serve(worker: Worker, source: BinaryIO, sink: BinaryIO) -> None:
    """Answer requests until the pipe is closed."""
    while (body := unpack(source.read)) is not None:
        try:
            answer = worker.answer(decode_request(body))
        except Exception as error:  # a checkpoint, query or restore that fails: the checker compares it like a result
            answer = Stopped([], f"{type(error).__name__}: {error}", _where(error))
        sink.write(pack(answer))
        sink.flush()


def main(arguments: Sequence[str]) -> None:
    """Enter the surroundings, load the service, serve."""
    path, surroundings = arguments
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    ballast = enter(msgspec.json.decode(surroundings, type=Surroundings))
    from bft.services.loading import load_service  # after the clocks were shifted: it imports the service

    try:
        worker = Worker(load_service(path))
    except Exception as error:  # the first frame says that there is no service
        sink.write(pack(Stopped([], f"{type(error).__name__}: {error}", _where(error))))
        sink.flush()
        return
    sink.write(pack(Ready()))
    sink.flush()
    serve(worker, sys.stdin.buffer, sink)
    del ballast


if __name__ == "__main__":
    main(sys.argv[1:])
