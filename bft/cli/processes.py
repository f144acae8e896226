"""Replicas as processes of this machine: start, find, stop, kill.

A process is known by its pid file and recognised by its command line, so that a pid that the system has given to
somebody else is never signalled.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from bft.errors import BFTError

POLL_SECONDS = 0.02
LOG_TAIL_BYTES = 8192


@dataclass(slots=True)
class ReplicaProcess:
    """One replica of a cluster's folder, running or not.

    Attributes:
        config: its `replica.toml`.
        child: the process, if this program started it.
    """

    config: Path
    child: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return self.config.with_name("replica.log")

    @property
    def pid_file(self) -> Path:
        """Holds the pid of the last process started."""
        return self.config.with_name("replica.pid")

    def start(self, adversary: str | None = None, *, environment: dict[str, str] | None = None) -> None:
        """Start a process; `adversary` makes it lie.

        Raises:
            BFTError: it runs already, or log or pid file cannot be written.
        """
        if self.pid() is not None:
            raise BFTError(f"{self.config}: a replica process with pid {self.pid()} runs already")
        command = [sys.executable, "-m", "bft.cli.main", "replica", "run", str(self.config.resolve())]
        if adversary is not None:
            command += ["--adversary", adversary]
        try:
            with self.log.open("ab") as log:
                self.child = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    env={**os.environ, **(environment or {})},
                )
            self.pid_file.write_text(f"{self.child.pid}\n")
        except OSError as error:
            raise BFTError(f"{self.config.parent}: replica cannot be started: {error}") from error

    def pid(self) -> int | None:
        """The pid of the running process; None if there is none."""
        if self.child is not None:
            return self.child.pid if self.child.poll() is None else None
        try:
            pid = int(self.pid_file.read_text())
        except (OSError, ValueError):
            return None
        return pid if _runs(pid, self.config) else None

    def exit_code(self) -> int | None:
        """How the process ended, if this program started it; None while it runs or if somebody else did."""
        return None if self.child is None else self.child.poll()

    def last_words(self) -> str:
        """The last line of its log that says something."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
                lines = file.read().decode(errors="replace").splitlines()
        except OSError:
            return ""
        spoken = [line.strip(" |") for line in lines if any(letter.isalpha() for letter in line)]
        return spoken[-1] if spoken else ""

    def send(self, number: signal.Signals) -> bool:
        """Signal the process; False if it does not run."""
        pid = self.pid()
        if pid is None:
            return False
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return False
        return True

    def wait(self, seconds: float) -> bool:
        """Wait for its end; True if it has ended."""
        deadline = time.monotonic() + seconds
        while self.pid() is not None:
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_SECONDS)
        self.pid_file.unlink(missing_ok=True)
        return True

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self.send(signal.SIGKILL)
        self.wait(10.0)

    def stop(self, grace_seconds: float = 5.0) -> str:
        """SIGTERM, then SIGKILL after the grace; returns "stopped", "killed" or "was not running"."""
        if not self.send(signal.SIGTERM):
            self.pid_file.unlink(missing_ok=True)
            return "was not running"
        if self.wait(grace_seconds):
            return "stopped"
        self.kill()
        return "killed"


def stop_all(processes: list[ReplicaProcess], grace_seconds: float = 5.0) -> list[str]:
    """Stop replicas side by side; returns what became of each."""
    signalled = [process.send(signal.SIGTERM) for process in processes]
    deadline = time.monotonic() + grace_seconds
    return [
        _end(process, max(0.0, deadline - time.monotonic())) if ran else "was not running"
        for process, ran in zip(processes, signalled, strict=True)
    ]


def _end(process: ReplicaProcess, seconds: float) -> str:
    if process.wait(seconds):
        return "stopped"
    process.kill()
    return "killed"


def _runs(pid: int, config: Path) -> bool:
    """True if `pid` is a process that runs this replica."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return False
    command = Path(f"/proc/{pid}/cmdline")
    if not command.parent.parent.joinpath("self").exists():
        return True  # not Linux: nothing better to ask
    try:
        return str(config.resolve()).encode() in command.read_bytes().split(b"\0")
    except OSError:
        return False
