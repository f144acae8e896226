"""Draw one battle as SVG: the sequence chart, the tree of a lieutenant, and the triangles of the paper."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from bft.generals.explain import tree_of, verdict
from bft.generals.ids import GeneralId, Order
from bft.generals.impossibility import TwinScenarios
from bft.generals.matrix import Cell, Mark, Row, cell_text, rows_of
from bft.generals.oral import Branch
from bft.generals.plan import Plan
from bft.generals.run import Flight, Outcome
from bft.generals.svg import FAINT, INK, PALETTE, PAPER, RED, Label, box, document, line
from bft.generals.words import Language, Names, dotted

ROWS_MAX = 90
LANE, ROW_HIGH, LEFT, TOP = 110, 30, 130, 112


def colour_of(order: Order, plan: Plan) -> str:
    """Return the colour of an order."""
    return PALETTE[plan.orders.index(order) % len(PALETTE)] if order in plan.orders else INK


def _pill(x: float, y: float, cell: Cell, names: Names) -> str:
    """Return the mark at a receiver: what he got."""
    text = cell_text(cell, names)
    wide = 16 + 9 * len(text)
    fill = PAPER if cell.order is None else colour_of(cell.order, names.plan)
    border = {
        Mark.TRUE: f'stroke="{fill}"',
        Mark.LIE: f'stroke="{RED}" stroke-width="3"',
        Mark.WITHHELD: f'stroke="{RED}" stroke-width="1.5" stroke-dasharray="4 3"',
        Mark.REFUSED: f'stroke="{INK}" stroke-width="2" fill-opacity="0.35"',
    }[cell.mark]
    ink = INK if cell.order is None or cell.mark is Mark.REFUSED else PAPER
    return (
        box(x - wide / 2, y - 11, wide, 22, fill, border)
        + Label(x, y + 5, text, 13, fill=ink, weight="bold").draw()
    )


def _lane(general: GeneralId) -> float:
    return LEFT + LANE * general + LANE / 2


def _row(row: Row, y: float, names: Names) -> list[str]:
    """Draw one speaker's words: a dot at the speaker, a line to all receivers, a pill at each."""
    cells = [cell for column in row.cells for cell in column]
    receivers = [_lane(cell.flight.receiver) for cell in cells]
    start = _lane(row.sender)
    dashes = 'stroke-width="1.4"'
    label = row.label
    if label.startswith(":") and len({cell.order for cell in cells}) == 1 and cells[0].order is not None:
        label = names.letter(cells[0].order) + label
    parts = [
        line(min([start, *receivers]), y, max([start, *receivers]), y, INK, dashes),
        f'<circle cx="{start:.1f}" cy="{y:.1f}" r="5" fill="{INK}"/>',
        Label(LEFT - 6, y + 4, label, 12, "end").draw(),
    ]
    for column in row.cells:
        for place, cell in enumerate(column):
            parts.append(_pill(_lane(cell.flight.receiver) + 14 * place, y, cell, names))
    return parts


def sequence_picture(outcome: Outcome, language: Language) -> str:
    """Draw the sequence chart: a lane a general, a row for the same words of one speaker, the decisions at
    the foot."""
    names = Names(outcome.plan, language)
    rows = rows_of(outcome)
    shown = rows[:ROWS_MAX]
    parts: list[str] = []
    y, round_ = float(TOP), 0
    for row in shown:
        if row.round != round_:
            round_ = row.round
            y += 14
            word = "round" if language == "en" else "ronda"
            parts.append(
                line(16, y - 12, _lane(GeneralId(outcome.plan.n)) - 40, y - 12, FAINT, 'stroke-width="0.8"')
            )
            parts.append(Label(16, y + 6, f"{word} {round_}", 13, "start", weight="bold").draw())
            y += 4
        parts += _row(row, y, names)
        y += ROW_HIGH
    if len(rows) > len(shown):
        parts.append(Label(LEFT, y, f"… +{len(rows) - len(shown)}", 13, "start").draw())
        y += ROW_HIGH
    lanes = _lanes(outcome, names, y)
    foot = [
        Label(16, y + 72 + 20 * place, text, 13, "start", weight="bold").draw()
        for place, text in enumerate(verdict(outcome, language))
    ]
    n, m = outcome.plan.n, outcome.plan.m
    title = f"{outcome.algorithm.upper()}({m}), n = {n}"
    head = Label(16, 30, title, 18, "start", weight="bold").draw()
    width = max(_lane(GeneralId(n)) + 10, 560)
    return document(width, y + 72 + 20 * len(foot) + 10, title, [head, *lanes, *parts, *foot])


