"""Bounds on what peers can make a replica hold."""

from __future__ import annotations

from dataclasses import dataclass, field

from bft.messages import ENVELOPE_BYTES_MAX
from bft.runtime.links import LinkLimits
from bft.transport.dial import FRAME_BYTES_MAX
from bft.transport.handshake import HANDSHAKE_SECONDS
from bft.transport.listener import STRANGERS_MAX


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Bounds on what peers can make a replica hold.

    Attributes:
        links: bounds on authenticated connections.
        strangers_max: connections that have not yet said who they are.
        handshake_seconds: how long they may take.
        client_frame_bytes_max: longest frame of a client.
        replica_frame_bytes_max: longest frame of a replica.
        client_buffer_bytes_max: bytes that wait for a slow connection that somebody else opened.
        client_buffers_bytes_max: bytes that wait for all of those together.
        receive_bytes_max: incomplete frames of all connections together.
        redial_seconds_min: first pause before dialing a replica again.
        redial_seconds_max: cap of that pause, which doubles.
    """

    links: LinkLimits = field(default_factory=LinkLimits)
    strangers_max: int = STRANGERS_MAX
    handshake_seconds: float = HANDSHAKE_SECONDS
    client_frame_bytes_max: int = ENVELOPE_BYTES_MAX + 4096
    replica_frame_bytes_max: int = FRAME_BYTES_MAX
    client_buffer_bytes_max: int = 16 * 1024 * 1024
    client_buffers_bytes_max: int = 256 * 1024 * 1024
    receive_bytes_max: int = 256 * 1024 * 1024
    redial_seconds_min: float = 0.05
    redial_seconds_max: float = 2.0
