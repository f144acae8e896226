"""How replicas are shown: one table row per replica, or plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table

from bft.cli.probe import Account, front
from bft.config import Cluster
from bft.epochs import Configuration, genesis

COLUMNS = (
    "replica", "role", "state", "epoch", "view", "primary", "executed", "stable", "lag", "connections", "rejected",
    "held back",
)  # fmt: skip
UNBOUNDED_WIDTH = 1000
TEXTS = ("replica", "role", "state", "connections", "rejected", "held back")


def summary(
    cluster: Cluster, accounts: Sequence[Account], configuration: Configuration | None = None
) -> dict[str, object]:
    """The cluster's state as plain data; of its first epoch if none is given."""
    configuration = configuration or genesis(cluster)
    ahead = front(accounts, configuration.quorums, "executed")
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
    ahead = front(accounts, configuration.quorums, "executed")
    for account in accounts:
        role = "member" if account.replica in configuration.quorums.ids else "no member"
        known = (states or {}).get(account.replica)
        name = f"r{account.replica} {account.address}"
        if not account.answered:
            table.add_row(name, role, known or f"[red]{escape(_short(account.failure))}[/]", *["-"] * 9)
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
            _counts(account, "rejected"),
            _counts(account, "delayed", "dropped"),
        )
    return table


def alarms(accounts: Sequence[Account]) -> list[str]:
    """What a table has no room for: which replicas have had a wrong state, and where it differed. As rich markup."""
    lines = []
    for account in accounts:
        count = account.number("divergences")
        if not count:
            continue
        state = "answers nobody until it is repaired" if account.report.get("serves") is False else "repaired"
        at = account.number("diverged_at")
        lines.append(f"[yellow]r{account.replica}[/] diverged {count} times, last at checkpoint {at}: {state}")
        where = account.report.get("differs")
        lines += [f"    {escape(str(line))}" for line in (where if isinstance(where, list) else ())]
    return lines


def render_service(accounts: Sequence[Account]) -> Table:
    """How the present primary serves, as every replica measures it (`bft.core.monitor`)."""
    table = Table(title="service by the primary, as each replica measures it")
    for name in ("replica", "p90 ms", "bound ms", "operations/s", "passed over", "complaints", "last reason"):
        table.add_column(name, justify="left" if name in ("replica", "last reason") else "right")
    for account in accounts:
        figures = account.report.get("monitor")
        if not account.answered or not isinstance(figures, dict):
            table.add_row(f"r{account.replica}", *["-"] * 6)
            continue
        rates = figures.get("operations_s")
        rate = rates.get(f"r{account.number('primary')}") if isinstance(rates, dict) else None
        p90, theta = figures.get("current_p90_ms"), figures.get("theta_ms")
        cells = (p90, theta, rate, figures.get("skips"), figures.get("complaints"))
        shown = ["-" if cell is None else escape(str(cell)) for cell in cells]
        table.add_row(f"r{account.replica}", *shown, escape(str(figures.get("reason") or "-")))
    return table


def fitted(table: Table, console: Console) -> RenderableType:
    """The table; where the terminal is too narrow for it, its rows as text, of which nothing is cut off."""
    unbounded = console.options.update(max_width=UNBOUNDED_WIDTH)
    if console.measure(table, options=unbounded).minimum <= console.width:
        return table
    first, *others = table.columns
    rows = zip(first.cells, *(column.cells for column in others), strict=True)
    lines = [
        f"[bold]{name}[/]: {', '.join(f'{column.header} {cell}' for column, cell in zip(others, cells, strict=True))}"
        for name, *cells in rows
    ]
    return Group(f"[italic]{table.title}[/]", *lines)


def _counts(account: Account, *tables: str) -> str:
    """Counters by reason, of one or more of the account's tables."""
    counted = ", ".join(f"{why} {count}" for name in tables for why, count in sorted(account.counts(name).items()))
    return escape(counted) or "-"


def _state(account: Account) -> str:
    if account.report.get("lies"):
        return "[bold magenta]lying[/]"
    if account.report.get("serves") is False:
        return f"[bold red]diverged at {account.number('diverged_at')}, repairing[/]"
    if account.number("split") > account.number("stable"):
        return f"[bold red]states differ at {account.number('split')}[/]"
    if account.report.get("refuses"):
        return "[bold red]refuses to vote[/]"
    if account.report.get("fetching") is not None:
        return f"[yellow]{_progress(account)}[/]"
    if account.report.get("member") is False:
        return "[yellow]listening[/]"
    if account.report.get("epoch_ends") is not None:
        return f"[yellow]epoch ends at {account.number('epoch_ends')}[/]"
    return "[green]alive[/]" if account.report.get("active") else "[yellow]changing view[/]"


def _progress(account: Account) -> str:
    """How far a state transfer is, and whom the replica has given up on."""
    fetch = account.report.get("fetch")
    if not isinstance(fetch, dict) or not isinstance(fetch.get("pages"), int):
        return "fetching state"
    pages, missing = fetch["pages"], fetch.get("missing")
    here = pages - missing if isinstance(missing, int) else 0
    text = f"fetching state {here}/{pages} pages"
    sources = fetch.get("sources")
    left = [
        f"{name} {source['left']}"
        for name, source in (sources.items() if isinstance(sources, dict) else ())
        if isinstance(source, dict) and source.get("left")
    ]
    return escape(text + account.chases + (f", left {'; '.join(left)}" if left else ""))


def _connections(account: Account) -> str:
    connections = account.report.get("connections")
    if not isinstance(connections, dict):
        return "-"
    incoming, dialed = (
        {replica for replica in found if isinstance(replica, int)} if isinstance(found, list) else set()
        for found in (connections.get("incoming"), connections.get("dialed"))
    )
    return escape(f"{len(incoming & dialed)} replicas, {connections.get('clients', 0)} clients")


def _short(text: str) -> str:
    """Why a replica does not answer, without its address, which the row shows already."""
    return text.rpartition(": ")[2] if "cannot connect" in text else text
