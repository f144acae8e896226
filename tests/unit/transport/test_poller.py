"""The poller: many channels, one reader."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import anyio
import pytest
import trio

from bft.ids import Peer
from bft.transport.channel import Channel
from bft.transport.handshake import Host, welcome
from bft.transport.poller import ROUNDS_PER_TURN, SLICE_NS, Poller
from tests.unit.transport import rig


class Reader:
    """Serves every connection of a rig through one poller, and notes what comes and where rounds end."""

    def __init__(self) -> None:
        self.poller = Poller(lambda: self.heard.append("round"))
        self.heard: list[str] = []
        self.channels: dict[Peer, Channel] = {}
        self.ended: list[str | None] = []

    async def handle(self, channel: Channel, peer: Peer) -> None:
        self.channels[peer] = channel
        welcome(channel, 1 << 20)
        await self.poller.serve(channel, partial(self.take, channel))
        self.ended.append(channel.closed)

    def take(self, channel: Channel, frames: list[bytes]) -> None:
        for frame in frames:
            self.heard.append(frame.decode())
            if frame == b"close all":
                for other in self.channels.values():
                    other.close("told to")

    @property
    def frames(self) -> list[str]:
        return [what for what in self.heard if what != "round"]


class SlowReader(Reader):
    """Takes so many seconds for every frame."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.at_first: Callable[[], None] = lambda: None

    def take(self, channel: Channel, frames: list[bytes]) -> None:
        if not self.frames:
            self.at_first()
        time.sleep(self.seconds * len(frames))
        super().take(channel, frames)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return rig.make_host(tmp_path)


async def _dial_all(it: rig.Rig, reader: Reader) -> list[Channel]:
    channels = [await it.dial(index, rig.KEYS[index]) for index in (1, 2, 3)]
    await rig.until(lambda: len(reader.channels) == 3)
    return channels


async def test_one_round_takes_what_all_channels_have(host: Host) -> None:
    """Everything that is ready is read before the round ends once: its answers leave together."""
    reader = Reader()
    async with rig.open_rig(host, reader.handle) as it:
        channels = await _dial_all(it, reader)
        for index, channel in enumerate(channels):
            channel.send([b"first of %d" % index, b"second of %d" % index])
        it.group.start_soon(reader.poller.run)
        await rig.until(lambda: len(reader.frames) == 6)
        await anyio.sleep(0)
    assert reader.heard.index("round") == 6, "the round ends after all"
    for index in range(3):
        own = [what for what in reader.frames if what.endswith(str(index))]
        assert own == [f"first of {index}", f"second of {index}"]


async def test_frames_that_came_with_the_welcome_are_not_lost(host: Host) -> None:
    """They have left the socket while `dial` read the welcome: no event will announce them."""
    reader = Reader()

    async def eager(channel: Channel, peer: Peer) -> None:
        welcome(channel, 1 << 20)
        channel.send([b"early"])
        await anyio.sleep(0.05)
        channel.send([b"later"])
        await anyio.sleep_forever()

    async with rig.open_rig(host, eager) as it:
        it.group.start_soon(reader.poller.run)
        channel = await it.dial(1, rig.KEYS[1])
        early = await channel.receive()
        channel._ready = early  # as if it had come in one read with the welcome
        it.group.start_soon(reader.poller.serve, channel, partial(reader.take, channel))
        await rig.until(lambda: reader.frames == ["early", "later"])


async def test_channel_closed_by_what_came_with_the_welcome_is_not_read(host: Host) -> None:
    """Its descriptor is nobody's then, or somebody else's."""
    reader = Reader()
    async with rig.open_rig(host, reader.handle) as it:
        it.group.start_soon(reader.poller.run)
        channel = await it.dial(1, rig.KEYS[1])
        channel._ready = [b"early"]
        with anyio.fail_after(5):
            await reader.poller.serve(channel, lambda frames: channel.close("has said enough"))
        assert channel.closed == "has said enough"
        other = await it.dial(2, rig.KEYS[2])
        other.send([b"word"])
        await rig.until(lambda: reader.frames == ["word"])


