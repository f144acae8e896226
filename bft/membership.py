"""How many is enough: fault bound and quorums of a membership, written once [CL99 3; CL02 2].

Nothing else in the library computes a threshold. For n = 3f + 1 the strong quorum is 2f + 1; for every other n that
literal is unsafe (two quorums could meet in faulty replicas only), hence the general form.
"""

from __future__ import annotations

from dataclasses import dataclass

REPLICAS_MIN = 4
REPLICAS_MAX = 100


@dataclass(frozen=True, slots=True)
class Quorums:
    """Thresholds of a membership of `n` replicas.

    Attributes:
        n: number of replicas.
        f: faults tolerated, (n - 1) // 3.
        strong: any two sets of this size share at least f + 1 replicas, hence a correct one; n - f correct replicas
            suffice to form one.
        weak: f + 1; a set of this size has a correct member.
    """

    n: int
    f: int
    strong: int
    weak: int

    @classmethod
    def of(cls, n: int) -> Quorums:
        """Thresholds for `n` replicas."""
        f = (n - 1) // 3
        strong = (n + f + 2) // 2  # ceil((n + f + 1) / 2)
        quorums = cls(n, f, strong, f + 1)
        assert strong <= n - f, f"correct replicas alone must form a quorum: {quorums}"
        assert 2 * strong - n >= quorums.weak, f"two quorums must share a correct replica: {quorums}"
        return quorums

    @property
    def prepares(self) -> int:
        """PREPAREs of distinct backups that complete a prepared certificate: the PRE-PREPARE is the primary's vote."""
        return self.strong - 1

    def primary(self, view: int) -> int:
        """The replica that orders in `view` [CL99 4]."""
        return view % self.n
