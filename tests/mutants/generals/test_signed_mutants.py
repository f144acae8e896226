"""Break the signed algorithms on purpose: each mutant must be caught by a check that the real one passes.

The check fights three and four generals against everything that one traitor can send: all patterns of its own
chains, and forged, repeated, looped, replayed chains to one victim in either round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product

import pytest

from bft.generals.algorithms import SIGNED
from bft.generals.dolev_strong import DolevStrongGeneral
from bft.generals.exhaustive_signed import bits_of, senders
from bft.generals.ids import GeneralId, Order
from bft.generals.plan import Plan
from bft.generals.run import fight
from bft.generals.seam import Chain, Deliver, Effect, Fault, General, Link, Send
from bft.generals.signatures import Signer, Verifier
from bft.generals.signed import SignedGeneral, chain_fault, depth, endorse
from bft.generals.traitors import Crime, View

Make = Callable[[GeneralId, Plan, Signer, Verifier], General]


class _BelievesEverybody:
    """Verify nothing."""

    def verify(self, general: GeneralId, payload: bytes, signature: bytes, /) -> bool:
        return True


class _Tolerant(SignedGeneral):
    """Overlook some faults: `ignored` is what this mutant does not check."""

    ignored: tuple[Fault, ...] = ()

    def fault(self, chain: Chain) -> Fault | None:
        """Check the chain as if the overlooked rule did not exist."""
        found = super().fault(chain)
        if found is Fault.REPEATED_SIGNER and found in self.ignored:
            seen: list[Link] = []
            for link in chain.links:
                if link.general not in [other.general for other in seen]:
                    seen.append(link)
            return chain_fault(Chain(chain.value, tuple(seen)), self.me, len(seen), self.plan, self.verifier)
        if found is Fault.WRONG_ROUND and found in self.ignored:
            return chain_fault(chain, self.me, len(chain.links), self.plan, self.verifier)
        return found


class _AcceptsRepeatedSigners(_Tolerant):
    ignored = (Fault.REPEATED_SIGNER,)


class _AcceptsAnyLength(_Tolerant):
    ignored = (Fault.WRONG_ROUND,)


class _StopsEarly(SignedGeneral):
    """Pass on while k < m - 1 instead of k < m."""

    def passes_on(self, chain: Chain) -> bool:
        """Stop one signature too early."""
        return len(chain.links) < depth(self.plan)


class _ObeysTheFirst(SignedGeneral):
    """Obey the first order that came, instead of choice(V)."""

    def decision(self) -> Order:
        """Ignore that there may be two."""
        return self.collected[0] if self.collected else super().decision()


def _real(me: GeneralId, plan: Plan, signer: Signer, verifier: Verifier) -> General:
    return SignedGeneral(me, plan, signer, verifier)


def _unverified(me: GeneralId, plan: Plan, signer: Signer, verifier: Verifier) -> General:
    return SignedGeneral(me, plan, signer, _BelievesEverybody())


def _one_round_too_few(me: GeneralId, plan: Plan, signer: Signer, verifier: Verifier) -> General:
    return SignedGeneral(me, replace(plan, m=plan.m - 1), signer, verifier)


def _odd_chains(view: View, order: Order) -> Iterator[Chain]:
    """Yield chains that a loyal general must refuse, made with what this traitor holds."""
    plan, me = view.plan, view.me
    signer = view.coalition.signers[me]
    fake = Link(plan.commander, b"forged")
    yield Chain(order, (fake,))
    yield endorse(plan, Chain(order, (fake,)), me, signer)
    if me == plan.commander:
        once = endorse(plan, Chain(order, ()), me, signer)
        yield once
        yield endorse(plan, once, me, signer)
        yield Chain(order, (*once.links, Link(GeneralId(2), b"forged")))
    elsewhere = replace(plan, instance="another battle")
    yield endorse(elsewhere, Chain(order, (fake,)), me, signer)


def _odd_crimes(plan: Plan, victims: tuple[GeneralId, ...]) -> Iterator[Crime]:
    """Yield crimes that send one odd chain to one victim in one round, the loyal behaviour otherwise kept."""
    for victim, round_, order, place in product(victims, range(1, plan.m + 2), plan.orders, range(6)):

        def invent(
            view: View,
            victim: GeneralId = victim,
            round_: int = round_,
            order: Order = order,
            place: int = place,
        ) -> list[Send]:
            chains = list(_odd_chains(view, order))
            return [Send(victim, chains[place])] if view.round == round_ and place < len(chains) else []

        yield Crime("one odd chain", lambda send, view: (send,), invent)


def _battles(n: int) -> Iterator[tuple[Plan, Mapping[GeneralId, Crime]]]:
    """Yield everything that the check tries."""
    for order in ("attack", "retreat"):
        plan = Plan(n=n, m=1, order=order)
        for traitor in plan.generals:
            for crime in _odd_crimes(plan, plan.others(traitor, plan.commander)):
                yield plan, {traitor: crime}
    plan = Plan(n=n, m=1)
    bits = bits_of(plan, [plan.commander])
    for pattern in product((False, True), repeat=len(bits)):
        sent = [bit for bit, is_sent in zip(bits, pattern, strict=True) if is_sent]
        yield plan, senders(plan, [plan.commander], sent)


def _violations(make: Make, *, rounds_fewer: int = 0) -> int:
    algorithm = replace(SIGNED, make=make, rounds=lambda plan: depth(plan) + 1 - rounds_fewer)
    return sum(not fight(algorithm, plan, crimes).verdict.holds for plan, crimes in _battles(3))


@pytest.mark.parametrize(
    ("make", "rounds_fewer"),
    [
        (_one_round_too_few, 1),
        (_unverified, 0),
        (_AcceptsRepeatedSigners, 0),
        (_AcceptsAnyLength, 0),
        (_StopsEarly, 0),
        (_ObeysTheFirst, 0),
    ],
)
def test_mutant_of_sm_is_caught(make: Make, rounds_fewer: int) -> None:
    """Each broken rule of SM(1) lets one traitor among three violate a condition in some run.

    [LSP82 4]
    """
    assert _violations(make, rounds_fewer=rounds_fewer) > 0


def test_real_sm_passes_the_same_check() -> None:
    """The unmutated algorithm violates nothing in the same runs.

    [LSP82 4, Theorem 2]
    """
    assert _violations(_real) == 0


def test_real_dolev_strong_passes_the_same_check() -> None:
    """Dolev-Strong too.

    [DS83]
    """
    assert _violations(DolevStrongGeneral) == 0


class _KeepsOne(DolevStrongGeneral):
    """Go deaf after one order instead of two."""

    def on_deliver(self, event: Deliver, /) -> Sequence[Effect]:
        """Ignore the second order."""
        return [] if self.inner.collected else super().on_deliver(event)


def test_dolev_strong_that_keeps_one_order_is_caught() -> None:
    """One order is not enough to prove the commander a traitor.

    [DS83]
    """
    assert _violations(_KeepsOne) > 0


def test_signed_without_length_rule_splits_the_lieutenants() -> None:
    """Without the length rule 30 of the 256 patterns of a traitorous commander among three violate IC1.

    [LSP82 4]
    """
    plan = Plan(n=3, m=1)
    bits = bits_of(plan, [plan.commander])
    broken = {}
    for name, make in (("real", _real), ("mutant", _AcceptsAnyLength)):
        algorithm = replace(SIGNED, make=make)
        broken[name] = 0
        for pattern in product((False, True), repeat=len(bits)):
            sent = [bit for bit, is_sent in zip(bits, pattern, strict=True) if is_sent]
            outcome = fight(algorithm, plan, senders(plan, [plan.commander], sent))
            broken[name] += not outcome.verdict.ic1
    assert broken == {"real": 0, "mutant": 30}
