"""Directed scenarios: fixed schedules, named after the entries of the adversary catalogue that they show.

Random search finds most crimes' consequences by itself; these are for the ones it meets too rarely, and so that every
family of the catalogue runs in every campaign.
"""

from __future__ import annotations

from functools import partial

import msgspec

from bft.adversary.clients import HOSTILE
from bft.sim import changes
from bft.sim.scenario import CALM, QUICK, Fault, Network, Rule, Scenario, Workload, pause, power_loss

SMALL = Workload(clients=2, operations=12, outstanding=3, keys=2)
LONG = Workload(clients=2, operations=60, outstanding=2, keys=3)
COMMITS = ("Commit", "CommitCertificate")

fixed = partial(Scenario, seed=1, network=CALM, gst_ms=400, workload=SMALL, protocol=QUICK)
"""What these schedules have in common."""

PRIMARY = {
    "P01": "equivocate() & support()",
    "P02": "split()",
    "P03": "silent_after(3)",
    "P04": "silent() & to((3,))",
    "P05": "in_the_dark(2)",
    "P06": "slow_primary(90)",
    "P07": "censor()",
    "P08": "reorder(2)",
    "P10": "replay_batch()",
    "P11": "bad_client_signature()",
    "P11b": "bad_client_signature(tampered=True)",
    "P12": "malformed_batch()",
    "P12b": "envelope_twice()",
    "P13": "withhold_body()",
    "P14": "skip_sequence()",
    "P15": "far_sequence(16)",
    "P15b": "far_sequence(200)",
    "P15c": "far_sequence(-9)",
    "P17": "time_warp(900)",
    "P17b": "time_warp(100000)",
    "P17c": "time_warp(-40000)",
    "P19": "primary_prepares()",
    "P20": "wrong_view(4)",
    "P28": "ignore_forwarded()",
    "P29": "silent_after(6)",
}
"""What replica 0 does in the first view."""
SECOND_PRIMARY = {
    "P21": "contradict_new_view()",
    "P22": 'bad_quorum("repeated")',
    "P22b": 'bad_quorum("few")',
    "P22c": 'bad_quorum("forged")',
    "P23": 'wrong_proposals("null")',
    "P23b": 'wrong_proposals("drop")',
    "P23c": 'wrong_proposals("other")',
    "P23d": 'wrong_proposals("extra")',
    "P24": "two_new_views() & support()",
    "P25": "partial_new_view(1)",
    "P26": "partial_new_view(0)",
    "P27": "least_new_view()",
}
"""What replica 1 does in a view change that replica 0's crash brings about."""
BACKUP = {
    "B01": "silent()",
    "B02": "double_vote()",
    "B03": "commit_other()",
    "B04": "future_spam()",
    "B05": "view_change_spam()",
    "B06": "hide_prepared()",
    "B07": "stale_stable()",
    "B07b": "outside_window()",
    "B08": 'forged_certificate("invented")',
    "B08b": 'forged_certificate("mixed")',
    "B08c": 'forged_certificate("repeated")',
    "B08d": 'forged_certificate("stable")',
    "B10": "two_view_changes()",
    "B11": "early_checkpoint()",
    "B12": "bad_checkpoint()",
    "B14": "status_storm()",
    "B14b": "status_lie()",
    "B16": "wrong_reply()",
    "B16b": "early_reply()",
    "B16c": "refuse_clients()",
    "B17": "stale_read()",
    "B18": "false_request()",
    "B19": "forge()",
    "B20": "replay() & hoard()",
    "B21": "suspect_storm()",
    "B22": "reflect() & impersonate()",
    "X05": "depose()",
    "X07": "early_reply() & wrong_reply()",
    "X09": "echo_checkpoint()",
    "N02": "repeat()",
    "N06": "deaf()",
    "N09": "flip()",
    "D10": "twins()",
}
"""What replica 3 does, with a crash of the primary in the middle so that views change and something must be fetched."""
SIGNED = {"B16-signed": "wrong_reply()", "B16b-signed": "wrong_reply(True)"}
"""What replica 3 does where replies are signed, likewise."""
TRANSFER = {
    "B13": "bad_pages()",
    "B13b": "bad_manifest()",
    "B13c": "no_help()",
    "B13d": "bad_batch_body()",
}
"""What replica 3, or replica 0, which is asked first, does while replica 2 catches up by state transfer."""


