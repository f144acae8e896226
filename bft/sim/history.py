"""What a run leaves behind for the checkers: observations at the seams, not the replicas' own data structures."""

from __future__ import annotations

from dataclasses import dataclass, field

from bft.epochs import Configuration
from bft.events import Committed, Evidence, Execute, OpenedBatch, Rejected
from bft.ids import Nanos
from bft.messages import Signed


@dataclass(slots=True)
class Operation:
    """One call of a correct client.

    Attributes:
        invoked, completed: virtual time; `completed` is None while the outcome is unknown.
        position: (seq, index) of an ordered operation's execution; (seq, -1) for a query's state.
    """

    client: bytes
    ticket: int
    operation: bytes
    is_query: bool
    invoked: Nanos
    completed: Nanos | None = None
    status: int = -1
    value: bytes = b""
    position: tuple[int, int] = (0, -1)
    lane: int = 0


@dataclass(slots=True)
class Execution:
    """One slot executed by one replica."""

    replica: int
    life: int
    at: Nanos
    effect: Execute
    digest: bytes
    results: list[tuple[int, bytes]] = field(default_factory=list)


@dataclass(slots=True)
class History:
    """Everything observed in one run.

    Attributes:
        correct: replicas whose keys the adversary does not hold.
        executions: in order of time, correct replicas only.
        committed: certificates reported by correct replicas.
        signed: every message that a correct replica signed and let out, arrived or not: the soundness log.
        batches: batches proposed by anybody, by digest, as correct replicas opened them.
        epochs: (replica, epoch) of all that correct replicas entered, the first included.
        changes: per accepted change, the epoch it was told and the last slot before it; the epoch and members that its
            operator had asked for; and whether it was lawful.
        unfinished: changes of membership that correct administrators and newcomers did not get through.
        retired: replicas that stopped since they were removed, and why.
        stable: (replica, slot, correct replicas whose snapshot of it was durable by then, how many there must be) per
            advance of a watermark.
        issued: payloads of envelopes that correct clients signed.
        summaries: largest value of every size in the replicas' summaries.
    """

    n: int
    correct: tuple[int, ...]
    epochs: list[tuple[int, Configuration]] = field(default_factory=list)
    retired: dict[int, str] = field(default_factory=dict)
    changes: list[tuple[int, int, tuple[int, tuple[int, ...]], bool]] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    gst: Nanos = 0
    end: Nanos = 0
    operations: list[Operation] = field(default_factory=list)
    executions: list[Execution] = field(default_factory=list)
    committed: list[tuple[int, Committed]] = field(default_factory=list)
    signed: dict[int, list[Signed]] = field(default_factory=dict)
    batches: dict[bytes, OpenedBatch] = field(default_factory=dict)
    issued: dict[tuple[bytes, int, int], bytes] = field(default_factory=dict)
    checkpoints: list[tuple[int, int, bytes]] = field(default_factory=list)
    stable: list[tuple[int, int, int, int]] = field(default_factory=list)
    accusations: list[tuple[int, Evidence]] = field(default_factory=list)
    rejections: dict[str, int] = field(default_factory=dict)
    rejected_honest: list[tuple[int, Rejected]] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    transitions: dict[str, int] = field(default_factory=dict)
    final: dict[int, dict[str, object]] = field(default_factory=dict)
    delivered: int = 0
    crimes: int = 0
    halted: dict[int, str] = field(default_factory=dict)
    crashed_by_bug: list[tuple[int, str]] = field(default_factory=list)
    trace_digest: str = ""

    @property
    def members(self) -> tuple[int, ...]:
        """Correct members of the newest epoch."""
        newest = self.newest
        if newest is None:
            return self.correct
        return tuple(replica for replica in self.correct if replica in newest.quorums.ids)

    @property
    def newest(self) -> Configuration | None:
        """The newest epoch that a correct replica is in; None if whoever drove the run has not said."""
        return max((configuration for _, configuration in self.epochs), key=lambda epoch: epoch.epoch, default=None)
