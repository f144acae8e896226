"""Draw searches, costs and the two generals for the terminal, as `rich` tables."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from bft.generals.certificates import Certificate, Method
from bft.generals.counts import CostRow, king_rounds, oral_rounds
from bft.generals.svg import short_number
from bft.generals.two_generals import Paradox
from bft.generals.words import Language

_METHODS_PT = {
    Method.EXHAUSTIVE: "exaustivo",
    Method.SAMPLED: "por amostragem",
    Method.FOUND: "contraexemplo",
}


def method_name(method: Method, language: Language) -> str:
    """Return the method in words."""
    return method.value if language == "en" else _METHODS_PT[method]


def certificate_lines(certificate: Certificate, language: Language, seconds: float) -> list[str]:
    """Say in a few lines what a search found."""
    c = certificate
    sure = method_name(c.method, language)
    if language == "en":
        return [
            f"{c.algorithm.upper()}({c.m}) with n = {c.n}: {'holds' if c.holds else 'FAILS'} ({sure})",
            f"{c.runs:,} behaviours of the traitors, {c.evaluated:,} evaluated, {seconds:.2f} s",
            f"violations: IC1 {c.ic1_violations:,}, IC2 {c.ic2_violations:,}",
        ]
    return [
        f"{c.algorithm.upper()}({c.m}) com n = {c.n}: {'resiste' if c.holds else 'FALHA'} ({sure})",
        f"{c.runs:,} comportamentos dos traidores, {c.evaluated:,} avaliados, {seconds:.2f} s",
        f"violações: IC1 {c.ic1_violations:,}, IC2 {c.ic2_violations:,}",
    ]


def boundary_table(algorithm: str, cells: Sequence[tuple[Certificate, float]], language: Language) -> Table:
    """Return the boundary: a column for each n, a row for each m."""
    ns = sorted(dict.fromkeys(certificate.n for certificate, _ in cells))
    ms = sorted(dict.fromkeys(certificate.m for certificate, _ in cells))
    found = {(certificate.n, certificate.m): certificate for certificate, _ in cells}
    table = Table(title=f"{algorithm.upper()}(m)", title_justify="left", show_lines=True)
    table.add_column("m \\ n", justify="right")
    for n in ns:
        table.add_column(str(n), justify="center")
    for m in ms:
        table.add_row(str(m), *(_boundary_cell(found[n, m]) for n in ns))
    return table


def _boundary_cell(certificate: Certificate) -> Text:
    runs = short_number(certificate.runs)
    if certificate.holds:
        sampled = certificate.method is Method.SAMPLED
        return Text(f"{'~' if sampled else '✓'}\n{runs}", style="yellow" if sampled else "green")
    violations = short_number(certificate.ic1_violations + certificate.ic2_violations)
    counted = f"{violations}/{runs}" if certificate.method is Method.EXHAUSTIVE else "1 ×"
    return Text(f"✗\n{counted}", style="red")


def boundary_legend(language: Language) -> str:
    """Explain the signs of the boundary."""
    if language == "en":
        return (
            "✓ every behaviour of up to m traitors tried, none violates IC1 or IC2 (number of behaviours)\n"
            "✗ violated: violations/behaviours if all were tried, 1 × if the search stopped at the first\n"
            "~ some sets of traitors only sampled, no violation found; proves nothing"
        )
    return (
        "✓ experimentados todos os comportamentos de até m traidores, sem violação (quantos)\n"
        "✗ violado: violações/comportamentos se experimentados todos, 1 × se a busca parou à primeira\n"
        "~ alguns conjuntos de traidores só por amostragem, sem violação; nada prova"
    )


def cost_table(rows: Sequence[CostRow], language: Language) -> Table:
    """Return messages by formula, with `=` where a run really sent so many (`≠` where not), and rounds."""
    rounds = "rounds" if language == "en" else "rondas"
    table = Table(title_justify="left")
    for title in ("n", "m", "OM", "SM", "SM, 2", "King ≤", "PBFT", f"{rounds}: OM/King"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        found = {name: messages for name, messages, _ in row.counted}

        def marked(name: str, formula: int, found: dict[str, int] = found) -> str:
            mark = "" if name not in found else "=" if found[name] == formula else "≠"
            return f"{formula} {mark}"

        table.add_row(
            str(row.n),
            str(row.m),
            marked("om", row.oral) + ("" if row.n > 3 * row.m else "✗"),
            marked("sm", row.signed),
            str(row.signed_two_orders),
            marked("king", row.king),
            "" if row.pbft is None else str(row.pbft),
            f"{oral_rounds(row.m)}/{king_rounds(row.m)}",
        )
    return table


def time_table(times: dict[tuple[int, int, str], float]) -> Table:
    """Return the milliseconds of a run in memory."""
    kinds = list(dict.fromkeys(kind for _, _, kind in times))
    table = Table(title="ms", title_justify="left")
    for title in ("n", "m", *kinds):
        table.add_column(title, justify="right", no_wrap=True)
    for n, m in dict.fromkeys((n, m) for n, m, _ in times):
        spent = [f"{times[n, m, kind]:.2f}" if (n, m, kind) in times else "" for kind in kinds]
        table.add_row(str(n), str(m), *spent)
    return table


def paradox_table(paradox: Paradox, language: Language) -> Table:
    """Return the chain of runs, from everything delivered to nothing, and who cannot tell neighbours
    apart."""
    english = language == "en"
    table = Table(title_justify="left")
    for title in ("delivered", "A", "B", "") if english else ("entregues", "A", "B", ""):
        table.add_column(title)
    attack, hold = ("attacks", "holds") if english else ("ataca", "espera")
    for place, run in enumerate(paradox.chain):
        delivered = ",".join(str(number) for number in run.delivered) or "∅"
        notes: list[str] = []
        if run.is_lone:
            notes.append("ALONE" if english else "SOZINHO")
        if place < len(paradox.unaware):
            sender = paradox.unaware[place]
            notes.append(
                f"{sender} cannot tell from the next" if english else f"{sender} não o distingue do seguinte"
            )
        style = "bold red" if run == paradox.lone else ""
        doings = (attack if does else hold for does in (run.attack_a, run.attack_b))
        table.add_row(delivered, *doings, "; ".join(notes), style=style)
    return table


def conclusion(paradox: Paradox, language: Language) -> str:
    """Say which flaw the protocol has."""
    if paradox.lone is not None:
        lone = "A" if paradox.lone.attack_a else "B"
        arrived = len(paradox.lone.delivered)
        if language == "en":
            return f"When exactly {arrived} of {len(paradox.unaware)} messages arrive, {lone} attacks alone."
        return (
            f"Quando chegam exatamente {arrived} de {len(paradox.unaware)} mensagens, {lone} ataca sozinho."
        )
    if language == "en":
        return f"Never alone, but: {paradox.flaw.value}."
    blind = "ambos atacam sem que chegue uma única mensagem"
    never = "ninguém ataca mesmo que todas as mensagens cheguem"
    return f"Nunca sozinho, mas: {blind if paradox.chain[0].attack_a else never}."