def catalogue() -> dict[str, Scenario]:
    """All of them, by name."""
    found: dict[str, Scenario] = {}
    for name, crime in PRIMARY.items():
        found[name] = fixed(corrupted={"0": crime}, workload=LONG if name == "P15c" else SMALL)
    for name, crime in SECOND_PRIMARY.items():
        lie = f"{crime} & contradict_new_view() & support()"
        found[name] = fixed(corrupted={"1": lie}, faults=pause(0, 40, 700), gst_ms=900, rules=_decided_at_two())
    for name, crime in BACKUP.items():
        rules = (Rule(kinds=("NewView",), view=1),) if name.startswith("B08") else ()
        found[name] = fixed(corrupted={"3": crime}, faults=pause(0, 40, 500), gst_ms=700, workload=LONG, rules=rules)
    for name, crime in SIGNED.items():
        found[name] = fixed(
            corrupted={"3": crime}, faults=pause(0, 40, 500), gst_ms=700, workload=LONG, signed_replies=True
        )
    for name, crime in TRANSFER.items():
        found[name] = _lagging(2, {"3": crime})
        found[f"{name}-asked-first"] = _lagging(2, {"0": crime})
    found["B13-asked-for-pages"] = _lagging(2, {"1": "bad_pages()"})
    for name in HOSTILE:
        found[f"C-{name}"] = fixed(hostile_clients={"mallory": name})
    found.update(_overload())
    hunts = _hunts()
    found.update(hunts)
    for seed in (2, 3, 4):
        repeated = msgspec.structs.replace(hunts["B08-repeated-7"], seed=seed)
        found[f"B08-repeated-7-{seed}"] = repeated
    found.update(_environment())
    found.update(changes.directed())
    found.update(_performance())
    return found


def _decided_at_two() -> tuple[Rule, ...]:
    """In the first view, slots from 3 on are decided at replica 2 alone, and not even prepared at replica 3."""
    return (
        Rule(kinds=("Prepare",), view=0, seqs=(3, 99), targets=(3,)),
        Rule(kinds=COMMITS, view=0, seqs=(3, 99), targets=(0, 1, 3)),
    )


def _lagging(replica: int, corrupted: dict[str, str]) -> Scenario:
    """A replica is cut off for more than a window, so that only a state transfer brings it back."""
    others = tuple(other for other in range(4) if other != replica)
    cut = Fault(at_ms=10, kind="partition", groups=((replica,), others))
    workload = Workload(clients=2, operations=200, outstanding=2, keys=3)
    return fixed(
        corrupted=corrupted,
        faults=(cut, Fault(at_ms=300, kind="heal")),
        gst_ms=310,
        workload=workload,
        hostile_clients={"mallory": "never_acknowledge"},
    )


def _overload() -> dict[str, Scenario]:
    """Hostile clients at full speed beside correct ones, without any other fault: shares, grievances, room."""
    # Patience of some dozens of slots, as in life: a client's fair share may be one slot of several.
    wide = {**QUICK, "session_window": 4096, "request_timeout_ms": 200}
    found = {
        f"C06-{name}-at-full-speed": fixed(hostile_clients={"mallory": name}, gst_ms=0, workload=LONG, protocol=wide)
        for name in ("torrent", "reuse_numbers", "never_reads", "garbage_signatures", "two_faces")
    }
    found["C06-two-torrents"] = fixed(
        hostile_clients={"mallory": "torrent", "trudy": "torrent"}, gst_ms=0, workload=LONG, protocol=wide
    )
    # Backups that measure the primary as strictly as they may: what a flood waits for is none of its doing.
    strict = {**wide, "slow_floor_ms": 40, "fair_slack_ms": 30, "skips_max": 8, "witness_interval_ms": 10}
    found["C06-torrent-measured"] = fixed(
        hostile_clients={"mallory": "torrent"}, gst_ms=0, workload=LONG, protocol=strict
    )
    # Ever new keys fill the session table with sessions from the future; correct clients come one after the other.
    found["C11-future-sessions"] = fixed(
        hostile_clients={"mallory": "future_sessions"},
        gst_ms=0,
        workload=Workload(clients=6, operations=8, outstanding=2, keys=2, stagger_ms=100),
    )
    # A liar adds its refusals to what correct replicas say.
    found["C06-torrent-and-refusals"] = fixed(
        corrupted={"3": "refuse_clients()"},
        hostile_clients={"mallory": "torrent"},
        gst_ms=0,
        workload=LONG,
        protocol=wide,
    )
    return found


