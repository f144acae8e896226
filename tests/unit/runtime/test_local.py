"""A whole cluster over sockets in one process: it serves, survives, and tells about itself."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import socket
import sqlite3
import urllib.request
from collections.abc import Sequence

import msgspec
import pytest
import trio

from bft.config import Durability, Protocol
from bft.crypto.keys import KeyPair
from bft.errors import ConfigError, KeyFileError, StorageError, TransportError
from bft.events import Broadcast, Effect, Input, Send, Tick
from bft.ids import Peer
from bft.messages import Message, Packet
from bft.ports import Node, Signer
from bft.runtime.limits import ServerLimits
from bft.runtime.links import LinkLimits
from bft.runtime.local import LocalCluster, local_cluster
from bft.runtime.server import ReplicaServer
from tests.unit.runtime.counter import Caller, Counter

FAST = Protocol(
    checkpoint_interval=4, window=8, request_timeout_ms=300, view_change_timeout_ms=300, status_interval_ms=50
)


@pytest.mark.parametrize("durability", ["memory", "process", "power"])
async def test_cluster_executes_operations(durability: Durability) -> None:
    """Operations execute once, in order, at every durability, across checkpoints."""
    async with (
        local_cluster(make_service=Counter, durability=durability, protocol=FAST) as local,
        trio.open_nursery() as nursery,
    ):
        caller = Caller(local, nursery)
        await caller.connect_all()
        assert [await caller.call() for _ in range(12)] == list(range(1, 13))
        nursery.cancel_scope.cancel()


async def test_cluster_survives_a_stopped_primary_and_takes_it_back() -> None:
    """The others change the view; the restarted replica catches up."""
    async with local_cluster(make_service=Counter, protocol=FAST) as local, trio.open_nursery() as nursery:
        caller = Caller(local, nursery)
        await caller.connect_all()
        assert await caller.call() == 1
        await local.stop(0)
        assert [await caller.call() for _ in range(9)] == list(range(2, 11))
        await local.start(0)
        await caller.connect(0)
        assert await caller.call() == 11
        with trio.fail_after(10):
            while local.servers[0].account().get("executed", 0) < local.servers[1].account()["executed"]:  # type: ignore[operator]
                await trio.sleep(0.02)
        nursery.cancel_scope.cancel()


async def test_cluster_restarted_as_a_whole_loses_nothing() -> None:
    """All replicas stop and start: every answered operation is still there."""
    async with local_cluster(make_service=Counter, protocol=FAST) as local:
        async with trio.open_nursery() as nursery:
            caller = Caller(local, nursery)
            await caller.connect_all()
            for _ in range(10):
                total = await caller.call()
            nursery.cancel_scope.cancel()
        for replica in range(4):
            await local.stop(replica)
        for replica in range(4):
            await local.start(replica)
        async with trio.open_nursery() as nursery:
            caller = Caller(local, nursery, KeyPair.generate())
            await caller.connect_all()
            assert await caller.call() == total + 1
            nursery.cancel_scope.cancel()


async def test_probe_is_answered_with_the_replicas_account() -> None:
    """`bft status` sees view, progress, connections and refusals."""
    async with local_cluster(make_service=Counter, protocol=FAST) as local, trio.open_nursery() as nursery:
        caller = Caller(local, nursery)
        await caller.connect_all()
        await caller.call()
        caller._channels[1].send([b"\xc1junk", b"\x00"])
        account = json.loads(await caller.probe(1))
        assert account["rejected"] == {"malformed": 2}
        assert account["view"] == 0 and account["executed"] == 1
        assert account["connections"]["clients"] == 1
        assert account["durability"] == "process" and account["lies"] is None
        nursery.cancel_scope.cancel()


async def test_cluster_serves_under_junk_on_every_port() -> None:
    """Random bytes, half-open connections and dripping ones never stop a replica."""
    dice = random.Random(3)
    limits = ServerLimits(strangers_max=32, handshake_seconds=1.0)
    async with (
        local_cluster(make_service=Counter, protocol=FAST, limits=limits) as local,
        trio.open_nursery() as nursery,
    ):
        caller = Caller(local, nursery)
        await caller.connect_all()
        junk: list[socket.socket] = []
        for count in range(1, 21):
            for _ in range(20):
                entry = dice.choice(local.cluster.replica)
                sock = socket.socket()
                sock.setblocking(False)
                sock.connect_ex((entry.host, entry.port))
                junk.append(sock)
            for sock in dice.sample(junk, len(junk) // 2):
                try:
                    sock.send(dice.randbytes(dice.randrange(1, 500)))
                except OSError:
                    sock.close()
                    junk.remove(sock)
            assert await caller.call() == count
        for sock in junk:
            sock.close()
        nursery.cancel_scope.cancel()


async def test_authenticated_junk_is_counted_and_survived() -> None:
    """A client that sends garbage inside its channel harms its own connection only."""
    dice = random.Random(5)
    async with local_cluster(make_service=Counter, protocol=FAST) as local, trio.open_nursery() as nursery:
        caller = Caller(local, nursery)
        mallory = Caller(local, nursery, KeyPair.generate())
        await caller.connect_all()
        await mallory.connect_all()
        for count in range(1, 6):
            for channel in list(mallory._channels.values()):
                channel.send([dice.randbytes(dice.randrange(1, 200)) for _ in range(100)])
            assert await caller.call() == count
        for server in local.servers.values():
            assert 8 <= sum(server.stats.rejected.values()) < 400, "counted, and then left unread"
            assert server.stats.delayed["bad-signatures"] > 0
        nursery.cancel_scope.cancel()


async def test_client_connections_are_bounded() -> None:
    """Beyond the bound newcomers are refused; beyond a key's share its oldest connection goes."""
    limits = ServerLimits(links=LinkLimits(clients_max=3, per_client_max=2))
    async with (
        local_cluster(make_service=Counter, protocol=FAST, limits=limits) as local,
        trio.open_nursery() as nursery,
    ):
        alice = Caller(local, nursery)
        first, second, third = [await alice.connect(0) for _ in range(3)]
        with trio.fail_after(5):
            while first.closed is None:
                await trio.sleep(0.01)
        assert (second.closed, third.closed) == (None, None)
        await Caller(local, nursery, KeyPair.generate()).connect(0)
        with pytest.raises(TransportError, match="serves 3 client connections, its maximum"):
            await Caller(local, nursery, KeyPair.generate()).connect(0)
        nursery.cancel_scope.cancel()


