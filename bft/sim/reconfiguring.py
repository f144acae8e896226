"""Administrators of a simulated cluster: the operator's steps of a change of membership, until it is done.

Ask the newcomers whether they are ready, let the administrators sign, submit through a production session, and begin
again with what the cluster says now if another change came first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from bft.client.session import Completed, Flush, Lost, Submit
from bft.config import MILLISECOND
from bft.epochs import Configuration, approved, change_bytes, system_operation
from bft.headers import Member
from bft.messages import STATUS_OK, FetchEpochs
from bft.sim.session_host import SessionHost

if TYPE_CHECKING:
    from bft.sim.world import World

PAUSE_MS = 60
GRACE_NS = 3000 * MILLISECOND
"""How long after stabilisation a corrupt newcomer is waited for."""
ATTEMPTS = 3
"""How often a change that must be refused is tried."""
OPERATOR_INDEX = 3000
"""Keys of operators, who submit what administrators signed, are numbered from here."""


class AdminHost(SessionHost):
    """Brings one change about."""

    def __init__(self, world: World, index: int) -> None:
        super().__init__(world, OPERATOR_INDEX + index, world.now + index)
        self._change = world.scenario.changes[index]
        self._ticket = 0
        self._open = False
        self._has_finished = False
        self._attempts = ATTEMPTS
        self._promised = 0
        self._asked: tuple[int, tuple[int, ...]] = (0, ())

    @property
    def is_done(self) -> bool:
        """True when the change is made, or a corrupt newcomer cannot be waited for any longer."""
        return self._has_finished or (self.unfinished is None and self._world.now > self._world.history.gst + GRACE_NS)

    @property
    def unfinished(self) -> str | None:
        """The change, if all whom it concerns are correct and it is not made: correct administrators get it through."""
        change, correct = self._change, self._world.history.correct
        if self._has_finished or not change.is_lawful or any(replica not in correct for replica in change.add):
            return None
        return f"add {list(change.add)}, remove {list(change.remove)}"

    def start(self) -> None:
        """Wait for the time."""
        self._world.at(self._world.now + self._change.at_ms * MILLISECOND, self._try)

    def _try(self) -> None:
        """Submit the change for the epoch known here, if there is something left to change."""
        if self._has_finished:
            return
        self._world.at(self._world.now + PAUSE_MS * MILLISECOND, self._try)
        for member in self._session.configuration.members:
            self._world.send(self.client, member.id, FetchEpochs(self._session.epoch))
        if self._open or self._session.epoch < self._promised:
            return
        operation = self._operation(self._session.configuration)
        if operation is not None:
            self._open = True
            self._ticket += 1
            self._do(Submit(self._ticket, operation))
            self._do(Flush())

    def _operation(self, configuration: Configuration) -> bytes | None:
        change = self._change
        present = configuration.quorums.ids
        joining = [replica for replica in change.add if replica not in present]
        leaving = [replica for replica in change.remove if replica in present]
        keys = {replica: self._world.vault.replica_key(replica) for replica in joining}
        keys |= {replica: self._world.vault.replica_key(replica, 1) for replica in change.rotate if replica in present}
        changed = [replica for replica in keys if configuration.keys.get(replica) != keys[replica]]
        if not changed and not leaving:
            newest = self._world.history.newest
            self._has_finished = newest is None or newest.epoch == configuration.epoch
            return None
        world = self._world
        words = {replica: world.replicas[replica].ready(keys[replica]) for replica in changed}
        if not all(words.values()) and not change.unready:
            return None
        ready = [word for replica in changed for word in words[replica] if not change.unready]
        members = [member for member in configuration.members if member.id not in [*leaving, *changed]]
        members += [Member(replica, keys[replica], "simulated", replica + 1) for replica in changed]
        payload = change_bytes(configuration.epoch, members)
        signatures = {key: world.vault.client_signer(key).sign(payload) for key in world.admin_keys[: change.approvals]}
        self._asked = (configuration.epoch + 1, tuple(sorted(member.id for member in members)))
        return system_operation(approved(payload, signatures, ready))

    def ended(self, effect: Completed | Lost) -> None:
        """Count what became of an attempt; the next one may begin."""
        self._open = False
        if isinstance(effect, Lost):
            return
        key = "change-accepted" if effect.status == STATUS_OK else "change-refused"
        transitions = self._world.history.transitions
        transitions[key] = transitions.get(key, 0) + 1
        if effect.status == STATUS_OK:
            epoch, last = msgspec.msgpack.decode(effect.value)
            self._promised = epoch
            self._world.history.changes.append((epoch, last, self._asked, self._change.is_lawful))
        elif not self._change.is_lawful:
            self._attempts -= 1
            self._has_finished = self._attempts == 0