def _hunts() -> dict[str, Scenario]:
    """Schedules of several views, in which one certain message decides."""
    one = Workload(clients=1, operations=6, outstanding=1, keys=1)
    lose_commits = Rule(kinds=COMMITS, view=0, targets=(0, 2, 3))
    found = {
        # A executes at replica 1 only; view 1 carries it but prepares nowhere; view 2 must still know it.
        "X01-two-view-changes": fixed(
            corrupted={"3": "support() & hide_prepared()"},
            gst_ms=900,
            workload=one,
            rules=(lose_commits, Rule(kinds=("Prepare", *COMMITS), view=1)),
        ),
        # A certificate of view 0 that only the liar holds meets one of view 1.
        "B09-old-certificate": fixed(
            corrupted={"0": "(hide_prepared() & during(view=1)) & (old_certificate() & during(view=2))"},
            gst_ms=900,
            workload=one,
            rules=(
                Rule(kinds=("Prepare",), view=0, targets=(1, 2, 3)),
                Rule(kinds=COMMITS, view=1, targets=(0, 2, 3)),
                Rule(kinds=("ViewChange",), view=2, sources=(3,), targets=(2,)),
            ),
        ),
        # Nobody lies: replica 0 alone prepares slot 1 in view 0; view 1 begins without it, and decides the slot
        # otherwise; view 2 begins with both certificates, the older one first.
        "X04-two-certificates": fixed(
            gst_ms=900,
            workload=one,
            rules=(
                Rule(kinds=("Prepare",), view=0, targets=(1, 2, 3)),
                Rule(kinds=("ViewChange",), view=1, sources=(0,), targets=(1,)),
                Rule(kinds=("PrePrepare", "Prepare", *COMMITS), view=1, targets=(0,)),
                Rule(kinds=("Prepare",), view=1, seqs=(2, 99)),
                Rule(kinds=("ViewChange",), view=2, sources=(3,), targets=(2,)),
            ),
        ),
        # Prepared at replica 1 alone, which a lying COMMIT could decide; view 2 begins without it.
        "B03-one-commit": fixed(
            corrupted={"3": "support() & hide_prepared()"},
            gst_ms=900,
            workload=one,
            rules=(
                Rule(kinds=("Prepare",), view=0, targets=(0, 2)),
                Rule(kinds=COMMITS, view=0, targets=(0, 2)),
                Rule(kinds=("NewView",), view=1),
                Rule(kinds=("ViewChange",), view=2, sources=(1,)),
            ),
        ),
        # Decided at replica 2 alone; the new primary has its own VIEW-CHANGE and the liar's, and must wait for a third.
        "P22-one-short": fixed(
            corrupted={"3": "support() & hide_prepared()"},
            gst_ms=900,
            workload=one,
            rules=(
                Rule(kinds=("Prepare",), view=0, targets=(1,)),
                Rule(kinds=COMMITS, view=0, targets=(0, 1)),
                Rule(kinds=("ViewChange",), view=1, sources=(0, 2), targets=(1,), late_ms=150),
            ),
        ),
        # What was proposed is lost with its view: the next primary must propose it again.
        "N01-prepares-lost": fixed(
            gst_ms=600,
            rules=(Rule(kinds=("Prepare",), view=0), Rule(kinds=("PrePrepare",), view=0, late_ms=60)),
        ),
        # A proof comes without its batch, and the first request for it is lost.
        "N01-fetch-lost": fixed(
            gst_ms=300,
            workload=Workload(clients=1, operations=4, outstanding=1, keys=1, query_permille=0),
            rules=(Rule(kinds=("PrePrepare",), targets=(3,)), Rule(kinds=("FetchBatch",))),
        ),
        # A replica that has left the view restarts; the old primary's proposals arrive only then.
        "D15-restart-while-changing": fixed(
            corrupted={"0": "slow_primary(250)"},
            faults=pause(2, 180, 190),
            gst_ms=600,
            rules=(Rule(kinds=("NewView",), view=1), Rule(kinds=("ViewChange",), view=1, targets=(2,))),
        ),
        # The primary's PREPARE would make each group's value prepared.
        "P19-split": fixed(corrupted={"0": "split((2,), (1, 3)) & primary_prepares() & support()"}),
        # The busy client must not hide the starved one's wait; without the monitor, which would find it out as well.
        "P07-busy-and-starved": fixed(
            corrupted={"0": "censor()"},
            gst_ms=0,
            protocol={**QUICK, "slow_floor_ms": 0},
            network=Network(delay_us=(5000, 8000)),
            workload=Workload(clients=2, operations=100, outstanding=1, keys=2, query_permille=0),
            patience_ms=4200,
        ),
        # One signer counted often, under a value that the primary showed to a few: needs two liars.
        "B08-repeated-7": fixed(
            corrupted={"0": 'split((1, 2, 3), (4, 5)) & support() & forged_certificate("repeated")', "6": "support()"},
            n=7,
            gst_ms=700,
            workload=one,
            rules=(Rule(kinds=COMMITS, view=0, targets=(0, 2, 3, 4, 5, 6)),),
        ),
        "X03-hoarded-certificate": fixed(
            corrupted={"3": "hoard_certificate() & during(view=2)"},
            gst_ms=900,
            workload=one,
            rules=(Rule(kinds=("Prepare",), view=0, targets=(0, 1, 2)), Rule(kinds=COMMITS, view=1, targets=(0, 2, 3))),
        ),
        # Slot 1 prepares nowhere, slot 2 everywhere: view 1 must fill the gap with null.
        "P14-gap": fixed(
            gst_ms=600,
            workload=Workload(clients=2, operations=6, outstanding=2, keys=1),
            rules=(Rule(kinds=("PrePrepare", "Prepare"), view=0, seqs=(1, 1)), Rule(kinds=COMMITS, view=0)),
        ),
        # Every replica's VIEW-CHANGE is lost once, at first.
        "N01-view-changes-lost": fixed(
            corrupted={"0": "silent()"},
            gst_ms=190,
            rules=(Rule(kinds=("ViewChange",)),),
        ),
    }
    for n, primaries in ((4, 1), (7, 2)):
        # The first primaries say nothing: requests must wait for the first that works, and be spread again to it.
        found[f"P03-silent-primaries-{n}"] = fixed(
            corrupted={str(index): "silent()" for index in range(primaries)}, n=n
        )
        # Equivocation with the missing votes on both sides.
        split = "split((2, 3), (1,)) & support()" if n == 4 else "split((2, 3, 4), (5, 6)) & support()"
        found[f"X02-supported-split-{n}"] = fixed(
            corrupted={str(index): split if not index else "support() & hide_prepared()" for index in range(primaries)},
            n=n,
        )
    return found


