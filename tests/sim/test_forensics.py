"""Beyond f: f + 1 colluders fork the system, and forensics names them and nobody else [Sheng et al., CCS 2021]."""

from __future__ import annotations

import pytest

from bft.core.evidence import file_of
from bft.core.forensics import conflicts, culprits
from bft.core.verdict import verdict
from bft.errors import EvidenceError
from bft.sim.checkers import check
from bft.sim.history import History
from bft.sim.scenario import Network, Rule, Scenario, Workload
from bft.sim.service import Registers
from bft.sim.world import World

PROTOCOL = {
    "request_timeout_ms": 100,
    "view_change_timeout_ms": 100,
    "status_interval_ms": 30,
    "checkpoint_interval": 64,
    "window": 128,
}
ORDERING = ("PrePrepare", "Prepare", "Commit", "CommitCertificate")
SIZES = (4, 7)


def _groups(n: int) -> tuple[list[int], tuple[int, ...], tuple[int, ...]]:
    """(colluders, one half of the others, the other half); one more colluder than the cluster tolerates."""
    colluders = list(range((n - 1) // 3 + 1))
    others = range(len(colluders), n)
    half = len(colluders) + len(others) // 2
    return colluders, tuple(others[: half - len(colluders)]), tuple(others[half - len(colluders) :])


def _scenario(n: int, corrupted: dict[str, str], *rules: Rule) -> Scenario:
    workload = Workload(clients=2, operations=40, outstanding=1, keys=1, query_permille=0)
    return Scenario(
        seed=1,
        n=n,
        network=Network(delay_us=(100, 500)),
        rules=rules,
        corrupted=corrupted,
        gst_ms=900,
        patience_ms=1000,
        workload=workload,
        protocol=PROTOCOL,
    )


def forked_in_one_view(n: int) -> Scenario:
    """The primary shows each half a batch of its own; its colleagues vote for both."""
    colluders, one, other = _groups(n)
    corrupted = {str(replica): "support()" for replica in colluders}
    return _scenario(n, {**corrupted, "0": f"split({one}, {other}) & support()"})


def forked_across_views(n: int) -> Scenario:
    """Half of the others decide in view 0 what view 1 begins without: the colluders hide what they voted for."""
    colluders, knows, blind = _groups(n)
    lie = "support() & hide_prepared() & least_new_view() & contradict_new_view()"
    lie += ' & puppet((15, "suspect", 0, 0, 0, ()))'
    return _scenario(
        n,
        {str(replica): lie for replica in colluders},
        Rule(kinds=ORDERING, view=0, targets=blind),
        Rule(kinds=("ViewChange",), view=1, sources=knows, targets=(1,), late_ms=60),
    )


def _run(scenario: Scenario) -> tuple[World, History]:
    world = World(scenario, Registers)
    return world, world.run()


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("fork", [forked_in_one_view, forked_across_views])
def test_forensics_names_the_colluders_and_nobody_else(fork, n: int) -> None:
    """Every culprit is corrupted, there are f + 1 at least, and each piece of evidence convinces a judge."""
    world, history = _run(fork(n))
    verifier = world.vault.verifier(n)
    forks = conflicts(committed.certificate for _, committed in history.committed)
    assert forks, "the system was to fork"
    views = {(first.view, second.view) for first, second in forks}
    assert (views == {(0, 0)}) == (fork is forked_in_one_view), views
    for first, second in forks:
        found = culprits(first, second, history.new_views, world.cluster, verifier)
        assert [evidence.accused for evidence in found] == list(range(world.quorums.weak))
        for evidence in found:
            assert verdict(file_of(evidence, world.cluster.id), world.cluster, verifier) is None
    assert not {accused.accused for _, accused in history.accusations} & set(history.correct)
    assert "agreement" in {violation.checker for violation in check(history)}


def test_forensics_says_when_the_new_views_do_not_suffice() -> None:
    """Without the NEW-VIEW that forgot the batch nothing can be held against anybody."""
    world, history = _run(forked_across_views(4))
    (first, second), *_ = conflicts(committed.certificate for _, committed in history.committed)
    with pytest.raises(EvidenceError, match=r"the 0 valid NEW-VIEWs .* convict 0 replicas, not 2"):
        culprits(first, second, [], world.cluster, world.vault.verifier(4))


def test_no_replica_accuses_a_correct_one_even_beyond_f() -> None:
    """The kinds that rest on nobody else's honesty stay sound whatever the majority does."""
    for seed in range(4):
        for n in SIZES:
            scenario = forked_across_views(n) if seed % 2 else forked_in_one_view(n)
            _, history = _run(scenario)
            assert {"no-false-accusation", "evidence-convinces", "no-contradiction"}.isdisjoint(
                violation.checker for violation in check(history)
            )
