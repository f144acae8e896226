"""Directed scenarios whose membership changes: fixed schedules, one or more for each way in which it can go wrong."""

from __future__ import annotations

from functools import partial

import msgspec

from bft.sim.scenario import CALM, QUICK, Change, Rule, Scenario, Workload, pause, power_loss

LOAD = Workload(clients=2, operations=150, outstanding=3, keys=3)
VOTES = ("Checkpoint", "CheckpointCertificate")

changing = partial(
    Scenario, seed=1, spares=1, network=CALM, gst_ms=500, patience_ms=10_000, workload=LOAD, protocol=QUICK
)
"""What these schedules have in common: a spare replica, and load throughout."""


def directed() -> dict[str, Scenario]:
    """Fixed schedules by name."""
    grow = Change(at_ms=50, add=(4,))
    replace = Change(at_ms=50, add=(4,), remove=(3,))
    found = {
        "R-4-to-5": changing(changes=(grow,)),
        "R-4-to-7-to-4": changing(
            changes=(Change(at_ms=50, add=(4, 5, 6)), Change(at_ms=800, remove=(4, 5, 6))),
            spares=3,
            gst_ms=1500,
            workload=Workload(clients=3, operations=250, outstanding=3, keys=3),
        ),
        "R-4-to-7-to-others": changing(
            changes=(Change(at_ms=50, add=(4, 5, 6)), Change(at_ms=500, remove=(0, 1, 2))), spares=3, gst_ms=1000
        ),
        "R-replace": changing(changes=(replace,)),
        "R-replace-primary": changing(changes=(Change(at_ms=50, add=(4,), remove=(0,)),)),
        "R-replace-all": changing(changes=(Change(at_ms=50, add=(4, 5, 6, 7), remove=(0, 1, 2, 3)),), spares=4),
        "R-two-overlapping": changing(changes=(grow, Change(at_ms=60, add=(5,))), spares=2),
        "R-two-at-once": changing(changes=(grow, Change(at_ms=50, add=(5,))), spares=2),
        "R-opposite-at-once": changing(
            changes=(Change(at_ms=50, add=(4,), remove=(3,)), Change(at_ms=50, add=(5,), remove=(2,))), spares=2
        ),
        # A replica, the primary first, goes on under a new key; later its process starts anew.
        "R-new-key": changing(changes=(Change(at_ms=50, rotate=(3,)),), faults=power_loss(3, 330, 360)),
        "R-new-key-of-the-primary": changing(
            changes=(Change(at_ms=50, rotate=(0,)), Change(at_ms=60, add=(4,))), gst_ms=700
        ),
        "R-new-key-away": changing(changes=(Change(at_ms=50, rotate=(2,)),), faults=power_loss(2, 90, 600), gst_ms=700),
        # Nothing but empty batches gets the epoch to its end.
        "R-idle": changing(
            changes=(Change(at_ms=300, add=(4,)),), workload=Workload(clients=1, operations=3, outstanding=1)
        ),
        "R-idle-silent-primary": changing(
            changes=(Change(at_ms=300, add=(4,)),),
            corrupted={"0": "silent_after(10)"},
            workload=Workload(clients=1, operations=3, outstanding=1),
        ),
        "R-silent-primary": changing(changes=(grow,), corrupted={"0": "silent_after(20)"}),
        "R-change-in-a-view-change": changing(
            changes=(grow,),
            faults=pause(0, 55, 500),
            gst_ms=700,
        ),
        # While the change is pending, two views pass: the second primary's NEW-VIEW is lost.
        "R-views-change-until-the-end": changing(
            changes=(grow,), faults=power_loss(0, 62, 700), rules=(Rule(kinds=("NewView",), view=1),), gst_ms=900
        ),
        "R-away": changing(changes=(grow,), faults=power_loss(3, 40, 700), gst_ms=900),
        "R-away-for-two": changing(
            changes=(grow, Change(at_ms=300, add=(5,), remove=(2,))),
            spares=2,
            faults=power_loss(3, 40, 900),
            gst_ms=1000,
        ),
        "R-away-and-removed": changing(changes=(replace,), faults=power_loss(3, 40, 900), gst_ms=1000),
        # It learns that the epoch is over from nobody's votes.
        "R-last-votes-lost": changing(changes=(grow,), rules=(Rule(kinds=VOTES, targets=(2,)),), gst_ms=900),
        # Whoever restarts after the switch is in the new epoch, and has said nothing else before.
        "R-restart-after": changing(
            changes=(grow,),
            faults=tuple(
                fault for replica in range(5) for fault in power_loss(replica, 350 + 40 * replica, 370 + 40 * replica)
            ),
            gst_ms=700,
            workload=Workload(clients=2, operations=250, outstanding=3, keys=3),
        ),
        # A joiner's process dies while it is needed for the first quorums.
        "R-joiner-dies": changing(changes=(grow,), faults=power_loss(4, 150, 600), gst_ms=700),
        # Nobody's proposals of the old epoch reach one replica before it hears of the new one.
        "R-behind-at-the-end": changing(
            changes=(grow,),
            rules=(Rule(kinds=("Proposal", "CommitCertificate", "Commit"), targets=(2,), late_ms=150),),
            gst_ms=900,
        ),
    }
    # One administrator of three has been bribed: it may ask, and no more.
    found["R-one-administrator"] = changing(changes=(msgspec.structs.replace(grow, at_ms=40, approvals=1), replace))
    # Three that are not there would make five of seven unreachable.
    absent = Change(at_ms=40, add=(5, 6, 7), unready=True)
    silent = {str(replica): "silent()" for replica in (5, 6, 7)}
    found["R-absent-newcomers"] = changing(changes=(absent, grow), spares=4, corrupted=silent)
    for name, crime in CRIMES.items():
        for replica in (0, 3, 4):
            found[f"R-{name}-{replica}"] = changing(
                changes=(replace,), corrupted={str(replica): crime}, faults=power_loss(1, 90, 200)
            )
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


def timed_crashes(first_ms: int, last_ms: int, step_ms: int) -> dict[str, Scenario]:
    """A replacement, and any one process that dies at any moment around it, for a while."""
    replace = Change(at_ms=30, add=(4,), remove=(3,))
    workload = Workload(clients=2, operations=60, outstanding=3, keys=2)
    kinds = (("crash", pause), ("power-loss", power_loss))
    found = {}
    for replica in range(5):
        for at_ms in range(first_ms, last_ms, step_ms):
            kind, stop = kinds[at_ms // step_ms % 2]
            faults = stop(replica, at_ms, at_ms + 40)
            found[f"R-{kind}-{replica}-at-{at_ms}"] = changing(changes=(replace,), faults=faults, workload=workload)
    return found