def _performance() -> dict[str, Scenario]:
    """Primaries within every timeout: who is not deposed does not finish in time. And complaints without a cause."""
    found = {}
    for name, crime, clients, operations, patience_ms in (
        ("P06-under-the-timeout", "delay_requests(340)", 2, 200, 12_000),
        ("P06-under-the-clients-patience", "slow_primary(90)", 2, 200, 12_000),
        ("P06-creeping", "creep(200, 300)", 2, 300, 16_000),
        ("P07-starving", "starve(240)", 3, 100, 10_000),
        ("P07-starving-for-longer", "starve(280)", 3, 100, 10_000),
        ("P16-one-at-a-time", "one_at_a_time()", 12, 60, 4_000),
        ("P16-old-requests", "pad_batches(6, 32)", 2, 120, 12_000),
        ("B21-slow", 'suspect_storm("slow-primary")', 1, 200, 12_000),
        ("X05-unfair", 'suspect_storm("unfair-primary") & depose()', 1, 150, 12_000),
    ):
        liar = "3" if "suspect" in crime else "0"
        found[name] = fixed(
            corrupted={liar: crime},
            gst_ms=0,
            patience_ms=patience_ms,
            workload=Workload(clients=clients, operations=operations, outstanding=1, keys=3, query_permille=0),
            protocol={
                "witness_interval_ms": 10,
                "slow_floor_ms": 300 if name.startswith(("P07", "P16-one")) else 60,
                "fair_slack_ms": 30,
                "skips_max": 8,
                "batch_operations_max": 32,
            },
        )
    return found


