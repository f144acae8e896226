"""`bft kv load FILE`: many records, many at a time."""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import anyio
import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from bft.cli.connection import Target, with_target
from bft.cli.terminal import Exit, console, example, json_option, print_json, warn
from bft.client.client import Client
from bft.errors import ConfigError, OutcomeUnknown, ServiceError
from bft.services.kv import KEY_BYTES_MAX, VALUE_BYTES_MAX, KeyValue

ERRORS_SHOWN_MAX = 5
SHOW_SECONDS = 0.1


class Loading:
    """Stores records through many concurrent calls, and keeps account.

    Attributes:
        done: records stored.
        errors: what the service refused, and why.
    """

    def __init__(self, records: Sequence[tuple[str, str]], timeout_s: float) -> None:
        self._records = iter(records)
        self._total = len(records)
        self._timeout_s = timeout_s
        self.done = 0
        self.errors: list[str] = []

    async def run(self, concurrency: int, progress: Progress, client: Client) -> None:
        """Store everything, showing progress.

        Raises:
            OutcomeUnknown: a record's fate is unknown; loading again is safe.
        """
        task = progress.add_task("storing", total=self._total)
        async with anyio.create_task_group() as outer:
            outer.start_soon(self._show, progress, task)
            async with anyio.create_task_group() as workers:
                for _ in range(concurrency):
                    workers.start_soon(self._work, client)
            outer.cancel_scope.cancel()
        progress.update(task, completed=self.done)

    async def _work(self, client: Client) -> None:
        service = client.service(KeyValue).within(self._timeout_s)
        for key, value in self._records:  # one iterator, shared by all workers
            try:
                await service.put(key, value)
            except (ServiceError, ValueError) as error:  # ValueError: too large to be sent
                self.errors.append(f"{key[:60]}: {error}")
            except OutcomeUnknown as error:
                raise OutcomeUnknown(f"{error}; {self.done} records were stored; loading again is safe") from error
            else:
                self.done += 1

    async def _show(self, progress: Progress, task: TaskID) -> None:
        while True:
            progress.update(task, completed=self.done)
            await anyio.sleep(SHOW_SECONDS)


@click.command("load", epilog=example("kv load records.tsv", "kv load events.jsonl --concurrency 500", "kv load -"))
@click.argument("file", type=click.Path(allow_dash=True, dir_okay=False, path_type=Path))
@click.option("--concurrency", type=click.IntRange(1, 4096), default=200, show_default=True, help="Calls at a time.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["auto", "tsv", "jsonl"]),
    default="auto",
    show_default=True,
    help='tsv: key TAB value; jsonl: {"key": ..., "value": ...} or [key, value] a line; auto: by the first line.',
)
@json_option
@with_target
def load(target: Target, file: Path, concurrency: int, form: str, as_json: bool) -> None:
    """Store the records of FILE (`-` for standard input). The whole file is checked before anything is sent.

    Exit code 1: the service refused a record; 3: a record's fate is unknown (loading again is safe); 130: interrupted.
    """
    records = list(parse_records(_lines(file), form, str(file)))
    loading = Loading(records, target.timeout_s)
    out = Console(stderr=True) if as_json else console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    started = time.monotonic()
    try:
        with Progress(*columns, console=out, disable=not out.is_terminal) as progress:
            target.run(partial(loading.run, concurrency, progress))
    except (KeyboardInterrupt, BaseExceptionGroup) as error:
        if isinstance(error, KeyboardInterrupt) or error.subgroup(KeyboardInterrupt) is not None:
            warn(f"interrupted: {loading.done} of {len(records)} records are known to be stored; loading again is safe")
        raise
    seconds = time.monotonic() - started
    for refusal in loading.errors[:ERRORS_SHOWN_MAX]:
        warn(refusal)
    if as_json:
        print_json({"stored": loading.done, "refused": len(loading.errors), "seconds": round(seconds, 3)})
    else:
        rate = loading.done / seconds if seconds else 0.0
        click.echo(f"{loading.done} records stored in {seconds:.1f} s ({rate:.0f} a second)")
    if loading.errors:
        click.get_current_context().exit(Exit.FAILED)


def parse_records(lines: Iterable[str], form: str, name: str) -> Iterator[tuple[str, str]]:
    """Records of a file; empty lines are skipped.

    Raises:
        ConfigError: a line is no record, or one that no service would take; the text names file, line and rule.
    """
    for number, line in enumerate(lines, 1):
        text = line.rstrip("\r\n")
        if not text:
            continue
        if form == "auto":
            form = "jsonl" if text[0] in "{[" else "tsv"
        where = f"{name}, line {number}"
        key, value = _from_json(text, where) if form == "jsonl" else _from_tabs(text, where)
        if not key:
            raise ConfigError(f"{where}: found {text[:60]!r}: a key must not be empty")
        _require_fit("key", key, KEY_BYTES_MAX, where)
        _require_fit("value", value, VALUE_BYTES_MAX, where)
        yield key, value


def _require_fit(what: str, text: str, bytes_max: int, where: str) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        found = f"the {what} holds {text[error.start]!r}, half of a character"
        raise ConfigError(f"{where}: {found}, which UTF-8 cannot carry") from None
    if size > bytes_max:
        raise ConfigError(f"{where}: the {what} has {size} bytes, allowed are at most {bytes_max}")


def _from_tabs(text: str, where: str) -> tuple[str, str]:
    key, tab, value = text.partition("\t")
    if not tab:
        raise ConfigError(f"{where}: found {text[:60]!r}, expected a key, a tab and a value")
    return key, value


def _from_json(text: str, where: str) -> tuple[str, str]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: is not JSON: {error}") from error
    if isinstance(found, dict):
        found = [found.get("key"), found.get("value")]
    if not (isinstance(found, list) and len(found) == 2 and all(isinstance(part, str) for part in found)):
        raise ConfigError(f'{where}: found {text[:60]!r}, expected {{"key": text, "value": text}} or [text, text]')
    return found[0], found[1]


def _lines(file: Path) -> Iterator[str]:
    """Lines of a text in UTF-8, with or without a byte order mark."""
    try:
        if str(file) == "-":
            if isinstance(sys.stdin, io.TextIOWrapper):  # else it is no process's, and text already
                sys.stdin.reconfigure(encoding="utf-8-sig", errors="strict")
            yield from sys.stdin
            return
        with file.open(encoding="utf-8-sig") as lines:
            yield from lines
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from error