async def test_client_that_leaves_makes_room_for_another() -> None:
    """Else a replica that runs for long would serve nobody."""
    limits = ServerLimits(links=LinkLimits(clients_max=2, per_client_max=1))
    async with (
        local_cluster(make_service=Counter, protocol=FAST, limits=limits) as local,
        trio.open_nursery() as nursery,
    ):
        server = local.servers[0]
        for _ in range(4):
            channel = await Caller(local, nursery, KeyPair.generate()).connect(0)
            channel.close("goes")
            with trio.fail_after(5):
                while server.account()["connections"]["clients"]:  # type: ignore[index]
                    await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


async def refused(local: LocalCluster, error: type[Exception], text: str, server: ReplicaServer) -> None:
    with pytest.raises(error, match=text), trio.fail_after(5):
        await server.run()


async def test_server_refuses_to_start_with_the_wrong_files() -> None:
    """Key, store and port must be the replica's own."""
    async with local_cluster(make_service=Counter, protocol=FAST) as local:
        own = local.local(0)
        await refused(local, TransportError, "the port is in use", ReplicaServer(local.cluster, own, service=Counter()))
        await local.stop(0)
        other = type(own)(id=1, cluster=own.cluster, key=own.key, data=own.data)
        await refused(local, KeyFileError, "for replica 1", ReplicaServer(local.cluster, other, service=Counter()))
        memory = type(own)(id=0, cluster=own.cluster, key=own.key, data=own.data, durability="memory")
        await refused(local, StorageError, "Byzantine", ReplicaServer(local.cluster, memory, service=Counter()))
        (local.folder / "r0" / "replica.db").unlink()
        await refused(local, StorageError, "Byzantine", ReplicaServer(local.cluster, own, service=Counter()))


async def test_server_stops_when_its_store_fails() -> None:
    """A failed write ends the replica with an error that names file and cause; the others go on."""
    async with local_cluster(make_service=Counter, protocol=FAST) as local:
        await local.stop(3)
        saboteur = sqlite3.connect(local.folder / "r3" / "replica.db")
        saboteur.execute("create trigger fire before insert on prepared begin select raise(abort, 'disk on fire'); end")
        saboteur.close()
        server = ReplicaServer(local.cluster, local.local(3), service=Counter())
        failed = trio.Event()

        async def run(*, task_status: trio.TaskStatus[None]) -> None:
            with pytest.raises(StorageError, match=r"replica\.db: disk on fire"):
                await server.run(task_status=task_status)
            failed.set()

        async with trio.open_nursery() as nursery:
            caller = Caller(local, nursery)
            for replica in range(3):
                await caller.connect(replica)
            await nursery.start(run)
            count = 0
            while not failed.is_set() or count < 5:
                assert count < 5000, "the replica did not meet its broken store"
                count += 1
                assert await caller.call() == count
            nursery.cancel_scope.cancel()


