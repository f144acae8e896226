"""`python -m benchmarks virtual`: curves over n and over load in virtual time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.progress import Progress

from benchmarks import results
from benchmarks.options import file_options
from benchmarks.statistics import show_spread
from benchmarks.virtual.costs import CALIBRATION, Costs, load_costs
from benchmarks.virtual.world import VirtualCase, run_case

SIZES_OF_N = (4, 7, 10, 13, 19, 31, 49, 64, 100)
ABOUT = {
    "lan": "Virtual time, local network (50 us, 10 Gbit/s), every node on a machine of its own with one core.",
    "wan": "Virtual time, five regions (up to 110 ms one way, 1 Gbit/s), the client beside the primary.",
}

FAR = {"request_timeout_ms": 3000, "slow_floor_ms": 1000}
"""As an operator would: patience of several round trips between regions."""


def curve(network: str, n_max: int) -> list[VirtualCase]:
    """Cases over n: a lone caller, 200 sessions of one client, and up to n = 31 200 clients of their own."""
    cases = []
    for n in SIZES_OF_N:
        if n > n_max:
            continue
        # Fewer slots where each takes n x n messages: the figures do not change with the length of a run.
        measured = (1000 if n <= 13 else 400 if n <= 49 else 200) if network == "lan" else (3000 if n <= 49 else 1500)
        times = {"warm_up_ms": 100 if network == "lan" else 1000, "measured_ms": measured}
        for callers, clients in ((1, 1), (200, 1), (200, 200)):
            if clients > 1 and n > 31:
                continue  # hours of real time
            case = {"network": network, "n": n, "callers": callers, "clients": clients, **times}
            if network == "wan":
                case["protocol"] = FAR
            cases.append(msgspec.convert(case, VirtualCase))
    return cases


def row(case: VirtualCase, costs: Costs) -> dict[str, Any]:
    """A row of a result file; exact, so its spreads have no width."""
    load = f"{case.callers} sessions" if case.clients == 1 else f"{case.clients} clients"
    figures = {name: results.spread([value]) for name, value in run_case(case, costs).items()}
    columns = {"network": case.network, "n": case.n, "durability": case.durability, "load": load}
    return {**columns, "bytes": f"{case.request_bytes}/{case.reply_bytes}", **figures}


@click.command("virtual", epilog="Example: python -m benchmarks virtual lan --n-max 13")
@click.argument("network", type=click.Choice(["lan", "wan"]))
@click.option("--n-max", type=click.IntRange(4, 100), default=100, show_default=True, help="Largest cluster.")
@click.option("--costs", type=click.Path(path_type=Path, dir_okay=False), default=CALIBRATION, show_default=True)
@file_options(None, text="Name of the result file; virtual_NETWORK by default.")
def virtual(network: str, n_max: int, costs: Path, output: Path, name: str | None, as_json: bool) -> None:
    """The cost of an operation over the number of replicas, in virtual time: equal to the digit on every machine.

    The production code runs under a cost model of one processor. Up to n = 100 this takes some minutes.
    """
    try:
        model = load_costs(costs)
    except (OSError, ValueError, KeyError, msgspec.ValidationError) as error:
        raise click.ClickException(f"{costs}: {error}") from error
    console = Console(stderr=as_json)
    cases = curve(network, n_max)
    rows = []
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        for case in progress.track(cases, description=network):
            rows.append(row(case, model))
    more: dict[str, object] = {"exact": True, "about": ABOUT[network], "costs": msgspec.structs.asdict(model)}
    path = results.write(name or f"virtual_{network}", rows, output, **more)
    if as_json:
        click.echo(json.dumps(rows))
        return
    for found in rows:
        figures = [show_spread(found[key]["median"]) for key in ("op_s", "p50_ms", "frames_per_op", "cpu_us_per_op")]
        console.print(f"n={found['n']:<4} {found['load']:14} " + "  ".join(f"{float(text):12,.2f}" for text in figures))
    console.print(f"written to {path}")
