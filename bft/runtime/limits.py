"""Bounds on what peers can make a replica hold."""

from __future__ import annotations

import logging
import resource
from contextlib import suppress
from dataclasses import dataclass, field, replace

from bft.messages import ENVELOPE_BYTES_MAX
from bft.runtime.links import LinkLimits
from bft.transport.dial import FRAME_BYTES_MAX
from bft.transport.handshake import HANDSHAKE_SECONDS
from bft.transport.listener import STRANGERS_MAX

FILES_OWN = 64
"""Descriptors of a replica beside connections: store, log, standard streams, and some to spare."""
FILES_PER_REPLICA = 3
"""One connection dialed, two accepted."""
PLACES_MIN = 8
"""Clients, and strangers, are let in however few files may be open."""


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


def fitted(limits: ServerLimits, replicas: int) -> ServerLimits:
    """The limits, with fewer connections where this process may not open files for all of them (`ulimit -n`).

    Else whoever connects often enough takes the descriptors that the store and the other replicas need, and the replica
    stops. First the process's own limit is raised, as far as it may be.
    """
    clients, strangers = limits.links.clients_max, limits.strangers_max
    own = FILES_OWN + FILES_PER_REPLICA * replicas
    room = _files_max(own + clients + strangers) - own
    if room >= clients + strangers:
        return limits
    strangers = min(strangers, max(PLACES_MIN, room // 5))
    clients = min(clients, max(PLACES_MIN, room - strangers))
    logging.getLogger("bft.limits").warning(
        "so few files may be open that only %d clients can be connected, and %d who have not said who they are",
        clients,
        strangers,
    )
    return replace(limits, strangers_max=strangers, links=replace(limits.links, clients_max=clients))


def _files_max(wanted: int) -> int:
    """How many files this process may open; raised to what is wanted if possible."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    raised = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
        return raised
    return soft
