"""Tell a battle as a story, in English or Portuguese: who said what, who lied, what each concluded and why.

Everything told is read from the chronicle; the story does not know more than the outcome. Words are in
`words`.
"""

from __future__ import annotations

from dataclasses import dataclass

from bft.generals.algorithms import algorithm_named
from bft.generals.ids import GeneralId
from bft.generals.matrix import Cell, Mark, Row, rows_of
from bft.generals.oral import Branch, grow
from bft.generals.run import Outcome
from bft.generals.seam import Chain, Courier, Oral
from bft.generals.words import Language, Names

SENTENCES_MAX = 16  # in one round; deeper rounds repeat themselves


@dataclass(frozen=True, slots=True)
class Section:
    """Hold one part of a story."""

    title: str
    sentences: tuple[str, ...]


def explain(outcome: Outcome, language: Language) -> list[Section]:
    """Tell the whole battle."""
    names = Names(outcome.plan, language)
    is_english = language == "en"
    sections = [Section("The battle" if is_english else "A batalha", tuple(_scene(outcome, names)))]
    rows = rows_of(outcome)
    for round_ in range(1, outcome.rounds + 1):
        told = [sentence for row in rows if row.round == round_ for sentence in _row(row, outcome, names)]
        left = len(told) - SENTENCES_MAX
        if left > 0:
            more = f"... and {left} more like these." if is_english else f"... e mais {left} como estas."
            told = [*told[:SENTENCES_MAX], more]
        quiet = "Nobody has anything to say." if is_english else "Ninguém tem nada a dizer."
        title = f"Round {round_}" if is_english else f"Ronda {round_}"
        sections.append(Section(title, tuple(told) or (quiet,)))
    sections.append(Section("The decisions" if is_english else "As decisões", decisions(outcome, language)))
    sections.append(
        Section("The verdict" if is_english else "O veredicto", tuple(verdict(outcome, language)))
    )
    return sections


def _scene(outcome: Outcome, names: Names) -> list[str]:
    plan = outcome.plan
    title = algorithm_named(outcome.algorithm).title.replace("(m", f"({plan.m}")
    order = names.order(plan.order)
    traitors = [names.general(general) + f" ({crime})" for general, crime in outcome.traitors]
    if names.language == "en":
        return [
            f"{plan.n} generals surround a city: commander {plan.commander} and {plan.n - 1} lieutenants.",
            f"They use {title}, made to survive {plan.m} traitor{'s' * (plan.m != 1)}.",
            f"Traitors: {', '.join(traitors)}." if traitors else "Everybody is loyal.",
            f"The commander is loyal and wants: {order}."
            if plan.commander not in outcome.traitor_ids
            else "The commander is a traitor, so there is no right order; the loyal must only agree.",
        ]
    title = _TITLES_PT.get(outcome.algorithm, title).replace("(m", f"({plan.m}")
    return [
        f"{plan.n} generais cercam uma cidade: o comandante {plan.commander} e {plan.n - 1} tenentes.",
        f"Usam {title}, feito para resistir a {plan.m} traidor{'es' * (plan.m != 1)}.",
        f"Traidores: {', '.join(traitors)}." if traitors else "Todos são leais.",
        f"O comandante é leal e quer: {order}."
        if plan.commander not in outcome.traitor_ids
        else "O comandante é um traidor, por isso não há ordem certa; os leais só têm de concordar.",
    ]


_TITLES_PT = {
    "om": "OM(m), mensagens orais",
    "sm": "SM(m), mensagens assinadas",
    "om-graph": "OM(m, p), mensagens orais num grafo",
    "dolev-strong": "Dolev-Strong, mensagens assinadas",
    "king": "King, mensagens orais, polinomial",
    "bracha": "difusão fiável de Bracha",
}


def _row(row: Row, outcome: Outcome, names: Names) -> list[str]:
    """Tell one row: receivers who got the same share a sentence."""
    groups: dict[tuple[str | None, Mark], list[Cell]] = {}
    for cells in row.cells:
        for cell in cells:
            groups.setdefault((cell.order, cell.mark), []).append(cell)
    return [_sentence(row, cells, outcome, names) for cells in groups.values()]


def _sentence(row: Row, cells: list[Cell], outcome: Outcome, names: Names) -> str:
    first = cells[0]
    receivers = [cell.flight.receiver for cell in cells]
    who, to = names.subject(row.sender), names.addressed(receivers)
    is_english = names.language == "en"
    if first.order is None:
        default = names.order(outcome.plan.default)
        if isinstance(first.flight.message, Chain):
            return f"{who} passes nothing on {to}." if is_english else f"{who} não passa nada {to}."
        if is_english:
            return f"{who} says nothing {to}; silence counts as “{default}”."
        return f"{who} nada diz {to}; o silêncio vale “{default}”."
    sentence = f"{who} {_speech(first, names, to)}."
    if first.mark is Mark.LIE:
        sentence += " A lie!" if is_english else " Mentira!"
    if first.flight.fault is not None:
        reason = names.fault(first.flight.fault)
        sentence += f" Refused: {reason}." if is_english else f" Recusado: {reason}."
    return sentence


