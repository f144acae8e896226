"""What this machine is worth at the moment: the time of one signature check, on which most figures depend.

Shared machines change by half within the hour, and so do all figures measured on them; beside the cost of a check a
figure of today can be held against one of yesterday.
"""

from __future__ import annotations

import time
from statistics import median

from bft.crypto.signatures import Ed25519Signer, Ed25519Verifier
from bft.ids import ReplicaId

CHECKS = 200
BLOCKS = 5


def check_us() -> float:
    """Processor time that one Ed25519 check takes now, in microseconds: median of a few blocks, a tenth of a second."""
    signer = Ed25519Signer(bytes(32), ReplicaId(0), bytes(32))
    verify = Ed25519Verifier(bytes(32), [signer.public], None).verify_replica
    payload = bytes(64)
    signature = signer.sign(payload)
    assert verify(0, payload, signature)
    blocks = []
    for _ in range(BLOCKS):
        start = time.thread_time()
        for _ in range(CHECKS):
            verify(0, payload, signature)
        blocks.append((time.thread_time() - start) / CHECKS * 1e6)
    return median(blocks)
