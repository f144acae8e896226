"""Corrupt a replica that serves real traffic: a node wrapper for `bft.runtime` made from a strategy expression.

The server knows nothing of this module: it takes any function that puts a node around its honest one. The corrupted
replica holds its own key and no other, so it can lie, equivocate and babble, but not sign for an honest replica.
"""

from __future__ import annotations

from random import Random

from bft.adversary.parse import parse
from bft.adversary.strategy import Coalition, Context, Corrupted
from bft.membership import Quorums
from bft.ports import Node, Signer


class Corruption:
    """Wraps the honest node of one replica in `Corrupted`.

    Attributes:
        expression: what the replica does wrong, for people: the replica's account of itself shows it.
    """

    def __init__(self, expression: str, me: int, n: int, random: Random) -> None:
        """Prepare the crimes of replica `me` of `n`.

        Raises:
            ConfigError: the expression is no strategy.
        """
        self.expression = expression
        self._strategy = parse(expression)
        self._me = me
        self._n = n
        self._random = random

    @property
    def __name__(self) -> str:
        return self.expression

    def __call__(self, honest: Node, signer: Signer) -> Node:
        """The corrupted node around `honest`."""
        coalition = Coalition(signers={self._me: signer})
        return Corrupted(honest, self._strategy, Context(self._me, Quorums.of(self._n), self._random, coalition))
