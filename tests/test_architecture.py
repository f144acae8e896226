"""The layers, as one table: who may import whom, and what the pure parts may not touch."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOUNDATION = ["errors", "ids", "membership", "messages", "headers", "events", "ports", "config", "digests"]

MAY_IMPORT: dict[str, list[str]] = {
    **dict.fromkeys(FOUNDATION, FOUNDATION),
    "compiled": [],
    "epochs": [*FOUNDATION, "wire"],
    "core": [*FOUNDATION, "core", "epochs", "wire"],
    "wire": [*FOUNDATION, "core", "epochs", "wire"],
    "state": [*FOUNDATION, "state", "wire"],
    "services": [*FOUNDATION, "services", "state", "wire", "client"],
    "determinism": [*FOUNDATION, "determinism", "state", "services", "wire"],
    "engine": [*FOUNDATION, "state", "wire"],  # wire: it opens manifests to say where two states differ
    "generals": [*FOUNDATION, "generals", "wire"],
    "crypto": [*FOUNDATION, "crypto", "generals"],
    "storage": [*FOUNDATION, "storage", "wire"],
    "transport": [*FOUNDATION, "transport", "crypto", "epochs", "wire"],
    # core: what evidence is, and how it is judged
    "client": [*FOUNDATION, "client", "core", "epochs", "services", "crypto", "transport", "wire"],
    "runtime": [
        *FOUNDATION, "runtime", "core", "wire", "state", "services", "engine", "crypto", "storage", "transport",
        "determinism", "signing", "epochs",
    ],
    "signing": [*FOUNDATION, "signing", "crypto", "storage", "transport", "wire"],
    "adversary": [
        *FOUNDATION, "adversary", "core", "epochs", "wire", "state", "services", "engine", "client", "runtime"
    ],
    "sim": [
        *FOUNDATION, "sim", "adversary", "core", "wire", "state", "services", "engine", "client", "crypto", "storage",
        "epochs", "generals", "compiled",
    ],
}
"""Part -> the parts it may import. The command line and the package's front may import everything."""

PURE = ["core", "wire", "state", "services", "generals", "engine", "epochs", *FOUNDATION]
PURE_FILES = ["client/session.py"]
SEEDED = ["sim", "adversary"]
FORBIDDEN_IN_PURE = {
    "anyio",
    "asyncio",
    "cryptography",
    "logging",
    "nacl",
    "os",
    "random",
    "socket",
    "sqlite3",
    "ssl",
    "subprocess",
    "threading",
    "time",
    "trio",
}
ALLOWED_IN_SEEDED = {"random"}
EXCEPTIONS: dict[str, set[str]] = {
    "state/context.py": {"random"},  # dice seeded with agreed bytes
    "generals/traitors.py": {"random"},  # a Random that is handed in
}
IMPURE_ALLOWED = ["adversary/live.py", "sim/campaign.py", "sim/mutation.py", "sim/results.py"]
"""Files of the seeded parts that are drivers of processes and databases, not part of a simulated world."""


def _files() -> list[Path]:
    return sorted((ROOT / "bft").rglob("*.py"))


def _imports(path: Path) -> list[str]:
    """Modules imported at run time (not those under TYPE_CHECKING)."""
    tree = ast.parse(path.read_text())
    skipped = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.dump(branch.test)
        for node in ast.walk(branch)
    }
    found = []
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
            if node.module == "bft":
                found += [f"bft.{alias.name}" for alias in node.names]
    return found


def _part(path: Path) -> str:
    relative = path.relative_to(ROOT / "bft")
    return relative.parts[0].removesuffix(".py")


@pytest.mark.parametrize("part", sorted(MAY_IMPORT))
def test_part_imports_only_what_stands_below_it(part):
    """Honest layers never import the simulator or the adversary; the core never imports what does IO."""
    wrong = []
    for path in _files():
        if _part(path) != part:
            continue
        for module in _imports(path):
            if module.startswith("bft.") and module.split(".")[1] not in MAY_IMPORT[part]:
                wrong.append(f"{path.relative_to(ROOT)} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_pure_parts_touch_no_clock_dice_disk_or_wire():
    """Time, dice, disk and wire are arguments or results, never calls."""
    wrong = []
    for path in _files():
        name = str(path.relative_to(ROOT / "bft"))
        part = _part(path)
        if part not in [*PURE, *SEEDED] and name not in PURE_FILES:
            continue
        allowed = EXCEPTIONS.get(name, set()) | (ALLOWED_IN_SEEDED if part in SEEDED else set())
        if part in SEEDED and name in IMPURE_ALLOWED:
            continue
        for module in _imports(path):
            top = module.split(".")[0]
            if top in FORBIDDEN_IN_PURE - allowed:
                wrong.append(f"{name} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_every_part_is_in_the_table():
    """A new folder states its place."""
    parts = {_part(path) for path in _files()} - {"__init__", "cli"}
    assert parts <= set(MAY_IMPORT), parts - set(MAY_IMPORT)


def test_thresholds_are_written_once():
    """Nobody but `membership` computes a quorum: `2 * f` is unsafe for n != 3f + 1."""
    wrong = []
    for path in _files():
        if path.name == "membership.py" or _part(path) == "generals":
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            code = line.split("#")[0]
            if any(text in code.replace(" ", "") for text in ("2*f", "2*self.f", "3*f", "quorums.f+1")):
                wrong.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert not wrong, "\n".join(wrong)


def test_files_stay_within_one_subject():
    """Think again at 400 lines; 500 is a redesign."""
    long = [str(path.relative_to(ROOT)) for path in _files() if len(path.read_text().splitlines()) > 500]
    assert not long, long