def _environment() -> dict[str, Scenario]:
    """Crashes, slow networks, lagging replicas: no liar needed."""
    everybody = tuple(range(4))
    found = {f"D01-crash-{at_ms}": fixed(faults=pause(0, at_ms, at_ms + 150)) for at_ms in (5, 15, 30, 60)}
    for at_ms in (8, 20, 45):
        stop = [Fault(at_ms=at_ms, kind="power-loss", replica=replica) for replica in everybody]
        back = [Fault(at_ms=at_ms + 40, kind="restart", replica=replica) for replica in everybody]
        found[f"D03-power-loss-{at_ms}"] = fixed(faults=(*stop, *back))
    # A power loss after the vote, with a primary that then proposes something else.
    found["D02-vote-again"] = fixed(
        corrupted={"0": "propose_twice((1,), (2, 3)) & repeat(8, 12)"},
        faults=tuple(fault for at_ms in range(12, 100, 20) for fault in power_loss(1, at_ms, at_ms + 3)),
        network=Network(delay_us=(100, 6000)),
        rules=(Rule(kinds=("Prepare", *COMMITS), view=0),),
    )
    found["D02-vote-then-other"] = fixed(
        corrupted={"0": "propose_twice((2, 3), (1,)) & support()"},
        faults=tuple(fault for at_ms in range(6, 60, 7) for fault in power_loss(1 + at_ms % 3, at_ms, at_ms + 3)),
        network=Network(delay_us=(100, 12_000)),
    )
    # Delays above the first timeouts, also after stabilisation: only back-off gets a new view through.
    found["N04-slow-network"] = fixed(
        corrupted={"0": "silent()"},
        gst_ms=0,
        network=Network(delay_us=(1000, 5000), regions=True),
        protocol={"request_timeout_ms": 40, "view_change_timeout_ms": 40, "status_interval_ms": 40},
        workload=Workload(clients=1, operations=3, outstanding=1, keys=1),
        patience_ms=12_000,
    )
    for at_ms in (60, 110):
        found[f"D01-crash-late-{at_ms}"] = fixed(
            faults=pause(2, at_ms, at_ms + 20), workload=LONG, hostile_clients={"mallory": "never_acknowledge"}
        )
    for replica in (1, 2):
        found[f"N05-lagging-{replica}"] = _lagging(replica, {})
        # The one that caught up is needed for every quorum afterwards, and old requests are ordered again.
        found[f"D12-lagging-then-needed-{replica}"] = _lagging(replica, {"0": "replay_batch() & silent_after(40)"})
    # Writes complete with a weak quorum of replies while the readers' replicas lag behind.
    found["X08-stale-reads"] = fixed(
        corrupted={"3": "stale_read()"},
        gst_ms=900,
        rules=(Rule(kinds=COMMITS, targets=(0, 2), late_ms=40),),
        workload=Workload(clients=3, operations=20, outstanding=1, keys=1, query_permille=500),
    )
    # One replica hears of every slot late, and a liar says what it still says: f + 1 equal answers, and old ones.
    found["X08-late-and-lying"] = fixed(
        corrupted={"3": "stale_read()"},
        gst_ms=900,
        rules=(Rule(kinds=("Proposal", "Prepare", *COMMITS), targets=(2,), late_ms=60),),
        workload=Workload(clients=3, operations=20, outstanding=1, keys=1, query_permille=500),
    )
    return found
