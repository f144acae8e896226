"""Accountability among real processes: a lying primary is convicted by files, a client has its receipt, offline."""

from __future__ import annotations

import json
from pathlib import Path

import trio

from bft.config import load_cluster
from tests.integration.rig import Rig, bft, make_rig


async def _until_accused(rig: Rig) -> list[dict[str, object]]:
    """What `bft evidence list` shows, once it shows anything."""
    with trio.fail_after(20):
        while True:
            listed = await trio.to_thread.run_sync(bft, "evidence", "list", str(rig.folder), "--json")
            assert listed.code == 0, listed
            found: list[dict[str, object]] = json.loads(listed.out)
            if found:
                return found
            await trio.sleep(0.2)


async def test_lying_primary_is_convicted_and_the_client_has_its_receipt(tmp_path: Path) -> None:
    """Files that replicas wrote while they ran, and one that a client asked for, verify with the cluster file alone."""
    with make_rig(tmp_path / "cluster", signed_replies=True) as rig:
        rig.start(0, adversary="primary_prepares()")
        rig.start(1, 2, 3)
        await rig.until_all_answer()
        receipt = tmp_path / "receipt.json"
        called = rig.bft("call", "put", "greeting", "hello", "--receipt", str(receipt))
        assert called.code == 0, called
        assert rig.bft("call", "get", "greeting", "--receipt", str(receipt)).code == 2
        for item in await _until_accused(rig):
            assert (item["accused"], item["kind"]) == (0, "prepare-by-primary")
            proven = bft("evidence", "verify", str(item["file"]), "--cluster", str(rig.cluster_file))
            assert (proven.code, proven.out) == (0, "proven: replica 0 committed prepare-by-primary\n")
    shown = bft("evidence", "receipt", str(receipt), "--cluster", str(rig.cluster_file), "--json")
    assert shown.code == 0 and len(json.loads(shown.out)["results"]) == 1, shown
    receipt.write_bytes(receipt.read_bytes().replace(b'"seq":1', b'"seq":2'))
    assert bft("evidence", "receipt", str(receipt), "--cluster", str(rig.cluster_file)).code == 1


async def test_archives_of_a_cluster_that_did_not_fork_name_nobody(tmp_path: Path) -> None:
    """Decided slots are archived while it runs; a killed primary and the view change after it are no fork."""
    with make_rig(tmp_path / "cluster") as rig:
        rig.start()
        await rig.until_all_answer()
        assert rig.bft("call", "put", "a", "one").code == 0
        await trio.sleep(1.5)
        rig.kill(0)
        assert rig.bft("call", "put", "a", "two").code == 0
        with trio.fail_after(20):
            while True:
                told = bft("evidence", "forensics", str(rig.folder), "--cluster", str(rig.cluster_file), "--json")
                assert told.code == 0, told
                said = json.loads(told.out)
                if said["certificates"] >= 4 and said["new_views"] >= 3:
                    break
                await trio.sleep(0.2)
    assert said["forks"] == [] and said["culprits"] == []


def test_cluster_that_signs_replies_is_made_by_a_flag(tmp_path: Path) -> None:
    """It is another cluster than one that does not."""
    for name, flags in (("plain", ()), ("signing", ("--signed-replies",))):
        assert bft("cluster", "init", "--dir", str(tmp_path / name), *flags).code == 0
    plain, signing = (load_cluster(tmp_path / name / "cluster.toml") for name in ("plain", "signing"))
    assert (plain.signed_replies, signing.signed_replies) == (False, True)
