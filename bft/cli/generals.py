"""Offer the Byzantine generals on the command line: `bft generals run | exhaust | table | cost | two`.

Exit codes: 0 the conditions held, or the proof is complete; 1 they were violated; 2 wrong usage. Everything
computed is in `bft.generals`; the files `generals_*` read options and print.
"""

from __future__ import annotations

import click

from bft.cli.generals_numbers import cost, two
from bft.cli.generals_run import run
from bft.cli.generals_search import exhaust, table


@click.group("generals")
def generals() -> None:
    """Fight, search and explain the Byzantine generals of Lamport, Shostak and Pease (1982)."""


for command in (run, exhaust, table, cost, two):
    generals.add_command(command)

if __name__ == "__main__":
    generals(prog_name="bft generals")