async def test_channel_that_ends_ends_alone(host: Host) -> None:
    """`serve` returns when the peer goes; the descriptor's next owner is not confused with it."""
    reader = Reader()
    async with rig.open_rig(host, reader.handle) as it:
        it.group.start_soon(reader.poller.run)
        first, second, third = await _dial_all(it, reader)
        second.close()
        await rig.until(lambda: len(reader.ended) == 1)
        assert reader.ended == ["the other side closed the connection"]
        again = await it.dial(2, rig.KEYS[2])
        for channel, word in ((first, b"one"), (again, b"two"), (third, b"three")):
            channel.send([word])
        await rig.until(lambda: sorted(reader.frames) == ["one", "three", "two"])


async def test_handler_may_close_any_channel(host: Host) -> None:
    """What one channel brings may end others whose bytes are ready in the same round: those are not read."""
    reader = Reader()
    async with rig.open_rig(host, reader.handle) as it:
        channels = await _dial_all(it, reader)
        for channel in channels:
            channel.send([b"close all"])
        it.group.start_soon(reader.poller.run)
        await rig.until(lambda: len(reader.ended) == 3)
    assert reader.frames == ["close all"]
    assert reader.ended == ["told to"] * 3


async def test_broken_framing_ends_the_channel(host: Host) -> None:
    """A frame longer than allowed closes the connection that sent it, and the poller goes on."""
    reader = Reader()
    async with rig.open_rig(host, reader.handle) as it:
        it.group.start_soon(reader.poller.run)
        first, second, _ = await _dial_all(it, reader)
        first.send([bytes((1 << 20) + 1)])
        await rig.until(lambda: len(reader.ended) == 1)
        assert reader.ended[0] is not None
        assert "frame of 1048577 bytes" in reader.ended[0]
        second.send([b"still here"])
        await rig.until(lambda: "still here" in reader.frames)


async def test_flood_does_not_starve_the_other_channels(host: Host) -> None:
    """Hundreds of frames that take long to look at come in one read: others are heard between two slices of them."""
    reader = SlowReader(SLICE_NS / 4e9)
    async with rig.open_rig(host, reader.handle) as it:
        flooder, other, _ = await _dial_all(it, reader)
        reader.at_first = lambda: other.send([b"a vote"])
        flooder.send([b"junk"] * 200)
        it.group.start_soon(reader.poller.run)
        await rig.until(lambda: len(reader.frames) == 201)
    assert reader.frames.index("a vote") < 50


async def test_what_waits_for_its_slice_goes_with_its_channel(host: Host) -> None:
    """Of a channel that was closed nothing is handed over any more."""
    reader = SlowReader(SLICE_NS / 1e9)
    async with rig.open_rig(host, reader.handle) as it:
        first, _, _ = await _dial_all(it, reader)
        first.send([b"one", b"close all", b"three"])
        it.group.start_soon(reader.poller.run)
        await rig.until(lambda: len(reader.ended) == 3)
    assert reader.frames == ["one", "close all"]


async def test_other_tasks_get_turns_under_a_flood(host: Host) -> None:
    """A peer that never pauses does not keep timers from firing: rounds in a row are bounded."""
    reader = Reader()
    async with rig.open_rig(host, reader.handle) as it:
        flooder, _, _ = await _dial_all(it, reader)
        rounds = 0
        most = 0

        def refill() -> None:
            nonlocal rounds
            rounds += 1
            flooder.send([b"x"])

        async def watch() -> None:
            nonlocal rounds, most
            while True:
                most = max(most, rounds)
                rounds = 0
                await trio.lowlevel.checkpoint()

        reader.poller._after_round = refill
        flooder.send([b"x"])
        it.group.start_soon(reader.poller.run)
        it.group.start_soon(watch)
        await rig.until(lambda: len(reader.frames) > 500)
    assert 0 < most <= 2 * ROUNDS_PER_TURN, "trio shuffles: the watcher may run first in one turn and last in the next"
