"""Typed views of a service: what a call becomes, and what never leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

import pytest

import bft
from bft.client.proxy import ServiceProxy
from bft.client.result import Result
from bft.services.machine import ServiceMachine
from bft.state.context import Context

if TYPE_CHECKING:
    from bft.client.client import Client, Consistency


class Counter(bft.Service):
    def __init__(self) -> None:
        self.total = 0

    @bft.command
    def add(self, amount: int, *, times: int = 1) -> int:
        self.total += amount * times
        return self.total

    @bft.query
    def read(self) -> int:
        return self.total


class Renamed(Counter):
    @bft.query
    def read(self) -> int:
        return -self.total


S = TypeVar("S", bound=bft.Service)


class OneMachine:
    """A client whose cluster is one machine in this process; keeps how each operation came."""

    def __init__(self, service: bft.Service) -> None:
        self.machine = ServiceMachine(service)
        self.ordered: list[tuple[int, float | None]] = []
        self.asked: list[tuple[str, float | None]] = []

    async def call(self, operation: bytes, *, lane: int = 0, timeout: float | None = None) -> Result:
        self.ordered.append((lane, timeout))
        return Result(self.machine.execute(operation, Context())[1], 1, 0)

    async def query(
        self, operation: bytes, *, consistency: Consistency = "linearizable", timeout: float | None = None
    ) -> Result:
        self.asked.append((consistency, timeout))
        return Result(self.machine.query(operation)[1], 1, -1)


def view(service: type[S]) -> tuple[OneMachine, ServiceProxy[S]]:
    client = OneMachine(service())
    return client, ServiceProxy(cast("Client", client), service)


async def test_methods_are_called_by_attribute_by_name_and_as_they_stand_in_the_class() -> None:
    client, counter = view(Counter)
    assert await counter.add(2) == 2
    assert await counter.add(amount=1, times=3) == 5
    assert await counter.invoke("add", 1) == 6
    total: int = await counter.invoke(Counter.add, 1, times=4)
    assert total == 10 and await counter.invoke(Counter.read) == 10
    with pytest.raises(TypeError):
        await counter.invoke(Counter.add, "1")  # type: ignore[call-overload]  # `make lint` fails if this is none
    assert len(client.ordered) == 4 and len(client.asked) == 1


async def test_a_method_of_the_base_calls_what_the_service_makes_of_it() -> None:
    _, counter = view(Renamed)
    await counter.invoke(Counter.add, 3)
    assert await counter.invoke(Counter.read) == await counter.invoke(Renamed.read) == -3


async def test_options_go_with_every_call() -> None:
    client, counter = view(Counter)
    ordered = counter.lane(7).within(2.5)
    await ordered.add(1)
    await ordered.weak().read()
    assert client.ordered == [(7, 2.5)] and client.asked == [("weak", 2.5)]


@pytest.mark.parametrize(
    ("args", "kwargs", "flaw"),
    [
        (("1",), {}, r"add\(amount: int, \*, times: int = 1\): Expected `int`, got `str` - at `amount`"),
        ((1,), {"times": 1.5}, r"Expected `int`, got `float` - at `times`"),
        ((), {}, r"add\(amount: int, .*missing a required argument: 'amount'"),
        ((1, 2), {}, "too many positional arguments"),
        ((2**64,), {}, "ints"),
        ((object(),), {}, "object"),
    ],
)
async def test_arguments_that_replicas_would_refuse_do_not_leave(
    args: tuple[object, ...], kwargs: dict[str, object], flaw: str
) -> None:
    client, counter = view(Counter)
    with pytest.raises(TypeError, match=flaw):
        await counter.invoke("add", *args, **kwargs)
    assert not client.ordered


async def test_what_is_no_command_or_query_of_the_service_is_no_attribute() -> None:
    _, counter = view(Counter)
    with pytest.raises(AttributeError, match="Counter has no command or query 'subtract'"):
        _ = counter.subtract
    with pytest.raises(AttributeError, match=r"Counter has no command or query Renamed\.read"):
        await counter.invoke(Renamed.read)  # type: ignore[call-overload]
    with pytest.raises(AttributeError, match=r"Counter has no command or query Counter\.__init__"):
        await counter.invoke(Counter.__init__)
