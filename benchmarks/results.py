"""Results as files: every figure that is quoted anywhere comes from one of these."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

RESULTS = Path(__file__).parent / "results"


def environment() -> dict[str, object]:
    """What a figure depends on beside the code."""
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return {
        "commit": commit.stdout.strip() or "unknown",
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def spread(values: list[float]) -> dict[str, float]:
    """Median, smallest and largest of repeated runs."""
    return {"median": median(values), "min": min(values), "max": max(values), "runs": len(values)}


def write(name: str, figures: object, folder: Path = RESULTS) -> Path:
    """Write one result file and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"environment": environment(), "figures": figures}, indent=1) + "\n")
    return path
