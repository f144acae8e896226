"""Directed scenarios whose membership changes: fixed schedules, one or more for each way in which it can go wrong."""

from __future__ import annotations

import msgspec

from bft.sim.scenario import Change, Fault, FaultKind, Network, Rule, Scenario, Workload

QUICK = {"request_timeout_ms": 100, "view_change_timeout_ms": 100, "status_interval_ms": 30}
CALM = Network(delay_us=(100, 500))
LOAD = Workload(clients=2, operations=150, outstanding=3, keys=3)
VOTES = ("Checkpoint", "CheckpointCertificate")


def directed() -> dict[str, Scenario]:
    """Fixed schedules by name."""
    grow = Change(at_ms=50, add=(4,))
    replace = Change(at_ms=50, add=(4,), remove=(3,))
    found = {
        "R-4-to-5": _world(grow),
        "R-4-to-7-to-4": _world(
            Change(at_ms=50, add=(4, 5, 6)),
            Change(at_ms=800, remove=(4, 5, 6)),
            spares=3,
            gst_ms=1500,
            workload=Workload(clients=3, operations=250, outstanding=3, keys=3),
        ),
        "R-4-to-7-to-others": _world(
            Change(at_ms=50, add=(4, 5, 6)), Change(at_ms=500, remove=(0, 1, 2)), spares=3, gst_ms=1000
        ),
        "R-replace": _world(replace),
        "R-replace-primary": _world(Change(at_ms=50, add=(4,), remove=(0,))),
        "R-replace-all": _world(Change(at_ms=50, add=(4, 5, 6, 7), remove=(0, 1, 2, 3)), spares=4),
        "R-two-overlapping": _world(grow, Change(at_ms=60, add=(5,)), spares=2),
        "R-two-at-once": _world(grow, Change(at_ms=50, add=(5,)), spares=2),
        "R-opposite-at-once": _world(
            Change(at_ms=50, add=(4,), remove=(3,)), Change(at_ms=50, add=(5,), remove=(2,)), spares=2
        ),
        # A replica, the primary first, goes on under a new key; later its process starts anew.
        "R-new-key": _world(Change(at_ms=50, rotate=(3,)), faults=_pause(3, 330, 360)),
        "R-new-key-of-the-primary": _world(Change(at_ms=50, rotate=(0,)), Change(at_ms=60, add=(4,)), gst_ms=700),
        "R-new-key-away": _world(Change(at_ms=50, rotate=(2,)), faults=_pause(2, 90, 600), gst_ms=700),
        # Nothing but empty batches gets the epoch to its end.
        "R-idle": _world(Change(at_ms=300, add=(4,)), workload=Workload(clients=1, operations=3, outstanding=1)),
        "R-idle-silent-primary": _world(
            Change(at_ms=300, add=(4,)),
            corrupted={"0": "silent_after(10)"},
            workload=Workload(clients=1, operations=3, outstanding=1),
        ),
        "R-silent-primary": _world(grow, corrupted={"0": "silent_after(20)"}),
        "R-change-in-a-view-change": _world(
            grow,
            faults=(Fault(at_ms=55, kind="crash", replica=0), Fault(at_ms=500, kind="restart", replica=0)),
            gst_ms=700,
        ),
        # While the change is pending, two views pass: the second primary's NEW-VIEW is lost.
        "R-views-change-until-the-end": _world(
            grow, faults=_pause(0, 62, 700), rules=(Rule(kinds=("NewView",), view=1),), gst_ms=900
        ),
        "R-away": _world(grow, faults=_pause(3, 40, 700), gst_ms=900),
        "R-away-for-two": _world(
            grow, Change(at_ms=300, add=(5,), remove=(2,)), spares=2, faults=_pause(3, 40, 900), gst_ms=1000
        ),
        "R-away-and-removed": _world(replace, faults=_pause(3, 40, 900), gst_ms=1000),
        # It learns that the epoch is over from nobody's votes.
        "R-last-votes-lost": _world(grow, rules=(Rule(kinds=VOTES, targets=(2,)),), gst_ms=900),
        # Whoever restarts after the switch is in the new epoch, and has said nothing else before.
        "R-restart-after": _world(
            grow,
            faults=tuple(
                fault for replica in range(5) for fault in _pause(replica, 350 + 40 * replica, 370 + 40 * replica)
            ),
            gst_ms=700,
            workload=Workload(clients=2, operations=250, outstanding=3, keys=3),
        ),
        # A joiner's process dies while it is needed for the first quorums.
        "R-joiner-dies": _world(grow, faults=_pause(4, 150, 600), gst_ms=700),
        # Nobody's proposals of the old epoch reach one replica before it hears of the new one.
        "R-behind-at-the-end": _world(
            grow,
            rules=(Rule(kinds=("Proposal", "CommitCertificate", "Commit"), targets=(2,), late_ms=150),),
            gst_ms=900,
        ),
    }
    # One administrator of three has been bribed: it may ask, and no more.
    found["R-one-administrator"] = _world(msgspec.structs.replace(grow, approvals=1), replace)
    # Three that are not there would make five of seven unreachable.
    absent = Change(at_ms=60, add=(5, 6, 7), unready=True)
    silent = {str(replica): "silent()" for replica in (5, 6, 7)}
    found["R-absent-newcomers"] = _world(grow, absent, spares=4, corrupted=silent)
    for name, crime in CRIMES.items():
        for replica in (0, 3, 4):
            found[f"R-{name}-{replica}"] = _world(replace, corrupted={str(replica): crime}, faults=_pause(1, 90, 200))
    return found


