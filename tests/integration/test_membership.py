"""Real processes change their membership under load: nothing is lost, or executed twice, and everybody finds them."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import socket
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from bft.cli.layout import has_left
from bft.cli.processes import ReplicaProcess
from bft.client.client import Client, connect
from bft.crypto.keys import KeyPair, load_key, save_key
from bft.crypto.signatures import Ed25519Signer
from bft.errors import TransportError
from bft.ids import ReplicaId
from bft.messages import Commit, Probe, Signed
from bft.services.kv import KeyValue
from bft.transport.dial import dial
from bft.transport.discovery import KnownChain, chain_file
from bft.transport.handshake import Identity
from bft.wire.codec import encode
from tests.integration.rig import START_SECONDS, Rig, bft, count, make_rig

WORKERS = 8
ENOUGH = 300


@asynccontextmanager
async def _under_load(rig: Rig) -> AsyncIterator[Client]:
    """Count while the block runs; afterwards whatever was acknowledged is there, once."""
    acknowledged = {f"counter-{number}": 0 for number in range(WORKERS)}
    async with rig.client() as client:
        async with trio.open_nursery() as nursery:
            for key in acknowledged:
                nursery.start_soon(count, client, key, acknowledged)
            yield client
            before = sum(acknowledged.values())
            with trio.fail_after(START_SECONDS):
                while sum(acknowledged.values()) < before + ENOUGH:
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        found = {key: int(value) for key, value in await client.service(KeyValue).scan("counter-")}  # type: ignore[call-overload]
        for key, total in acknowledged.items():
            assert found[key] - total in (0, 1), f"{key}: {total} acknowledged, {found[key]} executed"  # one was open


async def _value(rig: Rig, key: str) -> object:
    """A read by a client that knows nothing but the first cluster file."""
    async with connect(rig.cluster, key=KeyPair.generate()) as stranger:
        return await stranger.service(KeyValue).within(START_SECONDS).get(key)


async def _gone(process: ReplicaProcess) -> None:
    with trio.fail_after(2 * START_SECONDS):
        while process.pid() is not None:
            await trio.sleep(0.05)


async def test_cluster_grows_from_four_to_seven_and_shrinks_again_under_load(tmp_path: Path) -> None:
    """The client with the first file goes on through both changes; connections between those who stay do, too."""
    with make_rig(tmp_path / "cluster", admins=1) as rig:
        rig.start()
        async with _under_load(rig) as client:
            await client.service(KeyValue).put("before", "kept")
            grown = await rig.change("cluster", "add", "--count", "3", "--durability", "process", "--json")
            assert json.loads(grown.out)["epoch"] == 1
            assert json.loads(grown.out)["added"] == [4, 5, 6]
            assert json.loads(grown.out)["activation_slot"] % 32 == 0
            assert rig.bft("cluster", "members").out.startswith("epoch 1, since slot")
            newcomers = [ReplicaProcess(rig.config(replica)) for replica in (4, 5, 6)]
            assert all(process.pid() is not None for process in newcomers)
            with trio.fail_after(START_SECONDS):
                while client.configuration.quorums.n != 7 or len(client.connected) < 7:
                    await trio.sleep(0.05)

            rig.kill(0, 1)  # f is 2 now
            await client.service(KeyValue).put("with-five-of-seven", "kept")
            rig.start(0, 1)
            await rig.until_all_answer()
            shrunk = await rig.change("cluster", "remove", "4", "5", "6", "--json")
            assert (json.loads(shrunk.out)["epoch"], json.loads(shrunk.out)["removed"]) == (2, [4, 5, 6])
            for process in newcomers:
                await _gone(process)
                assert "has left the cluster" in process.last_words()
                assert not Path(f"{rig.folder}/keys/{process.config.parent.name}.pem").exists()
        assert await _value(rig, "before") == "kept"
        assert await _value(rig, "with-five-of-seven") == "kept"
        log = (rig.folder / "r2" / "replica.log").read_text()
        assert "connection to r3 ended" not in log.replace("stopped", "")
        await rig.until_equal()


async def test_members_are_killed_while_the_membership_changes(tmp_path: Path) -> None:
    """One after the other, at random moments, newcomers too: each comes back into the epoch that it finds."""
    dice = random.Random(11)
    with make_rig(tmp_path / "cluster", admins=1) as rig:
        rig.start()
        async with _under_load(rig):
            done = trio.Event()

            async def kill_and_restart() -> None:
                while not done.is_set():
                    await trio.sleep(dice.uniform(0.1, 0.8))
                    configs = [config for config in sorted(rig.folder.glob("r*/replica.toml")) if not has_left(config)]
                    victim = ReplicaProcess(dice.choice(configs))
                    if victim.pid() is None:
                        continue
                    await trio.to_thread.run_sync(victim.kill)
                    await trio.sleep(dice.uniform(0.0, 0.5))
                    if not has_left(victim.config):
                        victim.start()
                        await trio.sleep(1.0)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(kill_and_restart)
                await rig.change("cluster", "add", "--count", "3", "--durability", "process")
                await rig.change("cluster", "remove", "4", "5", "6")
                done.set()
        for process in rig.processes:
            process.child = None
        await rig.until_equal()


async def test_client_with_the_first_file_finds_a_cluster_of_strangers(tmp_path: Path) -> None:
    """One old address is enough; with the links kept beside the key none is needed."""
    with make_rig(tmp_path / "cluster", admins=1) as rig:
        rig.start()
        async with rig.client() as client:
            await client.service(KeyValue).put("a", "1")
        for old in (1, 2, 3):
            await rig.change("cluster", "replace", str(old), "--durability", "process")
            rig.kill(old)
        assert await _value(rig, "a") == "1"
        assert rig.bft("kv", "get", "a").out.strip() == "1"
        await rig.change("cluster", "replace", "0", "--durability", "process")
        rig.kill(0)
        assert rig.bft("kv", "get", "a").out.strip() == "1"
        status = rig.bft("cluster", "status", "--json")
        assert json.loads(status.out)["members"] == [4, 5, 6, 7]
        chain_file(rig.key, rig.cluster).unlink()
        async with connect(rig.cluster, key=KeyPair.generate()) as stranger:
            with pytest.raises(TransportError, match="0 of 4"):
                await stranger.wait_connected(1.0)


async def test_keys_are_rotated_under_load(tmp_path: Path) -> None:
    """A backup's and the primary's; the processes stay, the old keys are gone, and nobody who has them is let in."""
    with make_rig(tmp_path / "cluster", admins=1) as rig:
        rig.start()
        await rig.until_all_answer()
        pids = [process.pid() for process in rig.processes]
        stolen = load_key(rig.folder / "keys" / "r2.pem")
        async with _under_load(rig):
            for replica in (2, 0):
                await rig.change("keys", "rotate", str(rig.config(replica)))
        assert [process.pid() for process in rig.processes] == pids
        assert not list((rig.folder / "keys").glob("*.next"))
        assert load_key(rig.folder / "keys" / "r2.pem").public != stolen.public
        thief = Identity(rig.cluster.id, ReplicaId(2), stolen)
        entry = rig.cluster.replica[1]
        with pytest.raises(TransportError, match="the signature under the hello does not verify"):
            await dial(
                entry.host,
                entry.port,
                server=ReplicaId(1),
                server_key=bytes.fromhex(entry.key),
                identity=thief,
            )
        rig.kill(1, 2)
        (rig.folder / "keys" / "r2.pem").rename(rig.folder / "keys" / "r2.pem.next")
        save_key(rig.folder / "keys" / "r2.pem", stolen)  # as if it had died before the new key took its place
        rig.start(2)  # without r1 both new keys are needed
        assert rig.bft("kv", "put", "needs", "all").code == 0
        assert not list((rig.folder / "keys").glob("*.next"))
        status = json.loads(rig.bft("cluster", "status", "--json").out)
        assert [replica["answers"] for replica in status["replicas"]] == [True, False, True, True]


@pytest.mark.parametrize("loss", ["wiped", "corrupt", "rolled back"])
async def test_replica_that_lost_its_store_comes_back_by_one_command(tmp_path: Path, loss: str) -> None:
    """It refuses to start with the old key and says what to do; the command brings it back under load."""
    with make_rig(tmp_path / "cluster", admins=1) as rig:
        rig.start()
        await rig.until_all_answer()
        data = rig.folder / "r3" / "data"
        async with _under_load(rig) as client:
            if loss == "rolled back":
                rig.kill(3)
                shutil.copytree(data, tmp_path / "backup")
                rig.start(3)
                await client.service(KeyValue).put("after", "the backup")
                await rig.until_all_answer()
            rig.kill(3)
            if loss == "corrupt":
                for file in data.glob("replica.db*"):
                    file.write_bytes(b"\0" * file.stat().st_size)
            else:
                shutil.rmtree(data)
            if loss == "rolled back":
                shutil.copytree(tmp_path / "backup", data)
            refused = await trio.to_thread.run_sync(lambda: bft("replica", "run", str(rig.config(3))))
            assert refused.code == 1, refused
            assert "bft replica rejoin" in refused.err
            await rig.change("replica", "rejoin", str(rig.config(3)))
        rig.kill(1)  # so that its votes are needed
        assert rig.bft("kv", "put", "needs", "all").code == 0
        again = bft("replica", "rejoin", str(rig.config(3)), "--dir", str(rig.folder))
        assert again.code == 1
        assert "stop it first" in again.err


async def test_disk_that_is_lost_once_more_during_a_return_has_a_way_out(tmp_path: Path) -> None:
    """The key that the first return made is put aside as well: a third one comes back, by the same command."""
    with make_rig(tmp_path / "cluster", admins=1) as rig:
        rig.start()
        await rig.until_all_answer()
        key = rig.folder / "keys" / "r3.pem"
        for attempt in range(2):
            rig.kill(3)
            ReplicaProcess(rig.config(3)).kill()
            shutil.rmtree(rig.folder / "r3" / "data")
            signed = ("--sign-only", str(tmp_path / f"{attempt}.json")) if attempt == 0 else ()
            begun = await rig.change("replica", "rejoin", str(rig.config(3)), *signed)
            if attempt == 0:  # nothing was submitted: it listens with a key that no epoch names
                second = load_key(key).public
                with trio.fail_after(START_SECONDS):
                    while not key.with_name("r3.pem.used").exists():
                        await trio.sleep(0.05)
        assert "is a member again" in begun.out
        assert load_key(key).public != second
        left = {file.suffix for file in key.parent.glob("r3.pem.*")} - {".epochs"}
        assert left == {".used"}
        rig.kill(1)
        assert rig.bft("kv", "put", "needs", "all").code == 0


async def test_votes_of_a_removed_replica_are_not_counted(tmp_path: Path) -> None:
    """It may still connect, to learn of its end; what it signs for the new epoch is refused, and nothing needs it."""
    with make_rig(tmp_path / "cluster", n=5, admins=1) as rig:
        rig.start()
        await rig.until_all_answer()
        keys = load_key(rig.folder / "keys" / "r4.pem")
        await rig.change("cluster", "remove", "4")
        rig.kill(4)
        (account,) = [account for account in await rig.accounts() if account.replica == 0]
        signer = Ed25519Signer(rig.cluster.id, ReplicaId(4), keys.seed)
        entry = rig.cluster.replica[0]
        channel = await dial(
            entry.host,
            entry.port,
            server=ReplicaId(0),
            server_key=bytes.fromhex(entry.key),
            identity=Identity(rig.cluster.id, ReplicaId(4), keys),
        )
        payload = encode(Commit(1, 0, account.number("stable") + 5, b"d" * 32))
        channel.send([encode(Signed(4, payload, signer.sign(payload))), encode(Probe(1))])
        await channel.receive()
        await rig.until(lambda accounts: sum(accounts[0].counts("rejected").values()) > 0)
        channel.close()

        rig.kill(2, 3)
        rig.start(4)  # two members and the one that was removed: no quorum
        assert rig.bft("kv", "put", "a", "1", "--timeout", "2").code == 3
        rig.start(2)
        await rig.until(lambda accounts: accounts[2].answered)
        assert rig.bft("kv", "put", "a", "2").code == 0


async def test_two_of_three_administrators_sign_apart(tmp_path: Path) -> None:
    """One signature is refused before anything is submitted; files of signatures add up, and only for their change."""
    with make_rig(tmp_path / "cluster", n=5, admins=3, admin_threshold=2) as rig:
        rig.start()
        await rig.until_all_answer()
        folder, keys, file = str(rig.folder), rig.folder / "keys", str(tmp_path / "remove.json")
        alone = bft("cluster", "remove", "4", "--dir", folder, "--admin", str(keys / "admin1.pem"))
        assert (alone.code, "1 of 2 administrators" in alone.err) == (2, True), alone
        none = bft("cluster", "remove", "4", "--dir", folder)
        assert (none.code, "give --admin KEY" in none.err) == (2, True), none
        client = bft("cluster", "remove", "4", "--dir", folder, "--admin", str(keys / "client.pem"))
        assert (client.code, "is no administrator's" in client.err) == (2, True), client
        first = ("--admin", str(keys / "admin1.pem"), "--sign-only", file)
        await rig.change("cluster", "remove", "4", *first)
        forged = json.loads(Path(file).read_text())
        other = tmp_path / "forged.json"
        forged["approvals"] = dict.fromkeys(forged["approvals"], "00" * 64)
        other.write_text(json.dumps(forged))
        bad = bft("cluster", "submit", "--approval", str(other), "--dir", folder, "--admin", str(keys / "admin3.pem"))
        assert (bad.code, "does not hold" in bad.err) == (2, True), bad
        done = await rig.change("cluster", "submit", "--approval", file, "--admin", str(keys / "admin3.pem"), "--json")
        assert json.loads(done.out)["epoch"] == 1
        stale = bft("cluster", "submit", "--approval", file, "--dir", folder, "--admin", str(keys / "admin3.pem"))
        assert (stale.code, "was signed in epoch 0" in stale.err) == (2, True), stale


async def test_newcomer_that_cannot_start_changes_nothing(tmp_path: Path) -> None:
    """The command ends with its last words, well before the time is up; run again, it goes on with the same files."""
    with make_rig(tmp_path / "cluster", admins=1) as rig:
        rig.start()
        await rig.until_all_answer()
        folder = str(rig.folder)
        with socket.create_server(("127.0.0.1", rig.cluster.replica[3].port + 1)):
            failed = await trio.to_thread.run_sync(lambda: bft("cluster", "add", "--dir", folder))
        assert failed.code == 1, failed
        assert "nothing was changed" in failed.err and "the port is in use" in failed.err
        key = load_key(rig.folder / "keys" / "r4.pem")
        added = await rig.change("cluster", "add", "--json")
        assert (json.loads(added.out)["epoch"], json.loads(added.out)["added"]) == (1, [4])
        assert load_key(rig.folder / "keys" / "r4.pem") == key


async def test_proactive_recovery_renews_every_replica_in_turn(tmp_path: Path) -> None:
    """Every process and every key is another one afterwards; a store that does not hold is fetched anew."""
    with make_rig(tmp_path / "cluster", admins=1) as rig:
        rig.start()
        await rig.until_all_answer()
        before = KnownChain.of(rig.cluster).configuration.keys
        pids = [process.pid() for process in rig.processes]
        with contextlib.closing(sqlite3.connect(rig.folder / "r2" / "data" / "replica.db")) as database, database:
            database.execute("insert into identity select * from identity")  # damaged: seen at the next start
        async with _under_load(rig) as client:
            await client.service(KeyValue).put("a", "1")
            done = await rig.change("cluster", "recover", "--json")
            steps = [(step["replica"], step["how"]) for step in json.loads(done.out)]
            assert steps == [(0, "rotated"), (1, "rotated"), (2, "rejoined"), (3, "rotated")]
        assert await _value(rig, "a") == "1", "though no key of the cluster file is anybody's any more"
        for process in rig.processes:
            process.child = None  # another process runs now: known by its pid file
        assert not set(pids) & {process.pid() for process in rig.processes}
        chain = KnownChain.of(rig.cluster)
        await chain.discover()
        assert not set(before.values()) & set(chain.configuration.keys.values())
        assert chain.configuration.epoch == 4


async def test_replica_without_voucher_is_not_let_in(tmp_path: Path) -> None:
    """Whoever is no member and has no administrator's word may neither start nor connect."""
    with make_rig(tmp_path / "cluster", admins=1) as rig:
        rig.start(0, 1, 2)
        home = rig.folder / "r9"
        home.mkdir()
        made = bft("keys", "new", "r9", "--dir", str(rig.folder / "keys"))
        assert made.code == 0
        (home / "replica.toml").write_text(
            'id = 9\ncluster = "../cluster.toml"\nkey = "../keys/r9.pem"\ndata = "data"\nport = 7999\n'
        )
        refused = bft("replica", "run", str(home / "replica.toml"))
        assert (refused.code, "nobody vouches for it" in refused.err) == (2, True), refused
        keys = load_key(rig.folder / "keys" / "r9.pem")
        await rig.until(lambda accounts: accounts[0].answered)
        entry = rig.cluster.replica[0]
        with pytest.raises(TransportError, match="unknown key"):
            await dial(
                entry.host,
                entry.port,
                server=ReplicaId(0),
                server_key=bytes.fromhex(entry.key),
                identity=Identity(rig.cluster.id, ReplicaId(9), keys),
            )
