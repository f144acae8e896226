"""A disk that refuses stops the replica at once and cleanly; the others go on."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from bft.services.kv import KeyValue
from tests.integration.rig import ROOT, Rig, make_rig

FULL_AT_BYTES = 2_000_000
TMPFS_BYTES = 4_000_000


def _start_with_small_files(rig: Rig, replica: int) -> subprocess.Popen[str]:
    """A replica process that cannot write a file beyond FULL_AT_BYTES."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (FULL_AT_BYTES, FULL_AT_BYTES))

    return subprocess.Popen(
        [sys.executable, "-m", "bft.cli.main", "replica", "run", str(rig.processes[replica].config)],
        preexec_fn=limit,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


async def _store_until_it_ends(rig: Rig, process: subprocess.Popen[str]) -> None:
    """Store large values until the replica has stopped, and some more."""
    async with rig.client() as client:
        service = client.service(KeyValue)
        number = 0
        with trio.fail_after(15):
            while process.poll() is None:
                number += 1
                await service.put(f"key-{number}", "x" * 20_000)
        for extra in range(20):
            await service.put(f"extra-{extra}", "x")
        assert await service.get("key-1") == "x" * 20_000


def _require_clean_end(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    words = process.stderr.read()
    process.stderr.close()
    assert process.returncode == 1, words
    assert "Traceback" not in words, words
    errors = [line for line in words.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, words
    assert "replica.db" in errors[0] and "SQLITE_" in errors[0], words


async def test_replica_stops_cleanly_when_its_file_cannot_grow(tmp_path: Path) -> None:
    """The limited replica says what the disk said and ends with 1; the cluster goes on without it."""
    with make_rig(tmp_path / "cluster") as rig:
        rig.start(0, 1, 2)
        process = _start_with_small_files(rig, 3)
        try:
            await rig.until_all_answer()
            await _store_until_it_ends(rig, process)
        finally:
            process.kill()
            process.wait()
        _require_clean_end(process)


async def test_replica_stops_cleanly_when_its_disk_is_full_and_comes_back_on_a_larger_one(tmp_path: Path) -> None:
    """On a full file system it stops; after making room it starts from its store and catches up."""
    with make_rig(tmp_path / "cluster") as rig:
        data = rig.folder / "r3" / "data"
        data.mkdir()
        options = ["-t", "tmpfs", "-o", f"size={TMPFS_BYTES}", "tmpfs", str(data)]
        if subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
            pytest.skip("needs the right to mount a tmpfs")
        try:
            rig.start()
            await rig.until_all_answer()
            child = rig.processes[3].child
            assert child is not None
            await _store_until_it_ends(rig, child)  # type: ignore[arg-type] # only polled
            assert child.returncode == 1, rig.processes[3].last_words()
            assert "SQLITE_FULL" in rig.processes[3].last_words()
            subprocess.run(["mount", "-o", "remount,size=100000000", str(data)], check=True)
            rig.start(3)
            await rig.until_equal()
        finally:
            rig.kill()
            subprocess.run(["umount", str(data)], check=True)


async def test_replica_refuses_a_read_only_disk(tmp_path: Path) -> None:
    """A store that cannot be written is refused at the start."""
    with make_rig(tmp_path / "cluster") as rig:
        data = rig.folder / "r3" / "data"
        data.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(data)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("needs the right to mount a tmpfs")
        try:
            rig.start()
            await rig.until(lambda accounts: sum(account.answered for account in accounts) == 3)
            assert rig.processes[3].child is not None
            assert rig.processes[3].child.wait(10) == 1
            assert "store folder cannot be written: Read-only file system" in rig.processes[3].last_words()
        finally:
            rig.kill()
            subprocess.run(["umount", str(data)], check=True)
