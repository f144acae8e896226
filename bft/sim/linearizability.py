"""Is a history linearizable? Wing and Gong's search with Lowe's improvements [WG93; Low17].

A history is a list of calls with invocation and completion times; incomplete calls may take effect at any later time
or never. The search linearises minimal calls one by one and remembers (set of linearised calls, state) pairs that led
nowhere. Key-value histories are split by key first: linearizability is local [HW90].
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from bft.sim.history import Operation

S = TypeVar("S", bound=Hashable)
NEVER = 1 << 63


@dataclass(frozen=True, slots=True)
class Call:
    """One call: when it was made and answered, what it asked, and the answer (None while unknown)."""

    invoked: int
    completed: int
    argument: Hashable
    answer: Hashable | None


def is_linearizable(
    calls: Sequence[Call], initial: S, apply: Callable[[S, Hashable], tuple[S, Hashable]], steps_max: int = 1_000_000
) -> bool | None:
    """True or False; None if the search was cut off after `steps_max` steps.

    Args:
        calls: the history, in any order.
        initial: the object's first state (hashable).
        apply: sequential specification: (state, argument) -> (state after, answer).
        steps_max: bound on the search.
    """
    order = sorted(range(len(calls)), key=lambda index: calls[index].invoked)
    complete = sum(1 << index for index, call in enumerate(calls) if call.completed < NEVER)
    seen: set[tuple[int, S]] = set()
    stack: list[tuple[int, S]] = [(0, initial)]
    steps = 0
    while stack:
        done, state = stack.pop()
        if done & complete == complete:
            return True
        if (done, state) in seen:
            continue
        seen.add((done, state))
        steps += 1
        if steps > steps_max:
            return None
        stack.extend(_successors(calls, order, done, state, apply))
    return False


def _successors(
    calls: Sequence[Call], order: list[int], done: int, state: S, apply: Callable[[S, Hashable], tuple[S, Hashable]]
) -> list[tuple[int, S]]:
    """States reachable by linearising one more call that was invoked before every open call's completion."""
    open_calls = [index for index in order if not done >> index & 1]
    barrier = min(calls[index].completed for index in open_calls)
    found = []
    for index in open_calls:
        call = calls[index]
        if call.invoked > barrier:
            break
        after, answer = apply(state, call.argument)
        if call.answer is None or call.answer == answer:
            found.append((done | 1 << index, after))
    found.reverse()
    return found


def apply_register(state: Hashable, argument: Hashable) -> tuple[Hashable, Hashable]:
    """A register with compare-and-set: arguments are ("put", v), ("get",), ("cas", expected, v)."""
    assert isinstance(argument, tuple), "arguments are tuples"
    match argument:
        case ("put", value):
            return value, True
        case ("get",):
            return state, ("value", state)
        case ("cas", expected, value):
            return (value, ("swapped", True)) if state == expected else (state, ("swapped", False))
        case _:
            raise ValueError(f"unknown register operation {argument!r}")


SEARCH_CALLS_MAX = 60
SEARCH_STEPS_MAX = 20_000


def check_register_history(operations: Sequence[Operation]) -> str | None:
    """Search calls of the simulated workload, per key; a text naming the key if they are not linearizable.

    Operations are the key-value service's encoded calls: `[method, key, ...]`. Needs no knowledge of the agreed order,
    so it guards against an error in `check_against_log`; keys with many calls are left to that one.
    """
    by_key: dict[str, list[Call]] = {}
    for operation in operations:
        method, key, *rest = msgspec.msgpack.decode(operation.operation)
        answer = None
        completed = NEVER
        if operation.completed is not None:
            completed = operation.completed
            answer = _answer(method, _decoded(operation.value) if operation.value else None)
        elif method == "get":
            continue
        by_key.setdefault(key, []).append(Call(operation.invoked, completed, (method, *rest), answer))
    for key, calls in by_key.items():
        if len(calls) > SEARCH_CALLS_MAX:
            continue
        if is_linearizable(calls, None, apply_register, SEARCH_STEPS_MAX) is False:
            return f"the {len(calls)} calls on key {key!r} are not linearizable"
    return None


def _answer(method: str, value: object) -> Hashable:
    match method:
        case "get":
            return ("value", value)
        case "cas":
            return ("swapped", value)
        case _:
            return True


Position = tuple[int, int]


def check_against_log(operations: Sequence[Operation], log: Sequence[tuple[Position, bytes]]) -> str | None:
    """Check completed calls against the agreed order, in O(calls log calls).

    Ordered calls must stand in the log as their real times demand. A read must show the state after some position
    that is not before anything completed when it was invoked, nor after anything invoked when it had completed.

    Args:
        operations: the history.
        log: (position, operation) of everything executed, ascending.
    """
    ordered = sorted(
        (item for item in operations if item.completed is not None and not item.is_query),
        key=lambda item: item.position,
    )
    latest = 0
    for item in ordered:
        assert item.completed is not None, "filtered above"
        if item.completed < latest:
            return f"call {item.ticket} at {item.position} was complete before an earlier position was invoked"
        latest = max(latest, item.invoked)
    return _check_reads(operations, ordered, _versions(log))


def _decoded(data: bytes) -> object:
    """MessagePack, or the bytes themselves if they are none: a lie that was believed must not stop the checker."""
    try:
        return msgspec.msgpack.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return data


def _versions(log: Sequence[tuple[Position, bytes]]) -> dict[str, list[tuple[Position, object]]]:
    """Per key, its values in order: (position that wrote it, value)."""
    values: dict[str, object] = {}
    versions: dict[str, list[tuple[Position, object]]] = {}
    for position, operation in log:
        match _decoded(operation):
            case ["put" | "cas" as method, str(key), *rest] if rest:
                pass
            case _:
                continue  # a hostile client's nonsense writes nothing
        if method == "put" or (method == "cas" and values.get(key) == rest[0]):
            values[key] = rest[-1]
            versions.setdefault(key, [((0, -1), None)]).append((position, rest[-1]))
    return versions


def _check_reads(
    operations: Sequence[Operation],
    ordered: Sequence[Operation],
    versions: dict[str, list[tuple[Position, object]]],
) -> str | None:
    """Give every read the earliest state that fits, in order of completion; fail when there is none."""
    placed: list[tuple[int, Position]] = [(item.completed or 0, item.position) for item in ordered]
    reads = [item for item in operations if item.is_query and item.completed is not None]
    for read in sorted(reads, key=lambda item: item.completed or 0):
        assert read.completed is not None, "filtered above"
        lowest = max((position for completed, position in placed if completed < read.invoked), default=(0, -1))
        highest = min((item.position for item in ordered if item.invoked > read.completed), default=(1 << 62, 0))
        key = msgspec.msgpack.decode(read.operation)[1]
        value = _decoded(read.value)
        history = versions.get(key, [((0, -1), None)])
        found = None
        for index, (position, written) in enumerate(history):
            until = history[index + 1][0] if index + 1 < len(history) else (1 << 62, 1)
            if written == value and until > lowest and position < highest:
                found = max(position, lowest)
                break
        if found is None:
            return (
                f"read {read.ticket} of {key!r} returned {value!r}, which no state between {lowest} and {highest} holds"
            )
        placed.append((read.completed, found))
    return None
