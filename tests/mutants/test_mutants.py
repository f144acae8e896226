"""The checkers see a broken protocol: every mutant dies in the run known to kill it, and the real code lives."""

from __future__ import annotations

from pathlib import Path

import pytest

from bft.errors import ConfigError
from bft.sim.checkers import CHECKERS
from bft.sim.mutation import Mutant, Patch, hunt, load, scratch, violated

MUTANTS = load(Path(__file__).parent / "mutants.toml")
KILLED = [mutant for mutant in MUTANTS if mutant.job]


def test_there_are_at_least_forty_mutants_and_few_survivors() -> None:
    """The 25 of the catalogue (some in several forms) and our own; survivors are known by name."""
    assert len({mutant.id for mutant in MUTANTS}) >= 40
    assert {f"M{number:02}" for number in range(1, 26)} <= {mutant.id for mutant in KILLED}
    assert len([mutant for mutant in MUTANTS if mutant.id.startswith("O")]) >= 15
    assert {mutant.id for mutant in MUTANTS if not mutant.job} <= {"O07", "O08"}


@pytest.mark.parametrize("mutant", KILLED, ids=lambda mutant: mutant.id)
def test_mutant_is_killed(mutant: Mutant) -> None:
    """By a checker named in the table."""
    kill = hunt(mutant, seconds=30, job=mutant.job)
    assert set(kill.checkers) & set(mutant.checkers), f"{mutant.title}: {kill}"


@pytest.mark.parametrize("job", sorted({mutant.job for mutant in KILLED}))
def test_the_real_code_passes_the_run_that_kills_a_mutant(job: str) -> None:
    """Nothing fires without the patch."""
    assert violated(job) == ()


def test_every_checker_kills_some_mutant() -> None:
    """A checker that never fires checks nothing."""
    firing = {checker for mutant in KILLED for checker in mutant.checkers}
    assert sorted(set(CHECKERS) - firing) == []


def test_patch_that_does_not_fit_is_an_error() -> None:
    """Code moves on: a mutant must not become the real thing silently."""
    patch = Patch(file="membership.py", old="no such text", new="")
    with pytest.raises(ConfigError, match="0 places"), scratch(Mutant(id="X", title="none", patch=(patch,))):
        pass
