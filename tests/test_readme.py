"""The README's example and commands run as they are pasted."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

from benchmarks.__main__ import main as benchmarks
from benchmarks.readme import section
from bft.cli.commands import cli as bft
from bft.cli.ports import reserve_ports

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


MADE = ("cluster.toml", "my_crimes.py", "r0/replica.toml", "r3/replica.toml", "replica.toml")
"""Files that a README has its reader make."""


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def test_readme_example_runs_and_prints_what_its_comments_say(tmp_path: Path) -> None:
    """The first screen is true."""
    (example,) = _blocks("python")
    script = tmp_path / "example.py"
    script.write_text(example)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=30, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    promised = re.findall(r"^ *print\(.*\)  # (.*)$", example, re.MULTILINE)
    assert promised
    assert done.stdout.split("\n")[:-1] == promised


def test_readme_example_is_a_module_with_types(tmp_path: Path) -> None:
    """Whoever copies it may import its service elsewhere (`bft check example:Bank`), and check it strictly."""
    (example,) = _blocks("python")
    (tmp_path / "example.py").write_text(example)
    for command in (["-c", "import example"], ["-m", "mypy", "--strict", "example.py"]):
        done = subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, timeout=100, cwd=tmp_path, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert command[0] == "-m" or not done.stdout


def test_readme_commands_run_in_their_order(tmp_path: Path) -> None:
    """Only the ports are changed, since other tests run on this machine too."""
    (commands,) = _blocks("sh")
    script = commands.replace("bft cluster init", f"bft cluster init --base-port {reserve_ports(4)}", 1)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    try:
        done = subprocess.run(
            ["sh", "-e", "-c", script],
            capture_output=True, text=True, timeout=60, cwd=tmp_path, env=environment, check=False,
        )  # fmt: skip
    finally:
        subprocess.run(["bft", "cluster", "down"], cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "hello" in lines and "3" in lines
    assert lines[-4:] == [f"replica {replica}: stopped" for replica in range(4)]


def _readmes() -> list[Path]:
    """The README of every folder that is not hidden."""
    found = sorted(ROOT.glob("**/README.md"))
    return [path for path in found if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)]


def test_readme_links_lead_to_files_and_headings() -> None:
    """No link of the README or of the folders' own READMEs is dead."""
    links = [
        (path, *link)
        for path in _readmes()
        for link in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", path.read_text())
    ]
    assert len(links) > 10
    for path, target, place in links:
        file = path.parent / target if target else path
        assert file.exists(), f"{path}: {target}"
        if place:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            assert place in [heading.lower().replace(" ", "-") for heading in headings], f"{path}: {target}#{place}"


def test_files_named_in_readmes_exist() -> None:
    """Those in backquotes: in the README's own folder, in the package, or beside it; but for what a reader makes."""
    missing = []
    for path in _readmes():
        for name in re.findall(r"`((?:\.\./|\w+/)*\w+\.(?:py|md|toml))`", path.read_text()):
            places = (path.parent / name, ROOT / name, ROOT / "bft" / name)
            if not any(place.exists() for place in places) and name not in MADE:
                missing.append((str(path.relative_to(ROOT)), name))
    assert missing == []


def _shown_commands() -> list[tuple[str, str]]:
    """(file, command line) of every `bft ...` and `python -m benchmarks ...` that a README shows."""
    found: list[tuple[str, str]] = []
    for path in _readmes():
        name, text = str(path.relative_to(ROOT)), path.read_text()
        lines = re.findall(r"^(?: {4})?(?:bft|python -m benchmarks) .*$", text, re.MULTILINE)
        lines += re.findall(r"`((?:bft|python -m benchmarks) [^`]*)`", text)
        if name == "benchmarks/README.md":
            table = text.partition("## How to repeat")[2].partition("## ")[0].splitlines()
            cells = "".join(line.split("|")[2] for line in table if line.startswith("|"))
            lines += [f"python -m benchmarks {words}" for words in re.findall(r"`([a-z][^`/]*)`", cells)]
        for line in lines:
            for part in line.partition(" #")[0].strip().split(" && "):
                found.append((name, part))
    return found


def test_commands_that_readmes_show_exist_with_their_options() -> None:
    """Each is parsed with `--help` behind it: an unknown command or option ends it before the help is shown."""
    shown = _shown_commands()
    assert len(shown) > 40
    wrong = []
    for name, line in shown:
        program = bft if line.startswith("bft ") else benchmarks
        arguments = line.removeprefix("python -m benchmarks ").removeprefix("bft ")
        words = [word.partition("|")[0] for word in shlex.split(arguments)]
        outcome = CliRunner().invoke(program, [*words, "--help"])
        if outcome.exit_code or "Usage" not in outcome.output:
            wrong.append((name, line, outcome.output))
    assert wrong == []


def test_readme_quotes_no_figure_outside_its_section_on_performance() -> None:
    """Speeds and times are quoted from files, in one place."""
    before, _, after = README.partition("## Performance")
    rest = before + after.partition("## ")[2]
    assert not re.search(r"\d[\d ,]* ?(ops?/s|operations/s|ms|op/s)\b", rest)


def test_performance_section_is_what_the_result_files_say() -> None:
    """No figure is typed by hand: the section is rendered from benchmarks/results."""
    assert section() in README
