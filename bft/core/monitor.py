"""How well the present primary serves, as one backup sees it: slow, unfair and wasteful ones lose their place.

A primary that works just well enough to outlive every timeout could slow a cluster down to one batch per timeout for
ever. So each backup measures, locally, and complains (`viewchange.suspect`); a weak quorum of complaints deposes.

    latency    from a request's arrival here, if the primary has it since then, to its execution here. p90 over a
               window against
               theta = slow_factor * (the weak-th largest last known p90 among all primaries) + slow_floor
    fairness   how many batches pass over a request that this replica itself gave to the primary
    waste      how many of the envelopes that are proposed had long been executed here, and how many batches with
               room to spare leave out a request that this replica gave to the primary as soon as it came

Why the weak-th largest: among weak many largest there is a correct primary's, so faulty ones cannot raise theta beyond
slow_factor times the slowest correct one by having been slow before. Unknown ones count as 0: `slow_floor` is the bound
before there is anything to compare with, and after at most weak many depositions there is.

Deviation from Prime and Aardvark: latency ends with execution, not with the PRE-PREPARE, so that a primary which
proposes in time and then withholds its COMMIT, or the PRE-PREPARE from one backup, is measured as well. Throughput is
shown, not judged: a closed loop's throughput is its callers over this latency, and an idle cluster has none.

Safe: a complaint triggers the ordinary view change and nothing else; no agreed state depends on a figure here. Live:
complaints pause after each change of view, and theta doubles whenever weak many performance changes come close together
(one of the deposed was correct, so the load has changed), until it exceeds the request timeout and rules nothing.

All times are integer nanoseconds; memory is bounded: counters, one window, two figures per primary, and which envelopes
were executed in the last two pipelines of slots.
Sources: [Aardvark NSDI'09], [Prime DSN'08], [RBFT ICDCS'13].
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bft.config import MILLISECOND, Protocol
from bft.core.pool import Key, Pending
from bft.ids import Nanos

SLOW = "slow-primary"
UNFAIR = "unfair-primary"
WASTE = "wasteful-primary"
PERFORMANCE = (SLOW, UNFAIR, WASTE)
"""Reasons that are a matter of degree: they never raise the back-off, whose inflation would serve a slow primary."""

WINDOW_SAMPLES = 20
"""A window's 90th percentile means little with fewer."""
SPARSE_SAMPLES = 4
"""Of these few, every one must be slow: the faster primary delays, the fewer samples come."""
WINDOWS = 2
"""Windows in a row that must be bad: one pause (of a collector, a disk, a link) is none of the primary's doing."""
SAMPLES_PER_WINDOW_MAX = 64
PROBES_PER_WINDOW = 10
"""Requests passed on at once: each costs the primary a frame."""
DOUBLINGS_MAX = 6
PERIOD_TIMEOUTS = 30
"""Request timeouts within which performance changes count as close together, and after which a doubling is undone."""


@dataclass(slots=True)
class _Lately:
    """What a few slots in a row have executed.

    Attributes:
        first: session (client, incarnation) -> the first operation of it that they finished.
        envelopes: those that they held.
    """

    slots: int = 0
    first: dict[tuple[bytes, int], int] = field(default_factory=dict)
    envelopes: dict[Key, None] = field(default_factory=dict)


