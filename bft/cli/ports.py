"""Free ports for clusters that start on this machine and end with this process: demo and tests.

Asking the system for port 0 and closing the socket again is a race: the number may be handed out as the source port of
anybody's next connection. Ports here lie below the range that systems hand out, and a lock file keeps other processes
that ask here away from them.
"""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

from bft.errors import TransportError

FIRST, LAST, BLOCK = 20_000, 32_000, 16
ATTEMPTS = 200
_held: list[int] = []  # open lock files: closing one would give its block away


def reserve_ports(count: int, host: str = "127.0.0.1") -> int:
    """The first of `count` consecutive ports that nobody listens on, reserved until this process ends.

    Raises:
        TransportError: no block of ports is free.
    """
    assert 0 < count <= BLOCK, f"at most {BLOCK} ports at a time, not {count}"
    folder = Path(tempfile.gettempdir()) / "bft-ports"
    folder.mkdir(mode=0o1777, exist_ok=True)
    dice = random.Random()
    for _ in range(ATTEMPTS):
        base = dice.randrange(FIRST, LAST, BLOCK)
        descriptor = os.open(folder / str(base), os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            continue
        if all(is_free(host, base + offset) for offset in range(count)):
            _held.append(descriptor)
            return base
        os.close(descriptor)
    raise TransportError(f"{host}: no {count} free ports found between {FIRST} and {LAST}")


def is_free(host: str, port: int) -> bool:
    """True if a listener could be opened here now."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except OSError:
            return False
    return True