def _lanes(outcome: Outcome, names: Names, bottom: float) -> list[str]:
    """Draw the generals, their lanes, and what each obeys."""
    parts: list[str] = []
    traitor = "traitor" if names.language == "en" else "traidor"
    for general in outcome.plan.generals:
        x = _lane(general)
        is_traitor = general in outcome.traitor_ids
        parts.append(line(x, TOP - 22, x, bottom, FAINT, 'stroke-width="1"'))
        parts.append(
            box(x - 40, TOP - 62, 80, 40, PAPER, f'stroke="{RED if is_traitor else INK}" stroke-width="2"')
        )
        parts.append(
            Label(x, TOP - (45 if is_traitor else 38), names.bare(general), 12, weight="bold").draw()
        )
        if is_traitor:
            parts.append(Label(x, TOP - 29, traitor, 12, fill=RED).draw())
        elif general in outcome.decisions:
            order = outcome.decisions[general]
            colour = colour_of(order, outcome.plan)
            parts.append(box(x - 40, bottom + 4, 80, 28, colour))
            parts.append(Label(x, bottom + 23, names.order(order), 13, fill=PAPER, weight="bold").draw())
    return parts


def tree_picture(outcome: Outcome, me: GeneralId, language: Language, depth: int = 3) -> str:
    """Draw the tree of one lieutenant of OM(m): what he heard (above) and what it resolves to (below)."""
    names = Names(outcome.plan, language)
    lies = [flight.path for flight in outcome.inbox(me) if not flight.truthful]
    root = tree_of(outcome, me)
    parts: list[str] = []
    wide, high = 62.0, 92.0

    def draw(branch: Branch, left: float, level: int) -> float:
        """Draw a branch from `left` on; return the width that it takes."""
        below = branch.branches if level < depth else ()
        x = left
        centres: list[float] = []
        for child in below:
            taken = draw(child, x, level + 1)
            centres.append(x + taken / 2)
            x += taken
        width = max(x - left, wide)
        centre, y = left + width / 2, 60 + high * (level - 1)
        parts[:0] = [
            line(centre, y + 14, child, y + high - 18, FAINT, 'stroke-width="1.2"') for child in centres
        ]
        order = outcome.plan.default if branch.heard is None else branch.heard
        mark = "∅" if branch.heard is None else "!" if branch.path in lies else ""
        border = f'stroke="{RED}" stroke-width="3"' if mark else f'stroke="{INK}"'
        parts.append(box(centre - 20, y - 12, 40, 24, colour_of(order, outcome.plan), border))
        text = ("∅" if mark == "∅" else "") + names.letter(order) + ("!" if mark == "!" else "")
        parts.append(Label(centre, y + 5, text, 13, fill=PAPER, weight="bold").draw())
        parts.append(Label(centre, y - 18, dotted(branch.path), 10).draw())
        if branch.branches:
            parts.append(
                Label(
                    centre + 24, y + 5, f"⇒ {names.letter(branch.resolved)}", 12, "start", weight="bold"
                ).draw()
            )
        return width

    taken = draw(root, 20, 1)
    levels = min(depth, outcome.plan.m + 1)
    title = f"{'the tree of' if language == 'en' else 'a árvore de'} {names.general(me)}"
    head = Label(14, 22, title, 14, "start", weight="bold").draw()
    return document(max(taken + 40, 260), 60 + high * levels - 30, title, [head, *parts])


