"""Asking single replicas how they are: for people and tools, vouched for by nobody else."""

from __future__ import annotations

import anyio
import msgspec

from bft.errors import TransportError
from bft.messages import Probe, ProbeReply
from bft.transport.channel import Channel
from bft.wire.codec import DECODE_ERRORS, encode


class _Probing:
    __slots__ = ("event", "replica", "report")

    def __init__(self, replica: int) -> None:
        self.replica = replica
        self.event = anyio.Event()
        self.report: dict[str, object] | None = None


class Probes:
    """Probes on their way, by nonce."""

    def __init__(self) -> None:
        self._nonce = 0
        self._waiting: dict[int, _Probing] = {}

    async def ask(self, replica: int, channel: Channel, timeout: float) -> dict[str, object]:
        """The account of the replica at the other end of `channel`.

        Raises:
            TransportError: it does not answer within `timeout` seconds.
        """
        self._nonce += 1
        nonce = self._nonce
        probing = self._waiting[nonce] = _Probing(replica)
        channel.send([encode(Probe(nonce))])
        try:
            with anyio.move_on_after(timeout):
                await probing.event.wait()
        finally:
            del self._waiting[nonce]
        if probing.report is None:
            raise TransportError(f"replica {replica} did not answer within {timeout:g} s")
        return probing.report

    def on_reply(self, replica: int, reply: ProbeReply) -> None:
        """A replica has answered, or somebody pretends to have been asked."""
        probing = self._waiting.get(reply.nonce)
        if probing is None or probing.replica != replica:
            return
        try:
            probing.report = msgspec.json.decode(reply.report, type=dict[str, object])
        except DECODE_ERRORS:
            return
        probing.event.set()
