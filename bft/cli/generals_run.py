"""Fight one battle from the command line: `bft generals run`."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict, Unpack

import click
from rich.console import Console

from bft.cli import generals_sockets
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
from bft.generals import report
from bft.generals.algorithms import ALGORITHMS, ORAL, algorithm_named
from bft.generals.crimes import CRIME_NAMES, crime_named
from bft.generals.explain import decisions, explain, verdict
from bft.generals.graphs import GRAPH_NAMES, parse_graph
from bft.generals.html import battle_page
from bft.generals.ids import GeneralId, GeneralsError
from bft.generals.plan import Plan
from bft.generals.run import Outcome, fight
from bft.generals.scripts import Lie, crimes_of, parse_lie, parse_script
from bft.generals.signatures import SymbolicNotary
from bft.generals.svg_battle import sequence_picture
from bft.generals.terminal import eig_tree, round_table, sequence_chart
from bft.generals.words import Language

SCRIPT_BYTES_MAX = 1_000_000


class RunOptions(TypedDict):
    """Hold the options of `run`, as click names them."""

    algorithm: str
    n: int
    m: int
    order: str
    orders: str
    traitors: Sequence[str]
    lies: Sequence[str]
    script: Path | None
    graph: str | None
    hops: int | None
    symbolic: bool
    sockets: bool
    round_ms: int
    tree: Sequence[int]
    depth: int
    chart: bool
    story: bool
    html: Path | None
    svg: Path | None
    seed: int
    language: Language
    as_json: bool


def traitor_texts(
    traitors: Sequence[str], lies: Sequence[str], script: Path | None, plan: Plan
) -> dict[GeneralId, str | tuple[Lie, ...]]:
    """Read who betrays how: `--traitor 3=flip`, `--lie 3>1@2=retreat`, `--script FILE`."""
    found: dict[GeneralId, str | tuple[Lie, ...]] = {}
    for text in traitors:
        who, _, crime = text.partition("=")
        if not who.isdecimal() or int(who) >= plan.n:
            raise GeneralsError(
                f"traitor {text!r} is not of the form GENERAL=CRIME with a general 0..{plan.n - 1}"
            )
        crime_named(crime or "flip", plan)  # refuse nonsense now rather than in the battle
        found[GeneralId(int(who))] = crime or "flip"
    scripted = [parse_lie(text, plan) for text in lies]
    if script is not None:
        text = script.read_text(encoding="utf-8")[:SCRIPT_BYTES_MAX]
        scripted.extend(parse_script(text, plan, is_json=script.suffix == ".json"))
    for who_lies in crimes_of(scripted):
        if who_lies in found:
            raise GeneralsError(
                f"general {who_lies} has both a crime and scripted lies, expected one of them"
            )
        found[who_lies] = tuple(lie for lie in scripted if lie.who == who_lies)
    return found


@click.command(
    epilog=example(
        "run -n 4 -m 1 --traitor 3=flip",
        "run -n 3 -m 1 --traitor 2=flip --story",
        "run -a sm -n 4 --traitor 0=two-orders --lang pt --html battle.html",
        "run -n 7 -m 2 --traitor 0=split:1,2 --traitor 5=random --sockets",
        "run -n 4 --lie '3>1@2/0.2=retreat'",
        "run -a om-graph -n 8 --graph cube --traitor 5=flip",
    )
)
@click.option(
    "-a", "--algorithm", type=click.Choice([a.name for a in ALGORITHMS]), default="om", show_default=True
)
@click.option("-n", type=int, default=4, show_default=True, help="Generals, the commander (0) included.")
@click.option("-m", type=int, default=1, show_default=True, help="Traitors that the algorithm is built for.")
@click.option("--order", default="attack", show_default=True, help="What a loyal commander orders.")
@click.option(
    "--orders", default="retreat,attack", show_default=True, help="All orders; the first is the default."
)
@click.option(
    "-t", "--traitor", "traitors", multiple=True, help=f"GENERAL=CRIME; crimes: {', '.join(CRIME_NAMES)}."
)
@click.option(
    "--lie", "lies", multiple=True, help="FROM>TO@ROUND/PATH=ORDER, such as 3>1@2/0.2=retreat; - is silence."
)
@click.option(
    "--script", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Lies, TOML or JSON."
)
@click.option("--graph", help=f"Who can reach whom: {', '.join(GRAPH_NAMES)}, or edges 0-1,1-2.")
@click.option("--hops", type=int, help="Parameter of SM on a graph; n - 2 by default.")
@click.option("--symbolic", is_flag=True, help="Use symbolic signatures instead of Ed25519.")
@click.option("--sockets", is_flag=True, help="Fight between processes over TCP on localhost.")
@click.option(
    "--round-ms", type=click.IntRange(20, 60_000), default=200, show_default=True, help="With --sockets."
)
@click.option(
    "--tree", type=int, multiple=True, help="Lieutenants whose tree to draw; the first loyal one by default."
)
@click.option(
    "--depth", type=click.IntRange(1, 8), default=3, show_default=True, help="Levels of the tree drawn."
)
@click.option("--chart", is_flag=True, help="Draw the sequence chart.")
@click.option("--story", is_flag=True, help="Tell the battle in plain words.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write a page to this file.")
@svg_option
@seed_option
@language_option
@json_option
@friendly
def run(**options: Unpack[RunOptions]) -> None:
    """Fight one battle and check IC1 and IC2.

    Draws the table of rounds, a lieutenant's tree (OM), the decisions and the verdict. Exit code 0 when both
    conditions held, 1 when one was violated.
    """
    plan = _plan(options)
    outcome, late = _fight(plan, options)
    if options["svg"] is not None:
        options["svg"].write_text(sequence_picture(outcome, options["language"]), encoding="utf-8")
    if options["html"] is not None:
        page = battle_page(outcome, options["language"], options["depth"])
        options["html"].write_text(page, encoding="utf-8")
    if options["as_json"]:
        print_json({**report.outcome_data(outcome), "late": late})
    else:
        _show(outcome, options, late)
    finish(holds=outcome.verdict.holds)


def _plan(options: RunOptions) -> Plan:
    graph = None if options["graph"] is None else parse_graph(options["graph"], options["n"])
    return Plan(
        n=options["n"],
        m=options["m"],
        order=options["order"],
        orders=tuple(value.strip() for value in options["orders"].split(",")),
        graph=graph,
        hops=options["hops"],
    )


def _fight(plan: Plan, options: RunOptions) -> tuple[Outcome, int]:
    """Fight in memory or over sockets; return also how many messages came late."""
    algorithm = algorithm_named(options["algorithm"])
    seed = options["seed"]
    texts = traitor_texts(options["traitors"], options["lies"], options["script"], plan)
    if options["sockets"]:
        return generals_sockets.fight_over_sockets(
            algorithm, plan, texts, seed=seed, round_ms=options["round_ms"]
        )
    crimes = {
        who: crime_named(text, plan) if isinstance(text, str) else crimes_of(text)[who]
        for who, text in texts.items()
    }
    dice = random.Random(seed)
    is_real = algorithm.is_signed and not options["symbolic"]
    notary = Ed25519Notary.from_seed(dice.randbytes(32), plan.n) if is_real else SymbolicNotary()
    return fight(algorithm, plan, crimes, notary=notary, dice=dice), 0


def _show(outcome: Outcome, options: RunOptions, late: int) -> None:
    console, language = Console(), options["language"]
    if options["story"]:
        for section in explain(outcome, language):
            console.print(f"[bold]{section.title}[/bold]")
            for sentence in section.sentences:
                console.print(f"  {sentence}", markup=False, highlight=False)
    else:
        console.print(round_table(outcome, language))
    if options["chart"]:
        console.print(sequence_chart(outcome, language), soft_wrap=True)
    if outcome.algorithm == ORAL.name and (options["tree"] or not options["story"]):
        for me in options["tree"] or [int(general) for general in outcome.loyal_lieutenants[:1]]:
            if not 0 < me < outcome.plan.n:
                raise GeneralsError(f"lieutenant {me} has no tree, expected 1..{outcome.plan.n - 1}")
            console.print(eig_tree(outcome, GeneralId(me), language, options["depth"]))
    if not options["story"]:
        show_decisions(console, outcome, language)
    english = language == "en"
    sent, took = ("messages", "rounds") if english else ("mensagens", "rondas")
    came = f", {late} {'late' if english else 'atrasadas'}" if late else ""
    console.print(f"{outcome.messages} {sent}, {outcome.rounds} {took}{came}", highlight=False)


def show_decisions(console: Console, outcome: Outcome, language: Language) -> None:
    """Print what each loyal lieutenant concluded, and the verdict."""
    for sentence in (*decisions(outcome, language), *verdict(outcome, language)):
        style = "red" if "✗" in sentence else None
        console.print(sentence, markup=False, highlight=False, style=style)