async def test_bug_of_the_node_crashes_the_replica() -> None:
    """An AssertionError comes out of `run` as itself: bugs are not survived."""

    class Broken:
        def __init__(self, honest: Node, signer: Signer) -> None:
            self._honest = honest

        def step(self, event: Input, now: int, /) -> Sequence[Effect]:
            assert not isinstance(event, Tick), "a bug"
            return self._honest.step(event, now)

        def wants(self, peer: Peer, packet: Packet, message: Message | None, /) -> bool:
            return self._honest.wants(peer, packet, message)

    async with local_cluster(make_service=Counter, protocol=FAST) as local:
        await local.stop(3)
        with pytest.raises(AssertionError, match="a bug"), trio.fail_after(5):
            await ReplicaServer(local.cluster, local.local(3), Broken, service=Counter()).run()


async def test_corrupted_replica_names_its_lie_and_is_outvoted() -> None:
    """A wrapper sees the honest node's effects and may change them; f + 1 honest replies win."""

    def mute(honest: Node, signer: Signer) -> Node:
        class Mute:
            def step(self, event: Input, now: int, /) -> Sequence[Effect]:
                return [effect for effect in honest.step(event, now) if not isinstance(effect, Send | Broadcast)]

            def wants(self, peer: Peer, packet: Packet, message: Message | None, /) -> bool:
                return honest.wants(peer, packet, message)

        return Mute()

    async with local_cluster(make_service=Counter, protocol=FAST) as local, trio.open_nursery() as nursery:
        await local.corrupt(2, mute)
        caller = Caller(local, nursery)
        await caller.connect_all()
        assert [await caller.call() for _ in range(6)] == list(range(1, 7))
        assert json.loads(await caller.probe(2))["lies"] == "mute"
        await local.heal(2)
        await caller.connect(2)
        assert json.loads(await caller.probe(2))["lies"] is None
        nursery.cancel_scope.cancel()


async def test_metrics_are_served() -> None:
    """Prometheus finds the replica's numbers on the local port."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    async with local_cluster(make_service=Counter, protocol=FAST) as local:
        await local.stop(3)
        own = msgspec.structs.replace(local.local(3), metrics_port=port)
        server = ReplicaServer(local.cluster, own, service=Counter())
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run)
            url = f"http://127.0.0.1:{port}/metrics"
            text = (await trio.to_thread.run_sync(lambda: urllib.request.urlopen(url).read())).decode()
            server.stop()
    assert "bft_view 0.0" in text and "bft_frames_in_total" in text and "bft_executed" in text


async def test_scrub_repairs_a_flipped_byte_from_the_other_replicas() -> None:
    """A byte of a stored page changes under a running replica: it is found, fetched again, and written back."""
    async with local_cluster(make_service=Counter, protocol=FAST) as local, trio.open_nursery() as nursery:
        caller = Caller(local, nursery)
        await caller.connect_all()
        for _ in range(10):
            await caller.call()
        server = local.servers[2]
        with trio.fail_after(10):
            while not server.account()["stable"]:
                await trio.sleep(0.02)
        connection = sqlite3.connect(local.folder / "r2" / "replica.db", timeout=5)
        digest, page = connection.execute(
            "select digest, bytes from pages where digest in (select digest from pages) order by rowid desc limit 1"
        ).fetchone()
        with connection:
            connection.execute(
                "update pages set bytes = ? where digest = ?", (bytes([page[0] ^ 1]) + page[1:], digest)
            )
        with trio.fail_after(20):
            while not server.account()["repaired"]:
                await trio.sleep(0.02)
        assert connection.execute("select bytes from pages where digest = ?", (digest,)).fetchone() == (page,)
        connection.close()
        assert server.stats.rotten >= 1
        await local.stop(2)
        await local.start(2)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("error", [ValueError("mine"), SystemExit(4)])
async def test_errors_of_the_block_come_out_as_they_are(error: BaseException) -> None:
    """Not wrapped into an exception group, as with `bft.connect`."""
    with pytest.raises(type(error)) as caught:
        async with local_cluster(make_service=Counter, durability="memory"):
            raise error
    assert caught.value is error


@pytest.mark.filterwarnings("error::ResourceWarning", "error::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("service", "replicas", "error"), [("nope:Nope", 4, ConfigError), ("bft.services.kv:KeyValue", 3, ValueError)]
)
async def test_cluster_that_cannot_start_says_why_and_leaves_no_socket(
    service: str, replicas: int, error: type[Exception]
) -> None:
    """The error itself, and every listening socket closed."""
    with pytest.raises(error, match=r"nope|3 entries"):
        async with local_cluster(service, replicas):
            pass
    gc.collect()


def test_cluster_needs_trio() -> None:
    """Under asyncio the error says so."""

    async def use() -> None:
        async with local_cluster():
            pass

    with pytest.raises(RuntimeError, match="under trio"):
        asyncio.run(use())


async def test_replica_that_does_not_run_cannot_be_stopped() -> None:
    """Neither twice, nor one that there is not."""
    async with local_cluster(make_service=Counter, durability="memory") as local:
        await local.stop(3)
        for replica in (3, 9):
            with pytest.raises(AssertionError, match=f"replica {replica} does not run"):
                await local.stop(replica)