def twin_picture(twins: TwinScenarios, language: Language) -> str:
    """Draw the two scenarios that one lieutenant cannot tell apart, as in figures 1 and 2 of the paper."""
    english = language == "en"
    title = (
        "Three generals cannot survive one traitor" if english else "Três generais não resistem a um traidor"
    )
    parts = [Label(20, 30, title, 18, "start", weight="bold").draw()]
    for place, outcome in enumerate((twins.first, twins.second)):
        parts += _triangle(outcome, 20 + 400 * place, place + 1, twins.witness, language)
    names = Names(twins.first.plan, language)
    me, order = names.general(twins.witness), names.order(twins.first.plan.order)
    last = (
        f"The framed {me} hears the same in both. IC2 makes him {order} in 1, hence in 2 as well."
        if english
        else f"Emoldurado, {me} ouve o mesmo nos dois. A IC2 obriga-o em 1 a: {order}; logo também em 2."
    )
    parts.append(Label(20, 352, last, 14, "start").draw())
    return document(820, 376, title, parts)


def _triangle(
    outcome: Outcome, left: float, number: int, witness: GeneralId, language: Language
) -> Sequence[str]:
    names = Names(outcome.plan, language)
    places = {0: (left + 190, 100.0), 1: (left + 60, 280.0), 2: (left + 320, 280.0)}
    scenario = "Scenario" if language == "en" else "Cenário"
    parts = [Label(left, 62, f"{scenario} {number}", 14, "start", weight="bold").draw()]
    for flight in outcome.flights:
        if flight.sender != witness and flight.receiver != 0:
            parts += _spoken(flight, places, names)
    for general, (x, y) in places.items():
        is_traitor = GeneralId(general) in outcome.traitor_ids
        border = f'stroke="{RED if is_traitor else INK}" stroke-width="2"'
        parts.append(box(x - 56, y - 22, 112, 44, "#fee2e2" if is_traitor else PAPER, border))
        if general == witness:
            frame = f'stroke="{INK}" stroke-width="2" stroke-dasharray="2 3"'
            parts.append(box(x - 63, y - 29, 126, 58, "none", frame))
        name = names.bare(GeneralId(general))
        parts.append(Label(x, y + (-2 if is_traitor else 5), name, 13, weight="bold").draw())
        if is_traitor:
            traitor = "traitor" if language == "en" else "traidor"
            parts.append(Label(x, y + 15, traitor, 12, fill=RED).draw())
    return parts


def _spoken(flight: Flight, places: Mapping[int, tuple[float, float]], names: Names) -> list[str]:
    """Draw one message of a triangle: an arrow with the words beside it; dashed when it is a lie."""
    (x1, y1), (x2, y2) = places[flight.sender], places[flight.receiver]
    start, end = (0.25, 0.72)
    x3, y3, x4, y4 = (
        x1 + (x2 - x1) * start,
        y1 + (y2 - y1) * start,
        x1 + (x2 - x1) * end,
        y1 + (y2 - y1) * end,
    )
    colour = colour_of(flight.message.value, names.plan)
    dash = "" if flight.truthful else 'stroke-dasharray="7 4"'
    length = math.hypot(x4 - x3, y4 - y3)
    along, aside = ((x4 - x3) / length, (y4 - y3) / length), ((y3 - y4) / length, (x4 - x3) / length)
    corners = [(x4 + 12 * along[0], y4 + 12 * along[1])]
    corners += [(x4 + side * aside[0], y4 + side * aside[1]) for side in (-7, 7)]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
    word = f"“{names.order(flight.message.value)}”" + ("" if flight.truthful else "!")
    said = ("he said " if names.language == "en" else "ele disse ") if flight.sender else ""
    shift = 0 if flight.sender else (-44 if flight.receiver == 1 else 44)
    above = -12 if flight.sender else 0
    label = Label((x3 + x4) / 2 + shift, (y3 + y4) / 2 + above, said + word, 13, fill=colour, weight="bold")
    return [
        line(x3, y3, x4, y4, colour, f'stroke-width="3" {dash}'),
        f'<polygon points="{points}" fill="{colour}"/>',
        label.draw(),
    ]
