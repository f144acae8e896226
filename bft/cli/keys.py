"""`bft keys new | show | rotate | agent`: private keys for clients and replicas."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Literal

import click

from bft.cli.folders import make_folder
from bft.cli.rekey import rotate
from bft.cli.terminal import (
    cluster_option,
    example,
    friendly,
    json_option,
    passphrase_from_environment,
    print_json,
)
from bft.config import load_cluster
from bft.crypto.keys import KeyPair, load_key, save_key
from bft.errors import ConfigError
from bft.ids import ClientId, peer_name


@click.group(
    "keys", epilog=example("keys new alice", "keys show keys/alice.pem", "keys rotate cluster/r2/replica.toml")
)
def keys() -> None:
    """Make and show private keys (Ed25519, PKCS#8 PEM that openssl can read, mode 0600); rotate a replica's."""


keys.add_command(rotate)


@keys.command("new", epilog=example("keys new alice", "keys new alice --dir keys --passphrase"))
@click.argument("name")
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("keys"),
    show_default=True,
    help="Folder to write NAME.pem into; made if it is not there.",
)
@click.option("--passphrase", "asks", is_flag=True, help="Encrypt it: asks for a passphrase, or takes BFT_PASSPHRASE.")
@json_option
@friendly
def new(name: str, folder: Path, asks: bool, as_json: bool) -> None:
    """Make a private key and write it to DIR/NAME.pem; never overwrites one."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name):
        raise ConfigError(f"NAME is {name!r}: use 1 to 64 letters, digits, '_', '.' or '-'")
    passphrase = passphrase_from_environment() if asks else None
    if asks and passphrase is None:
        passphrase = click.prompt("Passphrase", hide_input=True, confirmation_prompt=True, err=True).encode()
    path = folder / f"{name}.pem"
    make_folder(folder)
    pair = KeyPair.generate()
    save_key(path, pair, passphrase)
    _tell(path, pair, as_json)


@keys.command("show", epilog=example("keys show keys/alice.pem", "keys show keys/alice.pem --json"))
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@json_option
@friendly
def show(file: Path, as_json: bool) -> None:
    """Show the public half of a private key, as a cluster file writes it.

    An encrypted file's passphrase comes from BFT_PASSPHRASE, or is asked for.
    """
    _tell(file, _load(file), as_json)


@keys.command(
    "agent",
    epilog=example(
        "keys agent cluster/keys/r0.pem --cluster cluster/cluster.toml --socket cluster/r0/signer.sock",
        "keys agent --report --socket cluster/r0/signer.sock",
    ),
)
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@cluster_option
@click.option(
    "--socket", "socket_file", required=True, type=click.Path(dir_okay=False, path_type=Path), help="Where to listen."
)
@click.option(
    "--guard",
    "guard_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="What was signed.  [default: FILE.guard]",
)
@click.option(
    "--durability",
    type=click.Choice(["power", "process"]),
    default="power",
    show_default=True,
    help="What the guard survives: power loss, or kill -9. Take the replica's.",
)
@click.option("--report", "reports", is_flag=True, help="Ask a running agent for its counters instead, as JSON.")
@friendly
def agent(
    file: Path | None,
    cluster_file: Path,
    socket_file: Path,
    guard_file: Path | None,
    durability: Literal["power", "process"],
    reports: bool,
) -> None:
    """Hold a replica's key in a process of its own, which signs no two votes that exclude each other.

    The replica has `signer = "unix:PATH"` in its replica.toml in the place of `key`. Runs in the foreground until
    SIGTERM or SIGINT. An encrypted key's passphrase comes from BFT_PASSPHRASE, or is asked for. Exit code 2: key or
    cluster file are wrong; 1: the socket or the guard cannot be used.
    """
    from bft.cli.agent import report, run

    if reports:
        print_json(report(socket_file))
        return
    if file is None:
        raise ConfigError("FILE is missing: the key to hold")
    run(file, _load(file), load_cluster(cluster_file), socket_file, guard_file, durability)


def _load(file: Path) -> KeyPair:
    """A key; asks for a passphrase if that is needed and not in the environment. Raises as `load_key`."""
    passphrase = passphrase_from_environment()
    if passphrase is None and _is_encrypted(file):
        passphrase = _ask_for_passphrase()
    return load_key(file, passphrase)


def _ask_for_passphrase() -> bytes | None:
    """None where there is nobody to ask: `load_key` says then what is missing."""
    try:
        return str(click.prompt("Passphrase", hide_input=True, err=True)).encode()
    except click.Abort:
        if sys.stdin.isatty():  # it was interrupted
            raise
        click.echo(err=True)
        return None


def _is_encrypted(file: Path) -> bool:
    try:
        return b"ENCRYPTED PRIVATE KEY" in file.read_bytes()[:4096]
    except OSError:
        return False  # `load_key` says what is wrong with it


def _tell(path: Path, pair: KeyPair, as_json: bool) -> None:
    if as_json:
        print_json({"file": str(path), "public": pair.public_hex})
        return
    click.echo(f"{path}  {pair.public_hex}  ({peer_name(ClientId(pair.public))})")
