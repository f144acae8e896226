"""The demo and the programs in `clients/`, as people run them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from bft.cli.layout import replica_configs
from bft.cli.processes import ReplicaProcess
from bft.cli.terminal import Exit
from tests.integration.rig import ROOT, bft, make_rig


def _run(program: str, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "clients" / program), *arguments]
    return subprocess.run(command, input=given, capture_output=True, text=True, timeout=30, cwd=ROOT, check=False)


def test_demo_holds_and_writes_its_figures(tmp_path: Path) -> None:
    """A small run of the README's first command: every claim of the verdict holds, and no process is left."""
    folder = tmp_path / "run"
    ended = bft(
        "demo", "--records", "5000", "--dir", str(folder), "--keys", str(tmp_path / "keys"), seconds=60, cwd=tmp_path
    )
    assert ended.code == 0, ended
    result = json.loads((folder / "result.json").read_text())
    assert all(result["verdict"].values()), result
    assert result["operations"] >= 5000 and result["records_lost"] == 0
    assert [ReplicaProcess(config).pid() for config in replica_configs(folder)] == [None] * 4


def test_demo_never_removes_what_it_has_not_made(tmp_path: Path) -> None:
    """A folder with other files in it is refused."""
    (tmp_path / "precious").write_text("mine")
    ended = bft("demo", "--dir", str(tmp_path), "--keys", str(tmp_path / "keys"))
    assert ended.code == Exit.FAILED
    assert "not of an earlier demo" in " ".join(ended.err.split())
    assert (tmp_path / "precious").exists()


async def test_shell_and_tour_run_against_a_cluster(tmp_path: Path) -> None:
    """The blocking client in a pipe, and the asyncio one."""
    with make_rig(tmp_path / "cluster") as rig:
        rig.start()
        await rig.until_all_answer()
        shell = _run(
            "kv_shell.py", "--cluster", str(rig.cluster_file), given='put a "b c"\nget a\nincrement n 4\nscan\nquit\n'
        )
        assert (shell.returncode, shell.stdout) == (0, "None\nb c\n4\na\tb c\nn\t4\n"), shell
        wrong = _run("kv_shell.py", "--cluster", str(rig.cluster_file), given="fly\nincrement a\n")
        assert wrong.returncode == 1
        assert "no command 'fly'" in wrong.stderr and "NotAnInteger" in wrong.stderr
        tour = _run("asyncio_tour.py", "--cluster", str(rig.cluster_file), "--calls", "200")
        assert tour.returncode == 0, tour
        assert "200 concurrent increments" in tour.stdout and "the last of 100 ordered writes: 99" in tour.stdout


async def test_bank_conserves_money_in_a_cluster_of_its_own_service(tmp_path: Path) -> None:
    """The replicas import the service from the folder in which they are started."""
    with make_rig(tmp_path / "cluster", service="clients.bank:Bank") as rig:
        rig.start()
        await rig.until_all_answer()
        bank = _run("bank.py", "--cluster", str(rig.cluster_file), "--transfers", "1000")
        assert bank.returncode == 0, bank
        assert "money was conserved" in bank.stdout
        called = rig.bft("call", "transfer", "account-1", "account-2", "100000")
        assert called.code == Exit.FAILED and "InsufficientFunds" in called.err
        assert rig.bft("call", "total").out == "2000\n"


def test_programs_say_what_is_missing_in_one_line(tmp_path: Path) -> None:
    """No traceback for a user's error."""
    for program in ("kv_shell.py", "asyncio_tour.py", "bank.py"):
        ended = _run(program, "--cluster", str(tmp_path / "nowhere.toml"))
        assert ended.returncode == 1
        assert ended.stderr.startswith("error: ") and "Traceback" not in ended.stderr
        assert _run(program, "--help").returncode == 0
