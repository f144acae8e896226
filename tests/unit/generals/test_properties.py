"""Test properties over random battles."""

from __future__ import annotations

import random
from itertools import permutations

from hypothesis import given, settings
from hypothesis import strategies as st

from bft.generals import counts, exhaustive
from bft.generals.algorithms import DOLEV_STRONG, KING, ORAL, SIGNED, Algorithm
from bft.generals.certificates import Slot
from bft.generals.conditions import vector_agrees
from bft.generals.crimes import CRIME_NAMES, crime_named
from bft.generals.ids import GeneralId, Order
from bft.generals.plan import Plan
from bft.generals.run import fight, fight_for_all
from bft.generals.seam import Chain, Send
from bft.generals.signed import endorse
from bft.generals.traitors import Crime, View

G = GeneralId
quick = settings(max_examples=60, deadline=None, derandomize=True)


@st.composite
def battles(
    draw: st.DrawFn, m_max: int, n_max: int, per_traitor: int
) -> tuple[Plan, dict[GeneralId, str], int]:
    """Draw a plan with n > per_traitor * m, at most m traitors with named crimes, and a seed."""
    m = draw(st.integers(0, m_max))
    n = draw(st.integers(max(2, per_traitor * m + 1), n_max))
    orders = draw(st.sampled_from((("retreat", "attack"), ("retreat", "wait", "attack"))))
    plan = Plan(n=n, m=m, orders=orders, order=draw(st.sampled_from(orders)))
    traitors = draw(st.lists(st.integers(0, n - 1), max_size=m, unique=True))
    return plan, {G(t): draw(st.sampled_from(CRIME_NAMES)) for t in traitors}, draw(st.integers(0, 999))


@quick
@given(battles(2, 8, 3))
def test_om_and_king_hold_whenever_n_exceeds_3m(battle: tuple[Plan, dict[GeneralId, str], int]) -> None:
    """IC1 and IC2 hold for any plan with n > 3m, any traitors up to m, any named crimes.

    [LSP82 3, Theorem 1]
    """
    plan, names, seed = battle
    for algorithm in (ORAL, KING):
        crimes = {who: crime_named(name, plan) for who, name in names.items()}
        assert fight(algorithm, plan, crimes, dice=random.Random(seed)).verdict.holds


@quick
@given(battles(4, 8, 1))
def test_sm_and_dolev_strong_hold_for_any_n(battle: tuple[Plan, dict[GeneralId, str], int]) -> None:
    """IC1 and IC2 hold for any n and any traitors up to m when messages are signed.

    [LSP82 4, Theorem 2]
    """
    plan, names, seed = battle
    for algorithm in (SIGNED, DOLEV_STRONG):
        crimes = {who: crime_named(name, plan) for who, name in names.items()}
        assert fight(algorithm, plan, crimes, dice=random.Random(seed)).verdict.holds


def _random_lies(seed: int, n: int, m: int, t: int) -> tuple[exhaustive.Space, dict[Slot, Order | None]]:
    dice = random.Random(seed)
    patterns = list(exhaustive.patterns(n, t, ("retreat", "attack"), m))
    plan, members, _ = patterns[dice.randrange(len(patterns))]
    space = exhaustive.make_space(plan, members)
    return space, dict(next(exhaustive.random_lies(space, dice, 1)))


@quick
@given(st.integers(0, 10_000), st.sampled_from(((4, 1, 1), (5, 2, 2), (6, 2, 2))))
def test_renaming_lieutenants_renames_decisions(seed: int, size: tuple[int, int, int]) -> None:
    """Nothing depends on the numbers of the lieutenants.

    [LSP82 3]
    """
    space, lies = _random_lies(seed, *size)
    n = space.plan.n
    orders = list(permutations(range(1, n)))
    shuffled = orders[seed % len(orders)]
    name = {G(0): G(0), **{G(i + 1): G(new) for i, new in enumerate(shuffled)}}
    moved = {(tuple(name[g] for g in path), name[to]): said for (path, to), said in lies.items()}
    before = fight(ORAL, space.plan, exhaustive.liars(space.traitors, lies))
    after = fight(ORAL, space.plan, exhaustive.liars([name[t] for t in space.traitors], moved))
    for lieutenant in before.loyal_lieutenants:
        assert before.decisions[lieutenant] == after.decisions[name[lieutenant]]


