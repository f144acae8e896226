"""`bft call METHOD ARGS...`: any method of any typed service, with JSON arguments."""

from __future__ import annotations

import json
from pathlib import Path

import click
import msgspec

from bft.cli.connection import Target, with_target
from bft.cli.terminal import example, find_services_here
from bft.client.client import Client, Consistency
from bft.client.receipts import Receipt
from bft.config import load_cluster
from bft.errors import ConfigError
from bft.services.interface import Method, interface_of
from bft.services.loading import load_class


@click.command(
    "call",
    epilog=example('call put greeting "hello"', "call scan gre", "call balance alice --cluster bank/cluster.toml"),
)
@click.argument("method")
@click.argument("arguments", nargs=-1)
@click.option("--weak", is_flag=True, help="A query may be answered from a stale state.")
@click.option("--lane", type=click.IntRange(min=0), default=0, help="Calls of one lane keep their order.")
@click.option("--receipt", type=click.Path(path_type=Path, dir_okay=False), help="Write a command's receipt here.")
@with_target
def call(target: Target, method: str, arguments: tuple[str, ...], weak: bool, lane: int, receipt: Path | None) -> None:
    """Call METHOD of the cluster's service and print its result as JSON.

    Each argument is JSON; what is not JSON is taken as text. Quote what must stay text: '"5"'. The service's module is
    looked for in the current folder too. Exit code 1: the service answered with an error. A receipt convinces whoever
    has the cluster file (`bft evidence receipt`); it needs a cluster with signed replies.
    """
    find_services_here()
    found, operation = _operation(target, method, arguments)
    if receipt is not None and found.kind == "query":
        raise ConfigError(f"--receipt: {method} is a query, which is answered without being ordered")
    if receipt is not None:
        _require_writable(receipt)
    if weak and found.kind == "command":
        raise ConfigError(f"--weak: {method} is a command, which is always ordered")

    consistency: Consistency = "weak" if weak else "linearizable"

    async def body(client: Client) -> None:
        if found.kind == "query":
            result = await client.query(operation, consistency=consistency, timeout=target.timeout_s)
        else:
            result = await client.call(operation, lane=lane, timeout=target.timeout_s)
        shown = msgspec.json.encode(found.result.decode(result.value))
        click.echo(msgspec.json.format(shown, indent=2).decode())  # it has executed, whatever becomes of the receipt
        if receipt is not None:
            _write(receipt, await client.receipt(result, target.timeout_s))

    target.run(body, consistency)


def _require_writable(path: Path) -> None:
    """See that the receipt can be written while nothing has executed yet.

    Raises:
        ConfigError: it cannot.
    """
    existed = path.exists()
    try:
        path.open("ab").close()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error
    if not existed:
        path.unlink()


def _write(path: Path, receipt: Receipt) -> None:
    """Write a receipt file.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        path.write_bytes(receipt.to_json())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error


def parse_argument(text: str) -> object:
    """A JSON value, or the text itself."""
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value


def _operation(target: Target, name: str, arguments: tuple[str, ...]) -> tuple[Method, bytes]:
    """The method and the bytes that call it.

    Raises:
        ConfigError: the service is not typed, has no such method, or the arguments do not fit it.
    """
    service = load_cluster(target.cluster_file).service
    try:
        methods = interface_of(load_class(service)).methods
    except TypeError as error:
        raise ConfigError(f"{service} has no methods to call by name: {error}") from error
    method = methods.get(name)
    if method is None:
        raise ConfigError(f"{service} has no method {name!r}; it has {', '.join(sorted(methods))}")
    values = [parse_argument(text) for text in arguments]
    first = len(method.signature.parameters) - len(method.keywords)
    named = dict(zip(method.keywords, values[first:], strict=False))
    try:
        return method, method.encode(values[:first] + values[first + len(named) :], named)
    except TypeError as error:
        raise ConfigError(str(error)) from error
