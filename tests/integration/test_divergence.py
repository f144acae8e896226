"""A real replica whose state goes wrong: found at the checkpoint, named, repaired by state transfer, serving again."""

from __future__ import annotations

from pathlib import Path

from tests.integration.rig import make_rig
from tests.integration.rotting import Ledger

VICTIM = 2


async def test_replica_with_a_wrong_state_says_where_and_repairs_itself(tmp_path: Path) -> None:
    """Map, page and key are in its account, in its log and in `bft cluster status`; all states end equal."""
    with make_rig(tmp_path / "cluster", service="tests.integration.rotting:Ledger") as rig:
        rig.start(0, 1, 3)
        rig.processes[VICTIM].start(environment={"LEDGER_ROT": "name-7"})
        await rig.until_all_answer()
        async with rig.client() as client:
            ledger = client.service(Ledger)
            for number in range(80):
                assert await ledger.deposit(f"name-{number % 20}", 1) == number // 20 + 1
            accounts = await rig.until(lambda accounts: accounts[VICTIM].number("divergences") == 1)
            accounts = await rig.until(
                lambda accounts: (
                    accounts[VICTIM].report.get("serves") is True
                    and len({account.report.get("state_digest") for account in accounts}) == 1
                    and accounts[VICTIM].number("stable") >= 64
                )
            )
            differs = accounts[VICTIM].report["differs"]
            assert isinstance(differs, list)
            assert any("balances page 0: balances['name-7']: " in line for line in differs), differs
            assert await ledger.balance("name-7") == 4
        status = rig.bft("cluster", "status")
        assert status.code == 0, status.err
        assert f"r{VICTIM} diverged 1 times, last at checkpoint 32: repaired" in status.out
        assert "balances page 0: balances['name-7']" in status.out
        log = rig.processes[VICTIM].log.read_text()
        assert "WARNING" in log and "differs balances page 0" in log
        await rig.until_equal()
