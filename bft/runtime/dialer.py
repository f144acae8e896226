"""Connections that a replica opens: one to every other member of the present epoch, kept up for ever."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from bft.epochs import Configuration
from bft.errors import TransportError
from bft.headers import Member
from bft.ids import ReplicaId, peer_name
from bft.runtime.links import Links
from bft.transport.channel import Channel
from bft.transport.dial import dial
from bft.transport.handshake import Identity, WrongIdentity


@dataclass(slots=True)
class _Dialing:
    """The task that keeps a connection to a member."""

    member: Member
    scope: trio.CancelScope
    before: _Dialing | None = None
    """Ended when this one has a connection: what is said meanwhile goes the old way."""
    is_member: bool = True

    def end(self) -> None:
        """Hang up, and dial no more."""
        self.scope.cancel()
        self.end_before()

    def end_before(self) -> None:
        """End the task in whose place this one has come."""
        if self.before is not None:
            self.before.end()
            self.before = None


class Dialer:
    """Dials members, and goes along with the epochs."""

    def __init__(
        self,
        me: ReplicaId,
        links: Links,
        nursery: trio.Nursery,
        read: Callable[[Channel, ReplicaId], Awaitable[None]],
        identity: Callable[[], Identity],
        on_stranger: Callable[[Member], Awaitable[None]],
        pauses: tuple[float, float],
    ) -> None:
        """Dial for replica `me`; nobody before the first `follow`.

        Args:
            read: serves a connection to its end.
            identity: who this replica is now; raises TransportError if it cannot dial now.
            on_stranger: called when somebody else is found where a member should be.
            pauses: the first and the longest pause before dialing again, in seconds.
        """
        self._me = me
        self._links = links
        self._nursery = nursery
        self._read = read
        self._identity = identity
        self._on_stranger = on_stranger
        self._pauses = pauses
        self._dialing: dict[int, _Dialing] = {}
        self._log = logging.getLogger(f"bft.{peer_name(me)}")

    def follow(
        self,
        configuration: Configuration,
        *,
        renew: bool = False,
        is_gone: Callable[[int], bool] = lambda replica: False,
    ) -> None:
        """Keep a connection to every member but this one, and to none else.

        One to a member whose key and address stay is left alone. Another is made anew, and the old one serves until
        then. One to a replica that was removed ends when that hangs up: what is on its way may be what it waits for. At
        the end of another epoch it is gone, and not waited for any longer.

        Args:
            renew: this replica has another key: make all connections anew.
            is_gone: tells who was removed before the last change.
        """
        for dialing in self._dialing.values():
            dialing.is_member = dialing.member.id in configuration.quorums.ids
            if is_gone(dialing.member.id):
                dialing.end()
        for member in configuration.members:
            known = self._dialing.get(member.id)
            if member.id == self._me or (known is not None and known.member == member and not renew):
                continue
            if known is not None:
                known.is_member = False  # it is not dialed again
                known.end_before()
            dialing = self._dialing[member.id] = _Dialing(member, trio.CancelScope(), known)
            self._nursery.start_soon(self._keep, dialing)

    async def _keep(self, dialing: _Dialing) -> None:
        """Hold a connection for as long as the replica is a member with this key and address."""
        member, peer = dialing.member, ReplicaId(dialing.member.id)
        pause, failure = self._pauses[0], ""
        with dialing.scope:
            while dialing.is_member:
                try:
                    channel = await dial(
                        member.host, member.port, server=peer, server_key=member.key, identity=self._identity()
                    )
                except TransportError as error:
                    if str(error) != failure:
                        failure = str(error)
                        self._log.info("no connection to r%d: %s", peer, failure)
                    if isinstance(error, WrongIdentity):
                        await self._on_stranger(member)
                else:
                    failure = ""
                    self._links.attach(peer, channel)
                    dialing.end_before()
                    since = trio.current_time()
                    await self._use(channel, peer)
                    # One that hangs up at once, again and again, must not cost a handshake and two lines each time.
                    if trio.current_time() - since >= self._pauses[1]:
                        pause = self._pauses[0]
                if not dialing.is_member:
                    break
                await trio.sleep(pause * random.uniform(0.5, 1.5))
                pause = min(2 * pause, self._pauses[1])
        if self._dialing.get(peer) is dialing:
            del self._dialing[peer]

    async def _use(self, channel: Channel, peer: ReplicaId) -> None:
        self._log.info("connected to r%d", peer)
        try:
            await self._read(channel, peer)
        finally:
            self._links.detach(peer, channel)
            channel.close()
        self._log.info("connection to r%d ended: %s", peer, channel.closed)
