"""What a replica has signed and lost: folded into what its store remembers, before it starts.

The core signs in the middle of a step; the driver writes the records afterwards and sends last. A process that dies in
between has signed what its store does not know. Without an agent that does not matter, since nothing left the machine.
With one, the key's guard remembers, and would refuse another vote in its place; so the replica takes it up again.
"""

from __future__ import annotations

from bft.events import Accepted, Recovered, ViewRecord
from bft.messages import NewView, PrePrepare, Signed, ViewChange
from bft.ports import Signer
from bft.signing.frames import Opened
from bft.wire.codec import decode_replica_message


def reconcile(recovered: Recovered, memory: Opened, me: int, signer: Signer) -> Recovered:
    """The store's memory, with what the agent has signed beyond it; signatures are made again, byte by byte the same.

    A VIEW-CHANGE or NEW-VIEW is resumed as if its record had been written. An own PRE-PREPARE comes back without its
    batch, which is lost: the slot stays open until the others give up on it and change the view, but nothing else is
    proposed in its place. What was said in an epoch that is over is void.
    """
    epoch = len(recovered.epochs)
    if memory.view_change:
        change = decode_replica_message(memory.view_change)
        assert isinstance(change, ViewChange), "the agent gives back what it signed"
        if change.epoch == epoch and change.view > _view(recovered):
            signed = Signed(me, memory.view_change, signer.sign(memory.view_change))
            recovered.view = ViewRecord(change.view, False, signed, None)
    if memory.new_view:
        new_view = decode_replica_message(memory.new_view)
        assert isinstance(new_view, NewView), "the agent gives back what it signed"
        is_later = new_view.view > _view(recovered)
        if new_view.epoch == epoch and (
            is_later or (new_view.view == _view(recovered) and not _is_active(recovered))
        ):
            signed = Signed(me, memory.new_view, signer.sign(memory.new_view))
            recovered.view = ViewRecord(new_view.view, True, _view_change(recovered, new_view.view), signed)
    for payload in memory.proposals:
        _add_proposal(recovered, payload, me, signer)
    return recovered


def _add_proposal(recovered: Recovered, payload: bytes, me: int, signer: Signer) -> None:
    header = decode_replica_message(payload)
    assert isinstance(header, PrePrepare), "the agent gives back what it signed"
    known = any((held.seq, held.view) == (header.seq, header.view) for held in recovered.accepted)
    is_present = header.epoch == len(recovered.epochs) and header.view == _view(recovered)
    if not known and is_present and _is_active(recovered):
        recovered.accepted.append(Accepted(header.seq, header.view, Signed(me, payload, signer.sign(payload)), b""))


def _view(recovered: Recovered) -> int:
    return recovered.view.view if recovered.view is not None else 0


def _is_active(recovered: Recovered) -> bool:
    return recovered.view is None or recovered.view.active


def _view_change(recovered: Recovered, view: int) -> Signed | None:
    """The own VIEW-CHANGE for a view, if that is what the record holds."""
    record = recovered.view
    return record.view_change if record is not None and record.view == view else None
