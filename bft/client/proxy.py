"""A view of a service: its commands and queries as async methods.

    await bank.deposit("alice", 5)               as in the service, but what type checkers see of it is `Any`
    await bank.invoke(Bank.deposit, "alice", 5)  the same call, with argument and result types checked
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from bft.messages import STATUS_OK
from bft.services.interface import interface_of
from bft.services.outcome import result_of

if TYPE_CHECKING:
    from bft.client.client import Client, Consistency

T = TypeVar("T")
P = ParamSpec("P")
R = TypeVar("R")


class ServiceProxy(Generic[T]):
    """Calls a service's methods through a client.

    `proxy.deposit("alice", 5)` orders a command; a query is answered without ordering where a quorum agrees.
    """

    def __init__(
        self,
        client: Client,
        service: type[T],
        *,
        lane: int = 0,
        consistency: Consistency = "linearizable",
        timeout: float | None = None,
    ) -> None:
        self._client = client
        self._service = service
        self._interface = interface_of(service)
        self._lane = lane
        self._consistency = consistency
        self._timeout = timeout

    def lane(self, lane: int) -> ServiceProxy[T]:
        """The same service; its commands execute in the order in which they are called."""
        return self._with(lane=lane)

    def weak(self) -> ServiceProxy[T]:
        """The same service; its queries may be answered from a stale state (never older than this client has seen)."""
        return self._with(consistency="weak")

    def within(self, seconds: float) -> ServiceProxy[T]:
        """The same service; every call ends within `seconds`, with `OutcomeUnknown` if need be."""
        return self._with(timeout=seconds)

    def _with(
        self, *, lane: int | None = None, consistency: Consistency | None = None, timeout: float | None = None
    ) -> ServiceProxy[T]:
        return ServiceProxy(
            self._client,
            self._service,
            lane=self._lane if lane is None else lane,
            consistency=consistency or self._consistency,
            timeout=self._timeout if timeout is None else timeout,
        )

    @overload
    async def invoke(self, method: Callable[Concatenate[T, P], R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def invoke(self, method: str, /, *args: object, **kwargs: object) -> Any: ...
    async def invoke(self, method: Callable[..., object] | str, /, *args: object, **kwargs: object) -> object:
        """Call a method of the service, given as it stands in the class (`Bank.deposit`) or by name.

        Raises:
            AttributeError: the service has no such method.
            TypeError: the arguments do not fit it, or cannot be encoded. Nothing was sent.
            ServiceError, OutcomeUnknown, Overloaded, ClientClosed, ValueError: as `Client.call`; `ValueError` also for
                text that is no UTF-8.
        """
        found = self._interface.method(method)
        operation = found.encode(args, kwargs)
        if found.kind == "query":
            result = await self._client.query(operation, consistency=self._consistency, timeout=self._timeout)
        else:
            result = await self._client.call(operation, lane=self._lane, timeout=self._timeout)
        return result_of(found, STATUS_OK, result.value)

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        return partial(self.invoke, self._interface.method(name).name)
