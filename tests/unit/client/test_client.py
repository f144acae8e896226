"""The client against a real cluster on loopback: trio, asyncio, threads, and replicas that are away."""

from __future__ import annotations

import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import anyio
import msgspec
import pytest
import trio

import bft
from bft.client.client import Client, connect
from bft.client.proxy import ServiceProxy
from bft.client.seam import Completed, EventArrived, Lost
from bft.config import Cluster, Protocol
from bft.crypto.keys import KeyPair
from bft.errors import (
    ClientClosed,
    ConfigError,
    KeyFileError,
    OutcomeUnknown,
    Overloaded,
    ServiceError,
    SessionExpired,
)
from bft.runtime.local import LocalCluster, local_cluster
from bft.services.interface import interface_of
from bft.services.kv import KeyValue
from bft.services.kv_client import KeyValueClient


class Bell(bft.Service):
    """Rings back, and counts."""

    def __init__(self) -> None:
        self.order: list[int] = []

    @bft.command
    def ring(self, note: str) -> int:
        context = bft.context()
        context.emit(context.client, context.session, note.encode())
        return context.seq

    @bft.command
    def line_up(self, number: int) -> None:
        self.order.append(number)

    @bft.query
    def line(self) -> list[int]:
        return self.order


PUT = interface_of(KeyValue).methods["put"].encode


async def test_calls_queries_and_proxies() -> None:
    """One client, all ways to call: bytes, typed proxy, typed client, callback."""
    async with local_cluster() as cluster, connect(cluster.cluster, key=cluster.client) as client:
        first = await client.call(PUT(("a", "1"), {}), timeout=20)
        second = await client.call(PUT(("a", "2"), {}), timeout=20)
        assert (second.seq, second.index) > (first.seq, first.index) and second.index >= 0
        kv = client.service(KeyValue).within(20)
        assert await kv.get("a") == "2"
        assert await kv.weak().get("a") == "2"
        assert await kv.put(key="b", value="3") is None
        assert await kv.lane(1).increment("n", by=4) == 4
        typed = KeyValueClient(kv)
        assert await typed.scan() == [("a", "2"), ("b", "3"), ("n", "4")]
        assert client.position >= second.seq
        with pytest.raises(ServiceError) as caught:
            await kv.put("", "x")
        assert caught.value.code == "KeyTooLong"
        with pytest.raises(AttributeError, match="no command or query"):
            kv.nonsense  # noqa: B018
        with pytest.raises(TypeError):
            await kv.get()
        with pytest.raises(ServiceError, match="UnknownMethod"):
            await client.call(b"\x91\xa4nope", timeout=20)
        with pytest.raises(ServiceError, match="NotAQuery"):
            await client.query(PUT(("a", "9"), {}), timeout=20)
        outcomes: list[Completed | Lost] = []
        client.submit(PUT(("c", "4"), {}), outcomes.append)
        with trio.fail_after(20):
            while not outcomes:
                await trio.sleep(0.01)
        assert isinstance(outcomes[0], Completed)
        with pytest.raises(ValueError, match="at most"):
            await client.call(bytes(2**20 + 1))
        with pytest.raises(ValueError, match="one of linearizable, weak, found 'linearisable'"):
            await client.query(b"", consistency="linearisable")
        with pytest.raises(ValueError, match="found -1"):
            await kv.lane(-1).put("a", "3")
        with pytest.raises(TypeError):
            await kv.lane("1").put("a", "3")
        assert client.outstanding == 0 and client.disagreements == {}


async def test_concurrent_calls_share_envelopes() -> None:
    """A hundred calls of one turn of the loop leave under few signatures."""
    async with local_cluster() as cluster, connect(cluster.cluster, key=cluster.client) as client:
        await client.wait_connected(20)
        signer = client._signer
        count = 0

        class Counting:
            def sign(self, payload: bytes, /) -> bytes:
                nonlocal count
                count += 1
                return signer.sign(payload)

        client._signer = Counting()
        kv = client.service(KeyValue).within(20)
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(kv.increment, "n", number)
        assert 1 <= count <= 3
        assert await kv.get("n") == str(sum(range(100)))


