"""A scenario: everything that one simulated run depends on, as a value that can be written to a file and shrunk.

One scenario is one run, bit for bit, on every machine: all chance comes from `seed`, by named streams.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Where = Annotated[int, Meta(ge=0, le=99)]


class Network(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How messages travel before the global stabilisation time.

    Attributes:
        delay_us: smallest and largest delay; drawn evenly, so messages overtake each other.
        slow_permille: messages that take `slow_ms` longer.
        loss_permille, duplicate_permille: chance per message.
        regions: replica i lives in region i mod 5 of a five-region WAN, adding its one-way latency.
        bandwidth_mbit: per sender; 0 for unlimited.
    """

    delay_us: tuple[int, int] = (100, 2000)
    slow_permille: Annotated[int, Meta(ge=0, le=1000)] = 0
    slow_ms: int = 500
    loss_permille: Annotated[int, Meta(ge=0, le=1000)] = 0
    duplicate_permille: Annotated[int, Meta(ge=0, le=1000)] = 0
    regions: bool = False
    bandwidth_mbit: int = 0


FaultKind = Literal[
    "partition", "one-way", "heal", "crash", "power-loss", "restart", "clock", "disk-full", "fsync-fails", "rot"
]


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Something that the environment does at a point in time.

    Attributes:
        kind: what: `partition` splits into `groups`; `one-way` cuts messages from `groups[0]` to `groups[1]`; `heal`
            ends both; `crash` kills a process (what the operating system had stays), `power-loss` also loses what was
            not synced; `restart` starts it from its disk; `clock` shifts its clock by `amount` ms; `disk-full` and
            `fsync-fails` stop it at its next write; `rot` flips a byte of a stored snapshot page.
        replica: whom it strikes.
    """

    at_ms: Annotated[int, Meta(ge=0)]
    kind: FaultKind
    replica: Where = 0
    groups: tuple[tuple[int, ...], ...] = ()
    amount: int = 0


class CrashPoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A stop at a boundary between two effects, named by its number in the replica's life, over all restarts.

    Boundaries are counted, and effects carried out one by one, in runs that say `one_by_one`: before a record is given
    to the operating system, before it is synced, after it is synced, and after each message that leaves.

    Attributes:
        loses: what is gone: `nothing` that the operating system had (a killed process), what was not `unsynced` (power
            loss), or only the `last` of the unsynced records (the disk wrote the others before the power went).
        strikes: this replica, or `all` of them at once.
        then: `restart` from the disk; `refuse`: the disk is lost too, the guard beside the key keeps the replica from
            voting, so it stays away; `forget`: it goes on with an empty disk, which makes it one of the f faulty ones
            (it must be listed as corrupted).
        down_ms: until the restart.
    """

    replica: Where
    boundary: Annotated[int, Meta(ge=1)]
    loses: Literal["nothing", "unsynced", "last"] = "unsynced"
    strikes: Literal["one", "all"] = "one"
    then: Literal["restart", "refuse", "forget"] = "restart"
    down_ms: Annotated[int, Meta(ge=1)] = 5


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the network does, before the stabilisation time, to certain messages between replicas: one delivery matrix.

    Attributes:
        kinds: class names of the packet or of the message signed in it; empty for all.
        view: only messages of this view (those without a view belong to none); None for all.
        seqs: only slots `seqs[0] .. seqs[1]`; empty for all.
        sources, targets: empty for all.
        late_ms: how late they come; None if never.
    """

    kinds: tuple[str, ...] = ()
    view: int | None = None
    seqs: tuple[int, ...] = ()
    sources: tuple[int, ...] = ()
    targets: tuple[int, ...] = ()
    late_ms: int | None = None


class Workload(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the correct clients do: each keeps `outstanding` calls open until it has made `operations`.

    Each comes `stagger_ms` after the one before it. With `pause_ms` load comes in bursts: all of the calls at once,
    then silence when the last of them is answered.
    """

    clients: Annotated[int, Meta(ge=1, le=64)] = 2
    operations: Annotated[int, Meta(ge=1, le=100_000)] = 20
    outstanding: Annotated[int, Meta(ge=1, le=1024)] = 4
    keys: Annotated[int, Meta(ge=1)] = 4
    query_permille: Annotated[int, Meta(ge=0, le=1000)] = 250
    lanes: bool = False
    stagger_ms: Annotated[int, Meta(ge=0)] = 0
    pause_ms: Annotated[int, Meta(ge=0)] = 0


