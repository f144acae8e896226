"""How a session follows the cluster from epoch to epoch, beginning with the replicas of the cluster file.

PURE. A replica that answers in a later epoch is asked for the links that lead there (`bft.epochs`). The members before
it certified each, and administrators signed it, so it does not matter who sends them. One that says so and sends
nothing is only asked again when the pause is over.
"""

from __future__ import annotations

from collections.abc import Sequence

from bft.epochs import ChainError, Configuration, verify_chain
from bft.ids import Nanos
from bft.messages import EpochLink
from bft.ports import KeyVerifier


class Chain:
    """The newest epoch that is proven.

    Attributes:
        configuration: its members.
    """

    __slots__ = ("_asked", "_verifier", "configuration")

    def __init__(self, configuration: Configuration, verifier: KeyVerifier) -> None:
        """Begin at an epoch that is trusted: genesis, or one proven and kept before."""
        self.configuration = configuration
        self._verifier = verifier
        self._asked: dict[int, Nanos] = {}

    def should_ask(self, replica: int, now: Nanos, pause: Nanos) -> bool:
        """True if a replica may be asked for links now; remembers that it was.

        Never where there are no administrators: there is one epoch then.
        """
        if not self.configuration.admins or now - self._asked.get(replica, -(1 << 62)) < pause:
            return False
        self._asked[replica] = now
        return True

    def learn(self, links: Sequence[EpochLink]) -> bool:
        """Go on along links that may begin at an earlier epoch; True if they led to a later one.

        Links already known are skipped by their certificate's epoch, a number that proves nothing: what is left must
        hold from the present epoch on.
        """
        ahead = [link for link in links if link.certificate.epoch >= self.configuration.epoch]
        if not ahead:
            return False
        try:
            self.configuration = verify_chain(self.configuration, ahead, self._verifier)
        except ChainError:
            return False
        self._asked = {}
        return True
