"""A bank as a replicated service, and a client that checks that money is conserved under concurrent transfers.

In its own cluster of processes (run from the checkout, where `clients.bank` can be imported):

    bft cluster init --dir cluster/bank --base-port 7500 --service clients.bank:Bank
    bft cluster up --dir cluster/bank
    python clients/bank.py --cluster cluster/bank/cluster.toml

Or with a cluster inside this one program, one replica of which is stopped half way:

    python clients/bank.py --inside
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable
from pathlib import Path

import anyio

import bft


class NoSuchAccount(Exception):
    """The account has not been opened."""


class InsufficientFunds(Exception):
    """The account holds less than the transfer takes."""


class Bank(bft.Service):
    """Accounts that hold whole numbers of coins; transfers neither make nor lose any."""

    errors = (NoSuchAccount, InsufficientFunds)

    def __init__(self) -> None:
        self.accounts = bft.Map[str, int]()

    @bft.command
    def open(self, account: str, coins: int) -> int:
        """Open an account, if it is not open yet; returns what it holds."""
        if account not in self.accounts:
            self.accounts[account] = coins
        return self.accounts[account]

    @bft.command
    def transfer(self, source: str, target: str, coins: int) -> int:
        """Move coins; returns what the source still holds. Checks first, changes after."""
        for account in (source, target):
            if account not in self.accounts:
                raise NoSuchAccount(account)
        if not 0 <= coins <= self.accounts[source]:
            raise InsufficientFunds(f"{source} holds {self.accounts[source]}, not {coins}")
        self.accounts[source] -= coins
        self.accounts[target] += coins
        return self.accounts[source]

    @bft.query
    def balance(self, account: str) -> int:
        """What an account holds."""
        if account not in self.accounts:
            raise NoSuchAccount(account)
        return self.accounts[account]

    @bft.query
    def total(self) -> int:
        """All coins of the bank."""
        return sum(coins for _, coins in self.accounts.items())


class Tally:
    """What became of the transfers."""

    def __init__(self) -> None:
        self.moved = 0
        self.refused = 0
        self.totals: list[int] = []


async def exercise(client: bft.Client, options: argparse.Namespace) -> bool:
    """Transfer at random from many tasks while an auditor counts; True if no coin was ever missing."""
    bank = client.service(Bank)
    names = [f"account-{number}" for number in range(options.accounts)]
    for name in names:
        await bank.open(name, options.coins)
    before = await bank.total()
    tally = Tally()
    async with anyio.create_task_group() as everybody:
        everybody.start_soon(_audit, client, tally)
        async with anyio.create_task_group() as customers:
            for number in range(options.customers):
                share = options.transfers // options.customers + (number < options.transfers % options.customers)
                customers.start_soon(_transfer_at_random, client, names, share, tally, random.Random(number))
        everybody.cancel_scope.cancel()
    after = await bank.total()
    print(f"{tally.moved} transfers, {tally.refused} refused; {len(tally.totals)} audits in between")
    print(
        f"coins before {before}, after {after}, lowest audit {min(tally.totals, default=after)},"
        f" highest audit {max(tally.totals, default=after)}"
    )
    return {before, after, *tally.totals} == {before}


async def _transfer_at_random(
    client: bft.Client, names: list[str], count: int, tally: Tally, dice: random.Random
) -> None:
    bank = client.service(Bank)
    for _ in range(count):
        source, target = dice.sample(names, 2)
        try:
            await bank.transfer(source, target, dice.randrange(1, 60))
            tally.moved += 1
        except bft.ServiceError as error:
            assert error.code == "InsufficientFunds", error
            tally.refused += 1


async def _audit(client: bft.Client, tally: Tally) -> None:
    """Ask for the total again and again; the safe read never sees half a transfer."""
    bank = client.service(Bank)
    while True:
        tally.totals.append(await bank.invoke(Bank.total))
        await anyio.sleep(0.01)


async def _outside(options: argparse.Namespace) -> bool:
    key = options.key or options.cluster.parent / "keys" / "client.pem"
    async with bft.connect(options.cluster, key=key) as client:
        await client.wait_connected(10)
        return await exercise(client, options)


async def _inside(options: argparse.Namespace) -> bool:
    async with bft.local_cluster(Bank) as local, bft.connect(local.cluster, key=local.client_key) as client:
        held = await exercise(client, options)
        await local.stop(0)
        print("replica 0, the primary, is stopped; once more:")
        return await exercise(client, options) and held


def first_of(error: BaseException) -> BaseException:
    """The error inside the groups that task groups make of errors."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _number(least: int, most: int) -> Callable[[str], int]:
    """What an option takes; with fewer than `least` there would be nothing to transfer, and to conserve."""

    def number(text: str) -> int:
        if not text.isascii() or not text.isdigit() or len(text) > 20 or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number from {least} to {most}")
        return int(text)

    return number


def main() -> int:
    """Run; 0 if money was conserved."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cluster", type=Path, default=Path("cluster/bank/cluster.toml"), help="the cluster file")
    parser.add_argument("--key", type=Path, help="private key (default: keys/client.pem beside the cluster file)")
    parser.add_argument("--inside", action="store_true", help="run a cluster inside this program instead")
    for name, least, most, default, what in (
        ("accounts", 2, 10**6, 20, "how many accounts"),
        ("coins", 1, 10**9, 100, "coins per account at the opening"),
        ("customers", 1, 10**4, 50, "concurrent customers"),
        ("transfers", 1, 10**9, 5000, "transfers altogether"),
    ):
        help_ = f"{what} (default {default})"
        parser.add_argument(f"--{name}", type=_number(least, most), default=default, metavar="N", help=help_)
    options = parser.parse_args()
    try:
        held = anyio.run(_inside if options.inside else _outside, options, backend="trio")
    except (bft.BFTError, BaseExceptionGroup) as error:
        if not isinstance(first_of(error), bft.BFTError):
            raise
        print(f"error: {first_of(error)}", file=sys.stderr)
        return 1
    print("money was conserved" if held else "MONEY WAS NOT CONSERVED")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
