"""What happens to the cluster while the demo loads: one replica lies and is healed, then the primary is killed.

One fault at a time: each step waits until the cluster has four honest replicas that keep up again, since f = 1.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import anyio

from bft.cli.demo_load import Load
from bft.cli.probe import Account, front
from bft.cli.processes import ReplicaProcess
from bft.client.client import Client
from bft.config import Cluster
from bft.errors import BFTError, TransportError

LIAR = 3
CRIMES = "wrong_reply() & equivocate() & forge()"
LIES_MIN = 50
ORDERED_AFTER_KILL = 5000
STEP_SECONDS_MAX = 30.0
LYING_SECONDS = 2.0
POLL_SECONDS = 0.1
KEEPS_UP_LAG = 64


class StepFailed(BFTError):
    """A step of the demo did not come to its end in time."""


@dataclass(slots=True)
class Director:
    """Watches the replicas and commits the faults.

    Attributes:
        accounts: what the replicas said last.
        states: what the director knows about each, as rich markup.
        say: tells people what happens.
        rejected: most rejected messages that each replica reported, by reason.
        steps: which step ended how many records into the load.
        killed: which replica was killed as the primary.
        expected_down: replicas that do not run because the director stopped them.
    """

    cluster: Cluster
    processes: Sequence[ReplicaProcess]
    load: Load
    client: Client
    say: Callable[[str], None]
    accounts: list[Account] = field(default_factory=list)
    states: dict[int, str] = field(default_factory=dict)
    rejected: dict[int, dict[str, int]] = field(default_factory=dict)
    steps: list[tuple[str, int]] = field(default_factory=list)
    killed: int | None = None
    expected_down: set[int] = field(default_factory=set)

    async def watch(self) -> None:
        """Ask all replicas again and again."""
        while True:
            await self.look()
            await anyio.sleep(POLL_SECONDS)

    async def look(self) -> None:
        """Ask all replicas once."""
        found: dict[int, Account] = {}

        async def ask(replica: int) -> None:
            entry = self.cluster.replica[replica]
            address = f"{entry.host}:{entry.port}"
            try:
                report = await self.client.probe(replica)
            except TransportError as error:
                found[replica] = Account(replica, address, failure=str(error))
            else:
                found[replica] = Account(replica, address, report)

        async with anyio.create_task_group() as tasks:
            for replica in range(len(self.cluster.replica)):
                tasks.start_soon(ask, replica)
        self.accounts = [found[replica] for replica in sorted(found)]
        for account in self.accounts:
            counts = self.rejected.setdefault(account.replica, {})
            for reason, count in account.counts("rejected").items():
                counts[reason] = max(count, counts.get(reason, 0))

    async def disturb(self) -> None:
        """Commit the faults, one after the other, while the load runs.

        Raises:
            StepFailed: the cluster did not recover from one in time.
        """
        await self._until("the load to begin", lambda: self.load.done >= self.load.at_least // 20)
        await self._step("a replica lied", self._corrupt)
        await self._step("it was healed", self._heal)
        await self._step("the primary was killed", self._kill_primary)
        await self._step("it caught up", self._restart)
        self.load.released = True

    async def _step(self, name: str, step: Callable[[], Awaitable[None]]) -> None:
        await step()
        self.steps.append((name, self.load.done))

    async def _corrupt(self) -> None:
        self.say(f"replica {LIAR} is replaced by a lying one: {CRIMES}")
        await self._stop(LIAR)
        await self._start(LIAR, CRIMES, "[bold magenta]lying[/]")
        await self._until(f"replica {LIAR}'s lies to be outvoted", self._has_lied_enough)
        await anyio.sleep(LYING_SECONDS)
        self.say(f"{self.client.disagreements.get(LIAR, 0)} of its replies were outvoted so far")

    def _has_lied_enough(self) -> bool:
        return self.client.disagreements.get(LIAR, 0) >= LIES_MIN

    async def _heal(self) -> None:
        """Start an honest process with the liar's key and store, once its last lies are closed by a checkpoint.

        Before that the others would show it votes that its key has signed and its store does not know: it would take
        the store for an old copy, and rightly refuse to vote (`bft.core.amnesia`).
        """
        await self._stop(LIAR)
        await self.look()
        said = front(self.accounts, self.cluster.quorums, "executed") + self.cluster.protocol.pipeline
        self.say(f"replica {LIAR} is stopped; the others go on to a checkpoint that closes what it said")
        await self._until("a checkpoint beyond the last lies", lambda: self._is_closed(said))
        self.say(f"replica {LIAR} is healed: an honest process takes over its key and store")
        await self._start(LIAR, None, "")
        await self._until(f"replica {LIAR} to keep up", lambda: self._keeps_up(LIAR))

    def _is_closed(self, seq: int) -> bool:
        """True if a checkpoint at or above `seq` is stable at all who run."""
        running = [account for account in self.accounts if account.replica not in self.expected_down]
        return all(account.answered and account.number("stable") >= seq for account in running)

    async def _kill_primary(self) -> None:
        victim = self.killed = self._primary()
        self.say(f"replica {victim}, the primary, is killed with SIGKILL")
        self.states[victim] = "[bold red]killed[/]"
        before = self.load.done
        self.expected_down.add(victim)
        await anyio.to_thread.run_sync(self.processes[victim].kill)
        await self._until("a new primary to order", lambda: self.load.done >= before + ORDERED_AFTER_KILL)
        self.say(
            f"replica {self._primary()} orders now; the longest stall was {self.load.longest_stall_s * 1e3:.0f} ms"
        )

    async def _restart(self) -> None:
        victim = self.killed
        assert victim is not None, "a primary was killed before"
        self.say(f"replica {victim} is started again and catches up")
        self.processes[victim].start()
        self.expected_down.remove(victim)
        self.states[victim] = "[yellow]starting[/]"
        await self._until(f"replica {victim} to keep up", lambda: self._keeps_up(victim))

    async def _stop(self, replica: int) -> None:
        self.states[replica] = "[yellow]restarting[/]"
        self.expected_down.add(replica)
        await anyio.to_thread.run_sync(self.processes[replica].stop)

    async def _start(self, replica: int, adversary: str | None, state: str) -> None:
        self.processes[replica].start(adversary)
        self.expected_down.remove(replica)
        await self._until(f"replica {replica} to answer", lambda: self._answers(replica))
        self.states[replica] = state

    def _answers(self, replica: int) -> bool:
        account = self.accounts[replica]
        return account.answered and account.report.get("pid") == self.processes[replica].pid()

    def _keeps_up(self, replica: int) -> bool:
        if not self._answers(replica):
            return False
        self.states[replica] = ""
        ahead = front(self.accounts, self.cluster.quorums, "executed")
        return ahead - self.accounts[replica].number("executed") <= KEEPS_UP_LAG

    def _primary(self) -> int:
        """The primary of the view that f + 1 replicas are in or beyond."""
        views = sorted((account.number("view") for account in self.accounts if account.answered), reverse=True)
        return self.cluster.quorums.primary(views[self.cluster.quorums.f]) if views else 0

    async def _until(self, what: str, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + STEP_SECONDS_MAX
        while not (self.accounts and holds()):
            for replica, process in enumerate(self.processes):
                if process.exit_code() is not None and replica not in self.expected_down:
                    raise StepFailed(f"replica {replica} ended by itself: {process.last_words()} (log: {process.log})")
            if time.monotonic() >= deadline:
                raise StepFailed(f"waited {STEP_SECONDS_MAX:g} s for {what}, in vain")
            await anyio.sleep(POLL_SECONDS / 2)
