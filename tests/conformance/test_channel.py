"""What a channel does, under trio and under asyncio, over real sockets and real TLS."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest

from bft.errors import TransportError
from bft.ids import ClientId, Peer, ReplicaId
from bft.transport.channel import Channel, ChannelClosed, SendBudget
from bft.transport.handshake import Host, refuse, welcome
from tests.unit.transport import rig


@pytest.fixture(params=["trio", "asyncio"])
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[], Awaitable[None]]], None]:
    return lambda scenario: anyio.run(scenario, backend=request.param)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return rig.make_host(tmp_path)


def test_frames_arrive_whole_and_in_order(run, host) -> None:
    """Small and large frames, sent at once, come back in order."""
    frames = [b"a", b"b" * 70_000, b"c" * 1_000_000, b"d"]

    async def scenario() -> None:
        async with rig.open_rig(host) as it:
            channel = await it.dial_alice()
            channel.send(frames[:2])
            channel.send(frames[2:])
            seen: list[bytes] = []
            while len(seen) < len(frames):
                seen += await channel.receive()
            assert seen == frames

    run(scenario)


def test_server_knows_who_dials(run, host) -> None:
    """Replicas and clients are named by what they proved."""

    async def scenario() -> None:
        async with rig.open_rig(host) as it:
            await it.dial(ReplicaId(2), rig.KEYS[2])
            await it.dial_alice()
            assert [peer for peer, _ in it.channels] == [2, rig.ALICE.public]

    run(scenario)


def test_replica_with_another_key_is_refused(run, host) -> None:
    """A replica that signs with another key is told so and dropped."""

    async def scenario() -> None:
        async with rig.open_rig(host) as it:
            with pytest.raises(TransportError, match="refuses r2: the signature under the hello does not verify"):
                await it.dial(ReplicaId(2), rig.KEYS[3])
            await it.assert_serves()

    run(scenario)


@pytest.mark.parametrize("who", [ReplicaId(0), ReplicaId(9), ClientId(bytes(32)), ClientId(b"\1" + bytes(31))])
def test_nobody_is_refused(run, host, who: Peer) -> None:
    """Unknown replicas, the server itself, and keys that are points of small order are not let in."""

    async def scenario() -> None:
        async with rig.open_rig(host) as it:
            with pytest.raises(TransportError, match="unknown key"):
                await it.dial(who, rig.ALICE)
            await it.assert_serves()

    run(scenario)


def test_client_outside_the_cluster_file_is_refused_when_enrolment_is_known(run, tmp_path) -> None:
    """Closed enrolment lets in the listed keys only."""
    host = rig.make_host(tmp_path, frozenset([rig.ALICE.public]))

    async def scenario() -> None:
        async with rig.open_rig(host) as it:
            mallory = rig.key("mallory")
            with pytest.raises(TransportError, match="unknown key"):
                await it.dial(ClientId(mallory.public), mallory)
            await it.assert_serves()

    run(scenario)


def test_dialer_refuses_server_with_another_key(run, host) -> None:
    """A server that is not the pinned one learns nothing but our address."""

    async def scenario() -> None:
        async with rig.open_rig(host) as it:
            with pytest.raises(TransportError, match=r"shows key .* expected is"):
                await it.dial_alice(server_key=rig.KEYS[1].public)

    run(scenario)


def test_dialer_of_another_cluster_is_told(run, host) -> None:
    """Two clusters that share keys do not mix."""

    async def scenario() -> None:
        async with rig.open_rig(host) as it:
            with pytest.raises(TransportError, match="runs cluster 6363"):
                await it.dial_alice(cluster=b"d" * 32)

    run(scenario)


def test_dialing_a_dead_port_fails(run, host) -> None:
    """Nobody listening is a clear error."""

    async def scenario() -> None:
        async with rig.open_rig(host) as it:
            it.port = 1
            with pytest.raises(TransportError, match="cannot connect: Connection refused"):
                await it.dial_alice()

    run(scenario)


def test_silent_server_runs_into_the_deadline(run, host) -> None:
    """A port that accepts and says nothing does not hold the dialer."""

    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            async with rig.open_rig(host) as it:
                it.port = silent.getsockname()[1]
                with pytest.raises(TransportError, match=r"did not answer within 0\.1 s"):
                    await it.dial_alice(seconds=0.1)

    run(scenario)


def test_slow_reader_makes_frames_drop_and_nothing_block(run, host) -> None:
    """Beyond the socket's and the channel's buffers frames are dropped and counted; those sent arrive in order."""
    frames = [index.to_bytes(4, "big") + bytes(100_000) for index in range(400)]

    async def deaf(channel: Channel, peer: Peer) -> None:
        welcome(channel, 1 << 20)
        served.append(channel)
        await anyio.sleep_forever()

    served: list[Channel] = []

    async def scenario() -> None:
        async with rig.open_rig(host, deaf) as it:
            channel = await it.dial_alice(buffer_bytes_max=1_000_000)
            for frame in frames:
                channel.send([frame])
            assert channel.dropped > 100
            assert channel.buffered_bytes < 1_400_000
            seen: list[bytes] = []
            while len(seen) < len(frames) - channel.dropped:
                seen += await served[0].receive()
            assert seen == frames[: len(seen)]
            await rig.until(lambda: channel.buffered_bytes == 0)
            channel.send([b"again"])
            assert await served[0].receive() == [b"again"]

    run(scenario)


def test_receive_ends_when_the_peer_closes(run, host) -> None:
    """The end of a connection is an exception that says who ended it."""

    async def scenario() -> None:
        async with rig.open_rig(host) as it:
            channel = await it.dial_alice()
            it.channels[0][1].close()
            with pytest.raises(ChannelClosed, match="the other side closed"):
                await channel.receive()
            channel.send([b"too late"])
            assert channel.dropped == 1

    run(scenario)


def test_receive_ends_when_closed_here(run, host) -> None:
    """`close` wakes the task that waits in `receive`."""

    async def scenario() -> None:
        async with rig.open_rig(host) as it:
            channel = await it.dial_alice()
            ended: list[str] = []

            async def read() -> None:
                try:
                    await channel.receive()
                except ChannelClosed as error:
                    ended.append(str(error))

            it.group.start_soon(read)
            await anyio.sleep(0.01)
            channel.close("enough")
            channel.close("twice")
            await rig.until(lambda: bool(ended))
            assert ended == ["enough"]

    run(scenario)


def test_receive_after_close_says_why(run, host) -> None:
    """Somebody else may have closed the channel between two calls: there is no descriptor to wait for any more."""

    async def scenario() -> None:
        async with rig.open_rig(host) as it:
            channel = await it.dial_alice()
            channel.close("a newer one took its place")
            for _ in range(2):
                with pytest.raises(ChannelClosed, match="a newer one"):
                    await channel.receive()

    run(scenario)


def test_frame_over_the_limit_closes_the_connection(run, host) -> None:
    """A length beyond the limit ends the connection before the content is read."""

    async def scenario() -> None:
        async with rig.open_rig(host) as it:
            channel = await it.dial_alice()
            channel.send([bytes((1 << 20) + 1)])
            with pytest.raises(ChannelClosed):
                await channel.receive()
            await rig.until(lambda: it.channels[0][1].closed is not None)
            assert "frame of 1048577 bytes" in (it.channels[0][1].closed or "")
            await it.assert_serves()

    run(scenario)


def test_server_can_refuse_after_the_interview(run, host) -> None:
    """A server without room says so."""

    async def full(channel: Channel, peer: Peer) -> None:
        refuse(channel, "too many clients")

    async def scenario() -> None:
        async with rig.open_rig(host, full) as it:
            with pytest.raises(TransportError, match="too many clients"):
                await it.dial_alice()

    run(scenario)


def test_buffers_of_all_connections_together_are_bounded(run, host) -> None:
    """Many that never read cannot each fill a buffer; closing one gives its part back."""

    async def scenario() -> None:
        budget = SendBudget(1 << 20)
        async with rig.open_rig(host, send_budget=budget) as it:
            for _ in range(3):
                channel = await it.dial_alice()
                channel.send([bytes([65])])
                await channel.receive()
            served = [channel for _, channel in it.channels]
            for channel in served:
                for _ in range(200):
                    channel.send([bytes(100_000)])
            assert budget.used == sum(channel.buffered_bytes for channel in served)
            assert sum(channel.dropped for channel in served) > 300
            assert budget.used <= budget.bytes_max + len(served) * 512 * 1024
            for channel in served:
                channel.close()
            assert budget.used == 0

    run(scenario)
