"""`bft cluster init | up | status | down`: a cluster of local processes, and the state of any cluster.

Changes of membership are in `bft.cli.members` and `bft.cli.rekey`.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import anyio
import click

from bft.cli import members, rekey
from bft.cli.layout import CLUSTER_FILE, DEFAULT_SERVICE, Plan, replica_configs, write_cluster
from bft.cli.probe import Account, probe_all, probe_identity
from bft.cli.processes import ReplicaProcess, stop_all
from bft.cli.standing import discover, local_member
from bft.cli.status import alarms, fitted, render, render_service, summary
from bft.cli.terminal import (
    Exit,
    Seconds,
    cluster_option,
    console,
    default_key,
    directory_option,
    example,
    friendly,
    json_option,
    key_option,
    passphrase_from_environment,
    print_json,
)
from bft.config import Cluster, Durability, Protocol, load_cluster, load_local
from bft.epochs import Configuration
from bft.errors import BFTError, ConfigError
from bft.headers import ADMINS_BOUND, Member
from bft.transport.handshake import Identity

POLL_SECONDS = 0.1
DAY_SECONDS = 86_400


@click.group("cluster", epilog=example("cluster init", "cluster up", "cluster status", "cluster add --count 3"))
def cluster() -> None:
    """Make, start, watch and stop a cluster on this machine; change the membership of any."""


for _command in (
    members.add, members.remove, members.replace, members.submit, members.invite, members.members, rekey.recover,
):  # fmt: skip
    cluster.add_command(_command)


def _pairs(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> list[tuple[str, str]]:
    pairs = [value.partition("=") for value in values]
    for (name, sign, right), value in zip(pairs, values, strict=True):
        if not (name and sign and right):
            raise click.BadParameter(f"found {value!r}, expected NAME=VALUE")
    return [(name, right) for name, _, right in pairs]


@cluster.command(
    "init",
    epilog=example(
        "cluster init",
        "cluster init --n 7 --base-port 7500 --dir seven --durability process",
        "cluster init --enrolment known --client alice=keys/alice.pem",
        "cluster init --host 10.0.0.1 --host 10.0.0.2 --host 10.0.0.3 --host 10.0.0.4",
    ),
)
@click.option("--n", type=int, default=4, show_default=True, help="Replicas; (n - 1) / 3 of them may be faulty.")
@click.option("--host", "hosts", multiple=True, help="Address for all, or one per replica.  [default: 127.0.0.1]")
@click.option("--base-port", type=int, default=7400, show_default=True, help="Replica i listens on this port + i.")
@directory_option
@click.option("--name", default="local", show_default=True, help="The cluster's name, part of its identity.")
@click.option("--service", default=DEFAULT_SERVICE, show_default=True, help="The service, package.module:Class.")
@click.option(
    "--durability",
    type=click.Choice(["power", "process", "memory"]),
    default="power",
    show_default=True,
    help="What a replica's store survives: power loss, kill -9, nothing.",
)
@click.option(
    "--enrolment",
    type=click.Choice(["open", "known"]),
    default="open",
    show_default=True,
    help="Who may be a client: any key, or those listed.",
)
@click.option("--client", "clients", multiple=True, callback=_pairs, metavar="NAME=KEYFILE", help="A known client.")
@click.option("--signed-replies", is_flag=True, help="Replicas sign their replies: receipts, proofs of wrong ones.")
@click.option(
    "--admins",
    type=click.IntRange(min=0, max=ADMINS_BOUND),
    default=1,
    show_default=True,
    help="Make so many administrators' keys: they may change the membership. With 0 nobody can.",
)
@click.option("--admin-threshold", type=int, default=1, show_default=True, help="How many of them must sign a change.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    callback=_pairs,
    metavar="NAME=N",
    help=f"A protocol parameter: {', '.join(Protocol.__struct_fields__)}.",
)
@json_option
@friendly
def init(
    n: int,
    hosts: tuple[str, ...],
    base_port: int,
    folder: Path,
    name: str,
    service: str,
    durability: Durability,
    enrolment: str,
    clients: list[tuple[str, str]],
    signed_replies: bool,
    admins: int,
    admin_threshold: int,
    settings: list[tuple[str, str]],
    as_json: bool,
) -> None:
    """Write the files of a new cluster: cluster.toml, and per replica a key and a replica.toml."""
    plan = Plan(
        name=name,
        n=n,
        hosts=hosts or ("127.0.0.1",),
        base_port=base_port,
        service=service,
        durability=durability,
        enrolment=enrolment,
        clients=[(client, Path(key)) for client, key in clients],
        protocol={setting: _integer(setting, value) for setting, value in settings},
        signed_replies=signed_replies,
        admins=admins,
        admin_threshold=admin_threshold,
    )
    made = write_cluster(folder, plan)
    if as_json:
        print_json(
            {
                "cluster": str(folder / CLUSTER_FILE),
                "id": made.id.hex(),
                "n": n,
                "f": made.quorums.f,
                "admins": [str(folder / "keys" / f"{admin}.pem") for admin in plan.admin_names],
            }
        )
        return
    click.echo(f"{folder / CLUSTER_FILE}: {n} replicas of {service}, of which {made.quorums.f} may be faulty")
    click.echo(f"{folder / 'keys'}: private keys of the replicas and of one client; keep them to their owners")
    if admins:
        click.echo(
            f"{', '.join(str(folder / 'keys' / f'{admin}.pem') for admin in plan.admin_names)}: may change the"
            f" membership ({admin_threshold} of {admins} must sign); keep elsewhere than the replicas"
        )
    click.echo("next: bft cluster up" + ("" if folder == Path("cluster") else f" --dir {folder}"))


@cluster.command("up", epilog=example("cluster up", "cluster up --dir seven --wait 30"))
@directory_option
@click.option("--wait", "wait_s", type=Seconds(0), default=15.0, show_default=True, help="Seconds to wait for answers.")
@json_option
@friendly
def up(folder: Path, wait_s: float, as_json: bool) -> None:
    """Start all replicas that do not run, as processes of this machine, and wait until each answers.

    Exit code 1 if one does not answer; the others keep running.
    """
    shared = load_cluster(folder / CLUSTER_FILE)
    configs = replica_configs(folder)
    processes = [ReplicaProcess(config) for config in configs]
    members = [local_member(shared, config) for config in configs]
    identity = probe_identity(shared, folder / "keys" / "client.pem", required=False)
    started = [process.pid() is None for process in processes]
    for process, start in zip(processes, started, strict=True):
        if start:
            process.start()
    accounts = anyio.run(partial(_wait_until_up, processes, members, shared, identity, wait_s), backend="trio")
    failures = [_failure(process, account) for process, account in zip(processes, accounts, strict=True)]
    if as_json:
        print_json(
            [
                {"replica": account.replica, "pid": process.pid(), "started": start, "failure": failure or None}
                for process, account, start, failure in zip(processes, accounts, started, failures, strict=True)
            ]
        )
    else:
        for process, account, start, failure in zip(processes, accounts, started, failures, strict=True):
            what = failure or f"{'started' if start else 'runs already'}, pid {process.pid()}"
            click.echo(f"replica {account.replica} at {account.address}: {what}")
    if any(failures):
        click.get_current_context().exit(Exit.FAILED)


@cluster.command("status", epilog=example("cluster status", "cluster status --watch 1", "cluster status --json"))
@cluster_option
@key_option
@click.option("--watch", "watch_s", type=Seconds(0.1, DAY_SECONDS), help="Ask again every so many seconds.")
@json_option
@friendly
def status(cluster_file: Path, key_file: Path | None, watch_s: float | None, as_json: bool) -> None:
    """Show the epoch, and per replica: role, view, primary, last executed and stable slot, lag, connections, rejects;
    and how the primary serves as that replica measures it: p90 latency and its bound, batches that passed a request
    over, complaints.

    What a replica says about itself is its own word. Exit code 0: all answer; 1: some do not; 3: too few answer for
    the cluster to order anything.
    """
    shared = load_cluster(cluster_file)
    key = default_key(cluster_file, key_file)
    identity = probe_identity(shared, key, required=key_file is not None, passphrase=passphrase_from_environment())
    while True:
        present = discover(shared, key).configuration
        asked = [*present.members, *_others_here(cluster_file, shared, present)]
        accounts = anyio.run(partial(probe_all, shared, identity, members=asked), backend="trio")
        if as_json:
            print_json(summary(shared, accounts, present))
        else:
            shown = console()
            for table in (render(shared, accounts, configuration=present), render_service(accounts)):
                shown.print(fitted(table, shown))
            for line in alarms(accounts):
                console().print(line, soft_wrap=True, emoji=False)
        if watch_s is None:
            break
        time.sleep(watch_s)
    answering = sum(account.answered for account in accounts if account.replica in present.quorums.ids)
    if answering < present.quorums.strong:
        click.get_current_context().exit(Exit.UNKNOWN)
    if answering < present.quorums.n:
        click.get_current_context().exit(Exit.FAILED)


def _others_here(cluster_file: Path, shared: Cluster, present: Configuration) -> list[Member]:
    """Replicas that run beside the cluster file and are no members with their key: they listen, or leave."""
    members = []
    for config in sorted(cluster_file.parent.glob("r*/replica.toml")):
        try:
            if ReplicaProcess(config).pid() is not None:
                members.append(local_member(shared, config))
        except BFTError:
            continue
    return [member for member in members if present.member(member.id) is None]


@cluster.command("down", epilog=example("cluster down", "cluster down --dir seven --grace 1"))
@directory_option
@click.option(
    "--grace", "grace_s", type=Seconds(0), default=5.0, show_default=True, help="Seconds from SIGTERM to SIGKILL."
)
@json_option
@friendly
def down(folder: Path, grace_s: float, as_json: bool) -> None:
    """Stop all replicas that run on this machine: SIGTERM, then SIGKILL."""
    configs = replica_configs(folder)
    replicas = [load_local(config).id for config in configs]
    ends = stop_all([ReplicaProcess(config) for config in configs], grace_s)
    if as_json:
        print_json([{"replica": replica, "end": end} for replica, end in zip(replicas, ends, strict=True)])
        return
    for replica, end in zip(replicas, ends, strict=True):
        click.echo(f"replica {replica}: {end}")


async def _wait_until_up(
    processes: list[ReplicaProcess], members: list[Member], shared: Cluster, identity: Identity, seconds: float
) -> list[Account]:
    """Ask until all replicas answer that can still do so."""
    deadline = time.monotonic() + seconds
    while True:
        accounts = await probe_all(shared, identity, seconds=1.0, members=members)
        waiting = [
            account
            for process, account in zip(processes, accounts, strict=True)
            if not account.answered and process.pid() is not None
        ]
        if not waiting or time.monotonic() >= deadline:
            return accounts
        await anyio.sleep(POLL_SECONDS)


def _failure(process: ReplicaProcess, account: Account) -> str:
    """Why a replica is not up; empty if it is."""
    if process.pid() is None:
        code = process.exit_code()
        said = process.last_words().removeprefix("error: ")
        return f"ended{'' if code is None else f' with code {code}'}: {said} (log: {process.log})"
    if not account.answered:
        return f"runs with pid {process.pid()}, but {account.failure} (log: {process.log})"
    return ""


def _integer(name: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise ConfigError(f"--set {name} is {value!r}: protocol parameters are integers") from None
