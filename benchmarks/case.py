"""One thing to measure, as a value: which system, how many replicas, which load."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from bft.config import Durability
from bft.membership import REPLICAS_MAX, Quorums

System = Literal["bft", "single-server", "pysyncobj", "etcd", "zookeeper", "bft-smart"]


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A workload against a system.

    Attributes:
        system: "bft", or a peer of `benchmarks.peers`.
        n: replicas of a system that tolerates Byzantine faults; what others run with follows from it (`replicas`).
        load: "sessions" are callers that share one client, its key and its connections; "clients" have a key and
            connections each, in one process.
        callers: how many of them, each with one call open (closed loop).
        rate: open loop: operations a second that arrive whatever the system does; 0 for a closed loop.
        request_bytes, reply_bytes: beside a few bytes of framing.
        reads_percent: share of read-only operations, answered without ordering where the system can.
    """

    system: System = "bft"
    n: Annotated[int, Meta(ge=1, le=REPLICAS_MAX)] = 4
    durability: Durability = "memory"
    load: Literal["sessions", "clients"] = "sessions"
    callers: Annotated[int, Meta(ge=1, le=4096)] = 200
    rate: Annotated[int, Meta(ge=0)] = 0
    request_bytes: Annotated[int, Meta(ge=0, le=1 << 20)] = 0
    reply_bytes: Annotated[int, Meta(ge=0, le=1 << 20)] = 0
    reads_percent: Annotated[int, Meta(ge=0, le=100)] = 0

    def __post_init__(self) -> None:
        if self.rate and self.reads_percent:
            raise ValueError("rate and reads_percent cannot be combined: open loops order every operation")

    @property
    def replicas(self) -> int:
        """How many replicas run: 2f + 1 where only crashes are tolerated, for the f that `n` tolerates."""
        match self.system:
            case "bft" | "bft-smart":
                return self.n
            case "single-server":
                return 1
            case _:
                return 2 * max(Quorums.of(self.n).f, 1) + 1

    def columns(self) -> dict[str, object]:
        """What identifies the case in a row of a result file."""
        return {
            "system": self.system,
            "n": self.replicas,
            "durability": self.durability,
            "load": f"{self.callers} {self.load}",
            "loop": f"open {self.rate}/s" if self.rate else "closed",
            "bytes": f"{self.request_bytes}/{self.reply_bytes}",
            "reads_percent": self.reads_percent,
        }

    @property
    def label(self) -> str:
        """The case in one line, for people and for `--only`."""
        parts = [self.system, f"n={self.replicas}", self.durability, f"{self.callers} {self.load}"]
        parts += [f"{self.request_bytes}/{self.reply_bytes} bytes"]
        parts += [f"{self.reads_percent} % reads"] if self.reads_percent else []
        parts += [f"open loop {self.rate}/s"] if self.rate else []
        return ", ".join(parts)
