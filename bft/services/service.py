"""`Service`: a replicated state machine written as an ordinary class with typed methods.

    class Bank(bft.Service):
        def __init__(self) -> None:
            self.accounts: bft.Map[str, int] = bft.Map()

        @bft.command
        def deposit(self, account: str, amount: int) -> int: ...

        @bft.query
        def balance(self, account: str) -> int: ...

This file holds what a service author touches; `bft.services.machine` runs it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import ClassVar, ParamSpec, TypeVar, overload

from bft.ports import ExecutionContext
from bft.services.interface import MARK, Kind, Mark

P = ParamSpec("P")
R = TypeVar("R")

current: ContextVar[ExecutionContext | None] = ContextVar("bft_context", default=None)


class Service:
    """Base of typed services. Create instances without arguments.

    State is what instance attributes hold. `Map` attributes are paged: a checkpoint costs what changed in them. All
    other attributes go together into one page that is encoded anew at every checkpoint, so they should be small; they
    need MessagePack encodings, and annotations on the class (`total: int`, `owner: Account`) wherever decoding should
    give more than plain numbers, texts, lists and dicts. At every checkpoint each replica goes on from the decoded
    attributes, just as a replica that restores the checkpoint does.

    Methods must be deterministic: no clock, dice (`bft.context()` has agreed ones), environment, `id`, `hash`, floats
    whose value depends on the platform, or iteration over sets.

    A command that raises keeps the changes and events that it made before: alike on every replica, but not undone.
    Check first, change after. Exceptions in `errors`, or given to the decorator, reach the caller as
    `ServiceError(type name, text)`; any other becomes a failure that tells the type only. `MemoryError`, `OSError`,
    `RecursionError`, `ImportError` and `SystemError`, and what derives from them, as `PermissionError` does, depend on
    the machine: they stop the replica, and cannot be declared.

    Attributes:
        errors: exception types that every method may raise as results.
    """

    errors: ClassVar[tuple[type[Exception], ...]] = ()


@overload
def command(method: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def command(*, errors: tuple[type[Exception], ...] = ()) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def command(
    method: Callable[P, R] | None = None, /, *, errors: tuple[type[Exception], ...] = ()
) -> Callable[P, R] | Callable[[Callable[P, R]], Callable[P, R]]:
    """Mark a method as an ordered operation that may change state; `errors` travel as results."""
    return _marker("command", errors) if method is None else _marker("command", errors)(method)


@overload
def query(method: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def query(*, errors: tuple[type[Exception], ...] = ()) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def query(
    method: Callable[P, R] | None = None, /, *, errors: tuple[type[Exception], ...] = ()
) -> Callable[P, R] | Callable[[Callable[P, R]], Callable[P, R]]:
    """Mark a method as read-only: it may be answered without ordering, and raises if it assigns or writes to a map.

    It must not change what attributes hold either (`self.seen.add(...)`): nothing refuses that where it happens, and
    replicas that have answered it then have another state than the others. `bft check` finds it.
    """
    return _marker("query", errors) if method is None else _marker("query", errors)(method)


def context() -> ExecutionContext:
    """The operation being executed: agreed time and dice, position, client. For commands only.

    Raises:
        RuntimeError: no command is being executed (queries have no agreed time: they are not ordered).
    """
    found = current.get()
    if found is None:
        raise RuntimeError("bft.context() is known only while a command executes")
    return found


def _marker(kind: Kind, errors: tuple[type[Exception], ...]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    def mark(method: Callable[P, R]) -> Callable[P, R]:
        setattr(method, MARK, Mark(kind, errors))
        return method

    return mark
