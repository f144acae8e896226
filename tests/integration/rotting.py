"""A service with a bug that one replica can be given by its environment: for tests of divergence."""

from __future__ import annotations

import os

import bft


class Ledger(bft.Service):
    """Balances by name."""

    def __init__(self) -> None:
        self.balances: bft.Map[str, int] = bft.Map()
        self.deposits = 0

    @bft.command
    def deposit(self, name: str, amount: int) -> int:
        """Add to a balance, and return it; what the environment names gets one too much in the state, once."""
        total = self.balances.get(name, 0) + amount
        self.balances[name] = total
        self.deposits += 1
        if os.environ.get("LEDGER_ROT") == name:
            self.balances[name] = total + 1
            del os.environ["LEDGER_ROT"]
        return total

    @bft.query
    def balance(self, name: str) -> int:
        """What is there."""
        return self.balances.get(name, 0)
