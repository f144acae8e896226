"""`bft call METHOD ARGS...`: any method of any typed service, with JSON arguments."""

from __future__ import annotations

import json

import click
import msgspec

from bft.cli.connection import Target, with_target
from bft.cli.terminal import example, find_services_here
from bft.client.client import Client, Consistency
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
@with_target
def call(target: Target, method: str, arguments: tuple[str, ...], weak: bool, lane: int) -> None:
    """Call METHOD of the cluster's service and print its result as JSON.

    Each argument is JSON; what is not JSON is taken as text. Quote what must stay text: '"5"'. The service's module is
    looked for in the current folder too. Exit code 1: the service answered with an error.
    """
    find_services_here()
    found, operation = _operation(target, method, arguments)

    async def body(client: Client) -> bytes:
        if found.kind == "query":
            consistency: Consistency = "weak" if weak else "linearizable"
            return (await client.query(operation, consistency=consistency, timeout=target.timeout_s)).value
        return (await client.call(operation, lane=lane, timeout=target.timeout_s)).value

    result = found.result.decode(target.run(body))
    click.echo(msgspec.json.format(msgspec.json.encode(result), indent=2).decode())


def parse_argument(text: str) -> object:
    """A JSON value, or the text itself."""
    try:
        value: object = json.loads(text)
    except ValueError:
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
    try:
        return method, method.encode([parse_argument(text) for text in arguments], {})
    except (TypeError, OverflowError) as error:
        raise ConfigError(f"{name}{method.signature}: {error}") from error