async def test_events_and_lanes_through_the_whole_stack() -> None:
    """Events arrive in order; a lane's operations execute in order of submission."""
    async with local_cluster(Bell) as cluster, connect(cluster.cluster, key=cluster.client) as client:
        events: list[EventArrived] = []
        client.on_event = events.append
        bell = client.service(Bell).within(20)
        for note in ("do", "re", "mi"):
            await bell.ring(note)
        assert [(event.number, event.payload) for event in events] == [(1, b"do"), (2, b"re"), (3, b"mi")]
        line_up = interface_of(Bell).methods["line_up"].encode
        done: list[Completed | Lost] = []
        for number in range(40):
            client.submit(line_up((number,), {}), done.append, lane=7)
            if number % 9 == 0:
                await trio.sleep(0)
        with trio.fail_after(20):
            while len(done) < 40:
                await trio.sleep(0.01)
        assert await bell.line() == list(range(40))


async def test_overload_reaches_the_caller_as_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas without room: what was sent is unknown, what was held back is refused; each executes once, or never."""
    async with local_cluster() as cluster, connect(cluster.cluster, key=cluster.client) as client:
        kv = client.service(KeyValue)
        await kv.within(20).put("a", "1")
        monkeypatch.setattr("bft.core.pool.CLIENT_BYTES_MAX", 0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_expect, OutcomeUnknown, kv.within(4).increment, "sent")
            with trio.fail_after(4):
                while not client._session.is_busy:
                    await trio.sleep(0.01)
            await _expect(Overloaded, kv.within(0.2).increment, "held")
        monkeypatch.undo()
        assert await kv.within(20).increment("other") == 1
        with trio.fail_after(20):
            while client.outstanding:
                await trio.sleep(0.01)
        assert await kv.within(20).get("held") is None
        assert await kv.within(20).get("sent") == "1"


async def _expect(error: type[Exception], call: Callable[[str], Awaitable[object]], key: str) -> None:
    with pytest.raises(error):
        await call(key)


@pytest.mark.parametrize(("ahead_s", "fails"), [(1800, 0), (7200, 1), (-7200, 0)])
async def test_client_whose_clock_is_wrong_is_served(
    ahead_s: int, fails: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half an hour ahead there is room for it; two hours ahead its first session fails, and the next is dated right."""
    right = time.time_ns
    async with local_cluster() as cluster:
        monkeypatch.setattr(time, "time_ns", lambda: right() + ahead_s * 10**9)
        async with connect(cluster.cluster, key=cluster.client) as client:
            kv = client.service(KeyValue).within(20)
            for _ in range(fails):
                with pytest.raises(SessionExpired):
                    await kv.increment("n")
            assert await kv.increment("n") == 1
            assert await kv.increment("n") == 2
        monkeypatch.undo()


async def test_two_of_four_answer_weak_reads() -> None:
    """f + 1 suffice for them, and somebody who waits for enough replicas is not told that three are needed."""
    async with local_cluster() as cluster:
        async with connect(cluster.cluster, key=cluster.client) as client:
            await client.wait_connected(20)
            await client.service(KeyValue).within(20).put("a", "1")
            with trio.fail_after(20):
                for replica in (2, 3):
                    while cluster.servers[replica].account()["executed"] < client.position:
                        await trio.sleep(0.01)
        for replica in (0, 1):
            await cluster.stop(replica)
        async with connect(cluster.cluster, key=cluster.client) as client:
            await client.wait_connected(20, "weak")
            assert await client.service(KeyValue).within(20).weak().get("a") == "1"
            with pytest.raises(bft.TransportError, match="2 of 4 replicas reachable, 3 needed to order"):
                await client.wait_connected(0.1)
            await cluster.stop(2)
            with trio.fail_after(20):
                while len(client.connected) > 1:
                    await trio.sleep(0.01)
            with pytest.raises(bft.TransportError, match="1 of 4 replicas reachable, 2 needed for a weak read"):
                await client.wait_connected(0.1, "weak")


