"""Corruption of a replica that serves real traffic, as the package's docstring shows it."""

from __future__ import annotations

import subprocess
import sys
from textwrap import dedent

from bft import adversary
from bft.runtime.local import LocalCluster


def test_example_of_the_package_runs() -> None:
    """What it says about itself is true, and `corrupt` says where to find it."""
    _, example = (adversary.__doc__ or "").split("takes:\n\n")
    ended = subprocess.run(
        [sys.executable, "-c", dedent(example)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "hello\n", "")
    assert "bft.adversary.live" in (LocalCluster.corrupt.__doc__ or "")
