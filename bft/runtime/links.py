"""Who is connected, and by which channels packets reach them.

Replica i dials every member j and sends to j over that connection; what j sends comes over the connection that j
dialed. A replica that is no member yet is dialed by nobody, nor is one that nobody reaches: those are answered over the
newest connection that they have opened.
A client's replies go over every connection that its key holds (two processes may share a key with distinct sessions).
All numbers of connections are bounded, and an excess evicts the oldest of the same name or refuses the newcomer.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from bft.ids import Peer, ReplicaId
from bft.runtime.stats import Stats
from bft.transport.channel import Channel
from bft.transport.dial import FRAME_BYTES_MAX


@dataclass(frozen=True, slots=True)
class LinkLimits:
    """Bounds on connections.

    Attributes:
        clients_max: connections of clients.
        per_client_max: connections of one client key.
        per_replica_max: incoming connections of one replica.
        unread_seconds_max: a client's connection whose send buffer is full is closed when it took nothing for so long.
    """

    clients_max: int = 512
    per_client_max: int = 8
    per_replica_max: int = 2
    unread_seconds_max: float = 2.0


class Links:
    """The connections of one replica."""

    def __init__(self, stats: Stats, limits: LinkLimits) -> None:
        self._stats = stats
        self._limits = limits
        self._dialed: dict[int, Channel] = {}
        self._incoming: dict[Peer, list[Channel]] = {}
        self._clients = 0

    @property
    def clients(self) -> int:
        """Connections of clients."""
        return self._clients

    @property
    def dialed(self) -> list[int]:
        """Replicas to which a connection stands, ascending."""
        return sorted(self._dialed)

    @property
    def incoming(self) -> list[int]:
        """Replicas from which a connection stands, ascending."""
        return sorted(peer for peer in self._incoming if isinstance(peer, int))

    def send(self, peer: Peer, frames: list[bytes]) -> None:
        """Send to a peer by whatever connection it has; without one the frames are dropped."""
        channels = list(self._incoming.get(peer, ())) if isinstance(peer, bytes) else self._to_replica(peer)
        if not channels:
            self._stats.dropped["not-connected"] += len(frames)
            return
        short = [frame for frame in frames if len(frame) <= FRAME_BYTES_MAX]
        if len(short) < len(frames):
            self._stats.dropped["too-long"] += len(frames) - len(short)
        for channel in channels:
            before = channel.dropped
            channel.send(short)
            if channel.dropped > before:
                self._stats.dropped["send-buffer-full"] += channel.dropped - before
                self._give_up(peer, channel)

    def _give_up(self, peer: Peer, channel: Channel) -> None:
        """Close a client's connection whose buffer is full and of which nothing was read for a while.

        It frees the memory; a client that was only slow connects again and asks for what it lacks. Replicas are never
        disconnected: a correct one may look like this after a pause of its machine.
        """
        if isinstance(peer, int) or channel.closed is not None:
            return
        if time.monotonic() - channel.progressed_at >= self._limits.unread_seconds_max:
            self._stats.dropped["unread-connection"] += 1
            channel.close("the other side does not read what it is sent")

    def _to_replica(self, peer: int) -> list[Channel]:
        channel = self._dialed.get(peer)
        return list(self._incoming.get(peer, ()))[-1:] if channel is None else [channel]

    def attach(self, peer: ReplicaId, channel: Channel) -> None:
        """Send to a replica by this dialed connection from now on."""
        self._dialed[peer] = channel

    def detach(self, peer: ReplicaId, channel: Channel) -> None:
        """The dialed connection is gone; nothing happens if another has taken its place."""
        if self._dialed.get(peer) is channel:
            del self._dialed[peer]

    def dismiss(self, peer: ReplicaId, key: bytes, reason: str) -> None:
        """Close the connections that a replica has opened with another key than this one, which is its own now."""
        for channel in list(self._incoming.get(peer, ())):
            if channel.proven != key:
                self.leave(peer, channel)
                channel.close(reason)

    def enter(self, peer: Peer, channel: Channel) -> str | None:
        """Take an incoming connection, evicting the oldest of the same peer if it has too many.

        Returns:
            Why there is no room for it; None if it was taken.
        """
        is_client = not isinstance(peer, int)
        per_peer_max = self._limits.per_client_max if is_client else self._limits.per_replica_max
        channels = self._incoming.get(peer, [])
        if len(channels) >= per_peer_max:
            oldest = channels[0]
            self.leave(peer, oldest)
            oldest.close("a newer connection of the same key took its place")
        if is_client and self._clients >= self._limits.clients_max:
            return f"the replica serves {self._clients} client connections, its maximum"
        self._incoming.setdefault(peer, []).append(channel)
        self._clients += is_client
        return None

    def leave(self, peer: Peer, channel: Channel) -> None:
        """Forget an incoming connection; nothing happens if it was evicted."""
        channels = self._incoming.get(peer, [])
        if channel not in channels:
            return
        channels.remove(channel)
        self._clients -= not isinstance(peer, int)
        if not channels:
            del self._incoming[peer]
