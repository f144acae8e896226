"""Real processes under attack: a lying replica, random bytes into every port."""

from __future__ import annotations

import random
import socket
from contextlib import suppress
from pathlib import Path

import trio

from bft.client.client import Client
from bft.services.kv import KeyValue
from tests.integration.rig import make_rig

JUNK_SECONDS = 3.0


async def _store(client: Client, count: int, workers: int = 32) -> None:
    """Store `count` records and read each back."""
    numbers = iter(range(count))

    async def work() -> None:
        service = client.service(KeyValue)
        for number in numbers:
            await service.put(f"key-{number}", str(number))
            assert await service.get(f"key-{number}") == str(number)

    async with trio.open_nursery() as nursery:
        for _ in range(workers):
            nursery.start_soon(work)


async def test_client_outvotes_a_replica_that_lies_equivocates_and_forges(tmp_path: Path) -> None:
    """Every result is right although one replica sends wrong ones; honest replicas count its forgeries."""
    with make_rig(tmp_path / "cluster") as rig:
        rig.start(0, 1, 2)
        rig.start(3, adversary="wrong_reply() & equivocate() & forge()")
        await rig.until_all_answer()
        async with rig.client() as client:
            await _store(client, 500)
            assert client.disagreements.get(3, 0) > 0
            assert set(client.disagreements) == {3}
        accounts = await rig.until(lambda found: found[0].counts("rejected").get("bad-signature", 0) > 0)
        assert accounts[3].report["lies"] == "wrong_reply() & equivocate() & forge()"
        assert all(not account.report["lies"] for account in accounts[:3])


async def test_cluster_goes_on_when_the_primary_lies(tmp_path: Path) -> None:
    """An equivocating primary is replaced, or its proposals are agreed on; results are right either way."""
    with make_rig(tmp_path / "cluster") as rig:
        rig.start(1, 2, 3)
        rig.start(0, adversary="equivocate() & wrong_reply()")
        await rig.until_all_answer()
        async with rig.client() as client:
            with trio.fail_after(15):
                await _store(client, 100)
            assert set(client.disagreements) <= {0}


async def _throw_junk(port: int, dice: random.Random) -> int:
    """Open connections, say random things, leave some open; returns how many were opened."""
    held: list[socket.socket] = []
    opened = 0
    with trio.move_on_after(JUNK_SECONDS):
        while True:
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", port))
            held.append(sock)
            opened += 1
            await trio.sleep(0.01)
            with suppress(OSError):
                sock.send(dice.choice((b"\x16\x03\x01", b"")) + dice.randbytes(dice.randrange(1, 2000)))
            if len(held) > 50:
                held.pop(dice.randrange(len(held))).close()
    for sock in held:
        sock.close()
    return opened


async def test_cluster_serves_while_random_bytes_arrive_at_every_port(tmp_path: Path) -> None:
    """Junk connections are refused and counted; the load goes on, and no replica stops."""
    opened: list[int] = []
    with make_rig(tmp_path / "cluster") as rig:
        rig.start()
        async with rig.client() as client:

            async def throw(port: int, seed: int) -> None:
                opened.append(await _throw_junk(port, random.Random(seed)))

            async with trio.open_nursery() as nursery:
                for seed, entry in enumerate(rig.cluster.replica):
                    for half in range(2):
                        nursery.start_soon(throw, entry.port, 2 * seed + half)
                await trio.sleep(0.5)
                before = client.position
                await _store(client, 500)
                assert client.position > before
        assert min(opened) > 20
        accounts = await rig.until(lambda found: all(account.answered for account in found))
        assert all(sum(account.counts("refused").values()) > 0 for account in accounts)
        assert [process.exit_code() for process in rig.processes] == [None] * 4
        await rig.until_equal()