async def test_call_says_how_many_replicas_answer_when_too_few_do() -> None:
    """3 of 4 down: OutcomeUnknown, with a text for people; the call completes once they are back."""
    async with local_cluster() as cluster, connect(cluster.cluster, key=cluster.client) as client:
        kv = client.service(KeyValue)
        await kv.within(20).put("a", "1")
        for replica in (0, 1, 2):
            await cluster.stop(replica)
        with pytest.raises(OutcomeUnknown, match=r"1 of 4 replicas reachable, 3 needed to order"):
            await kv.lane(1).within(0.5).put("a", "2")
        with pytest.raises(OutcomeUnknown):
            await kv.within(0.5).get("a")
        assert sorted(client.failures) == [0, 1, 2] and client.connected == (3,)
        for replica in (0, 1, 2):
            await cluster.start(replica)
        assert await kv.lane(1).within(30).put("a", "3") == "2", "what was sent executed, once, and first in its lane"


async def test_cancelled_call_raises_cancelled_and_leaves_the_client_usable() -> None:
    """A deadline by cancel scope; the operation may still execute."""
    async with local_cluster() as cluster, connect(cluster.cluster, key=cluster.client) as client:
        kv = client.service(KeyValue)
        with trio.move_on_after(0) as scope:
            await kv.put("a", "1")
        assert scope.cancelled_caught
        await kv.within(20).put("b", "1")
        assert client._done == {}


async def test_two_clients_use_one_key_through_sessions_of_their_own() -> None:
    """Processes that share a key do not end each other, nor mix up their operations."""
    async with (
        local_cluster() as cluster,
        connect(cluster.cluster, key=cluster.client) as old,
        connect(cluster.cluster, key=cluster.client) as new,
    ):
        assert await old.service(KeyValue).within(20).put("a", "1") is None
        assert await new.service(KeyValue).within(20).put("a", "2") == "1"
        assert await old.service(KeyValue).within(20).put("a", "3") == "2"


async def test_two_processes_of_one_key_read_what_each_of_them_asked_for() -> None:
    """Replicas answer over every connection of a key, so either client hears what the other one asked."""
    async with (
        local_cluster() as cluster,
        connect(cluster.cluster, key=cluster.client) as one,
        connect(cluster.cluster, key=cluster.client) as two,
    ):
        first, second = one.service(KeyValue).within(20), two.service(KeyValue).within(20)
        await first.put("a", "of a")
        await second.put("b", "of b")
        read: dict[str, set[str | None]] = {"a": set(), "b": set()}

        async def ask(kv: ServiceProxy[KeyValue], key: str) -> None:
            for _ in range(50):
                read[key].add(await kv.get(key))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, first, "a")
            nursery.start_soon(ask, second, "b")
        assert read == {"a": {"of a"}, "b": {"of b"}}


async def test_one_session_too_many_ends_the_oldest() -> None:
    """A key has a bounded number of live sessions; the one that must go is told."""
    protocol = Protocol(sessions_per_client=1)
    async with local_cluster(protocol=protocol) as cluster, connect(cluster.cluster, key=cluster.client) as old:
        await old.service(KeyValue).within(20).put("a", "1")
        async with connect(cluster.cluster, key=cluster.client) as new:
            await new.service(KeyValue).within(20).put("a", "2")
            with pytest.raises(SessionExpired):
                await old.service(KeyValue).within(20).put("a", "3")
            assert await new.service(KeyValue).within(20).get("a") == "2"


