"""Write a battle, or a search, as one page that needs no other file: verdict, story, grid, chart, trees."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from bft.generals.explain import explain, verdict
from bft.generals.matrix import Cell, Mark, cell_text, rows_of
from bft.generals.run import Outcome
from bft.generals.svg_battle import colour_of, sequence_picture, tree_picture
from bft.generals.words import Language, Names

_STYLE = """
body { font: 16px/1.5 Helvetica, Arial, sans-serif; color: #1f2933; max-width: 68rem; margin: 2rem auto }
h1 { font-size: 1.6rem }
h2 { font-size: 1.15rem; margin: 1.6rem 0 .4rem }
table { border-collapse: collapse; font-size: .92rem }
th, td { border: 1px solid #d5dbe1; padding: .2rem .6rem; text-align: center }
td.words { text-align: left; font-family: monospace }
tr.new td { border-top: 2px solid #1f2933 }
.pill { color: #fff; border-radius: .3rem; padding: .05rem .45rem; font-weight: bold;
  border: 3px solid transparent }
.lie { border-color: #c81e1e }
.withheld { color: #c81e1e; border: 2px dashed #c81e1e }
.refused { opacity: .45; text-decoration: line-through }
.verdict { font-weight: bold }
.traitor { color: #c81e1e }
svg { max-width: 100%; height: auto }
summary { cursor: pointer; font-weight: bold }
"""


def page(title: str, language: Language, parts: Sequence[str]) -> str:
    """Return a whole page."""
    return (
        f'<!doctype html>\n<html lang="{language}">\n<head><meta charset="utf-8">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n<h1>{escape(title)}</h1>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def battle_page(outcome: Outcome, language: Language, depth: int = 3) -> str:
    """Return the page of one battle."""
    names = Names(outcome.plan, language)
    title = f"{outcome.algorithm.upper()}({outcome.plan.m}), n = {outcome.plan.n}"
    parts = [
        '<p class="verdict">' + "<br>".join(escape(text) for text in verdict(outcome, language)) + "</p>"
    ]
    parts.append(sequence_picture(outcome, language))
    for section in explain(outcome, language):
        items = "".join(f"<li>{escape(sentence)}</li>" for sentence in section.sentences)
        parts.append(f"<h2>{escape(section.title)}</h2><ul>{items}</ul>")
    parts.append(
        f"<h2>{'All messages' if language == 'en' else 'Todas as mensagens'}</h2>" + _grid(outcome, names)
    )
    if outcome.algorithm == "om":
        for place, me in enumerate(outcome.loyal_lieutenants):
            state = "open" if place == 0 else ""
            name = escape(names.subject(me))
            tree = tree_picture(outcome, me, language, depth)
            parts.append(f"<details {state}><summary>{name}</summary>{tree}</details>")
    return page(title, language, parts)


def _grid(outcome: Outcome, names: Names) -> str:
    heads = "".join(
        f'<th class="{"traitor" if general in outcome.traitor_ids else ""}">→{names.short(general)}</th>'
        for general in outcome.plan.generals
    )
    lines = [f"<tr><th></th><th></th><th></th>{heads}</tr>"]
    round_ = 0
    for row in rows_of(outcome):
        style = "new" if row.round != round_ else ""
        number = str(row.round) if row.round != round_ else ""
        round_ = row.round
        cells = "".join(f"<td>{' '.join(_cell(cell, names) for cell in column)}</td>" for column in row.cells)
        words = f'<td class="words">{escape(row.label)}</td>'
        lines.append(
            f'<tr class="{style}"><td>{number}</td><td>{names.short(row.sender)}</td>{words}{cells}</tr>'
        )
    return "<table>" + "\n".join(lines) + "</table>"


def _cell(cell: Cell, names: Names) -> str:
    style = {Mark.TRUE: "", Mark.LIE: "lie", Mark.WITHHELD: "withheld", Mark.REFUSED: "refused"}[cell.mark]
    colour = "" if cell.order is None else f"background:{colour_of(cell.order, names.plan)}"
    return f'<span class="pill {style}" style="{colour}">{escape(cell_text(cell, names))}</span>'