CRIMES = {
    "support": "split() & support()",
    "double-vote": "double_vote()",
    "replay": "replay() & hoard()",
    "forged-stable": 'forged_certificate("stable") & stale_stable()',
    "early-checkpoint": "early_checkpoint()",
    "bad-state": "bad_manifest() & bad_pages()",
    "far": "far_sequence(16)",
    "false-epochs": "false_epochs()",
}
"""What one replica does throughout: a first primary, one that is removed, one that joins."""


def crash_points(first_ms: int, last_ms: int, step_ms: int) -> dict[str, Scenario]:
    """A replacement, and any one process that dies at any moment around it, for a while."""
    replace = Change(at_ms=30, add=(4,), remove=(3,))
    kinds: tuple[FaultKind, ...] = ("crash", "power-loss")
    return {
        f"R-{kinds[at_ms // step_ms % 2]}-{replica}-at-{at_ms}": _world(
            replace,
            faults=(
                Fault(at_ms=at_ms, kind=kinds[at_ms // step_ms % 2], replica=replica),
                Fault(at_ms=at_ms + 40, kind="restart", replica=replica),
            ),
            workload=Workload(clients=2, operations=60, outstanding=3, keys=2),
        )
        for replica in range(5)
        for at_ms in range(first_ms, last_ms, step_ms)
    }


def _world(
    *changes: Change,
    spares: int = 1,
    corrupted: dict[str, str] | None = None,
    faults: tuple[Fault, ...] = (),
    rules: tuple[Rule, ...] = (),
    gst_ms: int = 500,
    workload: Workload = LOAD,
) -> Scenario:
    return Scenario(
        seed=1,
        spares=spares,
        changes=changes,
        network=CALM,
        corrupted=corrupted or {},
        faults=faults,
        rules=rules,
        gst_ms=gst_ms,
        patience_ms=10_000,
        workload=workload,
        protocol=QUICK,
    )


def _pause(replica: int, from_ms: int, until_ms: int) -> tuple[Fault, Fault]:
    return (
        Fault(at_ms=from_ms, kind="power-loss", replica=replica),
        Fault(at_ms=until_ms, kind="restart", replica=replica),
    )