async def test_expired_session_has_a_successor_however_much_is_outstanding() -> None:
    """A client that is never without an outstanding call would else stay without a session for ever."""
    protocol = Protocol(sessions_per_client=1)
    async with local_cluster(protocol=protocol) as cluster, connect(cluster.cluster, key=cluster.client) as old:
        await old.service(KeyValue).within(20).put("a", "1")
        async with connect(cluster.cluster, key=cluster.client) as new:
            await new.service(KeyValue).within(20).put("a", "2")
        lost: list[Completed | Lost] = []
        again: list[Completed | Lost] = []

        def on_first(outcome: Completed | Lost) -> None:
            lost.append(outcome)
            old.submit(PUT(("a", "4"), {}), again.append)  # the other one is still to be told

        old.submit(PUT(("a", "3"), {}), on_first)
        old.submit(PUT(("a", "3"), {}), lost.append)
        with trio.fail_after(20):
            while not again:
                await trio.sleep(0.01)
        assert [outcome.reason for outcome in lost if isinstance(outcome, Lost)] == ["session-expired"] * 2
        assert isinstance(again[0], Completed)
        assert await old.service(KeyValue).within(20).get("a") == "4"


async def test_successor_of_a_session_retransmits_when_its_own_time_has_come() -> None:
    """A timer that the expired session had set must not stand for the new one's, which nobody would set again."""
    outcomes: list[Completed | Lost] = []
    cluster = await nobody_there()
    with ExitStack() as silent:  # they take connections and say nothing, so that no failure makes up for the timer
        ports = [silent.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(4)]
        found = [msgspec.structs.replace(one, port=port) for one, port in zip(cluster.replica, ports, strict=True)]
        mute = msgspec.structs.replace(cluster, replica=tuple(found))
        async with connect(mute, key=KeyPair.generate()) as client:
            client.submit(b"x", outcomes.append)
            await trio.sleep(0.05)
            client._session._expire()  # as refusals of f + 1 replicas do; its retransmission is due in 0.2 s
            client.submit(b"y", outcomes.append)
            with trio.fail_after(3):
                while not any(envelope.attempts for envelope in client._session._window.envelopes.values()):
                    await trio.sleep(0.01)


async def test_closed_client_refuses_and_ends_calls() -> None:
    """What waited ends with OutcomeUnknown, what comes later with ClientClosed."""
    cluster = await nobody_there()
    outcomes: list[Completed | Lost] = []
    async with connect(cluster, key=KeyPair.generate()) as client:
        client.submit(b"x", outcomes.append)
        with pytest.raises(bft.TransportError, match="0 of 4 replicas reachable"):
            await client.wait_connected(0.05)
    assert outcomes == [Lost(1, "closed")]
    with pytest.raises(ClientClosed):
        client.submit(b"x", outcomes.append)


async def nobody_there() -> Cluster:
    """The configuration of a cluster that has stopped."""
    async with local_cluster() as cluster:
        return cluster.cluster


async def test_client_runs_under_asyncio_and_in_threads() -> None:
    """The same client under asyncio, and the blocking facade from two threads."""

    async def use(cluster: LocalCluster) -> object:
        async with connect(cluster.cluster, key=KeyPair.generate()) as client:
            kv = client.service(KeyValue).within(20)
            await kv.put("asyncio", "1")
            async with anyio.create_task_group() as tasks:
                for _ in range(20):
                    tasks.start_soon(kv.increment, "asyncio")
            return await kv.get("asyncio")

    def script(cluster: LocalCluster) -> list[object]:
        with bft.connect_blocking(cluster.cluster, key=cluster.client_key, timeout=20) as client:
            client.wait_connected(20)
            kv = client.service(KeyValue)
            found = [kv.put("b", "1"), kv.lane(1).increment("b"), kv.weak().get("b"), kv.within(20).size()]
            with pytest.raises(ServiceError):
                kv.put("", "")
            with pytest.raises(AttributeError):
                kv.nonsense  # noqa: B018
            get = interface_of(KeyValue).methods["get"].encode(("b",), {})
            found += [client.call(PUT(("c", "x"), {})).value, client.query(get).value]
            assert len(client.client.connected) >= 3
            with pytest.raises((OutcomeUnknown, Overloaded)):
                client.call(b"x", timeout=0)
            with pytest.raises(RuntimeError, match="open already"):
                client.__enter__()
        with pytest.raises(ClientClosed):
            client.call(b"x")
        with pytest.raises(ClientClosed):
            kv.get("b")
        return found

    async with local_cluster() as cluster:
        in_thread: Callable[[Callable[[], object]], Awaitable[object]] = trio.to_thread.run_sync
        assert await in_thread(partial(anyio.run, use, cluster, backend="asyncio")) == "21"
        assert await in_thread(partial(script, cluster)) == [None, 2, "2", 2, b"\xc0", b"\xa12"]


