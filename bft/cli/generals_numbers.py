"""Count and bet from the command line: `bft generals cost` and `bft generals two`."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TypedDict, Unpack

import click
from rich.console import Console

from bft.cli.generals_options import (
    example,
    finish,
    friendly,
    json_option,
    language_option,
    print_json,
    seed_option,
    svg_option,
)
from bft.crypto.generals_keys import Ed25519Notary
from bft.generals import counts, report, two_generals
from bft.generals.algorithms import KING, ORAL, SIGNED, Algorithm
from bft.generals.counts import CostRow
from bft.generals.ids import GeneralsError
from bft.generals.plan import Plan
from bft.generals.run import fight
from bft.generals.signatures import Notary
from bft.generals.svg import Series, curves
from bft.generals.terminal_tables import conclusion, cost_table, paradox_table, time_table
from bft.generals.words import Language

COUNTED_MESSAGES_MAX = 4_000  # sizes up to which `cost` really fights the battle
TIMED_RUNS = 5
MESSENGERS_MAX = 64
TRIALS_MAX = 1_000_000


class CostOptions(TypedDict):
    """Hold the options of `cost`, as click names them."""

    sizes: str | None
    measure: bool
    plot: Path | None
    svg: Path | None
    language: Language
    as_json: bool


@click.command(
    epilog=example("cost", "cost --time", "cost --sizes 4/1,7/2,10/3 --plot cost.png", "cost --svg cost.svg")
)
@click.option("--sizes", help="Sizes as n/m with commas between them; a usual selection by default.")
@click.option(
    "--time", "measure", is_flag=True, help="Measure milliseconds of a loyal run in memory, best of five."
)
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Plot growth with matplotlib.")
@svg_option
@language_option
@json_option
@friendly
def cost(**options: Unpack[CostOptions]) -> None:
    """Count messages and rounds of loyal runs and compare them with the formulas.

    Exit code 0 when every count equals its formula, 1 otherwise. OM where n <= 3m is marked: it is counted,
    not safe.
    """
    sizes = counts.COST_SIZES if options["sizes"] is None else _sizes(options["sizes"])
    rows = [_count(n, m) for n, m in sizes]
    agree = all(_agrees(row) for row in rows)
    times = _times(sizes) if options["measure"] else {}
    if options["svg"] is not None:
        picture = curves("Messages of one broadcast", "n (m = ⌊(n-1)/3⌋)", "messages", _growth())
        options["svg"].write_text(picture, encoding="utf-8")
    if options["plot"] is not None:
        _plot(options["plot"], _growth())
    if options["as_json"]:
        print_json({"agree": agree, "rows": [_row_data(row, times) for row in rows]})
    else:
        console = Console()
        console.print(cost_table(rows, options["language"]))
        if times:
            console.print(time_table(times))
        same = (
            ("counted = formula", "counted ≠ formula")
            if options["language"] == "en"
            else ("contagem = fórmula", "contagem ≠ fórmula")
        )
        console.print(same[0] if agree else same[1])
    finish(holds=agree)


def _sizes(text: str) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for part in text.split(","):
        n, _, m = part.partition("/")
        if not (n.isdecimal() and m.isdecimal()):
            raise GeneralsError(f"size {part!r} is not of the form n/m, such as 7/2")
        plan = Plan(n=int(n), m=int(m))  # refuses what is out of limits
        found.append((plan.n, plan.m))
    return found


def _count(n: int, m: int) -> CostRow:
    """Fight loyal battles and count, where they are small enough."""
    plan = Plan(n=n, m=m)
    counted: list[tuple[str, int, int]] = []
    for algorithm in (ORAL, SIGNED, KING):
        if algorithm is not ORAL or counts.oral_messages(n, m) <= COUNTED_MESSAGES_MAX:
            outcome = fight(algorithm, plan)
            counted.append((algorithm.name, outcome.messages, outcome.rounds))
    return counts.cost_row(n, m, tuple(counted))


def _agrees(row: CostRow) -> bool:
    formulas = {"om": row.oral, "sm": row.signed, "king": row.king}
    return all(messages == formulas[name] for name, messages, _ in row.counted)


def _times(sizes: Sequence[tuple[int, int]]) -> dict[tuple[int, int, str], float]:
    """Measure milliseconds, keys made beforehand."""
    times: dict[tuple[int, int, str], float] = {}
    for n, m in sizes:
        plan = Plan(n=n, m=m)
        if counts.oral_messages(n, m) <= COUNTED_MESSAGES_MAX:
            times[n, m, "OM"] = _best_ms(ORAL, plan, None)
        times[n, m, "SM symbolic"] = _best_ms(SIGNED, plan, None)
        times[n, m, "SM Ed25519"] = _best_ms(SIGNED, plan, Ed25519Notary.from_seed(bytes(32), n))
        times[n, m, "King"] = _best_ms(KING, plan, None)
    return times


def _best_ms(algorithm: Algorithm, plan: Plan, notary: Notary | None) -> float:
    spent: list[float] = []
    for _ in range(TIMED_RUNS):
        started = time.perf_counter()
        fight(algorithm, plan, notary=notary)
        spent.append((time.perf_counter() - started) * 1000)
    return min(spent)


def _growth() -> list[Series]:
    """Return the curves of growth, each size with the most traitors that it survives."""
    sizes = [(n, (n - 1) // 3) for n in range(4, 17)]
    return [
        Series("OM(m)", tuple((n, counts.oral_messages(n, m)) for n, m in sizes)),
        Series("King (at most)", tuple((n, counts.king_messages(n, m)) for n, m in sizes)),
        Series("SM(m), two orders", tuple((n, counts.signed_messages(n, m, 2)) for n, m in sizes)),
        Series("SM(m), loyal", tuple((n, counts.signed_messages(n, m)) for n, m in sizes)),
        Series("PBFT slot", tuple((n, counts.pbft_messages(n)) for n, m in sizes if n == 3 * m + 1)),
    ]


def _plot(file: Path, series: Sequence[Series]) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise GeneralsError("--plot needs matplotlib: pip install 'bft[bench]', or use --svg") from error
    figure = Figure(figsize=(8, 5))
    axes = figure.subplots()
    for one in series:
        axes.plot([x for x, _ in one.points], [y for _, y in one.points], marker="o", label=one.name)
    axes.set_yscale("log")
    axes.set_xlabel("n (m = ⌊(n-1)/3⌋)")
    axes.set_ylabel("messages of one broadcast")
    axes.legend()
    try:
        figure.savefig(file)
    except ValueError as error:
        raise GeneralsError(f"--plot {file}: {error}") from error


def _row_data(row: CostRow, times: dict[tuple[int, int, str], float]) -> dict[str, object]:
    return {
        "n": row.n,
        "m": row.m,
        "om": row.oral,
        "sm": row.signed,
        "sm_two_orders": row.signed_two_orders,
        "king_at_most": row.king,
        "pbft": row.pbft,
        "counted": {name: {"messages": messages, "rounds": rounds} for name, messages, rounds in row.counted},
        "ms": {kind: round(ms, 3) for (n, m, kind), ms in times.items() if (n, m) == (row.n, row.m)},
    }


class TwoOptions(TypedDict):
    """Hold the options of `two`, as click names them."""

    messages: int
    schedule: str | None
    needs_a: int | None
    needs_b: int | None
    all_rules: bool
    loss: str
    messengers: int
    trials: int
    svg: Path | None
    seed: int
    language: Language
    as_json: bool


@click.command(
    epilog=example(
        "two",
        "two --messages 6",
        "two --schedule AAB --needs-a 0",
        "two --all-rules",
        "two --loss 0.3 --svg two.svg",
    )
)
@click.option(
    "-k", "--messages", type=click.IntRange(1, 16), default=4, show_default=True, help="Order and acks."
)
@click.option("--schedule", help="Who sends each message, such as ABAB; ABAB... by default.")
@click.option("--needs-a", type=int, help="Messages that A must get to attack; all by default.")
@click.option("--needs-b", type=int, help="Messages that B must get to attack; all by default.")
@click.option("--all-rules", is_flag=True, help="Try every pair of decision rules for this schedule.")
@click.option("--loss", default="0.2", show_default=True, help="Probability that a messenger is caught.")
@click.option("--messengers", type=click.IntRange(1, MESSENGERS_MAX), default=10, show_default=True)
@click.option(
    "--trials", type=click.IntRange(1, TRIALS_MAX), default=10_000, show_default=True, help="Of dice."
)
@svg_option
@seed_option
@language_option
@json_option
@friendly
def two(**options: Unpack[TwoOptions]) -> None:
    """Argue the paradox of the two generals: find the run in which one attacks alone.

    Also prints how the risk falls with k messengers. Exit code 0: the argument is complete, for there is
    always a flaw.
    """
    schedule = options["schedule"] or ("AB" * options["messages"])[: options["messages"]]
    protocol = two_generals.exchange(schedule, options["needs_a"], options["needs_b"])
    paradox = two_generals.find_lone_attack(protocol)
    loss = _loss(options["loss"])
    risks = _risks(loss, options)
    rules = two_generals.every_rule(schedule) if options["all_rules"] else None
    if options["svg"] is not None:
        options["svg"].write_text(_risk_picture(loss, options["messengers"]), encoding="utf-8")
    if options["as_json"]:
        data: dict[str, object] = {**report.paradox_data(paradox), "loss": str(loss), "risks": risks}
        data["rules"] = (
            None
            if rules is None
            else {"tried": rules.tried, "lone": rules.lone, "blind": rules.blind, "never": rules.never}
        )
        print_json(data)
        finish(holds=True)
    console = Console()
    console.print(paradox_table(paradox, options["language"]))
    console.print(conclusion(paradox, options["language"]), highlight=False)
    if rules is not None:
        console.print(_rules_text(rules, options["language"]), highlight=False)
    _print_risks(console, risks, loss, options["language"])
    finish(holds=True)


def _loss(text: str) -> Fraction:
    try:
        loss = Fraction(text)
    except (ValueError, ZeroDivisionError) as error:
        raise GeneralsError(f"loss {text!r} is not a number such as 0.2 or 1/5") from error
    if not 0 <= loss <= 1:
        raise GeneralsError(f"loss {text}, expected 0 to 1")
    return loss


def _rules_text(rules: two_generals.RuleCount, language: Language) -> str:
    if language == "en":
        found = (
            f"{rules.lone} attack alone in some run, {rules.blind} attack blindly, {rules.never} never attack"
        )
        return f"{rules.tried} pairs of rules: {found}; none is safe and useful."
    found = f"{rules.lone} atacam sós nalguma execução, {rules.blind} às cegas, {rules.never} nunca atacam"
    return f"{rules.tried} pares de regras: {found}; nenhum é seguro e útil."


def _risks(loss: Fraction, options: TwoOptions) -> list[dict[str, float]]:
    dice = random.Random(options["seed"])
    trials = options["trials"]
    return [
        {
            "k": k,
            "messengers": float(two_generals.alone_with_messengers(k, loss)),
            "simulated": float(two_generals.simulate_messengers(k, loss, trials, dice)),
            "acknowledgements": float(two_generals.alone_with_acknowledgements(k, loss)),
        }
        for k in range(1, options["messengers"] + 1)
    ]


def _print_risks(
    console: Console, risks: Sequence[dict[str, float]], loss: Fraction, language: Language
) -> None:
    if language == "en":
        console.print(f"P(one attacks alone), loss {float(loss):g}", highlight=False)
        console.print("k messengers ~ simulated | k messages in a chain of acknowledgements", highlight=False)
    else:
        console.print(f"P(um ataca sozinho), perda {float(loss):g}", highlight=False)
        console.print("k mensageiros ~ simulado | k mensagens numa cadeia de confirmações", highlight=False)
    for risk in risks:
        bar = "█" * round(40 * risk["messengers"])
        numbers = f"{risk['messengers']:9.2e} ~ {risk['simulated']:.4f} | {risk['acknowledgements']:.4f}"
        console.print(f"k = {int(risk['k']):>2}  {numbers}  {bar}", highlight=False)


def _risk_picture(loss: Fraction, k_max: int) -> str:
    ks = range(1, k_max + 1)
    series = [
        Series("k messengers", tuple((k, float(two_generals.alone_with_messengers(k, loss))) for k in ks)),
        Series(
            "chain of k messages",
            tuple((k, float(two_generals.alone_with_acknowledgements(k, loss))) for k in ks),
        ),
    ]
    return curves(f"Two generals, loss {float(loss):g}", "k", "P(one attacks alone)", series)
