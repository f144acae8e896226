"""A process of a simulated cluster that runs a production session: what clients and administrators have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bft.client.session import Completed, Flush, Lost, Session, SessionEffect, SessionInput
from bft.config import MILLISECOND
from bft.epochs import Chain, genesis
from bft.events import Deliver, Send, SetTimer, Tick
from bft.ids import Peer
from bft.messages import SignedReply, SignedRequest
from bft.wire.codec import Malformed, decode_packet, decode_request

if TYPE_CHECKING:
    from bft.sim.world import World


class SessionHost:
    """Carries out what a session asks for; what it does with the outcome of an operation is up to the subclass.

    Args:
        index: which of the vault's client keys it speaks for.
        incarnation: of its session; above that of any earlier session of the key.
    """

    def __init__(self, world: World, index: int, incarnation: int) -> None:
        self._world = world
        self.client = world.vault.client_key(index)
        self._chain = Chain(genesis(world.cluster), world.vault)
        signer = world.vault.client_signer(self.client)
        self._session = Session(
            world.cluster.protocol, world.quorums, self.client, signer, incarnation, chain=self._chain
        )

    def deliver(self, source: Peer, frame: bytes) -> None:
        """A frame from a replica; hostile until decoded."""
        try:
            packet = decode_packet(frame)
        except Malformed:
            return
        if isinstance(packet, SignedReply):
            self.examine(source, packet)
            packet = packet.reply
        self._do(Deliver(source, packet))
        self._do(Flush())

    def examine(self, source: Peer, signed: SignedReply) -> None:
        """A replica has signed a reply."""

    def ended(self, effect: Completed | Lost) -> None:
        """An operation has its outcome, or will never have one."""
        raise NotImplementedError

    def _do(self, event: SessionInput) -> None:
        for effect in self._session.step(event, self._world.now):
            self._carry_out(effect)

    def _carry_out(self, effect: SessionEffect) -> None:
        world = self._world
        match effect:
            case Send():
                if isinstance(effect.packet, SignedRequest):
                    request = decode_request(effect.packet.payload)
                    world.history.issued[self.client, request.session, request.number] = effect.packet.payload
                world.send(self.client, effect.to, effect.packet)
            case SetTimer():
                world.at(max(effect.at_ns, world.now + MILLISECOND), lambda: self._do(Tick()))
            case Completed() | Lost():
                self.ended(effect)
            case _:
                pass
