"""What people see of the demo: a progress bar and a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import re
import time

import anyio
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from bft.cli.demo_faults import Director
from bft.cli.demo_load import Load
from bft.cli.status import render

REFRESH_SECONDS = 0.2
PLAIN_SECONDS = 2.0
MARKUP = re.compile(r"\[/?[a-z ]*\]")


class View:
    """Shows a load and the replicas under it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
        )
        self._task: TaskID = self._progress.add_task("records stored")

    def say(self, text: str) -> None:
        """Tell what happens, with the time since the start."""
        self._console.print(f"[dim]{time.monotonic() - self._started:5.1f} s[/]  {text}")

    async def show(self, load: Load, director: Director) -> None:
        """Show until cancelled."""
        if self._console.is_terminal:
            await self._show_live(load, director)
        else:
            await self._show_plain(load, director)

    async def _show_live(self, load: Load, director: Director) -> None:
        with Live(console=self._console, auto_refresh=False) as live:
            try:
                while True:
                    live.update(self._picture(load, director), refresh=True)
                    await anyio.sleep(REFRESH_SECONDS)
            finally:
                live.update(self._picture(load, director), refresh=True)

    def _picture(self, load: Load, director: Director) -> Group:
        self._progress.update(self._task, completed=load.done, total=max(load.goal, 1))
        states = {replica: state for replica, state in director.states.items() if state}
        return Group(render(director.cluster, director.accounts, states), self._progress)

    async def _show_plain(self, load: Load, director: Director) -> None:
        while True:
            await anyio.sleep(PLAIN_SECONDS)
            replicas = []
            for account in director.accounts:
                state = MARKUP.sub("", director.states.get(account.replica, "")) or "alive"
                where = f"view {account.number('view')}, executed {account.number('executed')}"
                replicas.append(f"r{account.replica} {state}: {where if account.answered else 'no answer'}")
            self.say(f"{load.done} records stored; {'; '.join(replicas)}")
