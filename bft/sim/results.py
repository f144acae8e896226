"""Results of campaigns: what one run left, and the SQLite file that many runs are kept in.

A row holds everything needed to repeat its run (the scenario as JSON, the version of the code) and to tell whether the
repetition was faithful (the trace digest). `campaign` produces results, `report` draws them.
"""

from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import msgspec

from bft.errors import ConfigError
from bft.sim.scenario import Scenario

Outcome = Literal["pass", "violation", "inconclusive"]
"""`inconclusive`: nothing was decided, so that no checker had anything to look at."""
OUTCOMES: tuple[Outcome, ...] = ("pass", "violation", "inconclusive")
PACKAGE = Path(__file__).resolve().parent.parent


class Found(msgspec.Struct, frozen=True):
    """A violation as it is stored: `bft.sim.checkers.Violation` in a form that can be encoded."""

    checker: str
    detail: str


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What one run left behind.

    Attributes:
        generator: where the scenario came from: `uniform`, `structured`, `directed`, `file`, `shrunk`.
        label: a directed scenario's name, or the id of the run that was shrunk; empty otherwise.
        counters: how often what happened, so that a pass can be seen not to be vacuous.
        digest: hash of every frame delivered and its time; equal scenarios must give equal digests.
        milliseconds: wall-clock time of the run, checkers included.
        code: version of the code that ran.
        id: row in the database; 0 until stored.
    """

    generator: str
    scenario: Scenario
    outcome: Outcome
    violations: tuple[Found, ...]
    counters: dict[str, int]
    digest: str
    milliseconds: float
    label: str = ""
    code: str = ""
    id: int = 0

    @property
    def checkers(self) -> list[str]:
        """Names of the checkers that fired, each once, in order."""
        return list(dict.fromkeys(found.checker for found in self.violations))


SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    id INTEGER PRIMARY KEY,
    code TEXT NOT NULL,
    generator TEXT NOT NULL,
    label TEXT NOT NULL,
    seed INTEGER NOT NULL,
    n INTEGER NOT NULL,
    scenario TEXT NOT NULL,
    outcome TEXT NOT NULL,
    violations TEXT NOT NULL,
    counters TEXT NOT NULL,
    digest TEXT NOT NULL,
    milliseconds REAL NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS runs_outcome ON runs (outcome);
"""
COLUMNS = "id, code, generator, label, scenario, outcome, violations, counters, digest, milliseconds"


class Results:
    """The file of results; a context manager.

    Args:
        path: where it is.
        create: make the file, and its folder, if missing.

    Raises:
        ConfigError: the file is missing or is no database of results.
    """

    def __init__(self, path: Path, *, create: bool = True) -> None:
        if create:
            path.parent.mkdir(parents=True, exist_ok=True)
        elif not path.exists():
            raise ConfigError(f"{path}: there is no such database; `bft campaign run` makes one")
        self._database = sqlite3.connect(path)
        try:
            self._database.executescript(SCHEMA)
            self._database.execute(f"SELECT {COLUMNS} FROM runs LIMIT 0")
        except sqlite3.Error as error:
            self._database.close()
            raise ConfigError(f"{path}: is no database of campaign results: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def add(self, results: Iterable[Result]) -> list[int]:
        """Store results in one transaction; returns their ids."""
        ids = []
        with self._database:
            for result in results:
                row = (
                    result.code,
                    result.generator,
                    result.label,
                    result.scenario.seed,
                    result.scenario.n,
                    to_json(result.scenario),
                    result.outcome,
                    to_json(result.violations),
                    to_json(result.counters),
                    result.digest,
                    result.milliseconds,
                )
                cursor = self._database.execute(
                    "INSERT INTO runs (code, generator, label, seed, n, scenario, outcome, violations, counters,"
                    " digest, milliseconds) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    row,
                )
                assert cursor.lastrowid is not None, "an insert has a row"
                ids.append(cursor.lastrowid)
        return ids

    def get(self, run: int) -> Result:
        """One run.

        Raises:
            ConfigError: there is none with this id.
        """
        row = self._database.execute(f"SELECT {COLUMNS} FROM runs WHERE id = ?", (run,)).fetchone()
        if row is None:
            raise ConfigError(f"there is no run {run} in the database")
        return _from_row(row)

    def all(self, outcome: Outcome | None = None, limit: int = -1) -> Iterator[Result]:
        """Runs in order of id; the last `limit` of them if it is not negative."""
        where = "WHERE outcome = ?" if outcome else "WHERE 1 OR ?"
        rows = self._database.execute(
            f"SELECT * FROM (SELECT {COLUMNS} FROM runs {where} ORDER BY id DESC LIMIT ?) ORDER BY id",
            (outcome or "", limit),
        )
        return map(_from_row, rows)


def _from_row(row: tuple[int, str, str, str, str, Outcome, str, str, str, float]) -> Result:
    run, code, generator, label, scenario, outcome, violations, counters, digest, milliseconds = row
    return Result(
        id=run,
        code=code,
        generator=generator,
        label=label,
        scenario=msgspec.json.decode(scenario, type=Scenario),
        outcome=outcome,
        violations=msgspec.json.decode(violations, type=tuple[Found, ...]),
        counters=msgspec.json.decode(counters, type=dict[str, int]),
        digest=digest,
        milliseconds=milliseconds,
    )


def to_json(value: object) -> str:
    """Compact JSON with sorted keys, so that equal values are equal text."""
    return msgspec.json.encode(value, order="sorted").decode()


def read_scenario(path: Path) -> Scenario:
    """Read a scenario file.

    Raises:
        ConfigError: it cannot be read or describes no scenario.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Scenario)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error


def write_scenario(path: Path, scenario: Scenario) -> None:
    """Write a scenario file, for people: defaults left out, one field a line."""
    path.write_bytes(msgspec.json.format(sparse_json(scenario).encode(), indent=2) + b"\n")


def sparse_json(scenario: Scenario) -> str:
    """A scenario as JSON without the fields that have their default value."""
    default = msgspec.to_builtins(Scenario(seed=0))
    fields: dict[str, object] = msgspec.to_builtins(scenario)
    return to_json({name: _sparse(value, default[name]) for name, value in fields.items() if _counts(name, fields)})


DEFAULTS: dict[str, object] = {
    "replica": 0,
    "groups": [],
    "amount": 0,
    "kinds": [],
    "view": None,
    "seqs": [],
    "sources": [],
    "targets": [],
    "late_ms": None,
}
"""Of the fields of faults and rules."""


def _counts(name: str, fields: dict[str, object]) -> bool:
    return name in ("seed", "n") or fields[name] != msgspec.to_builtins(Scenario(seed=0))[name]


def _sparse(value: object, default: object) -> object:
    match value:
        case dict() if isinstance(default, dict) and default:
            return {key: item for key, item in value.items() if item != default.get(key)}
        case list():
            return [_sparse(item, DEFAULTS) for item in value]
        case _:
            return value


def code_version() -> str:
    """Which code this is: the commit if there is one, and a hash of the package's files either way.

    The hash tells two states of a dirty tree apart, and names a package installed without git.
    """
    digest = blake2b(digest_size=4)
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(path.relative_to(PACKAGE).as_posix().encode())
        digest.update(path.read_bytes())
    command = ["git", "-C", str(PACKAGE), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return digest.hexdigest()
    commit = done.stdout.strip() if done.returncode == 0 else ""
    return f"{commit}+{digest.hexdigest()}" if commit else digest.hexdigest()
