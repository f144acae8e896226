"""What this machine is worth at the moment: the time of one signature check, on which most figures depend.

Shared machines change by half within the hour, and so do all figures measured on them; beside the cost of a check a
figure of today can be held against one of yesterday.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

from bft.crypto.signatures import Ed25519Signer, Ed25519Verifier
from bft.ids import ReplicaId

CHECKS = 200
BLOCKS = 5


def cpu_ns_of(action: Callable[[], object], loops: int, blocks: int) -> list[float]:
    """Processor time of one call in nanoseconds: the mean of `loops` calls, for each of so many blocks of them."""
    means = []
    for _ in range(blocks):
        started = time.thread_time_ns()
        for _ in range(loops):
            action()
        means.append((time.thread_time_ns() - started) / loops)
    return means


def check_us() -> float:
    """Processor time that one Ed25519 check takes now, in microseconds: median of a few blocks, a tenth of a second."""
    signer = Ed25519Signer(bytes(32), ReplicaId(0), bytes(32))
    verifier = Ed25519Verifier(bytes(32), [signer.public], None)
    payload = bytes(64)
    signature = signer.sign(payload)
    assert verifier.verify_replica(0, payload, signature)
    return median(cpu_ns_of(lambda: verifier.verify_replica(0, payload, signature), CHECKS, BLOCKS)) / 1000
