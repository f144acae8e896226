"""Define what a general signs with, and a symbolic stand-in that nobody can forge by construction.

Assumption A4 of [LSP82 4]: a loyal general's signature cannot be forged, any alteration is detected, and
anyone can verify. Real Ed25519 keys behind the same two protocols live in `bft.crypto.generals_keys`; the
stand-in is for exhaustive runs, where 42 us a check would be the whole cost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from bft.generals.ids import GeneralId


class Signer(Protocol):
    """Sign as one general. Holding a signer is holding that general's key."""

    def sign(self, payload: bytes, /) -> bytes:
        """Return this general's signature of the payload."""
        ...


class Verifier(Protocol):
    """Check anybody's signature."""

    def verify(self, general: GeneralId, payload: bytes, signature: bytes, /) -> bool:
        """Say whether `general` signed exactly this payload; never raises on hostile bytes."""
        ...


class Notary(Verifier, Protocol):
    """Give out signers and check signatures: what a runner needs to set up a battle."""

    def signer(self, general: GeneralId, /) -> Signer:
        """Return the signer of one general."""
        ...


@dataclass(slots=True)
class SymbolicNotary:
    """Remember who signed what: a signature is a receipt, worth nothing but for what was really signed."""

    receipts: dict[tuple[GeneralId, bytes], bytes] = field(default_factory=dict)

    def signer(self, general: GeneralId, /) -> Signer:
        """Return the signer of one general."""
        return _SymbolicSigner(general, self.receipts)

    def verify(self, general: GeneralId, payload: bytes, signature: bytes, /) -> bool:
        """Say whether `general` really signed this payload."""
        return self.receipts.get((general, payload)) == signature


@dataclass(frozen=True, slots=True)
class _SymbolicSigner:
    general: GeneralId
    receipts: dict[tuple[GeneralId, bytes], bytes]

    def sign(self, payload: bytes, /) -> bytes:
        """Return the receipt of this general's signature, the same for the same payload."""
        return self.receipts.setdefault(
            (self.general, payload), b"%d:%d" % (self.general, len(self.receipts))
        )


def signers_of(notary: Notary, generals: Iterable[GeneralId]) -> Mapping[GeneralId, Signer]:
    """Collect the signers of a coalition."""
    return {general: notary.signer(general) for general in generals}
