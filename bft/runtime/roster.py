"""The epochs as a running replica knows them: the present one, the one before, and the links that lead here."""

from __future__ import annotations

from collections.abc import Sequence

from bft.config import Cluster
from bft.epochs import Configuration, follow, genesis, some_links
from bft.messages import EpochLink


class Roster:
    """Who is a member, and who was.

    Attributes:
        configuration: the present epoch.
        before: the epoch before it; None in the first.
    """

    def __init__(self, cluster: Cluster, links: Sequence[EpochLink]) -> None:
        """Begin where links of one's own store lead."""
        self.configuration = genesis(cluster)
        self.before: Configuration | None = None
        self._links: list[EpochLink] = []
        self._former: set[int] = set()
        for link in links:
            self.enter(follow(self.configuration, link), (link,))

    def enter(self, configuration: Configuration, links: Sequence[EpochLink]) -> None:
        """The node has entered an epoch along these links; several epochs may be passed at once."""
        passed = self.configuration
        for link in links:
            if link.certificate.epoch == len(self._links):
                self._links.append(link)
                self._former |= passed.quorums.ids
                self.before, passed = passed, follow(passed, link)
        assert len(self._links) == configuration.epoch, f"links lead to epoch {configuration.epoch}"
        self.configuration = configuration

    @property
    def last_link(self) -> EpochLink:
        """The one that leads to the present epoch, which is not the first."""
        return self._links[-1]

    def newcomers(self) -> list[int]:
        """Members that were none in the epoch before, or had another key."""
        before = self.before.keys if self.before is not None else self.configuration.keys
        return [member.id for member in self.configuration.members if before.get(member.id) != member.key]

    def was_member(self, replica: int) -> bool:
        """True if a replica of this id took part in an earlier epoch."""
        return replica in self._former

    def is_gone(self, replica: int) -> bool:
        """True if a replica was a member once, and was none in this epoch nor in the one before."""
        return self.was_member(replica) and replica not in self.door_keys()

    def door_keys(self) -> dict[int, bytes]:
        """Keys of those who may connect: members, and those of the epoch before who are none any more.

        The latter may not have heard of the end of their epoch yet. Safe: a connection is no vote.
        """
        before = self.before.keys if self.before is not None else {}
        return {**before, **self.configuration.keys}

    def changed_keys(self) -> dict[int, bytes]:
        """Replicas that have another key than in the epoch before, and that key."""
        before = self.before.keys if self.before is not None else {}
        return {
            member.id: member.key
            for member in self.configuration.members
            if before.get(member.id, member.key) != member.key
        }

    def links_from(self, epoch: int) -> Sequence[EpochLink]:
        """The links from an epoch on, a part at a time."""
        return some_links(self._links, epoch)
