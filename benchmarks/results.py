"""Results as files: every figure that is quoted anywhere comes from one of these."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

from benchmarks.statistics import is_spread as is_spread
from benchmarks.statistics import spread as spread
from benchmarks.statistics import spreads as spreads
from bft.compiled import compiled_modules

RESULTS = Path(__file__).parent / "results"
LOAD_BEFORE = [round(value, 2) for value in os.getloadavg()]
"""Of when this program began: what is measured loads the machine itself, and afterwards hides what else did."""
REMARKS = ("failed_runs", "description", "liar", "complaints", "verdict")
"""Columns that say how a measurement went or explain it: neither a metric nor what makes two rows the same one."""


def environment() -> dict[str, object]:
    """What a figure depends on beside the code."""
    return {
        "commit": _commit(),
        "python": sys.version.split()[0],
        "compiled": len(compiled_modules()),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "stores_on": _filesystem(tempfile.gettempdir()),
        "load": LOAD_BEFORE,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _commit() -> str:
    """The commit measured; marked where something else than earlier result files and what is made of them differs."""
    name = _git("rev-parse", "--short", "HEAD")
    others = (":(top)", ":(top,exclude)benchmarks/results", ":(top,exclude)README.md")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", *others)
    return f"{name}-dirty" if changed else name or "unknown"


def _git(*arguments: str) -> str:
    command = ["git", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
    return done.stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _filesystem(folder: str) -> str:
    """Type of the file system where stores lie: on tmpfs an fsync costs nothing, and "power" says nothing."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "unknown"
    above = [(mount, kind) for mount, kind in mounts if Path(folder).resolve().is_relative_to(mount)]
    return max(above, key=lambda found: len(found[0]), default=("", "unknown"))[1]


def write(name: str, figures: object, folder: Path = RESULTS, **more: object) -> Path:
    """Write one result file and return its path; `more` are further entries beside environment and figures.

    Figures are rows. In a row, what `spread` returned is a metric, and everything else says what was measured; this is
    all that comparisons, plots and reports know of a file, so a new kind of benchmark needs nothing but to write one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    document = {"environment": environment(), **more, "figures": figures}
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path


class NotResults(Exception):
    """A file that is no result file; the text says which and why."""


def read(path: Path) -> dict[str, Any]:
    """A result file.

    Raises:
        NotResults: there is no such file, or it holds something else.
    """
    try:
        loaded = json.loads(path.read_text())
    except OSError as error:
        raise NotResults(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise NotResults(f"{path}: is not JSON: {error}") from error
    figures = loaded.get("figures") if isinstance(loaded, dict) else None
    if not isinstance(figures, list) or not all(isinstance(row, dict) for row in figures):
        raise NotResults(f"{path}: has no list of figures")
    loaded.setdefault("environment", {}).setdefault("compiled", 0)  # what does not say so was interpreted
    return cast("dict[str, Any]", loaded)


def metrics(row: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The measured spreads of a row."""
    return {name: value for name, value in row.items() if is_spread(value)}


def identity(row: dict[str, Any]) -> dict[str, Any]:
    """What a row is about: everything that is neither a spread nor a remark."""
    return {name: value for name, value in row.items() if not is_spread(value) and name not in REMARKS}
