"""`bft replica run | rejoin`: one replica as a foreground process, and its return after a loss."""

from __future__ import annotations

import logging
import random
from pathlib import Path

import click

from bft.cli.returning import rejoin
from bft.cli.terminal import example, find_services_here, friendly, passphrase_from_environment, warn
from bft.config import Cluster, load_cluster, load_local
from bft.errors import ConfigError, VotesLost
from bft.runtime.assembly import NodeWrapper
from bft.runtime.server import serve
from bft.runtime.stats import log_to_stderr


@click.group("replica", epilog=example("replica run cluster/r0/replica.toml", "replica rejoin cluster/r3/replica.toml"))
def replica() -> None:
    """Run one replica in the foreground; bring one back that has lost its store."""


replica.add_command(rejoin)


@replica.command(
    "run",
    epilog=example(
        "replica run cluster/r0/replica.toml",
        "replica run cluster/r3/replica.toml --adversary 'wrong_reply() & equivocate() & forge()'",
    ),
)
@click.argument("config", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--adversary", metavar="EXPR", help="Make it lie, by crimes and conditions: 'forge() & to(\"odd\")'.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the adversary's dice.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="What to log on stderr.",
)
@friendly
def run(config: Path, adversary: str | None, seed: int, log_level: str) -> None:
    """Run the replica that CONFIG (a replica.toml) describes, until SIGTERM or SIGINT.

    The service's module is looked for in the current folder too. An encrypted key's passphrase comes from
    BFT_PASSPHRASE. A replica that is not in the cluster file (bft cluster add) fetches the members and the state and
    takes part when an epoch names it; one that was removed leaves by itself, with exit code 0. Exit code 2:
    configuration or key are wrong; 1: the port or the store cannot be used, or the store failed while serving.
    """
    log_to_stderr(getattr(logging, log_level.upper()))
    local = load_local(config)
    cluster = load_cluster(Path(local.cluster))
    if local.id >= len(cluster.replica) and not cluster.admin:
        raise ConfigError(f"{config}: id is {local.id}: {local.cluster} has replicas 0 to {len(cluster.replica) - 1}")
    wrapper = None if adversary is None else _corruption(adversary, local.id, len(cluster.replica), seed)
    find_services_here()
    try:
        left = serve(cluster, local, wrapper, passphrase=passphrase_from_environment())
    except VotesLost as error:
        raise _with_remedy(error, cluster, config) from error
    if left is not None:
        click.echo(f"replica {local.id} has left the cluster: {left}", err=True)


def _with_remedy(error: VotesLost, cluster: Cluster, config: Path) -> VotesLost:
    """What to do about a store that cannot be trusted."""
    if not cluster.admin:
        return error
    return VotesLost(
        f"{error}. It does not vote with its key. To bring it back with a new one: bft replica rejoin {config}"
    )


def _corruption(expression: str, me: int, n: int, seed: int) -> NodeWrapper:
    from bft.adversary.live import Corruption  # honest replicas never load it

    warn(f"replica {me} is corrupt: {expression}")
    return Corruption(expression, me, n, random.Random(seed))
