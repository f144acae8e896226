"""Accountability: evidence proves what it says, and nothing proves anything against a correct replica."""

from __future__ import annotations

import msgspec
import pytest

from bft.core.evidence import EvidenceFile, contradiction, verdict
from bft.digests import batch_digest
from bft.epochs import genesis
from bft.events import Evidence
from bft.messages import Checkpoint, Commit, NewView, Prepare, PrePrepare, Signed, ViewChange
from bft.runtime.evidence import FILES_PER_ACCUSED_MAX, EvidenceKeeper

A = batch_digest(b"A")
B = batch_digest(b"B")
CLUSTER = bytes(32)


def _file(first: Signed, second: Signed, **changes: object) -> EvidenceFile:
    found = contradiction(first, second) or "nothing"
    made = EvidenceFile(cluster=CLUSTER, kind=found, accused=first.sender, first=first, second=second)
    return msgspec.structs.replace(made, **changes)


@pytest.mark.parametrize(
    ("one", "other", "kind"),
    [
        (PrePrepare(0, 0, 1, A), PrePrepare(0, 0, 1, B), "two-pre-prepares"),
        (Prepare(0, 1, 1, A), Prepare(0, 1, 1, B), "two-prepares"),
        (Commit(0, 1, 1, A), Commit(0, 1, 1, B), "two-commits"),
        (Checkpoint(0, 8, A), Checkpoint(0, 8, B), "two-checkpoints"),
        (Commit(0, 1, 1, A), ViewChange(0, 2, None, ()), "hidden-certificate"),
    ],
)
def test_contradictions_are_proven(bench, one, other, kind):
    """Two signatures of one replica are enough, with public keys alone."""
    evidence = _file(bench.signed(0, one), bench.signed(0, other))
    assert evidence.kind == kind
    assert verdict(evidence, CLUSTER, genesis(bench.cluster), bench.vault) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Prepare(0, 1, 1, A), Prepare(0, 1, 1, A)),
        (Prepare(0, 1, 1, A), Prepare(0, 2, 1, B)),
        (Prepare(0, 1, 1, A), Prepare(0, 1, 2, B)),
        (Prepare(0, 1, 1, A), Commit(0, 1, 1, B)),
        (Commit(0, 2, 1, A), ViewChange(0, 2, None, ())),
    ],
)
def test_what_a_correct_replica_may_sign_is_no_evidence(bench, one, other):
    """Different views, slots or kinds do not exclude each other."""
    assert contradiction(bench.signed(1, one), bench.signed(1, other)) is None


def test_shown_certificate_hides_nothing(bench):
    """A VIEW-CHANGE that shows the certificate, or one of a higher view, or covers the slot, is honest."""
    commit = bench.signed(1, Commit(0, 0, 1, A))
    shown = ViewChange(0, 2, None, (bench.prepared_certificate(1, A),))
    covered = ViewChange(0, 2, bench.checkpoint_certificate(8, B), ())
    assert contradiction(commit, bench.signed(1, shown)) is None
    assert contradiction(commit, bench.signed(1, covered)) is None
    assert contradiction(bench.signed(1, Commit(0, 1, 1, B)), bench.signed(1, shown)) == "hidden-certificate"


def test_forged_mixed_or_foreign_evidence_proves_nothing(bench):
    """Every signature is checked, for the accused and for this cluster."""
    keys = genesis(bench.cluster), bench.vault
    one, other = bench.signed(0, Prepare(0, 1, 1, A)), bench.signed(0, Prepare(0, 1, 1, B))
    by_another = bench.signed(2, Prepare(0, 1, 1, B))
    forged = Signed(0, by_another.payload, by_another.signature)
    assert "signature" in str(verdict(_file(one, forged), CLUSTER, *keys))
    assert "not by the accused" in str(verdict(_file(one, by_another), CLUSTER, *keys))
    assert "another cluster" in str(verdict(_file(one, other), bytes(31) + b"x", *keys))
    assert "may have signed both" in str(verdict(_file(one, one), CLUSTER, *keys))
    assert "not two-commits" in str(verdict(_file(one, other, kind="two-commits"), CLUSTER, *keys))
    assert "version" in str(verdict(_file(one, other, version=9), CLUSTER, *keys))


def test_two_new_views_are_evidence(bench):
    """A new primary that begins one view in two ways."""
    first, second = (
        NewView(0, 1, (bench.signed(2, Prepare(0, 0, 1, A)),), ()),
        NewView(0, 1, (bench.signed(3, Prepare(0, 0, 1, A)),), ()),
    )
    assert contradiction(bench.signed(1, first), bench.signed(1, second)) == "two-new-views"


def test_replica_reports_a_hidden_certificate(bench):
    """Who holds the COMMIT and sees the VIEW-CHANGE without its certificate accuses the signer."""
    bench.deliver(3, bench.signed(3, Commit(0, 0, 1, A)))
    bench.deliver(3, bench.signed(3, ViewChange(0, 1, None, ())))
    found = [effect for effect in bench.out if isinstance(effect, Evidence)]
    assert [(effect.accused, effect.kind) for effect in found] == [(3, "hidden-certificate")]


def test_keeper_writes_files_that_verify_and_stops_at_its_bound(bench, tmp_path):
    """Evidence survives the process; a liar cannot fill the disk with it."""
    keeper = EvidenceKeeper(tmp_path / "evidence", CLUSTER)
    for seq in range(1, FILES_PER_ACCUSED_MAX + 5):
        one, other = bench.signed(0, Prepare(0, 1, seq, A)), bench.signed(0, Prepare(0, 1, seq, B))
        keeper.keep(Evidence(0, "two-prepares", one, other))
    files = sorted((tmp_path / "evidence").iterdir())
    assert len(files) == FILES_PER_ACCUSED_MAX
    read = msgspec.json.decode(files[0].read_bytes(), type=EvidenceFile)
    assert verdict(read, CLUSTER, genesis(bench.cluster), bench.vault) is None
