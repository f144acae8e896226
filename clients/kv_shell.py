"""A shell for the replicated key-value service, on the blocking client.

    bft cluster init && bft cluster up
    python clients/kv_shell.py
    kv> put greeting hello
    kv> get greeting

Reads commands from standard input, so it works in a pipe too.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from inspect import signature
from pathlib import Path

import bft
from bft.services.kv import KeyValue

USAGE = {
    "get": ("KEY", "the value under KEY"),
    "put": ("KEY VALUE", "store VALUE under KEY; shows the value before"),
    "delete": ("KEY", "remove KEY"),
    "cas": ("KEY OLD NEW", "store NEW if the value is OLD; - for an absent or removed value"),
    "increment": ("KEY [BY]", "add to the integer under KEY"),
    "scan": ("[PREFIX]", "the first entries with PREFIX"),
    "size": ("", "count all entries"),
    "clear": ("", "remove all entries"),
    "help": ("", "show this"),
    "quit": ("", "leave"),
}
HELP = "\n".join(f"{f'{name} {arguments}':<20} {what}" for name, (arguments, what) in USAGE.items())


def main() -> int:
    """Run the shell; 0 unless a command of a pipe failed."""
    options = _arguments()
    interactive = sys.stdin.isatty()
    failed = False
    try:
        with bft.connect_blocking(options.cluster, key=options.key, timeout=options.timeout) as client:
            client.wait_connected(options.timeout)
            commands = _commands(client)
            while (line := _read(interactive)) is not None:
                if line.strip() == "quit":
                    break
                failed |= not _run(commands, line)
    except bft.BFTError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0 if interactive else int(failed)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cluster", type=Path, default=Path("cluster/cluster.toml"), help="the cluster file")
    parser.add_argument("--key", type=Path, help="private key (default: keys/client.pem beside the cluster file)")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds to wait for a result")
    options = parser.parse_args()
    options.key = options.key or options.cluster.parent / "keys" / "client.pem"
    return options


def _read(interactive: bool) -> str | None:
    try:
        return input("kv> ") if interactive else input()
    except (EOFError, KeyboardInterrupt):
        return None


def _run(commands: dict[str, Callable[..., object]], line: str) -> bool:
    """Run one line and print what it gives; False if it failed."""
    try:
        words = shlex.split(line)
        if not words:
            return True
        name, *arguments = words
        if name not in commands:
            raise TypeError(f"no command {name!r}; there are {', '.join(USAGE)}")
        try:
            signature(commands[name]).bind(*arguments)
        except TypeError:
            raise TypeError(f"usage: {name} {USAGE[name][0]}".rstrip()) from None
        print(commands[name](*arguments))
    except (bft.ClientError, TypeError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return False
    return True


def _commands(client: bft.Blocking) -> dict[str, Callable[..., object]]:
    kv = client.service(KeyValue)

    def cas(key: str, old: str, new: str) -> object:
        return kv.cas(key, None if old == "-" else old, None if new == "-" else new)

    def increment(key: str, by: str = "1") -> object:
        return kv.increment(key, int(by))

    def scan(prefix: str = "") -> str:
        return "\n".join(f"{key}\t{value}" for key, value in kv.invoke(KeyValue.scan, prefix, limit=20))

    return {
        "get": lambda key: kv.get(key),
        "put": lambda key, value: kv.put(key, value),
        "delete": lambda key: kv.delete(key),
        "cas": cas,
        "increment": increment,
        "scan": scan,
        "size": lambda: kv.size(),
        "clear": lambda: kv.clear(),
        "help": lambda: HELP,
    }


if __name__ == "__main__":
    sys.exit(main())
