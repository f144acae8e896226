"""Search from the command line: `bft generals exhaust` and `bft generals table`."""

from __future__ import annotations

import random
import time
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
from bft.cli.generals_run import show_decisions
from bft.generals import boundary, exhaustive, exhaustive_king, exhaustive_signed, impossibility, report
from bft.generals.certificates import Certificate
from bft.generals.ids import GeneralsError
from bft.generals.svg import boundary_picture, short_number
from bft.generals.svg_battle import twin_picture
from bft.generals.terminal import eig_tree, round_table, twin_triangles
from bft.generals.terminal_tables import boundary_legend, boundary_table, certificate_lines
from bft.generals.words import Language

UNREDUCED_MAX = (5, 1)  # n and m up to which runs without any reduction end in seconds


class ExhaustOptions(TypedDict):
    """Hold the options of `exhaust`, as click names them."""

    algorithm: str
    n: int
    m: int
    traitors: int | None
    unreduced: bool
    budget: int
    samples: int
    svg: Path | None
    seed: int
    language: Language
    as_json: bool


class TableOptions(TypedDict):
    """Hold the options of `table`, as click names them."""

    algorithm: str
    n_max: int
    m_max: int
    budget: int
    samples: int
    svg: Path | None
    seed: int
    language: Language
    as_json: bool


@click.command(
    epilog=example(
        "exhaust -n 3 -m 1", "exhaust -n 4 -m 1 --unreduced", "exhaust -n 7 -m 2", "exhaust -a sm -n 3 -m 1"
    )
)
@click.option("-a", "--algorithm", type=click.Choice(["om", "sm", "king"]), default="om", show_default=True)
@click.option("-n", type=click.IntRange(1, 16), default=4, show_default=True, help="Generals.")
@click.option(
    "-m", type=click.IntRange(0, 16), default=1, show_default=True, help="Parameter of the algorithm."
)
@click.option("-t", "--traitors", type=int, help="Traitors there are; every number up to m by default.")
@click.option(
    "--unreduced", is_flag=True, help="Run the real generals through every behaviour, no reduction."
)
@click.option(
    "--budget", type=int, default=exhaustive.BUDGET, show_default=True, help="Evaluations before sampling."
)
@click.option("--samples", type=int, default=exhaustive.SAMPLES, show_default=True)
@svg_option
@seed_option
@language_option
@json_option
@friendly
def exhaust(**options: Unpack[ExhaustOptions]) -> None:
    """Try every behaviour of every set of traitors and count the violations.

    With n = 3 and m = 1 shows the counterexample as the paper draws it, and that no protocol of this shape
    can do better. Exit code 0 when none violates IC1 or IC2 (proof complete), 1 when one does.
    """
    started = time.perf_counter()
    certificate = _search(options)
    seconds = time.perf_counter() - started
    is_smallest = (options["algorithm"], options["n"], options["m"]) == ("om", 3, 1)
    twins = impossibility.twin_scenarios() if is_smallest else None
    if options["svg"] is not None:
        if twins is None:
            raise GeneralsError("--svg draws the counterexample of three generals, expected -n 3 -m 1")
        options["svg"].write_text(twin_picture(twins, options["language"]), encoding="utf-8")
    if options["as_json"]:
        print_json({**report.certificate_data(certificate), "seconds": round(seconds, 3)})
    else:
        _show(certificate, twins, options["language"], seconds)
    finish(holds=certificate.holds)


def _show(
    certificate: Certificate, twins: impossibility.TwinScenarios | None, language: Language, seconds: float
) -> None:
    """Print what was found: for three generals as the paper draws it, else the battle fought again."""
    for text in certificate_lines(certificate, language, seconds):
        click.echo(text)
    if twins is not None:
        click.echo("\n" + twin_triangles(twins, language) + "\n")
        found = impossibility.every_relay_protocol()
        click.echo(
            f"{found.tried} protocols of this shape tried, {found.surviving} survive one traitor."
            if language == "en"
            else f"{found.tried} protocolos desta forma experimentados, {found.surviving} resistem."
        )
    elif certificate.counterexample is not None:
        console = Console()
        is_signed = certificate.algorithm == "sm"
        refight = exhaustive_signed.refight if is_signed else exhaustive.refight
        outcome = refight(certificate.counterexample)
        console.print(round_table(outcome, language))
        if not is_signed:
            console.print(eig_tree(outcome, outcome.loyal_lieutenants[0], language))
        show_decisions(console, outcome, language)


