"""Mutation score: does the default campaign notice when the protocol is broken on purpose?

A mutant is a few textual patches. Each is applied to a scratch copy of the package in a temporary directory, never to
the tree, and hunted in a process of its own until a checker fires or the time is up. The mutants are declared in
`tests/mutants/mutants.toml`; survivors are reported as such.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from itertools import count, islice
from pathlib import Path
from types import FrameType

import msgspec

from bft.errors import ConfigError

PACKAGE = Path(__file__).parent.parent
STRIDE = 7
"""Of a family's crash points every so many-th comes first: neighbours tend to break alike."""
FEW_POINTS = 40
"""So many points stand for a whole family where the real code is to pass; `bft campaign crashpoints` runs them all."""
RUN_SECONDS_MAX = 20.0
"""A run that takes more processor time is put aside as inconclusive: some mutants make messages multiply."""


class Patch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Replace `old`, which occurs exactly once in the file `bft/<file>`, by `new`."""

    file: str
    old: str
    new: str


class Mutant(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One broken protocol.

    Attributes:
        id: `M01` .. as in the catalogue, `O01` .. for our own.
        title: what is broken, for people.
        job: the run known to kill it, `generator/n/seed` or `directed/name`, or the crash points of a family,
            `crashpoints/family/way`; empty if it survives.
        checkers: those that fire in that run.
    """

    id: str
    title: str
    patch: tuple[Patch, ...]
    job: str = ""
    checkers: tuple[str, ...] = ()


class Kill(msgspec.Struct, frozen=True, kw_only=True):
    """How a hunt ended.

    Attributes:
        checkers: those that fired, the first in the order of `CHECKERS` first; empty if the mutant survived.
        schedules: runs needed.
    """

    mutant: str
    checkers: tuple[str, ...]
    job: str
    schedules: int
    seconds: float


class _Declared(msgspec.Struct, forbid_unknown_fields=True):
    mutant: tuple[Mutant, ...]


def load(path: Path) -> list[Mutant]:
    """The mutants that a file declares.

    Raises:
        ConfigError: the file is no list of mutants, or an id occurs twice.
    """
    try:
        declared = msgspec.convert(tomllib.loads(path.read_text()), _Declared).mutant
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"{path}: {error}") from error
    names = [mutant.id for mutant in declared]
    if len(set(names)) != len(names):
        raise ConfigError(f"{path}: a mutant's id occurs twice")
    return list(declared)


def patched(mutant: Mutant, root: Path) -> None:
    """Break the copy of the package below `root`.

    Raises:
        ConfigError: a patch does not fit exactly once: the code has moved on, or the patch is ambiguous.
    """
    for patch in mutant.patch:
        path = root / "bft" / patch.file
        text = path.read_text()
        found = text.count(patch.old)
        if found != 1:
            raise ConfigError(f"mutant {mutant.id}: {patch.file} has {found} places like {patch.old!r}, expected one")
        path.write_text(text.replace(patch.old, patch.new))


@contextmanager
def scratch(mutant: Mutant) -> Iterator[Path]:
    """A directory with a broken copy of the package; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix=f"bft-{mutant.id}-") as name:
        root = Path(name)
        shutil.copytree(PACKAGE, root / "bft", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        patched(mutant, root)
        yield root


def hunt(mutant: Mutant, *, seconds: float, first: int = 0, job: str = "") -> Kill:
    """Run the default campaign against a mutant until a checker fires or the time is up; only `job` if it is given.

    Raises:
        ConfigError: a patch does not fit.
        RuntimeError: the broken package could not even be started.
    """
    with scratch(mutant) as root:
        environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", "bft.sim.mutation", mutant.id, str(seconds), str(first), job]
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"mutant {mutant.id} did not run: {done.stderr[-2000:]}")
    return msgspec.convert(json.loads(done.stdout), Kill)


# --- in the broken package's own process --------------------------------------------------------------------------


def runs(first: int, job: str) -> Iterator[str]:
    """The runs to do: the default campaign, one run, or with `*` in it every directed run of such a name."""
    from bft.sim.directed import catalogue

    if "*" in job:
        yield from (name for name in (f"directed/{name}" for name in catalogue()) if fnmatch(name, job))
    elif job.startswith("crashpoints/"):
        yield from crash_runs(job)
    elif job:
        yield job
    else:
        yield from mix(first)


def crash_runs(job: str) -> Iterator[str]:
    """The points that `crashpoints/FAMILY/WAY` stands for, spread over the family; a single point stands for itself."""
    from bft.sim.crashpoints import points

    parts = job.split("/")
    if len(parts) != 3:
        yield job
        return
    every = [f"crashpoints/{point}" for point in points(parts[1], parts[2])]
    for first in range(STRIDE):
        yield from every[first::STRIDE]


def mix(first: int) -> Iterator[str]:
    """The default campaign as names of runs: every generator in turn, small clusters more often than large ones."""
    from bft.sim.directed import catalogue

    names = list(catalogue())
    for step in count():
        seed = first + step
        if step < len(names):
            yield f"directed/{names[(first * 7 + step) % len(names)]}"
        yield f"structured/4/{seed}"
        yield f"uniform/4/{seed}"
        yield f"reconfigured/4/{seed}"
        if step % 2:
            yield f"structured/7/{seed}"
        if step % 4 == 3:
            yield f"uniform/7/{seed}"


def violated(job: str) -> tuple[str, ...]:
    """Names of the checkers that fire in one run; `exception` if the run itself fails, nothing if it takes too long."""
    from bft.sim import generate
    from bft.sim.checkers import check
    from bft.sim.crashpoints import Point, scenario_of
    from bft.sim.generate_changes import reconfigured
    from bft.sim.service import Registers
    from bft.sim.world import World

    generator, _, rest = job.partition("/")
    if generator == "crashpoints" and rest.count("/") == 1:
        few = islice(crash_runs(job), FEW_POINTS)
        return next((checkers for name in few if (checkers := violated(name))), ())
    if generator == "directed":
        scenario = generate.directed()[rest]
    elif generator == "crashpoints":
        scenario = scenario_of(Point.parse(rest))
    else:
        n, _, seed = rest.partition("/")
        make = {"structured": generate.structured, "reconfigured": reconfigured}.get(generator)
        scenario = (make or generate.scenario)(int(seed), int(n))
    signal.setitimer(signal.ITIMER_VIRTUAL, RUN_SECONDS_MAX)
    try:
        found = check(World(scenario, Registers).run())
    except TimeoutError:
        return ()
    # A broken replica may fail in any way; that it does is what we want to know.
    except Exception:
        return ("exception",)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return tuple(dict.fromkeys(violation.checker for violation in found))


def _too_long(number: int, frame: FrameType | None) -> None:
    raise TimeoutError("a run takes too long")


def main(arguments: Sequence[str]) -> None:
    """Hunt in this process: `mutant seconds first job`; prints the `Kill` as JSON."""
    mutant, seconds, first, job = arguments
    signal.signal(signal.SIGVTALRM, _too_long)
    began = time.monotonic()
    schedules = 0
    checkers: tuple[str, ...] = ()
    name = ""
    for name in runs(int(first), job):
        schedules += 1
        checkers = violated(name)
        if checkers or time.monotonic() - began > float(seconds):
            break
    took = time.monotonic() - began
    kill = Kill(mutant=mutant, checkers=checkers, job=name if checkers else "", schedules=schedules, seconds=took)
    sys.stdout.write(msgspec.json.encode(kill).decode())


if __name__ == "__main__":
    main(sys.argv[1:])