def _speech(cell: Cell, names: Names, to: str) -> str:
    message = cell.flight.message
    assert cell.order is not None, "a withheld message has no speech"
    order = f"“{names.order(cell.order)}”"
    is_english = names.language == "en"
    if isinstance(message, Chain):
        signers = ", ".join(names.short(signer) for signer in message.signers)
        return (
            f"shows {to} {order} signed by {signers}"
            if is_english
            else f"mostra {to} {order} assinado por {signers}"
        )
    if isinstance(message, Oral | Courier) and len(message.path) > 1:
        quote = names.quote(message.path, message.value)
        if isinstance(message, Courier):
            at = names.general(message.destination)
            return f"carries {to}, for {at}: {quote}" if is_english else f"leva {to}, para {at}: {quote}"
        return f"says {to}: {quote}" if is_english else f"diz {to}: {quote}"
    if isinstance(message, Oral):
        return f"orders {to.removeprefix('to ')}: {order}" if is_english else f"ordena {to}: {order}"
    kind = type(message).__name__.lower()
    return f"sends {to} the {kind} {order}" if is_english else f"envia {to} ({kind}) {order}"


def tree_of(outcome: Outcome, me: GeneralId) -> Branch:
    """Return the tree of a lieutenant of OM(m), from what he received."""
    return grow(outcome.plan, me, outcome.heard(me))


def decisions(outcome: Outcome, language: Language) -> tuple[str, ...]:
    """Say what each loyal lieutenant concluded, and why."""
    names = Names(outcome.plan, language)
    return tuple(_decision(outcome, me, names) for me in outcome.loyal_lieutenants)


def _decision(outcome: Outcome, me: GeneralId, names: Names) -> str:
    obeyed = names.order(outcome.decisions[me]) if me in outcome.decisions else "?"
    who = names.subject(me)
    if outcome.algorithm == "om":
        return _majority(outcome, me, names, obeyed)
    if outcome.algorithm in ("sm", "dolev-strong"):
        held = outcome.collected(me)
        orders = ", ".join(f"“{names.order(order)}”" for order in held) or "∅"
        proven = len(held) > 1
        if names.language == "en":
            note = " Two signed orders prove the commander a traitor." if proven else ""
            return f"{who} holds V = {{{orders}}} and obeys “{obeyed}”.{note}"
        note = " Duas ordens assinadas provam que o comandante é traidor." if proven else ""
        return f"{who} tem V = {{{orders}}} e obedece a “{obeyed}”.{note}"
    return f"{who} obeys “{obeyed}”." if names.language == "en" else f"{who} obedece a “{obeyed}”."


def _majority(outcome: Outcome, me: GeneralId, names: Names, obeyed: str) -> str:
    root = tree_of(outcome, me)
    own = names.order(outcome.plan.default if root.heard is None else root.heard)
    is_english = names.language == "en"
    votes = [f"“{own}” {'from the commander himself' if is_english else 'do próprio comandante'}"]
    for branch in root.branches:
        through = names.general(branch.path[-1])
        order = f"“{names.order(branch.resolved)}”"
        votes.append(f"{order} through {through}" if is_english else f"{order} pel{through}")
    listed = ", ".join(votes)
    count = [names.order(branch.resolved) for branch in root.branches].count(obeyed) + (own == obeyed)
    is_strict = 2 * count > len(votes)
    if is_english:
        because = f"the majority is “{obeyed}”" if is_strict else f"no majority, so “{obeyed}”"
        return f"{names.subject(me)} heard {listed}: {because}."
    because = f"a maioria é “{obeyed}”" if is_strict else f"não há maioria, logo “{obeyed}”"
    return f"{names.subject(me)} ouviu {listed}: {because}."


def verdict(outcome: Outcome, language: Language) -> list[str]:
    """Say whether IC1 and IC2 held, and what the theorem says where they did not."""
    names = Names(outcome.plan, language)
    found, is_english = outcome.verdict, language == "en"
    same = (
        "all loyal lieutenants obey the same order"
        if is_english
        else "todos os tenentes leais obedecem à mesma ordem"
    )
    obey = "they obey the loyal commander" if is_english else "obedecem ao comandante leal"
    lines = [f"IC1 {_mark(found.ic1)} {same}", f"IC2 {_mark(found.ic2)} {obey}"]
    if not found.ic1:
        who = names.together(found.apart)
        lines[0] += f" ({who} do not)" if is_english else f" ({who} não)"
    if outcome.plan.commander in outcome.traitor_ids:
        lines[1] = "IC2 – the commander is a traitor" if is_english else "IC2 – o comandante é traidor"
    elif not found.ic2:
        who = names.together(found.disobedient)
        lines[1] += (
            f" ({who} {'does' if len(found.disobedient) == 1 else 'do'} not)"
            if is_english
            else f" ({who} não)"
        )
    traitors = len(outcome.traitors)
    if outcome.algorithm == "om" and not found.holds:
        rule = (
            f"n = {outcome.plan.n} ≤ 3·{traitors}"
            if outcome.plan.n <= 3 * traitors
            else f"m = {outcome.plan.m} < {traitors}"
        )
        lines.append(
            f"With oral messages more than 3m generals are needed; here {rule}."
            if is_english
            else f"Com mensagens orais são precisos mais de 3m generais; aqui {rule}."
        )
    return lines


def _mark(holds: bool) -> str:
    return "✓" if holds else "✗"
