"""Test the signed general: every chain that must be refused, with real and with symbolic signatures."""

from __future__ import annotations

import pytest

from bft.crypto.generals_keys import Ed25519Notary
from bft.generals.ids import GeneralId
from bft.generals.plan import Plan
from bft.generals.seam import Chain, Deliver, Fault, Link, Oral, Report, RoundStarts
from bft.generals.signatures import Notary, SymbolicNotary
from bft.generals.signed import SignedGeneral, chain_fault, depth, endorse, rounds

G = GeneralId
PLAN = Plan(n=5, m=2)


@pytest.fixture(params=["ed25519", "symbolic"])
def notary(request: pytest.FixtureRequest) -> Notary:
    """Give out keys of both kinds: the same conformance tests run on the real thing and on the stand-in."""
    return Ed25519Notary.from_seed(bytes(32), 5) if request.param == "ed25519" else SymbolicNotary()


def _chain(notary: Notary, order: str, *signers: int, plan: Plan = PLAN) -> Chain:
    chain = Chain(order, ())
    for signer in signers:
        chain = endorse(plan, chain, G(signer), notary.signer(G(signer)))
    return chain


def test_well_formed_chain_is_accepted(notary: Notary) -> None:
    """A chain of r valid signatures of different generals, the commander first, is accepted in round r.

    [LSP82 4]
    """
    for signers in ((0,), (0, 2), (0, 2, 3)):
        assert chain_fault(_chain(notary, "attack", *signers), G(1), len(signers), PLAN, notary) is None


@pytest.mark.parametrize(
    ("signers", "round_", "fault"),
    [
        ((), 0, Fault.NOT_THE_COMMANDER),
        ((2,), 1, Fault.NOT_THE_COMMANDER),
        ((0,), 2, Fault.WRONG_ROUND),
        ((0, 2), 1, Fault.WRONG_ROUND),
        ((0, 1), 2, Fault.OWN_SIGNATURE),
        ((0, 2, 2), 3, Fault.REPEATED_SIGNER),
        ((0, 0), 2, Fault.REPEATED_SIGNER),
    ],
)
def test_ill_formed_chain_is_refused(
    notary: Notary, signers: tuple[int, ...], round_: int, fault: Fault
) -> None:
    """Wrong first signer, wrong length, loops and repetitions are refused though all signatures are valid.

    [LSP82 4]
    """
    assert chain_fault(_chain(notary, "attack", *signers), G(1), round_, PLAN, notary) is fault


def test_unknown_order_and_signer_are_refused(notary: Notary) -> None:
    """Orders outside the agreed set and signers who do not exist are refused.

    [LSP82 4]
    """
    assert chain_fault(_chain(notary, "sing", 0), G(1), 1, PLAN, notary) is Fault.UNKNOWN_ORDER
    stranger = Chain("attack", (*_chain(notary, "attack", 0).links, Link(G(9), bytes(64))))
    assert chain_fault(stranger, G(1), 2, PLAN, notary) is Fault.UNKNOWN_SIGNER


def test_altered_truncated_and_reordered_chains_are_refused(notary: Notary) -> None:
    """Each signature covers the order and all links before it.

    [LSP82 4, A4]
    """
    chain = _chain(notary, "attack", 0, 2, 3)
    altered = Chain("retreat", chain.links)
    cut = Chain("attack", (chain.links[0], chain.links[2]))
    swapped = Chain("attack", (chain.links[0], chain.links[2], chain.links[1]))
    for bad in (altered, cut, swapped):
        assert chain_fault(bad, G(1), len(bad.links), PLAN, notary) is Fault.BAD_SIGNATURE


def test_forged_and_replayed_chains_are_refused(notary: Notary) -> None:
    """A signature without the key, or one given in another battle, is worthless here.

    [LSP82 4, A4]
    """
    forged = Chain("attack", (Link(G(0), bytes(64)),))
    elsewhere = Plan(n=5, m=2, instance="another battle")
    replayed = _chain(notary, "attack", 0, plan=elsewhere)
    assert chain_fault(forged, G(1), 1, PLAN, notary) is Fault.BAD_SIGNATURE
    assert chain_fault(replayed, G(1), 1, PLAN, notary) is Fault.BAD_SIGNATURE
    assert chain_fault(replayed, G(1), 1, elsewhere, notary) is None


def test_signature_of_another_general_does_not_serve(notary: Notary) -> None:
    """Putting my signature under another's name is detected.

    [LSP82 4, A4]
    """
    mine = _chain(notary, "attack", 3).links[0]
    assert (
        chain_fault(Chain("attack", (Link(G(0), mine.signature),)), G(1), 1, PLAN, notary)
        is Fault.BAD_SIGNATURE
    )


def test_signed_general_passes_each_order_on_once(notary: Notary) -> None:
    """A second chain for a known order is remembered no more and passed on no more.

    [LSP82 4, step 2]
    """
    general = SignedGeneral(G(1), PLAN, notary.signer(G(1)), notary)
    general.step(RoundStarts(1), 0)
    assert general.step(Deliver(G(0), _chain(notary, "attack", 0)), 0) == []
    assert len(general.step(RoundStarts(2), 0)) == 3
    assert general.step(Deliver(G(2), _chain(notary, "attack", 0, 2)), 0) == []
    assert general.step(RoundStarts(3), 0) == []
    assert general.collected == ["attack"]


def test_signed_general_refuses_other_kinds(notary: Notary) -> None:
    """An oral message means nothing to a signed general.

    [LSP82 4]
    """
    general = SignedGeneral(G(1), PLAN, notary.signer(G(1)), notary)
    general.step(RoundStarts(1), 0)
    assert general.step(Deliver(G(0), Oral((G(0),), "attack")), 0) == [Report(G(0), Fault.WRONG_KIND)]


def test_real_notary_holds_only_the_keys_it_was_given() -> None:
    """A general without another's key cannot get his signer.

    [LSP82 4, A4]
    """
    whole = Ed25519Notary.from_seed(bytes(32), 3)
    only = Ed25519Notary({}, {})
    with pytest.raises(KeyError):
        only.signer(G(0))
    assert not only.verify(G(0), b"x", whole.signer(G(0)).sign(b"x"))
    assert whole.verify(G(0), b"x", whole.signer(G(0)).sign(b"x"))
    assert not whole.verify(G(0), b"x", b"short")


def test_depth_is_m_or_n_minus_2_or_as_told() -> None:
    """SM's parameter is m on a complete graph, and can be set for another.

    [LSP82 5]
    """
    assert (depth(PLAN), rounds(PLAN)) == (2, 3)
    assert depth(Plan(n=5, m=2, hops=4)) == 4
