"""Keys of a battle: each process signs for the generals whose keys it holds, and everybody checks everybody."""

from __future__ import annotations

import pytest

from bft.crypto.generals_keys import Ed25519Notary, battle_seeds, public_keys
from bft.generals.ids import GeneralId

SEED = b"battle".ljust(32, b".")
ONE, TWO, NOBODY = GeneralId(1), GeneralId(2), GeneralId(9)


def test_signature_is_one_generals_under_one_payload() -> None:
    """Anything else is False, never an exception."""
    notary = Ed25519Notary.from_seed(SEED, 3)
    signature = notary.signer(ONE).sign(b"attack")
    assert notary.verify(ONE, b"attack", signature)
    assert not notary.verify(ONE, b"retreat", signature)
    assert not notary.verify(TWO, b"attack", signature)
    assert not notary.verify(NOBODY, b"attack", signature)
    for other in (b"", signature[:-1], signature + b"x", bytes(64)):
        assert not notary.verify(ONE, b"attack", other)


def test_process_signs_only_with_keys_that_it_holds() -> None:
    """A coalition has its own, and everybody's public ones."""
    seeds = battle_seeds(SEED, 3)
    traitor = Ed25519Notary({TWO: seeds[TWO]}, public_keys(seeds))
    with pytest.raises(KeyError):
        traitor.signer(ONE)
    assert Ed25519Notary.from_seed(SEED, 3).verify(TWO, b"retreat", traitor.signer(TWO).sign(b"retreat"))
    assert traitor.verify(ONE, b"attack", Ed25519Notary.from_seed(SEED, 3).signer(ONE).sign(b"attack"))


def test_keys_follow_from_the_seed_and_differ() -> None:
    """So that a run can be repeated, and no general signs for another."""
    seeds = battle_seeds(SEED, 3)
    assert seeds == battle_seeds(SEED, 3)
    assert len({*seeds.values(), *battle_seeds(bytes(32), 3).values()}) == 6
    assert set(public_keys(seeds, [ONE])) == {ONE}
