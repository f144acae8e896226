"""Directed scenarios: fixed schedules, named after the entries of the adversary catalogue that they show."""

from __future__ import annotations

from bft.sim.scenario import Scenario


def catalogue() -> dict[str, Scenario]:
    """All of them, by name."""
    return {}
