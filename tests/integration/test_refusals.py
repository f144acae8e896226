"""What users do wrong, and what is down: one clear line each, and an exit code that means something."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest
import trio

from bft.cli.terminal import Exit
from bft.crypto.keys import KeyPair, save_key
from bft.errors import OutcomeUnknown
from bft.services.kv import KeyValue
from tests.integration.rig import Ended, bft, make_rig


def _require_clear(ended: Ended, code: Exit, *parts: str) -> None:
    assert ended.code == code, ended
    assert "Traceback" not in ended.out + ended.err
    flat = " ".join(ended.err.split())
    for part in parts:
        assert part in flat, f"{part!r} is not in {flat!r}"


async def test_unknown_client_key_is_refused(tmp_path: Path) -> None:
    """With known enrolment a stranger's key gets no answer, and its owner learns why."""
    with make_rig(tmp_path / "cluster", enrolment="known") as rig:
        rig.start()
        stranger = tmp_path / "stranger.pem"
        save_key(stranger, KeyPair.generate())
        ended = rig.bft("kv", "put", "a", "b")
        assert ended.code == 0, ended
        ended = bft(
            "kv", "put", "a", "b", "--cluster", str(rig.cluster_file), "--key", str(stranger), "--timeout", "1"
        )
        _require_clear(ended, Exit.UNKNOWN, "unknown key", "nothing was sent", "replica 3:")


async def test_client_of_another_cluster_is_told_so(tmp_path: Path) -> None:
    """A cluster file with other values is another cluster: the client says which two ids differ."""
    with make_rig(tmp_path / "cluster") as rig:
        rig.start()
        await rig.until_all_answer()
        other = tmp_path / "other.toml"
        other.write_text(rig.cluster_file.read_text().replace('name = "test"', 'name = "other"'))
        ended = bft("kv", "get", "a", "--cluster", str(other), "--key", str(rig.key), "--timeout", "1")
        _require_clear(ended, Exit.UNKNOWN, f"runs cluster {rig.cluster.id.hex()}", "the cluster file has id")


async def test_replica_with_anothers_key_does_not_start(tmp_path: Path) -> None:
    """A replica whose key is not the one that the cluster file names says so and ends with 2."""
    with make_rig(tmp_path / "cluster") as rig:
        shutil.copy(rig.folder / "keys" / "r1.pem", rig.folder / "keys" / "r0.pem")
        ended = bft("replica", "run", str(rig.folder / "r0" / "replica.toml"))
        key = rig.cluster.replica[1].key
        _require_clear(ended, Exit.USAGE, f"holds the key {key}", f"the cluster file says {rig.cluster.replica[0].key}")


async def test_store_of_another_cluster_is_refused(tmp_path: Path) -> None:
    """A replica does not vote with the store of another cluster."""
    with make_rig(tmp_path / "cluster") as rig:
        rig.start()
        await rig.until_all_answer()
        rig.kill()
        rig.cluster_file.write_text(rig.cluster_file.read_text().replace('name = "test"', 'name = "other"'))
        ended = bft("replica", "run", str(rig.folder / "r2" / "replica.toml"))
        _require_clear(ended, Exit.FAILED, "the store belongs to cluster", rig.cluster.id.hex())


async def test_cluster_up_names_the_port_that_is_in_use(tmp_path: Path) -> None:
    """One port is taken: that replica is named, the others run, and the exit code is 1."""
    with make_rig(tmp_path / "cluster") as rig:
        with socket.create_server(("127.0.0.1", rig.cluster.replica[2].port)):
            ended = bft("cluster", "up", "--dir", str(rig.folder))
        assert ended.code == Exit.FAILED, ended
        lines = ended.out.splitlines()
        port = rig.cluster.replica[2].port
        assert "ended with code 1" in lines[2] and f"{port}: cannot listen: the port is in use" in lines[2]
        assert all("started, pid" in lines[replica] for replica in (0, 1, 3))
        status = bft("cluster", "status", "--cluster", str(rig.cluster_file))
        assert status.code == Exit.FAILED, status
        down = bft("cluster", "down", "--dir", str(rig.folder))
        assert [line.rpartition(": ")[2] for line in down.out.splitlines()] == [
            "stopped",
            "stopped",
            "was not running",
            "stopped",
        ]


@pytest.mark.parametrize("command", [("kv", "get", "a"), ("cluster", "status"), ("call", "size")])
def test_missing_cluster_file_is_named(tmp_path: Path, command: tuple[str, ...]) -> None:
    """Every command that needs the file says which one it looked for."""
    ended = bft(*command, "--cluster", str(tmp_path / "nowhere.toml"))
    _require_clear(ended, Exit.USAGE, str(tmp_path / "nowhere.toml"))


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("port = ", "port = 70000 # ", ("<= 65535", "$.replica[0].port", "found 70000")),
        ('enrolment = "open"', 'enrolment = "shut"', ("shut", "$.enrolment")),
        ("checkpoint_interval = 32", "checkpoint_interval = 30", ("window is 64", "multiple of checkpoint_interval")),
        ("name = ", "nome = ", ("nome",)),
        ("id = 1", "id = 2", ("replica[1].id is 2", "ids count from 0")),
        ("[[replica]]", "[[replica", ("is not TOML",)),
    ],
)
def test_malformed_cluster_file_names_field_value_and_rule(
    tmp_path: Path, old: str, new: str, parts: tuple[str, ...]
) -> None:
    """Not a word of Python: which field, what was found, what was expected."""
    with make_rig(tmp_path / "cluster") as rig:
        text = rig.cluster_file.read_text()
        assert old in text
        rig.cluster_file.write_text(text.replace(old, new, 1))
        ended = bft("cluster", "status", "--cluster", str(rig.cluster_file))
        _require_clear(ended, Exit.USAGE, "cluster.toml", *parts)


async def test_client_says_so_when_three_of_four_replicas_are_down(tmp_path: Path) -> None:
    """In flight the outcome is unknown; from the start nothing is sent; a command ends with 3 either way."""
    with make_rig(tmp_path / "cluster") as rig:
        rig.start()
        async with rig.client() as client:
            service = client.service(KeyValue)
            await service.put("before", "x")
            with trio.fail_after(20):  # three suffice for that, and the fourth is the one that stays
                while len(client.connected) < 4:
                    await trio.sleep(0.01)
            rig.kill(1, 2, 3)
            with pytest.raises(OutcomeUnknown, match="1 of 4 replicas reachable, 3 needed"):
                await service.within(1.0).put("after", "x")
        ended = await trio.to_thread.run_sync(lambda: rig.bft("kv", "put", "a", "b", "--timeout", "1"))
        _require_clear(
            ended, Exit.UNKNOWN, "1 of 4 replicas reachable, 3 needed", "nothing was sent", "replica 1: ", "refused"
        )
        status = rig.bft("cluster", "status", "--json")
        assert status.code == Exit.UNKNOWN
        assert '"answering": 1' in status.out
        rig.start(1, 2, 3)
        await rig.until_all_answer()
        ended = rig.bft("kv", "get", "before")
        assert (ended.code, ended.out) == (0, "x\n"), ended
