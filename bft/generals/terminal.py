"""Draw a battle for the terminal: the table of rounds, the tree of one lieutenant, the sequence chart, the
triangle of the paper.

Returns `rich` renderables or lines of text; printing is the command line's part. Colour repeats what a sign
already says (`!` a lie, `∅` nothing sent, `×` refused), so nothing is lost without it.
"""

from __future__ import annotations

from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from bft.generals.explain import tree_of
from bft.generals.ids import GeneralId
from bft.generals.impossibility import TwinScenarios
from bft.generals.matrix import Cell, Mark, Row, cell_text, rows_of
from bft.generals.oral import Branch
from bft.generals.run import Outcome
from bft.generals.words import Language, Names, dotted

LANE = 9  # columns a general has in the sequence chart
ROWS_MAX = 60
_STYLES = {Mark.TRUE: "", Mark.LIE: "bold red", Mark.WITHHELD: "bold magenta", Mark.REFUSED: "bold yellow"}


def round_table(outcome: Outcome, language: Language) -> Table:
    """Return the grid of all messages: a row for the same words of one speaker, a column for each
    receiver."""
    names = Names(outcome.plan, language)
    titles = ("round", "from", "words") if language == "en" else ("ronda", "de", "palavras")
    table = Table(title_justify="left", header_style="bold", pad_edge=False)
    for title in titles:
        table.add_column(title, justify="right" if title == titles[0] else "left")
    for general in outcome.plan.generals:
        is_traitor = general in outcome.traitor_ids
        table.add_column(
            f"→{names.short(general)}", justify="center", header_style="red" if is_traitor else "bold"
        )
    rows = rows_of(outcome)
    for place, row in enumerate(rows[:ROWS_MAX]):
        is_last = place + 1 < len(rows) and rows[place + 1].round != row.round
        is_new = place == 0 or rows[place - 1].round != row.round
        sender = Text(names.short(row.sender), style="red" if row.sender in outcome.traitor_ids else "")
        table.add_row(
            str(row.round) if is_new else "", sender, row.label, *_cells(row, names), end_section=is_last
        )
    if len(rows) > ROWS_MAX:
        table.add_row("…", "", f"+{len(rows) - ROWS_MAX}")
    return table


def _cells(row: Row, names: Names) -> list[Text]:
    texts: list[Text] = []
    for cells in row.cells:
        text = Text("")
        for place, cell in enumerate(cells):
            text.append(" " * bool(place) + cell_text(cell, names), style=_STYLES[cell.mark])
        texts.append(text)
    return texts


def eig_tree(outcome: Outcome, me: GeneralId, language: Language, depth: int = 3) -> Tree:
    """Return the tree of one lieutenant: what he heard along each path, and what it resolves to."""
    names = Names(outcome.plan, language)
    lies = {
        flight.path: flight
        for flight in outcome.inbox(me)
        if not flight.truthful and flight.path[-1] in outcome.traitor_ids
    }
    root = tree_of(outcome, me)
    title = "the tree of" if language == "en" else "a árvore de"

    def label(branch: Branch) -> Text:
        heard = "∅→" + names.letter(branch.resolved) if branch.heard is None else names.letter(branch.heard)
        text = Text(f"{dotted(branch.path)} = ")
        text.append(
            heard + ("!" if branch.path in lies else ""), style="bold red" if branch.path in lies else "bold"
        )
        if branch.branches:
            text.append(f"   ⇒ {names.letter(branch.resolved)}", style="cyan")
        return text

    def hang(tree: Tree, branch: Branch, level: int) -> None:
        if level == depth and branch.branches:
            tree.add(Text("…", style="dim"))
            return
        for below in branch.branches:
            hang(tree.add(label(below)), below, level + 1)

    tree = Tree(Text(f"{title} {names.short(me)}", style="bold"))
    hang(tree.add(label(root)), root, 1)
    return tree


def sequence_chart(outcome: Outcome, language: Language) -> Text:
    """Return the chart: a lane for each general, time downwards, arrows labelled with the order."""
    names = Names(outcome.plan, language)
    n = outcome.plan.n
    text = Text(
        "     " + "".join(names.short(general).center(LANE) for general in outcome.plan.generals) + "\n"
    )
    shown, round_ = 0, 0
    for row in rows_of(outcome):
        if row.round != round_:
            round_ = row.round
            text.append(f"{round_:>3}  " + ("┄" * LANE * n) + "\n", style="dim")
        for cells in row.cells:
            for cell in cells:
                shown += 1
                if shown <= ROWS_MAX:
                    text.append(
                        "     " + arrow(cell, n, names) + f"  {chain_text(row, cell, names)}\n",
                        style=_STYLES[cell.mark],
                    )
    if shown > ROWS_MAX:
        text.append(f"     … +{shown - ROWS_MAX}\n", style="dim")
    return text


