"""`python -m benchmarks cpu`: what an operation costs the replicas' processors, by part of the library."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import click
import trio
from rich.console import Console
from rich.table import Table

from benchmarks import results
from benchmarks.case import Case
from benchmarks.cluster import NULL, running_cluster
from benchmarks.measures import WARM_UP_SECONDS, connected_clients, make_load
from benchmarks.options import file_options, repeat_option, seconds_option
from benchmarks.replica import SAMPLED
from benchmarks.sampler import OTHER, PARTS
from bft.compiled import compiled_modules

CASES = {
    "1 session": Case(callers=1),
    "200 sessions": Case(),
    "200 sessions, 1 KiB requests": Case(request_bytes=1024),
    "50 clients": Case(load="clients", callers=50),
}
NAMES = (*(part for part, _ in PARTS), OTHER)


async def measure_split(case: Case, seconds: float) -> dict[str, float]:
    """CPU microseconds per operation of all replicas together, by part; the warm-up is included."""
    with running_cluster(n=case.n, durability=case.durability, service=NULL, arguments=(SAMPLED,)) as cluster:
        async with connected_clients(cluster.config, case.callers if case.load == "clients" else 1) as clients:
            for process in cluster.processes:
                assert process is not None
                process.send_signal(signal.SIGUSR1)
            before = cluster.cpu_seconds()
            load = make_load(case, clients)
            await load.run(warm_up=WARM_UP_SECONDS, seconds=seconds)
            used = sum(cluster.cpu_seconds()) - sum(before)
        cluster.stop()
        samples = [json.loads(path.read_text()) for path in sorted(cluster.folder.glob("*.samples.json"))]
    assert len(samples) == case.n, f"{len(samples)} of {case.n} replicas wrote their samples"
    total = sum(sum(found.values()) for found in samples)
    per_op = used / load.completed * 1e6
    shares = {name: sum(found.get(name, 0) for found in samples) / total for name in NAMES}
    return {"all": per_op, **{name: per_op * share for name, share in shares.items()}}


def rows_of(name: str, runs: list[dict[str, float]]) -> list[dict[str, Any]]:
    """A row per part."""
    return [
        {"load": name, "part": part, "cpu_us_per_op": results.spread([run[part] for run in runs])} for part in runs[0]
    ]


@click.command("cpu", epilog="Example: python -m benchmarks cpu --repeat 3")
@seconds_option(5.0, minimum=0.2)
@repeat_option(5)
@file_options("cpu")
def cpu(seconds: float, repeat: int, output: Path, name: str, as_json: bool) -> None:
    """CPU time per operation, split into crypto, wire, protocol, execution and IO, by sampling four live replicas.

    The time itself is the operating system's account of the processes; samples only divide it.
    """
    if compiled_modules():
        raise click.ClickException("compiled code has no frames that a sample could see: `make pure` first")
    runs: dict[str, list[dict[str, float]]] = {load: [] for load in CASES}
    for _ in range(repeat):
        for load, case in CASES.items():
            runs[load].append(trio.run(measure_split, case, seconds))
    rows = [row for load, several in runs.items() for row in rows_of(load, several)]
    path = results.write(name, rows, output, about="CPU time of all replicas together per operation, by part.")
    if as_json:
        click.echo(json.dumps(rows))
        return
    console = Console()
    table = Table(box=None)
    for column in ("load", *runs["1 session"][0]):
        table.add_column(column, justify="left" if column == "load" else "right")
    for load in CASES:
        table.add_row(load, *(f"{row['cpu_us_per_op']['median']:,.1f}" for row in rows if row["load"] == load))
    console.print(table)
    console.print(f"written to {path}")
