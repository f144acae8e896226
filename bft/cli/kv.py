"""`bft kv ...`: the replicated key-value service from a shell."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator

import click

from bft.cli.connection import Target, with_target
from bft.cli.kv_load import load
from bft.cli.terminal import Exit, example, fail, json_option, print_json
from bft.client.client import Client
from bft.client.proxy import ServiceProxy
from bft.services.kv import INTEGER_MAX, INTEGER_MIN, SCAN_MAX, KeyValue

CONTROLS = re.compile(r"[\0-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Controls of the terminal and of the direction of writing, and what ends a line."""


@click.group("kv", epilog=example("kv put greeting hello", "kv get greeting", "kv scan gre"))
def kv() -> None:
    """Use the replicated key-value service: text to text, in order of key."""


kv.add_command(load)


@kv.command("put", epilog=example("kv put greeting hello"))
@click.argument("key")
@click.argument("value")
@json_option
@with_target
def put(target: Target, key: str, value: str, as_json: bool) -> None:
    """Store VALUE under KEY."""
    before = target.run(lambda client: _kv(target, client).put(key, value))
    if as_json:
        print_json({"key": key, "before": before})


@kv.command("get", epilog=example("kv get greeting", "kv get greeting --weak --json"))
@click.argument("key")
@click.option("--weak", is_flag=True, help="Faster, and may be stale.")
@json_option
@with_target
def get(target: Target, key: str, weak: bool, as_json: bool) -> None:
    """Print the value under KEY; exit code 1 if there is none."""

    async def body(client: Client) -> object:
        service = _kv(target, client)
        return await (service.weak() if weak else service).get(key)

    value = target.run(body, "weak" if weak else "linearizable")
    if as_json:
        print_json({"key": key, "value": value})
    elif value is not None:
        click.echo(value)
    if value is None:
        _absent(key, as_json)


@kv.command("delete", epilog=example("kv delete greeting"))
@click.argument("key")
@json_option
@with_target
def delete(target: Target, key: str, as_json: bool) -> None:
    """Remove KEY; exit code 1 if it was not there."""
    before = target.run(lambda client: _kv(target, client).delete(key))
    if as_json:
        print_json({"key": key, "before": before})
    if before is None:
        _absent(key, as_json)


@kv.command("increment", epilog=example("kv increment visits", "kv increment stock --by -3"))
@click.argument("key")
@click.option("--by", type=click.IntRange(INTEGER_MIN, INTEGER_MAX), default=1, show_default=True, help="What to add.")
@json_option
@with_target
def increment(target: Target, key: str, by: int, as_json: bool) -> None:
    """Add to the integer under KEY (absent counts as 0) and print the sum."""
    total = target.run(lambda client: _kv(target, client).increment(key, by))
    if as_json:
        print_json({"key": key, "value": total})
    else:
        click.echo(total)


@kv.command(
    "cas", epilog=example("kv cas leader alice", "kv cas leader bob --expect alice", "kv cas leader --expect bob")
)
@click.argument("key")
@click.argument("value", required=False)
@click.option("--expect", help="The value that must be there.  [default: KEY must be absent]")
@json_option
@with_target
def cas(target: Target, key: str, value: str | None, expect: str | None, as_json: bool) -> None:
    """Compare and swap: store VALUE (or remove KEY, if none is given) only if the expected value is there.

    Exit code 1 if something else was there.
    """
    swapped = target.run(lambda client: _kv(target, client).cas(key, expect, value))
    if as_json:
        print_json({"key": key, "swapped": swapped})
    if not swapped:
        if as_json:
            click.get_current_context().exit(Exit.FAILED)
        fail(f"{key}: the value is not {'absent' if expect is None else repr(expect)}; nothing was changed")


@kv.command("scan", epilog=example("kv scan", "kv scan user/ --limit 20", "kv scan --start a --end b --json"))
@click.argument("prefix", default="")
@click.option("--start", help="First key to show.")
@click.option("--end", help="Key to stop before.")
@click.option("--limit", type=click.IntRange(min=1), default=1_000_000, show_default=True, help="Entries at most.")
@json_option
@with_target
def scan(target: Target, prefix: str, start: str | None, end: str | None, limit: int, as_json: bool) -> None:
    """Print entries in order of key, `key<TAB>value` a line.

    Tabs, line ends and other control characters are shown as \\t, \\n, \\x1b ...; --json has the exact text.
    """

    async def body(client: Client) -> list[tuple[str, str]]:
        entries: list[tuple[str, str]] = []
        async for page in scan_pages(_kv(target, client), prefix, start, end):
            entries += page
            if len(entries) >= limit:
                break
        return entries[:limit]

    entries = target.run(body)
    if as_json:
        print_json([{"key": key, "value": value} for key, value in entries])
        return
    for key, value in entries:
        click.echo(f"{_in_a_line(key)}\t{_in_a_line(value)}")


@kv.command("size", epilog=example("kv size", "kv size --json"))
@json_option
@with_target
def size(target: Target, as_json: bool) -> None:
    """Print how many entries there are."""
    count = target.run(lambda client: _kv(target, client).size())
    if as_json:
        print_json({"size": count})
    else:
        click.echo(count)


@kv.command("clear", epilog=example("kv clear", "kv clear --yes --json"))
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@with_target
def clear(target: Target, yes: bool, as_json: bool) -> None:
    """Remove every entry, and print how many there were."""
    if not yes:
        _confirm("Remove every entry?")
    count = target.run(lambda client: _kv(target, client).clear())
    if as_json:
        print_json({"removed": count})
    else:
        click.echo(count)


async def scan_pages(
    service: ServiceProxy[KeyValue], prefix: str = "", start: str | None = None, end: str | None = None
) -> AsyncIterator[list[tuple[str, str]]]:
    """All entries, page by page; each page is read from one state, the next from that state or a later one."""
    while True:
        page = await service.scan(prefix, start, end, SCAN_MAX)
        assert isinstance(page, list), f"scan returns a list, not {type(page).__name__}"
        if not page:
            return
        yield page
        start = page[-1][0] + "\0"


def _in_a_line(text: str) -> str:
    """Stored text for people: it ends no line or column, and commands no terminal."""
    return CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _kv(target: Target, client: Client) -> ServiceProxy[KeyValue]:
    return client.service(KeyValue).within(target.timeout_s)


def _confirm(question: str) -> None:
    """Go on only if somebody says so."""
    try:
        agreed = click.confirm(question, err=True)
    except click.Abort:
        if sys.stdin.isatty():  # it was interrupted
            raise
        click.echo(err=True)
        fail("nothing was removed: give --yes where nobody can be asked", Exit.USAGE)
    if not agreed:
        raise click.Abort


def _absent(key: str, as_json: bool) -> None:
    if as_json:
        click.get_current_context().exit(Exit.FAILED)
    fail(f"{key}: no such key")