ADMIN_THRESHOLD = 2


class Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A change of membership that administrators bring about; tried again until it is done.

    Attributes:
        add: replicas that join, of those beyond `n`.
        remove: replicas that leave.
        rotate: replicas that go on under a new key.
        approvals: how many of the three administrators sign; two must, so with one it must never be made.
        unready: submit it without the newcomers' word, which must be refused.
    """

    at_ms: Annotated[int, Meta(ge=0)]
    add: tuple[Where, ...] = ()
    remove: tuple[Where, ...] = ()
    rotate: tuple[Where, ...] = ()
    approvals: Annotated[int, Meta(ge=0, le=3)] = 3
    unready: bool = False

    @property
    def is_lawful(self) -> bool:
        """True if correct replicas may make it."""
        return self.approvals >= ADMIN_THRESHOLD and not (self.unready and self.add)


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One run.

    Attributes:
        rules: what the network does to single kinds of messages; the first that applies counts.
        corrupted: replica -> strategy expression, as `bft.adversary.parse` reads it.
        hostile_clients: name -> what that client does, as `bft.adversary.clients` knows it.
        faults: what the environment does, in order of time.
        gst_ms: global stabilisation time: from then on no message is lost or late, and all correct replicas run;
            Byzantine replicas go on.
        patience_ms: how long after it every request of a correct client may take.
        protocol: parameters that differ from `SIMULATED`.
        real_signatures: Ed25519 instead of the stand-in.
        spares: replicas `n .. n + spares - 1`, which run from the start and belong to no epoch until they are added.
        changes: of the membership.
        one_by_one: carry out effects strictly one by one, and count the boundaries between them.
        crash_points: stops at such boundaries.
        signed_replies: replicas sign their replies, and clients hold them against each other.
    """

    seed: int
    n: Annotated[int, Meta(ge=4, le=100)] = 4
    network: Network = Network()
    rules: tuple[Rule, ...] = ()
    corrupted: dict[str, str] = {}
    hostile_clients: dict[str, str] = {}
    faults: tuple[Fault, ...] = ()
    gst_ms: Annotated[int, Meta(ge=0)] = 3000
    patience_ms: Annotated[int, Meta(ge=1)] = 60_000
    workload: Workload = Workload()
    protocol: dict[str, int] = {}
    real_signatures: bool = False
    spares: Annotated[int, Meta(ge=0, le=16)] = 0
    changes: tuple[Change, ...] = ()
    one_by_one: bool = False
    crash_points: tuple[CrashPoint, ...] = ()
    signed_replies: bool = False

    def corrupted_ids(self) -> list[int]:
        """Replicas whose keys the adversary holds, ascending."""
        return sorted(int(name) for name in self.corrupted)


SIMULATED = {
    "checkpoint_interval": 8,
    "window": 16,
    "pipeline": 4,
    "batch_operations_max": 8,
    "session_window": 64,
    "sessions_max": 64,
    "request_timeout_ms": 400,
    "view_change_timeout_ms": 400,
    "status_interval_ms": 80,
    "backoff_exponent_max": 6,
    "witness_interval_ms": 0,
}
"""Small limits, so that edges are reached within a short run. No witnesses: where one copy of a request more would make
up for a lost one, schedules would show less; scenarios about performance set them."""
QUICK = {"request_timeout_ms": 100, "view_change_timeout_ms": 100, "status_interval_ms": 30}
"""Short patience, for schedules in which views are to change."""
CALM = Network(delay_us=(100, 500))
"""A network that does no harm: what goes wrong in a fixed schedule is in the schedule."""


def pause(replica: int, from_ms: int, until_ms: int) -> tuple[Fault, Fault]:
    """A process is killed and started again; what the operating system had is there."""
    return stop("crash", replica, from_ms, until_ms)


def power_loss(replica: int, from_ms: int, until_ms: int) -> tuple[Fault, Fault]:
    """A machine loses power and comes back, with no more than was synced."""
    return stop("power-loss", replica, from_ms, until_ms)


def stop(kind: FaultKind, replica: int, from_ms: int, until_ms: int) -> tuple[Fault, Fault]:
    """A replica is stopped, in a way that ends with a restart."""
    return Fault(at_ms=from_ms, kind=kind, replica=replica), Fault(at_ms=until_ms, kind="restart", replica=replica)
