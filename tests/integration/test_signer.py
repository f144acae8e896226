"""A replica process and its signing agent process: either is killed, both come back, no vote is contradicted."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from bft.cli.processes import ReplicaProcess
from bft.services.kv import KeyValue
from bft.signing.client import AgentSigner
from bft.transport.discovery import chain_file, load_links
from tests.integration.rig import ROOT, Rig, bft, count, make_rig

HELD = 0
"""The replica whose key is held by an agent: the primary of view 0."""


class AgentProcess:
    """`bft keys agent` for one replica of a rig."""

    def __init__(self, rig: Rig, replica: int) -> None:
        self.socket = rig.folder / f"r{replica}" / "signer.sock"
        self.log = rig.folder / f"r{replica}" / "agent.log"
        self._command = [
            *(sys.executable, "-m", "bft.cli.main", "keys", "agent", str(rig.folder / "keys" / f"r{replica}.pem")),
            *("--cluster", str(rig.cluster_file), "--socket", str(self.socket), "--durability", "process"),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it listens."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT)
        with AgentSigner(self.socket, seconds=10):
            return

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(10)


def hold_by_an_agent(rig: Rig, replica: int) -> AgentProcess:
    """Give a replica that does not run an agent instead of its key file; the agent does not run yet."""
    config = rig.config(replica)
    text = re.sub(r'^key = ".*"$', 'signer = "unix:signer.sock"', config.read_text(), flags=re.MULTILINE)
    config.write_text(text)
    return AgentProcess(rig, replica)


@contextmanager
def held_by_an_agent(folder: Path, *, admins: int = 0) -> Iterator[tuple[Rig, AgentProcess]]:
    """A cluster of which one replica has its key in an agent, and no key file that it could read."""
    with make_rig(folder, admins=admins) as rig:
        agent = hold_by_an_agent(rig, HELD)
        try:
            agent.start()
            yield rig, agent
        finally:
            agent.kill()


async def test_replica_and_agent_are_killed_under_load(tmp_path: Path) -> None:
    """The agent comes back in time and the replica goes on; the replica comes back and is not refused."""
    with held_by_an_agent(tmp_path / "cluster") as (rig, agent):
        rig.start()
        await rig.until_all_answer()
        acknowledged = {f"counter-{number}": 0 for number in range(8)}
        async with rig.client() as client, trio.open_nursery() as nursery:
            stop = trio.Event()
            for key in acknowledged:
                nursery.start_soon(count, client, key, acknowledged, stop)
            for _ in range(3):
                await trio.sleep(0.3)
                agent.kill()
                await trio.to_thread.run_sync(agent.start)
                await trio.sleep(0.3)
                assert rig.processes[HELD].pid() is not None, rig.processes[HELD].last_words()
                rig.kill(HELD)
                rig.start(HELD)
                await rig.until_all_answer()
            stop.set()
        assert sum(acknowledged.values()) > 100
        await rig.until_equal()
        with AgentSigner(agent.socket) as signer:
            report = signer.report()
        assert report["voting"] is True and int(str(report["stable"])) >= 32
        assert int(str(report["votes"])) <= 3 * 2 * 64, "forgotten below the stable checkpoint"
        assert agent.stop() == 0


async def test_replica_stops_when_its_agent_does_not_come_back(tmp_path: Path) -> None:
    """A clear last word and exit code 1; the cluster goes on; later both start again."""
    with held_by_an_agent(tmp_path / "cluster") as (rig, agent):
        rig.start()
        await rig.until_all_answer()
        agent.kill()
        async with rig.client() as client:
            service = client.service(KeyValue)
            await service.put("key", "value")
            with trio.fail_after(15):
                while rig.processes[HELD].pid() is not None:
                    await trio.sleep(0.05)
            assert rig.processes[HELD].exit_code() == 1
            assert "the signing agent does not answer" in rig.processes[HELD].last_words()
            await trio.to_thread.run_sync(agent.start)
            rig.start(HELD)
            await service.put("key", "another")
            await rig.until_equal()


async def test_rolled_back_store_is_refused_by_the_agent(tmp_path: Path) -> None:
    """A store that was restored from an old copy would vote again for what it has forgotten: the agent remembers."""
    with held_by_an_agent(tmp_path / "cluster") as (rig, agent):
        rig.start()
        await rig.until_all_answer()
        data = rig.folder / f"r{HELD}" / "data"
        async with rig.client() as client:
            service = client.service(KeyValue)
            await service.put("before", "1")
            rig.kill(HELD)
            shutil.copytree(data, tmp_path / "old")
            rig.start(HELD)
            await rig.until_all_answer()
            for number in range(150):
                await service.put(f"key-{number}", "x")
            await rig.until(lambda accounts: accounts[HELD].number("stable") >= 64)
            for number in range(4):
                await service.put(f"more-{number}", "x")  # with these votes the agent learns of the checkpoint
            await rig.until_equal()
            rig.kill(HELD)
            shutil.rmtree(data)
            shutil.copytree(tmp_path / "old", data)
            rig.start(HELD)
            with trio.fail_after(15):
                while rig.processes[HELD].pid() is not None:
                    await trio.sleep(0.05)
            assert rig.processes[HELD].exit_code() == 1
            assert "the store is older than what it has already made durable" in rig.processes[HELD].last_words()
            assert "(rolled-back)" in rig.processes[HELD].last_words()
            await service.put("after", "1")
        report = bft("keys", "agent", "--report", "--socket", str(agent.socket))
        assert '"refused-rolled-back": 1' in report.out, report.out + report.err


async def test_commands_for_a_cluster_find_a_replica_behind_an_agent(tmp_path: Path) -> None:
    """It starts, is shown, bears changes of others, and stops; what would replace its key says that it cannot."""
    with held_by_an_agent(tmp_path / "cluster", admins=1) as (rig, _):
        up = await rig.change("cluster", "up", "--json")
        assert [(row["replica"], row["failure"]) for row in json.loads(up.out)] == [(r, None) for r in range(4)]
        pid = rig.processes[HELD].pid()
        status = rig.bft("cluster", "status", "--json")
        assert status.code == 0, status
        assert [row["answers"] for row in json.loads(status.out)["replicas"]] == [True] * 4
        config, folder = str(rig.config(HELD)), str(rig.folder)
        for arguments in (("keys", "rotate", config), ("replica", "rejoin", config), ("cluster", "recover")):
            refused = bft(*arguments, "--dir", folder)
            assert (refused.code, "the key is held by an agent" in refused.err) == (2, True), refused
        assert rig.processes[HELD].pid() == pid is not None, "nothing was touched"
        await rig.change("cluster", "add", "--durability", "process")
        replaced = await rig.change("cluster", "replace", str(HELD), "--durability", "process", "--json")
        assert (json.loads(replaced.out)["removed"], json.loads(replaced.out)["added"]) == ([HELD], [5])
        down = await rig.change("cluster", "down", "--json")
        assert {row["replica"] for row in json.loads(down.out)} == {0, 1, 2, 3, 4, 5}


async def test_key_of_a_replica_that_joined_later_is_held_by_an_agent(tmp_path: Path) -> None:
    """The cluster file does not know it: the links beside the key do, and without them the other members."""
    with make_rig(tmp_path / "cluster", admins=1) as rig:
        rig.start()
        await rig.until_all_answer()
        await rig.change("cluster", "add", "--durability", "process")
        newcomer = ReplicaProcess(rig.config(4))
        newcomer.stop()
        agent = hold_by_an_agent(rig, 4)
        chain = chain_file(rig.folder / "keys" / "r4.pem", rig.cluster)
        chain.unlink()
        try:
            await trio.to_thread.run_sync(agent.start)
            agent.stop()
            assert load_links(chain), "they are kept for a time when nobody answers"
            rig.kill(0, 1, 2, 3)
            await trio.to_thread.run_sync(agent.start)
            rig.start(0, 1, 2)
            up = json.loads((await rig.change("cluster", "up", "--json")).out)
            assert [(row["replica"], row["failure"]) for row in up] == [(replica, None) for replica in range(5)]
            ReplicaProcess(rig.config(3)).kill()
            assert rig.bft("kv", "put", "needs", "all").code == 0
            with AgentSigner(agent.socket) as signer:
                report = signer.report()
            assert (report["replica"], report["voting"]) == (4, True)
        finally:
            newcomer.kill()
            agent.kill()


def test_agent_and_configuration_say_what_is_wrong(tmp_path: Path) -> None:
    """User errors are one line and an exit code."""
    with make_rig(tmp_path / "cluster") as rig:
        sock = str(tmp_path / "agent.sock")
        ran = bft("keys", "agent", str(rig.key), "--cluster", str(rig.cluster_file), "--socket", sock)
        assert ran.code == 2 and "which is no replica's" in ran.err and "Traceback" not in ran.err
        ran = bft("keys", "agent", "--socket", sock)
        assert ran.code == 2 and "FILE is missing" in ran.err
        ran = bft("keys", "agent", "--report", "--socket", sock)
        assert ran.code == 1 and "does not answer" in ran.err
        config = rig.processes[0].config
        config.write_text(config.read_text() + 'signer = "unix:signer.sock"\n')
        ran = bft("replica", "run", str(config))
        assert ran.code == 2 and "give either key" in ran.err
        config.write_text(re.sub(r"^key = .*\n", "", config.read_text(), flags=re.MULTILINE))
        started = time.monotonic()
        ran = bft("replica", "run", str(config))
        assert ran.code == 1 and "signing agent does not answer" in ran.err and time.monotonic() - started < 20
