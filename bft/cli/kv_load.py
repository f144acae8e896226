"""`bft kv load FILE`: many records, many at a time."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

import anyio
import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bft.cli.connection import Target, with_target
from bft.cli.terminal import Exit, console, example, json_option, print_json, warn
from bft.client.client import Client
from bft.errors import ConfigError, OutcomeUnknown, ServiceError
from bft.services.kv import KeyValue

FORMATS = ("auto", "tsv", "jsonl")
ERRORS_SHOWN_MAX = 5


class Loading:
    """Stores records through many concurrent calls, and keeps account.

    Attributes:
        done: records stored.
        errors: records that the service refused, and why.
    """

    def __init__(self, records: Iterator[tuple[str, str]], timeout_s: float) -> None:
        self._records = records
        self._timeout_s = timeout_s
        self.done = 0
        self.errors: list[str] = []

    async def run(self, client: Client, concurrency: int, progress: Progress) -> None:
        """Store everything.

        Raises:
            OutcomeUnknown: a record's fate is unknown; storing it again is safe.
        """
        task = progress.add_task("storing", total=None)
        async with anyio.create_task_group() as tasks:
            for _ in range(concurrency):
                tasks.start_soon(self._worker, client)
            tasks.start_soon(self._show, progress, task, tasks.cancel_scope)

    async def _worker(self, client: Client) -> None:
        service = client.service(KeyValue).within(self._timeout_s)
        for key, value in self._records:
            try:
                await service.put(key, value)
                self.done += 1
            except ServiceError as error:
                self.errors.append(f"{key[:60]}: {error}")
            except OutcomeUnknown as error:
                raise OutcomeUnknown(f"{error}; {self.done} records were stored: loading again is safe") from error
        self._records = iter(())
        self._ended = True

    async def _show(self, progress: Progress, task: object, scope: anyio.CancelScope) -> None:
        raise NotImplementedError
