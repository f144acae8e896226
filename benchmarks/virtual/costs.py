"""The cost model: what each step of a node takes, in integer nanoseconds, calibrated on a real processor.

`calibration.json` beside this file is checked in, so that everybody's figures are the same; `python -m benchmarks
calibrate` measures another machine.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from bft.config import Durability

CALIBRATION = Path(__file__).parent / "calibration.json"
Cost = Annotated[int, Meta(ge=0)]


class Costs(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Costs in nanoseconds of one core, but for the last two, which are times of a disk.

    Attributes:
        sign_ns, verify_ns: one Ed25519 signature.
        hop_ns: one read or one write of a connection: system call, TLS record, waking the task.
        kib_ns: each KiB that is read or written, beside.
        frame_ns: one frame received: decoding, admission without signatures, the protocol's step and what it encodes.
        operation_ns: one operation at a replica: exactly-once table, execution, result.
        client_frame_ns: one frame received by a client.
        client_operation_ns: one operation at a client: submission, envelope, tally, completion.
        commit_process_ns, commit_power_ns: a transaction of the store.
    """

    sign_ns: Cost
    verify_ns: Cost
    hop_ns: Cost
    kib_ns: Cost
    frame_ns: Cost
    operation_ns: Cost
    client_frame_ns: Cost
    client_operation_ns: Cost
    commit_process_ns: Cost
    commit_power_ns: Cost

    def commit_ns(self, durability: Durability) -> int:
        """How long a transaction takes at a level of durability."""
        return {"memory": 0, "process": self.commit_process_ns, "power": self.commit_power_ns}[durability]

    def bytes_ns(self, size: int) -> int:
        """Cost of reading or writing `size` bytes."""
        return size * self.kib_ns // 1024


def load_costs(path: Path = CALIBRATION) -> Costs:
    """The cost model of a calibration file.

    Raises:
        msgspec.ValidationError, OSError, ValueError: the file is missing or is none.
    """
    return msgspec.convert(json.loads(path.read_text())["costs"], Costs)
