"""What `import bft` offers, and what it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import bft


def test_every_public_name_exists() -> None:
    """`__all__` holds what the documentation promises, and nothing that is missing."""
    for name in bft.__all__:
        assert getattr(bft, name) is not None
    with pytest.raises(AttributeError):
        bft.nothing  # noqa: B018


def test_import_is_cheap() -> None:
    """A service can be written without loading the network."""
    heavy = "('trio', 'anyio', 'nacl', 'ssl')"
    script = f"import sys, bft; bft.Service, bft.Map; print([name for name in {heavy} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_python_without_assertions_is_refused() -> None:
    """`python -O` would remove what stops a faulty replica."""
    ran = subprocess.run([sys.executable, "-O", "-c", "import bft"], capture_output=True, text=True)
    assert ran.returncode == 1 and "refuses to run under python -O" in ran.stderr
