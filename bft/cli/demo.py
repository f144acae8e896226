"""`bft demo`: four replica processes, real data, a liar, a killed primary, and a verdict.

Everything is real: processes, TLS, signatures, stores with fsync, SIGKILL. The lying replica is an honest node behind
a strategy of `bft.adversary`; nothing in the replica itself knows of lies.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import anyio
import click
from rich.console import Console

from bft.cli.demo_faults import Director
from bft.cli.demo_load import SOURCE, Load, read_records, write_records
from bft.cli.demo_verdict import Comparison, compare, figures, judge, verdict_table
from bft.cli.demo_view import View
from bft.cli.kv import scan_pages
from bft.cli.layout import Plan, replica_folder, write_cluster
from bft.cli.ports import reserve_ports
from bft.cli.probe import Account
from bft.cli.processes import ReplicaProcess, stop_all
from bft.cli.terminal import Exit, console, example, friendly
from bft.client.client import Client, connect
from bft.config import Cluster
from bft.errors import BFTError
from bft.runtime.own_keys import USED, beside
from bft.services.kv import KeyValue

N = 4
PROTOCOL = {"request_timeout_ms": 500, "view_change_timeout_ms": 500}
SECONDS_MAX = 120.0
START_SECONDS = 20.0
SEAL_PREFIX = "~seal"


@click.command("demo", epilog=example("demo", "demo --records 100000 --concurrency 400"))
@click.option(
    "--records", type=click.IntRange(1000), default=60_000, show_default=True, help="Records to store at least."
)
@click.option("--concurrency", type=click.IntRange(1, 2000), default=200, show_default=True, help="Calls at a time.")
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo-run"),
    show_default=True,
    help="Where the run's files go; an earlier run there is replaced.",
)
@click.option(
    "--keys",
    "key_folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("keys") / "demo",
    show_default=True,
    help="Where the run's private keys go; an earlier run's are replaced.",
)
@friendly
def demo(records: int, concurrency: int, folder: Path, key_folder: Path) -> None:
    """Load real data while a replica lies and the primary is killed; then check that nothing was lost.

    Starts 4 replicas as processes and loads the names of the Unicode characters (which ship with Python) through the
    client. Meanwhile one replica is replaced by a lying one and healed again, and the primary is killed with SIGKILL,
    restarted and left to catch up. Then everything is read back and compared. Loading goes on until the faults are
    over, so more than --records may be stored. Exit code 0 only if everything held; figures go to DIR/result.json.
    """
    out = console()
    view = View(out)
    processes = [ReplicaProcess(replica_folder(folder, replica) / "replica.toml") for replica in range(N)]
    _clear(folder, key_folder, processes)
    plan = Plan(
        name="demo", n=N, base_port=reserve_ports(N), enrolment="known", protocol=PROTOCOL, key_folder=key_folder
    )
    cluster = write_cluster(folder, plan)
    data = folder / "records.tsv"
    view.say(f"{write_records(data)} records in {data}: {SOURCE}")
    load = Load(read_records(data), records)
    try:
        for process in processes:
            process.start()
        result = anyio.run(_run, cluster, processes, load, concurrency, view, key_folder / "client.pem", backend="trio")
    finally:
        stop_all(processes, 2.0)
    verdict = judge(result)
    (folder / "result.json").write_text(json.dumps({**result, "verdict": verdict}, indent=2) + "\n")
    out.print(verdict_table(result, verdict))
    _finish(out, folder, verdict)


def _finish(out: Console, folder: Path, verdict: dict[str, bool]) -> None:
    held = all(verdict.values())
    out.print("[bold green]everything held[/]" if held else "[bold red]something did not hold[/]", end="; ")
    out.print(f"figures: {folder / 'result.json'}, logs: {folder}/r*/replica.log")
    if not held:
        click.get_current_context().exit(Exit.FAILED)


def _clear(folder: Path, key_folder: Path, processes: list[ReplicaProcess]) -> None:
    """Remove an earlier run: its processes, its files, its keys.

    Raises:
        BFTError: the folder holds something that no demo has made.
    """
    if folder.exists():
        if any(folder.iterdir()) and not (folder / "cluster.toml").exists():
            raise BFTError(f"{folder}: holds files that are not of an earlier demo: choose another --dir")
        stop_all(processes, 1.0)
        shutil.rmtree(folder)
    for name in ("client", *(f"r{replica}" for replica in range(N))):
        (key_folder / f"{name}.pem").unlink(missing_ok=True)
        beside(key_folder / f"{name}.pem", USED).unlink(missing_ok=True)


async def _run(
    cluster: Cluster, processes: list[ReplicaProcess], load: Load, concurrency: int, view: View, key: Path
) -> dict[str, object]:
    began = time.monotonic()
    with anyio.move_on_after(SECONDS_MAX):
        async with connect(cluster, key=key) as client:
            await client.wait_connected(START_SECONDS)
            view.say(f"{N} replicas run on ports {cluster.replica[0].port} to {cluster.replica[-1].port}")
            director = Director(cluster, processes, load, client, view.say)
            await director.look()
            await _load(director, concurrency, view)
            comparison = await _read_back(client, load, view)
            await _settle(director, view)
            return figures(load, director, comparison, time.monotonic() - began)
    raise BFTError(f"the demo did not end within {SECONDS_MAX:g} s")


async def _load(director: Director, concurrency: int, view: View) -> None:
    load = director.load
    async with anyio.create_task_group() as watchers:
        watchers.start_soon(director.watch)
        watchers.start_soon(view.show, load, director)
        async with anyio.create_task_group() as actors:
            actors.start_soon(load.run, director.client, concurrency)
            actors.start_soon(director.disturb)
        watchers.cancel_scope.cancel()
    view.say(f"{load.done} records stored in {load.ended - load.started:.1f} s")


async def _read_back(client: Client, load: Load, view: View) -> Comparison:
    found: dict[str, str] = {}
    async for page in scan_pages(client.service(KeyValue)):
        found.update(page)
    view.say(f"{len(found)} records read back and compared")
    return compare(load.stored, found)


async def _settle(director: Director, view: View) -> None:
    """Write until a checkpoint that covers all the data is stable, and wait until all replicas stand there."""
    service = director.client.service(KeyValue)
    loaded = director.client.position
    cluster, count = director.cluster, 0
    while min(_stable(director.accounts)) <= loaded and count < 4 * cluster.protocol.checkpoint_interval:
        for _ in range(16):
            count += 1
            await service.put(SEAL_PREFIX, str(count))
        await director.look()
    deadline = time.monotonic() + START_SECONDS
    while not _stand_still(director.accounts) and time.monotonic() < deadline:
        await anyio.sleep(0.1)
        await director.look()
    view.say("all replicas stand at one checkpoint" if _stand_still(director.accounts) else "replicas differ")


def _stable(accounts: list[Account]) -> list[int]:
    return [account.number("stable") for account in accounts]


def _stand_still(accounts: list[Account]) -> bool:
    return all(account.answered for account in accounts) and all(
        len({account.number(name) for account in accounts}) == 1 for name in ("executed", "stable")
    )
