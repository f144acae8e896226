"""A replica that no epoch names yet: what lets it dial, and what becomes of it without."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio

from bft.cli.layout import Plan, add_replica, write_cluster
from bft.cli.ports import reserve_ports
from bft.config import load_local
from bft.crypto.keys import KeyPair, load_key, save_key
from bft.errors import ConfigError, KeyFileError, VotesLost
from bft.runtime.joining import load_voucher, ready_from, save_voucher, voucher_for
from bft.runtime.limits import ServerLimits
from bft.runtime.own_keys import OLD, USED, VOUCHER, OwnKeys, beside
from bft.runtime.server import ReplicaServer
from bft.transport.handshake import vouch


def _newcomer(folder: Path) -> tuple[ReplicaServer, Path]:
    """Replica 4 of a cluster that nobody runs, with an administrator's word; and the file of that."""
    port = reserve_ports(5)
    cluster = write_cluster(folder, Plan(base_port=port, admins=1))
    local = load_local(add_replica(folder, 4, ("127.0.0.1", port + 4), "process"))
    file = beside(Path(local.key), VOUCHER)
    admin, key = load_key(folder / "keys" / "admin.pem"), load_key(Path(local.key))
    save_voucher(file, vouch(cluster.id, 4, key.public, admin))
    limits = ServerLimits(redial_seconds_min=0.01, redial_seconds_max=0.02)
    return ReplicaServer(cluster, local, limits=limits), file


@asynccontextmanager
async def _running(server: ReplicaServer) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: server.run(task_status=task_status))
        yield
        server.stop()


async def test_newcomer_whose_voucher_is_gone_goes_on_and_tries_again(tmp_path: Path) -> None:
    """Without it nobody is dialed, which is counted; with it everything is as before. The process stays."""
    server, file = _newcomer(tmp_path / "cluster")
    with trio.fail_after(20):
        async with _running(server):
            assert server.account()["role"] == "learner"
            voucher = file.read_bytes()
            for damaged in (None, b"{}"):
                file.unlink() if damaged is None else file.write_bytes(damaged)
                before = server.stats.no_voucher
                while server.stats.no_voucher < before + 8:
                    await trio.sleep(0.01)
            file.write_bytes(voucher)
            await trio.sleep(0.1)
            before = server.stats.no_voucher
            await trio.sleep(0.2)
            assert server.stats.no_voucher == before


def test_file_that_is_no_voucher_is_refused(tmp_path: Path) -> None:
    """By name, whatever is in it."""
    file = tmp_path / "r4.pem.voucher"
    for text in ("", "[]", "{}", '{"by": 5, "signature": ""}', '{"by": "ab", "signature": ""}', "[" * 100_000):
        file.write_text(text)
        with pytest.raises(KeyFileError, match="is no voucher"):
            load_voucher(file)


async def test_newcomer_without_voucher_does_not_start(tmp_path: Path) -> None:
    """It is said at once, and by name."""
    server, file = _newcomer(tmp_path / "cluster")
    file.unlink()
    with pytest.raises(ConfigError, match="nobody vouches for it"):
        await server.run()


async def test_word_for_another_replica_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    """A newcomer's key has its voucher beside it, which lets nobody in under another id."""
    server, file = _newcomer(tmp_path)
    local = load_local(tmp_path / "r0" / "replica.toml")
    swapped = msgspec.structs.replace(local, key=str(file).removesuffix(VOUCHER))
    with trio.fail_after(20), pytest.raises(ConfigError, match="is for another replica or key"):
        await ReplicaServer(server._cluster, swapped).run()
    assert not beside(Path(swapped.key), USED).exists() and not Path(swapped.data).exists()


def test_word_for_a_former_key_does_not_hide_that_of_this_key(tmp_path: Path) -> None:
    """A replica that an administrator once let in, and that comes back with a new key, is let in by the one before."""
    server, file = _newcomer(tmp_path)
    local = server._local
    key = Path(local.key)
    former = load_key(key)
    assert voucher_for(server._cluster, local, OwnKeys(key, None)) == load_voucher(file)
    key.rename(beside(key, OLD))
    save_key(key, KeyPair.generate(), None)
    keys = OwnKeys(key, None)
    assert voucher_for(server._cluster, local, keys) == vouch(server._cluster.id, 4, keys.current.public, former)


async def test_key_of_another_replica_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    """A wrong line in a file must cost no more than its correction: the key is not noted as used, no store is there."""
    server, _ = _newcomer(tmp_path)
    local = load_local(tmp_path / "r0" / "replica.toml")
    swapped = msgspec.structs.replace(local, key=str(tmp_path / "keys" / "r1.pem"))
    with pytest.raises(ConfigError, match=r"\(that of replica 1\), and nobody vouches"):
        await ReplicaServer(server._cluster, swapped).run()
    assert not beside(Path(swapped.key), USED).exists() and not Path(swapped.data).exists()


async def test_key_that_was_used_and_has_lost_its_store_is_the_stores_matter(tmp_path: Path) -> None:
    """It says what is lost and how to come back; that nobody vouches would be another story."""
    server, file = _newcomer(tmp_path)
    file.unlink()
    beside(Path(server._local.key), USED).write_text("used")
    with pytest.raises(VotesLost):
        await server.run()


async def test_unused_key_of_another_replica_is_not_noted_by_a_store_that_exists(tmp_path: Path) -> None:
    """The owner, which has never run, could not start any more."""
    server, _ = _newcomer(tmp_path)
    local = load_local(tmp_path / "r0" / "replica.toml")
    async with _running(ReplicaServer(server._cluster, local)):
        assert Path(local.data).exists()
    swapped = msgspec.structs.replace(local, key=str(tmp_path / "keys" / "r1.pem"))
    with pytest.raises(ConfigError, match=r"\(that of replica 1\)"):
        await ReplicaServer(server._cluster, swapped).run()
    assert not beside(Path(swapped.key), USED).exists()


def test_ready_words_are_whatever_a_replica_answers() -> None:
    """Not a list, not hex, no signed message, nested beyond reason: none of it is a word, and none ends a command."""
    deep = "91" * 100_000 + "c0"
    for answer in (None, {}, ["zz"], [7], ["c1"], [deep], ["cf" + "ff" * 8]):
        assert ready_from(answer) == ()
