"""Administrators of a simulated cluster: the operator's steps of a change of membership, until it is done.

Ask the newcomers whether they are ready, let the administrators sign, submit through a production session, and begin
again with what the cluster says now if another change came first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from bft.client.session import Completed, Flush, Lost, SessionEffect, SessionInput, Submit
from bft.config import MILLISECOND
from bft.epochs import Configuration, approved, change_bytes, system_operation
from bft.events import Deliver, Send, SetTimer, Tick
from bft.headers import Member
from bft.ids import Peer
from bft.messages import STATUS_OK, FetchEpochs, SignedRequest
from bft.sim.workload import make_session
from bft.wire.codec import Malformed, decode_packet, decode_request

if TYPE_CHECKING:
    from bft.sim.world import World

PAUSE_MS = 60
GRACE_NS = 3000 * MILLISECOND
"""How long after stabilisation a corrupt newcomer is waited for."""
ATTEMPTS = 3
"""How often a change that must be refused is tried."""
OPERATOR_INDEX = 3000
"""Keys of operators, who submit what administrators signed, are numbered from here."""


class AdminHost:
    """Brings one change about."""

    def __init__(self, world: World, index: int) -> None:
        self._world = world
        self._change = world.scenario.changes[index]
        self.client = world.vault.client_key(OPERATOR_INDEX + index)
        signer = world.vault.client_signer(self.client)
        self._session = make_session(world, self.client, signer, world.now + index)
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

    def deliver(self, source: Peer, frame: bytes) -> None:
        """A frame from a replica; hostile until decoded."""
        try:
            packet = decode_packet(frame)
        except Malformed:
            return
        self._do(Deliver(source, packet))
        self._do(Flush())

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

    def _do(self, event: SessionInput) -> None:
        for effect in self._session.step(event, self._world.now):
            self._carry_out(effect)

    def _carry_out(self, effect: SessionEffect) -> None:
        world = self._world
        match effect:
            case Send():
                if isinstance(effect.packet, SignedRequest):
                    request = decode_request(effect.packet.payload)
                    world.history.issued[self.client, request.session, request.number] = effect.packet.payload
                world.send(self.client, effect.to, effect.packet)
            case SetTimer():
                world.at(max(effect.at_ns, world.now + MILLISECOND), lambda: self._do(Tick()))
            case Completed():
                self._open = False
                self.note(effect)
            case Lost():
                self._open = False
            case _:
                pass

    def note(self, outcome: Completed) -> None:
        """Count what became of an attempt."""
        key = "change-accepted" if outcome.status == STATUS_OK else "change-refused"
        transitions = self._world.history.transitions
        transitions[key] = transitions.get(key, 0) + 1
        if outcome.status == STATUS_OK:
            epoch, last = msgspec.msgpack.decode(outcome.value)
            self._promised = epoch
            self._world.history.changes.append((epoch, last, self._asked, self._change.is_lawful))
        elif not self._change.is_lawful:
            self._attempts -= 1
            self._has_finished = self._attempts == 0

