"""How replicas are shown: one table row per replica, or plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from bft.cli.probe import Account
from bft.config import Cluster
from bft.epochs import Configuration, genesis

COLUMNS = (
    "replica", "role", "state", "epoch", "view", "primary", "executed", "stable", "lag", "connections", "rejected",
)  # fmt: skip
TEXTS = ("replica", "role", "state", "connections", "rejected")
CHAIN_DIGITS = 8


def front(cluster: Cluster, accounts: Sequence[Account], configuration: Configuration | None = None) -> int:
    """A sequence number that a correct replica has executed: the f + 1st highest claim, beyond any liar's boast.

    Claims of members count; those of the cluster file's if no epoch is given.
    """
    quorums = cluster.quorums if configuration is None else configuration.quorums
    members = [account for account in accounts if account.answered and account.replica in quorums.ids]
    claims = sorted((account.number("executed") for account in members), reverse=True)
    place = quorums.f
    return claims[place] if place < len(claims) else min(claims, default=0)


def summary(
    cluster: Cluster, accounts: Sequence[Account], configuration: Configuration | None = None
) -> dict[str, object]:
    """The cluster's state as plain data; of its first epoch if none is given."""
    configuration = configuration or genesis(cluster)
    ahead = front(cluster, accounts, configuration)
    quorums = configuration.quorums
    return {
        "cluster": cluster.name,
        "id": cluster.id.hex(),
        "epoch": configuration.epoch,
        "epoch_began_after": configuration.base,
        "members": list(quorums.members),
        "n": quorums.n,
        "f": quorums.f,
        "answering": sum(account.answered for account in accounts if account.replica in quorums.ids),
        "replicas": [
            {
                **account.report,
                "replica": account.replica,
                "address": account.address,
                "answers": account.answered,
                "failure": account.failure or None,
                "lag": max(0, ahead - account.number("executed")) if account.answered else None,
            }
            for account in accounts
        ],
    }


def render(
    cluster: Cluster,
    accounts: Sequence[Account],
    states: Mapping[int, str] | None = None,
    configuration: Configuration | None = None,
) -> Table:
    """A table for people.

    Args:
        cluster: whose replicas these are.
        accounts: what they said.
        states: what the caller knows better than the replicas, by replica, as rich markup.
        configuration: the present epoch; the first one if None.
    """
    configuration = configuration or genesis(cluster)
    n, f = configuration.quorums.n, configuration.quorums.f
    table = Table(title=f"cluster {cluster.name}: epoch {configuration.epoch}, n = {n}, f = {f}")
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in TEXTS else "right")
    ahead = front(cluster, accounts, configuration)
    for account in accounts:
        role = "member" if account.replica in configuration.quorums.ids else "no member"
        known = (states or {}).get(account.replica)
        name = f"r{account.replica} {account.address}"
        if not account.answered:
            table.add_row(name, role, known or f"[red]{escape(_short(account.failure))}[/]", *["-"] * 8)
            continue
        table.add_row(
            name,
            escape(str(account.report.get("role", role))),
            known or _state(account),
            str(account.number("epoch")),
            str(account.number("view")),
            f"r{account.number('primary')}",
            str(account.number("executed")),
            str(account.number("stable")),
            str(max(0, ahead - account.number("executed"))),
            _connections(account),
            ", ".join(f"{reason} {count}" for reason, count in sorted(account.counts("rejected").items())) or "-",
        )
    return table


def _state(account: Account) -> str:
    if account.report.get("lies"):
        return "[bold magenta]lying[/]"
    if account.report.get("fetching") is not None:
        return "[yellow]fetching state[/]"
    if account.report.get("member") is False:
        return "[yellow]listening[/]"
    if account.report.get("epoch_ends") is not None:
        return f"[yellow]epoch ends at {account.number('epoch_ends')}[/]"
    return "[green]alive[/]" if account.report.get("active") else "[yellow]changing view[/]"


def _connections(account: Account) -> str:
    connections = account.report.get("connections")
    if not isinstance(connections, dict):
        return "-"
    incoming, dialed = connections.get("incoming"), connections.get("dialed")
    replicas = set(incoming if isinstance(incoming, list) else ()) & set(dialed if isinstance(dialed, list) else ())
    return f"{len(replicas)} replicas, {connections.get('clients', 0)} clients"


def _short(text: str) -> str:
    """Why a replica does not answer, without its address, which the row shows already."""
    return text.rpartition(": ")[2] if "cannot connect" in text else text
