"""What a replica does with what its node reports."""

from __future__ import annotations

from pathlib import Path

from bft.events import Evidence, Rejected
from bft.ids import ReplicaId
from bft.messages import Signed
from bft.runtime.evidence import EvidenceKeeper
from bft.runtime.stats import Reporter, Stats


def test_evidence_is_kept_also_where_it_comes_with_a_refusal(tmp_path: Path) -> None:
    """A message that convicts whoever signed it is refused, counted and kept."""
    stats, keeper = Stats(), EvidenceKeeper(tmp_path, b"c" * 32)
    reporter = Reporter(ReplicaId(0), stats, keeper=keeper)
    for accused, refused in ((2, True), (3, False)):
        evidence = Evidence(accused, "invalid-checkpoint", Signed(accused, b"", bytes(64)))
        reporter.take(Rejected(1, "not-a-checkpoint", evidence) if refused else evidence, 0)
    assert stats.rejected["not-a-checkpoint"] == 1
    assert [evidence.accused for _, evidence in keeper._waiting] == [2, 3]
