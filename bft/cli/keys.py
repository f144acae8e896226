"""`bft keys new | show | rotate`: private keys for clients and replicas."""

from __future__ import annotations

import re
from pathlib import Path

import click

from bft.cli.folders import make_folder
from bft.cli.rekey import rotate
from bft.cli.terminal import example, friendly, json_option, passphrase_from_environment, print_json
from bft.crypto.keys import KeyPair, load_key, save_key
from bft.errors import ConfigError
from bft.ids import ClientId, peer_name


@click.group("keys")
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
    passphrase = passphrase_from_environment()
    if passphrase is None and _is_encrypted(file):
        passphrase = click.prompt("Passphrase", hide_input=True, err=True).encode()
    _tell(file, load_key(file, passphrase), as_json)


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
