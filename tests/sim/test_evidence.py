"""Completeness: for each kind of evidence there is a crime, and the run in which it is committed names the culprit."""

from __future__ import annotations

import msgspec
import pytest

from bft.sim.checkers import check
from bft.sim.directed import catalogue
from bft.sim.history import History
from bft.sim.scenario import QUICK, Change, Network, Scenario, Workload
from bft.sim.service import Registers
from bft.sim.world import World

DIRECTED = catalogue()
KINDS = {
    "two-pre-prepares": ("P02", 0),
    "two-prepares": ("B02", 3),
    "two-commits": ("B02", 3),
    "two-checkpoints": ("B11", 3),
    "two-view-changes": ("B10", 3),
    "two-new-views": ("P24", 1),
    "hidden-certificate": ("B06", 3),
    "crossed-votes": ("B03", 3),
    "prepare-by-primary": ("P19", 0),
    "invalid-checkpoint": ("B11", 3),
    "invalid-batch": ("P11", 0),
    "invalid-view-change": ("B08b", 3),
    "invalid-new-view": ("P23", 1),
    "lying-page": ("B13-asked-for-pages", 1),
    "two-replies": ("B16b-signed", 3),
    "wrong-reply": ("B16-signed", 3),
}
"""Kind -> a directed run in which it is found, and who is guilty."""


SEEDS_MAX = 4
"""A crime shows only where the network lets it; so many networks are tried."""


def _run(name: str, seed: int = 0) -> History:
    return World(msgspec.structs.replace(DIRECTED[name], seed=seed), Registers).run()


@pytest.mark.parametrize("kind", KINDS)
def test_crime_is_found_and_its_culprit_named(kind: str) -> None:
    """Nobody else is accused, and each accusation convinced the judge (the checkers see to that)."""
    name, guilty = KINDS[kind]
    found = set()
    for seed in range(SEEDS_MAX):
        history = _run(name, seed)
        assert check(history, ("no-false-accusation", "evidence-convinces", "no-contradiction")) == []
        found |= {evidence.accused for _, evidence in history.accusations if evidence.kind == kind}
        if guilty in found:
            return
    pytest.fail(f"{kind}: replica {guilty} is not among {found}")


def test_proposal_that_contradicts_the_own_new_view_is_evidence() -> None:
    """What a NEW-VIEW proposes binds its primary as any PRE-PREPARE does (E1)."""
    history = _run("P21")
    assert (1, "two-pre-prepares") in {(evidence.accused, evidence.kind) for _, evidence in history.accusations}


def test_signed_replies_change_nothing_but_the_replies() -> None:
    """The same run, decided alike; clients accuse nobody."""
    for name in ("D03-power-loss-20", "N05-lagging-1", "D01-crash-30"):
        history = World(msgspec.structs.replace(DIRECTED[name], signed_replies=True), Registers).run()
        assert check(history) == [] and history.accusations == []
        statements = [signed for signed in history.signed[2] if signed.payload[1] == 22]
        assert statements, "replica 2 has signed what it answered"


@pytest.mark.parametrize(
    ("crime", "kind"),
    [
        ("double_vote()", "two-prepares"),
        ("commit_other()", "crossed-votes"),
        ("early_checkpoint()", "invalid-checkpoint"),
        ("wrong_reply(True)", "two-replies"),
    ],
)
def test_newcomer_that_lies_is_convicted_in_its_epoch(crime: str, kind: str) -> None:
    """It is in no cluster file: the evidence brings the links that name it, and the judge follows them."""
    scenario = Scenario(
        seed=3,
        network=Network(delay_us=(100, 500)),
        corrupted={"4": crime},
        spares=1,
        changes=(Change(at_ms=50, add=(4,)),),
        signed_replies=True,
        workload=Workload(clients=2, operations=150, outstanding=3, keys=3),
        gst_ms=600,
        protocol=QUICK,
    )
    history = World(scenario, Registers).run()
    found = [evidence for _, evidence in history.accusations if evidence.kind == kind]
    assert found and {(evidence.accused, len(evidence.links)) for evidence in found} == {(4, 1)}
    assert check(history) == []
