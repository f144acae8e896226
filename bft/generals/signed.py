"""Run SM(m), signed messages, on a complete graph or on any other [LSP82 4, 5].

    1. the commander signs his order and sends it to every lieutenant;
    2. a lieutenant who receives `v:0:j1:...:jk` with a new v remembers v, and, if k < m, signs and passes the
       chain on to every lieutenant who has not signed it;
    3. when no more messages can arrive, he obeys choice(V), V being the orders he remembers.

Solves the problem for any n with at most m traitors [LSP82 4, Theorem 2]. On a graph, chains go to neighbours
only, and SM(m + d - 1) is needed, d being the diameter of the loyal generals' subgraph [LSP82 5, Theorem 4];
`Plan.hops` sets that parameter, and n - 2 always suffices (the corollary), so that is the default on a graph.

*Length fits round*: a chain of r signatures is accepted in round r only. The paper handles this by its remark
about time-outs for "no more messages". Without the rule a commander hands a new order to one lieutenant in
the last round, too late to be passed on: `test_signed_without_length_rule_splits_the_lieutenants`.

Each signature covers the instance, the commander, the order and all links before it, so a chain cannot be cut
in the middle, re-ordered, altered, or replayed in another battle. A chain cut at its *end* is still what
those generals signed; it is stale by the rule above. The sender of a chain is not looked at: signatures
replace assumption A2.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from bft.generals.ids import GeneralId, Order
from bft.generals.plan import Plan, choice
from bft.generals.seam import (
    Chain,
    Decide,
    Deliver,
    Effect,
    Event,
    Fault,
    Link,
    Report,
    RoundEnds,
    RoundStarts,
    Send,
    dispatch,
)
from bft.generals.signatures import Signer, Verifier

DOMAIN = b"bft/generals/chain/1"
_encode = msgspec.msgpack.Encoder().encode


def depth(plan: Plan) -> int:
    """Return the parameter of SM: m on a complete graph, `hops` or n - 2 on another."""
    if plan.hops is not None:
        return plan.hops
    return plan.m if plan.graph is None else max(plan.n - 2, plan.m)


def rounds(plan: Plan) -> int:
    """Return the rounds of SM: one more than its parameter."""
    return depth(plan) + 1


def payload(plan: Plan, order: Order, before: Sequence[Link], signer: GeneralId) -> bytes:
    """Return the bytes that `signer` signs to put his name after the links before him."""
    return _encode((DOMAIN, plan.instance, plan.commander, order, tuple(before), signer))


def endorse(plan: Plan, chain: Chain, me: GeneralId, signer: Signer) -> Chain:
    """Return the chain with my signature added."""
    signature = signer.sign(payload(plan, chain.value, chain.links, me))
    return Chain(chain.value, (*chain.links, Link(me, signature)))


def chain_fault(chain: Chain, me: GeneralId, round_: int, plan: Plan, verifier: Verifier) -> Fault | None:
    """Say why a chain is refused, None when it is well formed; signatures are checked last, being the
    dearest."""
    signers = chain.signers
    if not signers or signers[0] != plan.commander:
        return Fault.NOT_THE_COMMANDER
    if len(signers) != round_:
        return Fault.WRONG_ROUND
    if me in signers:
        return Fault.OWN_SIGNATURE
    if any(not 0 <= signer < plan.n for signer in signers):
        return Fault.UNKNOWN_SIGNER
    if any(signer in signers[:place] for place, signer in enumerate(signers)):
        return Fault.REPEATED_SIGNER
    if chain.value not in plan.orders:
        return Fault.UNKNOWN_ORDER
    for place, link in enumerate(chain.links):
        signed = payload(plan, chain.value, chain.links[:place], link.general)
        if not verifier.verify(link.general, signed, link.signature):
            return Fault.BAD_SIGNATURE
    return None


class SignedGeneral:
    """Be one loyal general of SM. `collected` is the set V, in the order of arrival."""

    def __init__(self, me: GeneralId, plan: Plan, signer: Signer, verifier: Verifier) -> None:
        """Take part as `me`, with my own signer only."""
        self.me = me
        self.plan = plan
        self.signer = signer
        self.verifier = verifier
        self.round = 0
        self.collected: list[Order] = []
        self.outbox: list[Chain] = []

    def step(self, event: Event, now: int, /) -> Sequence[Effect]:
        """Take one event; time plays no part, the runner keeps the rounds."""
        return dispatch(self, event)

    def on_round_starts(self, event: RoundStarts, /) -> Sequence[Effect]:
        """Sign and send: the commander his order, a lieutenant what was new to him in the round before."""
        assert event.round == self.round + 1, f"round {event.round} starts after round {self.round}"
        self.round = event.round
        if self.round == 1 and self.me == self.plan.commander:
            self.outbox.append(Chain(self.plan.order, ()))
        chains, self.outbox = self.outbox, []

        effects: list[Effect] = []
        for chain in chains:
            signed = endorse(self.plan, chain, self.me, self.signer)
            effects.extend(
                Send(to, signed)
                for to in self.plan.others(*signed.signers)
                if self.plan.has_road(self.me, to)
            )
        return effects

    def on_deliver(self, event: Deliver, /) -> Sequence[Effect]:
        """Remember a new order that is properly signed, and keep the chain to pass it on."""
        chain = event.message
        if not isinstance(chain, Chain):
            return [Report(event.sender, Fault.WRONG_KIND)]
        fault = self.fault(chain)
        if fault is not None:
            return [Report(event.sender, fault)]

        if chain.value not in self.collected:
            self.collected.append(chain.value)
            if self.passes_on(chain):
                self.outbox.append(chain)
        return []

    def on_round_ends(self, event: RoundEnds, /) -> Sequence[Effect]:
        """Obey choice(V) after the last round."""
        assert event.round == self.round, f"round {event.round} ends within round {self.round}"
        if self.round < rounds(self.plan):
            return []
        return [Decide(self.decision())]

    def fault(self, chain: Chain) -> Fault | None:
        """Say why a chain is refused in the current round."""
        return chain_fault(chain, self.me, self.round, self.plan, self.verifier)

    def passes_on(self, chain: Chain) -> bool:
        """Say whether the chain may still grow: k < m, where k lieutenants have signed."""
        return len(chain.links) - 1 < depth(self.plan)

    def decision(self) -> Order:
        """Return the order to obey."""
        if self.me == self.plan.commander:
            return self.plan.order
        return choice(self.collected, self.plan)