def _search(options: ExhaustOptions) -> Certificate:
    """Choose the search.

    Raises:
        GeneralsError: it would take too long, or the number of traitors makes no sense.
    """
    n, m, t, algorithm = options["n"], options["m"], options["traitors"], options["algorithm"]
    sizes = None if t is None else (t,)
    if t is not None and not 0 <= t <= n:
        raise GeneralsError(f"{t} traitors, expected 0 to {n}")
    is_naive = options["unreduced"] or algorithm == "king"
    if is_naive and (n > UNREDUCED_MAX[0] or m > UNREDUCED_MAX[1]):
        raise GeneralsError(f"n = {n}, m = {m} takes too long here, expected n <= 5 and m <= 1")
    if algorithm == "king":
        if n <= 3 * m:
            raise GeneralsError(f"King needs n > 3m, found n = {n}, m = {m}")
        return exhaustive_king.verify(n, m)
    if options["unreduced"]:
        size = max(1, m) if t is None else t
        if algorithm == "sm":
            return exhaustive_signed.brute_force(n, m, max(1, size))
        return exhaustive.brute_force(n, m, size)
    if algorithm == "sm":
        return exhaustive_signed.verify(n, m, traitors=sizes)
    dice = random.Random(options["seed"])
    return exhaustive.verify(n, m, dice, traitors=sizes, budget=options["budget"], samples=options["samples"])


@click.command(
    epilog=example("table", "table -a sm", "table --n-max 5 --m-max 2 --json", "table --svg boundary.svg")
)
@click.option("-a", "--algorithm", type=click.Choice(["om", "sm"]), default="om", show_default=True)
@click.option("--n-max", type=click.IntRange(1, 12), default=7, show_default=True)
@click.option("--m-max", type=click.IntRange(1, 12), default=7, show_default=True)
@click.option(
    "--budget", type=int, default=exhaustive.BUDGET, show_default=True, help="Evaluations before sampling."
)
@click.option("--samples", type=int, default=exhaustive.SAMPLES, show_default=True)
@svg_option
@seed_option
@language_option
@json_option
@friendly
def table(**options: Unpack[TableOptions]) -> None:
    """Draw the boundary: which n survive which m, and how that was established.

    Exit code 0 when every cell is as the paper proves (OM: n > 3m; SM: always), 1 otherwise.
    """
    algorithm, language = options["algorithm"], options["language"]
    cells = _cells(options)
    as_proven = all(cell.holds == boundary.expected(algorithm, cell.n, cell.m) for cell, _ in cells)
    runs, evaluated = sum(cell.runs for cell, _ in cells), sum(cell.evaluated for cell, _ in cells)
    seconds = sum(spent for _, spent in cells)
    behaviours, counted = ("behaviours", "evaluated") if language == "en" else ("comportamentos", "avaliados")
    total = f"{short_number(runs)} {behaviours}, {evaluated:,} {counted}, {seconds:.2f} s"
    if options["svg"] is not None:
        picture = boundary_picture(f"{algorithm.upper()}(m)", [cell for cell, _ in cells], total)
        options["svg"].write_text(picture, encoding="utf-8")
    if options["as_json"]:
        data = [{**report.certificate_data(cell), "seconds": round(spent, 3)} for cell, spent in cells]
        print_json({"as_proven": as_proven, "seconds": round(seconds, 3), "cells": data})
    else:
        console = Console()
        console.print(boundary_table(algorithm, cells, language))
        console.print(boundary_legend(language), markup=False, highlight=False)
        console.print(total, highlight=False)
    finish(holds=as_proven)


def _cells(options: TableOptions) -> list[tuple[Certificate, float]]:
    """Settle all cells; return each with the seconds it took."""
    dice = random.Random(options["seed"])
    cells: list[tuple[Certificate, float]] = []
    for m in range(1, options["m_max"] + 1):
        for n in range(1, options["n_max"] + 1):
            started = time.perf_counter()
            found = boundary.cell(
                options["algorithm"], n, m, dice, budget=options["budget"], samples=options["samples"]
            )
            cells.append((found, time.perf_counter() - started))
    return cells