class Monitor:
    """What one replica has measured.

    Attributes:
        p90: last known 90th percentile per primary, in nanoseconds.
        rates: last known operations per second per primary; a figure for people.
        watched: the oldest waiting request that this replica gave to the primary.
        skips: batches that have passed over it.
        reason: of the last performance complaint; empty for none so far.
        complaints: performance complaints so far.
        changes: performance-driven changes of view so far.
    """

    __slots__ = (
        "_bad_probes", "_bad_slow", "_bad_waste", "_before", "_begun", "_changed", "_doublings", "_factor",
        "_fair_slack", "_floor", "_gap", "_grace", "_lately", "_left_out", "_may_probe", "_next_probe", "_next_sample",
        "_offered", "_offered_since", "_operations", "_passes_max", "_period", "_primary", "_probe_passes", "_probes",
        "_quiet_since", "_rate_since", "_samples", "_skips_max", "_stale", "_weak", "_window", "changes",
        "complaints", "p90", "probe", "rates", "reason", "skips", "watched",
    )  # fmt: skip

    def __init__(self, protocol: Protocol, weak: int) -> None:
        """Judge by the cluster's parameters; `weak` many complaints depose."""
        timeout = protocol.request_timeout_ms * MILLISECOND
        self._floor = protocol.slow_floor_ms * MILLISECOND
        self._factor = protocol.slow_factor
        self._fair_slack = protocol.fair_slack_ms * MILLISECOND
        self._skips_max = protocol.skips_max
        self._may_probe = self._floor > 0 and protocol.witness_interval_ms > 0
        self._passes_max = protocol.pipeline
        self._weak = weak
        self._grace = timeout
        self._window = timeout // 2
        self._gap = self._window // SAMPLES_PER_WINDOW_MAX
        self._period = timeout * PERIOD_TIMEOUTS
        self.p90: dict[int, Nanos] = {}
        self.rates: dict[int, int] = {}
        self.skips = 0
        self.reason = ""
        self.complaints = 0
        self.changes = 0
        self._changed: list[Nanos] = []
        self._doublings = 0
        self._quiet_since: Nanos = 0
        self.enter(0, 0)

    @property
    def is_on(self) -> bool:
        """False if the cluster does without."""
        return self._floor > 0

    @property
    def forward_ns(self) -> Nanos:
        """Age at which a waiting request goes to the primary from here.

        Half of `slow_floor`, so that a request kept from the primary by its client is no slow sample of the primary's.
        """
        return self._floor // 2

    # --- what is seen ---------------------------------------------------------------------------------------------

    def enter(self, primary: int, now: Nanos) -> None:
        """A view begins: its primary is measured from scratch."""
        self._primary = primary
        self._begun = self._offered_since = self._rate_since = now
        self.watched: Pending | None = None
        self.probe: Pending | None = None
        self._probe_passes = self._probes = self._left_out = 0
        self._next_probe = now
        self._bad_probes = 0
        self._next_sample = now
        self._samples: list[Nanos] = []
        self._bad_slow = self._bad_waste = 0
        self._offered = self._stale = self._operations = 0
        self._lately, self._before = _Lately(), _Lately()
        self.skips = 0

    def leave(self, now: Nanos, *, for_performance: bool) -> None:
        """A view ends; weak many ends for performance within a period show that the load has changed."""
        if not for_performance:
            return
        self.changes += 1
        self._changed = [at for at in self._changed if now - at < self._period] + [now]
        self._quiet_since = now
        if len(self._changed) >= self._weak:
            self._doublings = min(self._doublings + 1, DOUBLINGS_MAX)
            self._changed = []

    def waited_since(self, pending: Pending, now: Nanos) -> Nanos:
        """When the wait of a request began to say something of the primary; 0 if it never did.

        It says nothing if its client had more than its share, nor if it waited here for long before it was passed on:
        a client could show backups first what it sends the primary last (`test_request_kept_back_frames_nobody`).
        """
        if pending.is_behind:
            return 0
        if not pending.forwarded:
            return pending.since if now - max(pending.since, self._begun) <= self.forward_ns else 0
        return max(pending.since, pending.forwarded - self.forward_ns)

    def note_slot(self) -> None:
        """A slot is about to be executed: what is fresh is so for one to two pipelines of slots."""
        self._lately.slots += 1
        if self._lately.slots >= self._passes_max:
            self._before, self._lately = self._lately, _Lately()

    def note_fresh(self, key: Key, number: int) -> None:
        """The envelope is about to be executed, and in it operation `number` of its session for the first time."""
        self._lately.first.setdefault(key[:2], number)
        self._lately.envelopes[key] = None

    def is_fresh(self, key: Key, last: int) -> bool:
        """True if the operations of an envelope, executed here by now, were so only lately: the primary could not know.

        An envelope that overlaps another on its way is proposed in good faith, and found executed when it comes. The
        very one that was executed is not: a primary knows what it has proposed.
        """
        if key in self._lately.envelopes or key in self._before.envelopes:
            return False
        first = self._before.first.get(key[:2], self._lately.first.get(key[:2]))
        return first is not None and last >= first

    def note_executed(self, since: Nanos, operations: int, now: Nanos) -> None:
        """A slot was executed; `since` is when a request in it began to wait for this primary, 0 if none did."""
        self._operations += operations
        if since and now >= self._next_sample and len(self._samples) < SAMPLES_PER_WINDOW_MAX:
            if not self._samples:
                self._operations = operations
                self._rate_since = now
            self._next_sample = now + self._gap
            self._samples.append(now - max(since, self._begun))

    def note_proposed(self, *, stale: bool) -> None:
        """A fresh proposal was accepted; `stale` if an envelope of it, picked at random, needed no ordering."""
        self._offered += 1
        self._stale += stale

    def watch(self, oldest: Pending | None) -> None:
        """Watch the oldest waiting request that this replica itself has given to the primary."""
        if oldest is not self.watched:
            self.watched = oldest
            self.skips = 0

    def note_passed_over(self, newest: Nanos, now: Nanos, *, has_room: bool) -> None:
        """A fresh proposal leaves the watched request out; `newest` is the latest arrival among those it holds.

        A fair primary proposes all that waits up to a batch's limits, round robin over clients: what is left out
        although there is room, or something `fair_slack` younger is in, was passed over. Time counts from when this
        replica itself passed the request on: a client cannot frame a primary by keeping the request from it.
        """
        assert self.watched is not None, "nothing is watched"
        forwarded = self.watched.forwarded
        if now - forwarded >= self._fair_slack and (has_room or newest - forwarded >= self._fair_slack):
            self.skips += 1

    def wants_probe(self, now: Nanos) -> bool:
        """True if the request that came in now is to be passed on at once, and watched."""
        return now >= self._next_probe and self.probe is None and self._may_probe

    def begin_probe(self, pending: Pending, now: Nanos) -> None:
        """The request has been passed on.

        It comes with its own proof: what its client may have kept from the primary, this replica has given it.
        """
        self.probe = pending
        self._probe_passes = 0
        self._next_probe = now + self._window // PROBES_PER_WINDOW

    def end_probe(self) -> None:
        """The request was proposed, or is gone."""
        self.probe = None
        self._probes += 1
        self._left_out += self._probe_passes > self._passes_max

    def drop_probe(self, now: Nanos) -> None:
        """Another envelope had the same operations, and was first: that says nothing. The next one is a probe again."""
        self.probe = None
        self._next_probe = now

    def note_left_out(self) -> None:
        """A fresh proposal with room to spare leaves the probe out.

        A fair primary's next proposal holds it: only those already on their way when it arrived there do not, a
        pipeline of them at most. On average they are less than one where clients wait for answers; where somebody
        sends without end, slots commit and are proposed in bursts of a whole pipeline, just ahead of the next request
        (`tests/sim/test_performance.py`). Who orders one at a time leaves out most of what more clients than that send.
        """
        self._probe_passes += 1

    # --- what follows ---------------------------------------------------------------------------------------------

    @property
    def theta(self) -> Nanos:
        """The p90 beyond which the present primary is slow."""
        known = sorted(self.p90.values(), reverse=True)
        reference = known[self._weak - 1] if len(known) >= self._weak else 0
        return (self._factor * reference + self._floor) << self._doublings

    def judge(self, now: Nanos) -> str:
        """On every tick: close the windows that are full; the complaint about the present primary, or nothing."""
        if not self.is_on:
            return ""
        self._decay(now)
        self._close_latency(now)
        self._close_waste(now)
        self._close_probes()
        if now - self._begun < self._grace:
            return ""
        if self._bad_slow >= WINDOWS:
            return SLOW
        if self.skips >= self._skips_max << self._doublings:
            return UNFAIR
        if max(self._bad_waste, self._bad_probes) >= WINDOWS << self._doublings:
            return WASTE
        return ""

    def complained(self, reason: str) -> None:
        """This replica has complained."""
        self.reason = reason
        self.complaints += 1

    def _decay(self, now: Nanos) -> None:
        if self._doublings and now - self._quiet_since >= self._period:
            self._doublings -= 1
            self._quiet_since = now

    def _close_latency(self, now: Nanos) -> None:
        """A full window is judged by its 90th percentile, a sparse one by its minimum."""
        count = len(self._samples)
        span = now - self._rate_since
        is_full = count >= WINDOW_SAMPLES and span >= self._window
        is_sparse = count >= SPARSE_SAMPLES and span >= 4 * self._window
        if not is_full and not is_sparse:
            return
        ordered = sorted(self._samples)
        bound = self.theta
        measured = ordered[count * 9 // 10]
        self.p90[self._primary] = measured
        self.rates[self._primary] = self._operations * 1000 * MILLISECOND // span
        self._bad_slow = self._bad_slow + 1 if (measured if is_full else ordered[0]) > bound else 0
        self._samples = []
        self._operations = 0
        self._rate_since = now

    def _close_waste(self, now: Nanos) -> None:
        if self._offered < WINDOW_SAMPLES or now - self._offered_since < self._window:
            return
        self._bad_waste = self._bad_waste + 1 if 2 * self._stale > self._offered else 0
        self._offered = self._stale = 0
        self._offered_since = now

    def _close_probes(self) -> None:
        if self._probes < WINDOW_SAMPLES:
            return
        self._bad_probes = self._bad_probes + 1 if 2 * self._left_out > self._probes else 0
        self._probes = self._left_out = 0

    def figures(self) -> dict[str, object]:
        """For people: milliseconds, and the primaries they belong to."""
        return {
            "theta_ms": _milliseconds(self.theta) if self.is_on else 0.0,
            "p90_ms": {f"r{primary}": _milliseconds(value) for primary, value in sorted(self.p90.items())},
            "operations_s": {f"r{primary}": value for primary, value in sorted(self.rates.items())},
            "current_p90_ms": _milliseconds(self.p90[self._primary]) if self._primary in self.p90 else None,
            "samples": len(self._samples),
            "bad_windows": self._bad_slow,
            "skips": self.skips,
            "stale": f"{self._stale}/{self._offered}",
            "left_out": f"{self._left_out}/{self._probes}",
            "doublings": self._doublings,
            "complaints": self.complaints,
            "changes": self.changes,
            "reason": self.reason,
        }


def _milliseconds(nanoseconds: Nanos) -> float:
    """Rounded for reading; the only float here, and nothing is decided by it."""
    return round(nanoseconds / MILLISECOND, 2)