@quick
@given(st.integers(0, 10_000), st.sampled_from(((4, 1, 1), (5, 1, 2), (5, 2, 2))))
def test_silence_is_the_same_as_saying_the_default(seed: int, size: tuple[int, int, int]) -> None:
    """Dropping a traitor's messages equals sending RETREAT.

    [LSP82 3]
    """
    space, lies = _random_lies(seed, *size)
    spoken = {slot: said or "retreat" for slot, said in lies.items()}
    silent = fight(ORAL, space.plan, exhaustive.liars(space.traitors, lies))
    aloud = fight(ORAL, space.plan, exhaustive.liars(space.traitors, spoken))
    for lieutenant in silent.loyal_lieutenants:
        assert silent.decisions[lieutenant] == aloud.decisions[lieutenant]


@quick
@given(st.integers(0, 10_000), st.sampled_from(((4, 1), (7, 1), (7, 2), (8, 2))))
def test_more_rounds_than_needed_do_no_harm_while_n_exceeds_3m(seed: int, size: tuple[int, int]) -> None:
    """OM(m') with m' above the number of traitors is still right while n > 3m'.

    [LSP82 3, Theorem 1]
    """
    space, lies = _random_lies(seed, *size, 1)
    assert fight(ORAL, space.plan, exhaustive.liars(space.traitors, lies)).verdict.holds


@quick
@given(st.integers(1, 8), st.integers(0, 3))
def test_loyal_runs_cost_what_the_formulas_say(n: int, m: int) -> None:
    """Counted messages equal the formulas for every size.

    [LSP82 7]
    """
    plan = Plan(n=n, m=m)
    assert fight(ORAL, plan).messages == counts.oral_messages(n, m)
    assert fight(SIGNED, plan).messages == counts.signed_messages(n, m)
    assert fight(SIGNED, plan) == fight(SIGNED, plan)


@quick
@given(st.sampled_from((ORAL, SIGNED, KING)), st.integers(0, 999), st.sampled_from(CRIME_NAMES))
def test_everybody_in_command_reaches_interactive_consistency(
    algorithm: Algorithm, seed: int, crime: str
) -> None:
    """The loyal get equal vectors, right in the entries of the loyal.

    [PSL80]
    """
    dice = random.Random(seed)
    plan = Plan(n=4, m=1)
    held: dict[GeneralId, Order] = {general: dice.choice(plan.orders) for general in plan.generals}
    traitor = G(dice.randrange(4))
    vectors = fight_for_all(algorithm, plan, held, {traitor: crime_named(crime, plan)}, dice=dice)
    assert vector_agrees(vectors, {general: held[general] for general in vectors})


def _hoarders(plan: Plan, traitors: list[GeneralId], dice: random.Random) -> dict[GeneralId, Crime]:
    """Send, at random, every chain that the coalition can make out of what it has seen: through loyal hands
    too."""

    def invent(view: View) -> list[Send]:
        seen = [entry.message for entry in view.coalition.board if isinstance(entry.message, Chain)]
        starts = [chain for order in plan.orders for chain in (Chain(order, ()), *seen)]
        sends: list[Send] = []
        for chain in starts:
            signers = [t for t in traitors if t not in chain.signers]
            if not chain.links and plan.commander not in traitors:
                continue
            signers.sort(key=lambda t: t != plan.commander)
            for signer in signers[: dice.randrange(len(signers) + 1)]:
                chain = endorse(plan, chain, signer, view.coalition.signers[signer])
            sends.extend(
                Send(to, chain) for to in plan.others(view.me) if chain.links and dice.randrange(3) == 0
            )
        return sends

    return {traitor: Crime("hoard", lambda send, view: (), invent) for traitor in traitors}


@quick
@given(st.integers(0, 100_000), st.sampled_from(((3, 1), (4, 1), (4, 2), (5, 2), (5, 3))))
def test_sm_survives_chains_through_loyal_hands(seed: int, size: tuple[int, int]) -> None:
    """Extending loyal generals' chains gains the traitors nothing: what the search of SM leaves out, tried by
    dice.

    [LSP82 4, Theorem 2]
    """
    n, m = size
    dice = random.Random(seed)
    plan = Plan(n=n, m=m)
    traitors = [G(i) for i in sorted(dice.sample(range(n), m))]
    for algorithm in (SIGNED, DOLEV_STRONG):
        assert fight(algorithm, plan, _hoarders(plan, traitors, dice), dice=dice).verdict.holds
