"""The client without async: for scripts, notebooks and threads.

with bft.connect_blocking("cluster.toml", key="keys/alice.pem") as client:
    bank = client.service(Bank)
    bank.deposit("alice", 5)
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal

from bft.client.client import Client, Consistency, Result, connect
from bft.client.proxy import ServiceProxy
from bft.client.receipts import Receipt
from bft.config import Cluster
from bft.crypto.keys import KeyPair
from bft.errors import ClientClosed

T = TypeVar("T")
P = ParamSpec("P")
R = TypeVar("R")
TIMEOUT_SECONDS = 30.0


class BlockingProxy(Generic[T]):
    """A service's methods as ordinary functions; options as of `bft.client.proxy.ServiceProxy`."""

    def __init__(self, client: Blocking, proxy: ServiceProxy[T]) -> None:
        self._client = client
        self._proxy = proxy

    def lane(self, lane: int) -> BlockingProxy[T]:
        """The same service; its commands execute in the order in which they are called."""
        return BlockingProxy(self._client, self._proxy.lane(lane))

    def weak(self) -> BlockingProxy[T]:
        """The same service; its queries may be answered from a stale state (never older than this client has seen)."""
        return BlockingProxy(self._client, self._proxy.weak())

    def within(self, seconds: float) -> BlockingProxy[T]:
        """The same service; every call ends within `seconds`, with `OutcomeUnknown` if need be."""
        return BlockingProxy(self._client, self._proxy.within(seconds))

    @overload
    def invoke(self, method: Callable[Concatenate[T, P], R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def invoke(self, method: str, /, *args: object, **kwargs: object) -> Any: ...
    def invoke(self, method: Callable[..., object] | str, /, *args: object, **kwargs: object) -> object:
        """Call a method of the service, given as it stands in the class or by name. Raises as `ServiceProxy.invoke`."""
        portal, _ = self._client._require()
        return portal.call(partial(self._proxy.invoke, method, *args, **kwargs))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        getattr(self._proxy, name)  # raises AttributeError for what is no method of the service
        return partial(self.invoke, name)


class Blocking:
    """A client in a thread of its own; may be used by any number of threads. Made by `connect_blocking`."""

    def __init__(
        self,
        cluster: Cluster | str | Path,
        key: KeyPair | str | Path,
        passphrase: bytes | None,
        timeout: float | None,
        chain: Path | None,
    ) -> None:
        self._arguments = (cluster, key, passphrase, chain)
        self._timeout = timeout
        self._stack = ExitStack()
        self._running: tuple[BlockingPortal, Client] | None = None

    def __enter__(self) -> Blocking:
        _require_no_event_loop()
        if self._running is not None:
            raise RuntimeError("the client is open already: make another one with bft.connect_blocking")
        cluster, key, passphrase, chain = self._arguments
        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal("trio"))
            manager = portal.call(partial(connect, cluster, key=key, passphrase=passphrase, chain=chain))
            client = stack.enter_context(portal.wrap_async_context_manager(manager))
            self._running = (portal, client)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running = None
        self._stack.close()  # the thread inside need not know why: an interrupt would break it, and come out in a group

    @property
    def client(self) -> Client:
        """The client inside: read its properties, leave its methods to its own thread.

        Raises:
            ClientClosed: the `with` block has not begun or has ended.
        """
        return self._require()[1]

    def call(self, operation: bytes, *, lane: int = 0, timeout: float | None = None) -> Result:
        """As `Client.call`; `timeout` is that of `connect_blocking` unless given."""
        portal, client = self._require()
        return portal.call(partial(client.call, operation, lane=lane, timeout=self._within(timeout)))

    def query(
        self, operation: bytes, *, consistency: Consistency = "linearizable", timeout: float | None = None
    ) -> Result:
        """As `Client.query`; `timeout` is that of `connect_blocking` unless given."""
        portal, client = self._require()
        ask = partial(client.query, operation, consistency=consistency, timeout=self._within(timeout))
        return portal.call(ask)

    def receipt(self, result: Result, timeout: float = 5.0) -> Receipt:
        """As `Client.receipt`."""
        portal, client = self._require()
        return portal.call(partial(client.receipt, result, timeout))

    def service(self, service: type[T]) -> BlockingProxy[T]:
        """A typed view of the cluster's service: its commands and queries as ordinary functions."""
        proxy = self._require()[1].service(service)
        return BlockingProxy(self, proxy if self._timeout is None else proxy.within(self._timeout))

    def wait_connected(self, timeout: float, consistency: Consistency = "linearizable") -> None:
        """As `Client.wait_connected`."""
        portal, client = self._require()
        portal.call(client.wait_connected, timeout, consistency)

    def _within(self, timeout: float | None) -> float | None:
        return self._timeout if timeout is None else timeout

    def _require(self) -> tuple[BlockingPortal, Client]:
        if self._running is None:
            raise ClientClosed("the client is closed: use it inside its `with` block")
        return self._running


def _require_no_event_loop() -> None:
    try:
        anyio.get_current_task()
    except RuntimeError:
        return
    raise RuntimeError("an event loop runs in this thread, which blocking calls would stop: use bft.connect")


def connect_blocking(
    cluster: Cluster | str | Path,
    *,
    key: KeyPair | str | Path,
    passphrase: bytes | None = None,
    timeout: float | None = TIMEOUT_SECONDS,
    chain: Path | None = None,
) -> Blocking:
    """A client for a `with` statement, without async; arguments as of `bft.connect`.

    Every call ends within `timeout` seconds (None: waits for as long as it takes). Entering raises as `connect` does,
    and `RuntimeError` in a thread that runs an event loop.
    """
    return Blocking(cluster, key, passphrase, timeout, chain)