def chain_text(row: Row, cell: Cell, names: Names) -> str:
    """Return the words' path, for a chain with its order before it: `A:0:2:1`."""
    if not row.label.startswith(":"):
        return row.label
    return names.letter(cell.flight.message.value) + row.label


def arrow(cell: Cell, n: int, names: Names) -> str:
    """Return one line of the chart: the lanes, and an arrow from sender to receiver."""
    line = list("│".center(LANE) * n)
    middle = (LANE - 1) // 2
    start, end = (general * LANE + middle for general in (cell.flight.sender, cell.flight.receiver))
    dash = "─" if cell.flight.sent else "┄"
    step = 1 if end > start else -1
    for column in range(start + step, end, step):
        line[column] = dash
    line[start], line[end] = "●", ("▶" if step == 1 else "◀") if cell.flight.sent else "∅"
    label = cell_text(cell, names) if cell.order is not None else ""
    at = (start + end) // 2 - len(label) // 2
    line[at : at + len(label)] = label
    return "".join(line)


def triangle(outcome: Outcome, title: str, language: Language, witness: GeneralId) -> list[str]:
    """Draw a battle of three as the paper does: commander above, two lieutenants below, `witness` framed."""
    names = Names(outcome.plan, language)
    said = {(f.sender, f.receiver): f for f in outcome.flights}

    def tag(general: int) -> str:
        is_traitor = GeneralId(general) in outcome.traitor_ids
        word = ("TRAITOR" if language == "en" else "TRAIDOR") if is_traitor else ""
        name = (
            names.short(GeneralId(general))
            if general
            else ("COMMANDER" if language == "en" else "COMANDANTE")
        )
        name = f"[{name}]" if general == witness else name
        return f"{name} {word}".strip()

    def order(sender: int, receiver: int) -> str:
        flight = said.get((GeneralId(sender), GeneralId(receiver)))
        if flight is None or not flight.sent:
            return "∅"
        return names.order(flight.message.value) + ("!" if not flight.truthful else "")

    he = "he said" if language == "en" else "ele disse"
    word = order(2, 1) if witness == 1 else order(1, 2)
    left, right = ("◀──", "───") if witness == 1 else ("───", "──▶")
    width, center = 60, 30
    return [
        title.ljust(width),
        "",
        tag(0).center(width),
        (" " * (center - 5) + "╱" + " " * 8 + "╲").ljust(width),
        (f"{order(0, 1)} ╱".rjust(center - 6) + " " * 12 + f"╲ {order(0, 2)}").ljust(width),
        (" " * (center - 9) + "▼" + " " * 16 + "▼").ljust(width),
        f"{tag(1)} {left} {he} “{word}” {right} {tag(2)}".center(width),
    ]


def twin_triangles(twins: TwinScenarios, language: Language) -> str:
    """Draw the two scenarios that the witness cannot tell apart side by side, and what follows."""
    titles = ("Scenario 1", "Scenario 2") if language == "en" else ("Cenário 1", "Cenário 2")
    left = triangle(twins.first, titles[0], language, twins.witness)
    right = triangle(twins.second, titles[1], language, twins.witness)
    names = Names(twins.first.plan, language)
    heard = ", ".join(
        f"{names.short(flight.sender)}: {names.order(flight.message.value)}"
        for flight in twins.first.inbox(twins.witness)
    )
    me, order = names.short(twins.witness), names.order(twins.first.plan.order)
    other = names.short(GeneralId(3 - twins.witness))
    if language == "en":
        conclusion = [
            f"[{me}] hears the same in both ({heard}), so he must do the same in both.",
            f"In scenario 1 IC2 asks him to {order}. So he does in scenario 2 as well, where {other}, whom",
            "the commander told the opposite, must by the same argument do the opposite: IC1 is violated.",
        ]
    else:
        conclusion = [
            f"[{me}] ouve o mesmo nos dois ({heard}), logo tem de fazer o mesmo nos dois.",
            f"No cenário 1 a IC2 exige-lhe: {order}. Fá-lo também no cenário 2, onde {other}, a quem",
            "o comandante disse o contrário, tem pelo mesmo argumento de fazer o contrário: viola-se a IC1.",
        ]
    return "\n".join([f"{a}   {b}".rstrip() for a, b in zip(left, right, strict=True)] + ["", *conclusion])