async def test_connect_refuses_missing_files(tmp_path: Path) -> None:
    """With the errors that say which; blocking or not."""
    missing = tmp_path / "missing"
    cluster = await nobody_there()

    def enter(where: Cluster | Path) -> None:
        with bft.connect_blocking(where, key=missing):
            pass

    for error, where in ((ConfigError, missing), (KeyFileError, cluster)):
        with pytest.raises(error, match="no such"):
            async with connect(where, key=missing):
                pass
        with pytest.raises(error, match="no such"):
            await trio.to_thread.run_sync(enter, where)
    with pytest.raises(RuntimeError, match=r"use bft\.connect"):
        enter(cluster)


async def test_errors_of_the_block_come_out_as_they_are() -> None:
    """Not wrapped into an exception group by the client's own tasks."""
    async with local_cluster() as cluster:
        with pytest.raises(ServiceError):
            async with connect(cluster.cluster, key=cluster.client) as client:
                await client.service(KeyValue).within(20).put("", "")


@pytest.mark.parametrize("error", [SystemExit(4), KeyboardInterrupt()])
async def test_exits_and_interrupts_come_out_as_they_are(error: BaseException) -> None:
    """Of all three ways to connect: a script ends with its exit code, not with a group's traceback."""
    cluster = await nobody_there()
    keys = KeyPair.generate()

    async def leave() -> None:
        async with connect(cluster, key=keys):
            raise error

    def leave_blocking() -> None:
        with bft.connect_blocking(cluster, key=keys):
            raise error

    def run() -> None:
        for body in (partial(anyio.run, leave, backend="asyncio"), partial(trio.run, leave), leave_blocking):
            with pytest.raises(type(error)) as caught:
                body()
            assert caught.value is error

    await trio.to_thread.run_sync(run)


async def test_probe_returns_a_replicas_own_account() -> None:
    """From the replica that was asked."""
    async with local_cluster() as cluster, connect(cluster.cluster, key=cluster.client) as client:
        await client.wait_connected(20)
        assert isinstance(await client.probe(client.connected[0], timeout=20), dict)
        with pytest.raises(bft.TransportError):
            await client.probe(77)
        assert isinstance(client, Client)


async def test_primary_that_cannot_be_reached_costs_no_patience() -> None:
    """What could not even be sent goes to the others at once; they pass it on to the primary when it is due."""
    # The client would wait for 4 s before it tells the others, who pass it on after 4 s.
    patient = Protocol(request_timeout_ms=16_000)
    async with local_cluster(protocol=patient) as cluster:
        with socket.create_server(("127.0.0.1", 0)) as unused:
            port = unused.getsockname()[1]
        replicas = (msgspec.structs.replace(cluster.cluster.replica[0], port=port), *cluster.cluster.replica[1:])
        blind = msgspec.structs.replace(cluster.cluster, replica=replicas)
        async with connect(blind, key=cluster.client) as client:
            await client.wait_connected(8)
            with trio.fail_after(7):
                await client.service(KeyValue).put("a", "1")
            assert 0 not in client.connected
