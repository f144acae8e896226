"""How many is enough: fault bound and quorums of a membership, written once [CL99 3; CL02 2].

Nothing else in the library computes a threshold. For n = 3f + 1 the strong quorum is 2f + 1; for every other n that
literal is unsafe (two quorums could meet in faulty replicas only), hence the general form.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

REPLICAS_MIN = 4
REPLICAS_MAX = 100


@dataclass(frozen=True, slots=True)
class Quorums:
    """A membership and its thresholds.

    Attributes:
        members: the replicas' ids, ascending.
        ids: the same as a set, to ask who is a member.
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
    members: tuple[int, ...] = ()
    ids: frozenset[int] = frozenset()

    @classmethod
    def of(cls, n: int) -> Quorums:
        """Thresholds for the replicas `0 .. n - 1`, the members of a first epoch."""
        return cls.among(range(n))

    @classmethod
    def among(cls, members: Iterable[int]) -> Quorums:
        """Thresholds for these replicas."""
        ascending = tuple(sorted(members))
        n = len(ascending)
        f = (n - 1) // 3
        strong = (n + f + 2) // 2  # ceil((n + f + 1) / 2)
        quorums = cls(n, f, strong, f + 1)
        assert strong <= n - f, f"correct replicas alone must form a quorum: {quorums}"
        assert 2 * strong - n >= quorums.weak, f"two quorums must share a correct replica: {quorums}"
        assert len(set(ascending)) == n, f"a replica is a member once: {ascending}"
        return replace(quorums, members=ascending, ids=frozenset(ascending))

    @property
    def prepares(self) -> int:
        """PREPAREs of distinct backups that complete a prepared certificate: the PRE-PREPARE is the primary's vote."""
        return self.strong - 1

    def primary(self, view: int) -> int:
        """The replica that orders in `view` [CL99 4]: members take turns in order of id."""
        return self.members[view % self.n]

    def __contains__(self, replica: int) -> bool:
        return replica in self.ids
