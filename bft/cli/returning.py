"""`bft replica rejoin`: bring a replica back that has lost its store, and with it the right to vote with its key.

It fetches the state under a new key, for which the one that the present epoch names vouches. Everything that can be
missing is looked for before anything is touched, and every step may be the last one: run again, the command goes on.

    r3.pem        the new key, from the moment on when the old one is out of its place
    r3.pem.old    the key that the epoch names: vouches, never votes again
    r3.pem.lost1  what else may come to be named by an epoch: the key of an earlier return, or of a rotation
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import anyio
import click

from bft.cli.change import Approvals, Change
from bft.cli.desk import ACCOUNT_SECONDS, Desk, with_desk
from bft.cli.layout import key_path
from bft.cli.probe import probe_all
from bft.cli.processes import ReplicaProcess
from bft.cli.terminal import example, passphrase_from_environment
from bft.config import Cluster, Local, load_local
from bft.crypto.keys import KeyPair, load_key, save_key
from bft.epochs import Configuration
from bft.errors import BFTError, ConfigError, KeyFileError, VotesLost
from bft.runtime.assembly import STORE_FILE, open_store
from bft.runtime.own_keys import NEW, NEXT, OLD, USED, beside, lost_keys, next_lost
from bft.storage.files import sync
from bft.storage.guard import FolderLock
from bft.transport.discovery import chain_file, save_links

DRAFT = ".draft"

config_argument = click.argument("config", type=click.Path(dir_okay=False, path_type=Path))


@click.command(
    "rejoin", epilog=example("replica rejoin cluster/r3/replica.toml", "replica rejoin r3/replica.toml --dir .")
)
@config_argument
@with_desk
def rejoin(desk: Desk, config: Path) -> None:
    """Bring a replica back that has lost its disk: wiped, corrupt, or rolled back to an old backup.

    What is left of its store is put aside. It gets a new key, for which the old one vouches, starts, fetches the state
    from the others, and becomes a member again when the change has been ordered. The old key never votes again and is
    erased. The process stays; safe to run again if it was interrupted, or if the disk was lost once more.
    """
    extra = prepare_return(desk, config)
    desk.conclude(return_of(desk, config), extra=extra)
    if desk.sign_only is None:
        account = desk.wait_member(load_local(config).id, desk.timeout_s)
        desk.say(f"r{account.replica} is a member again: it has executed slot {account.number('executed')}")


def prepare_return(desk: Desk, config: Path) -> dict[str, object]:
    """New key, empty store, running process; of a return that was begun, what is missing.

    Raises:
        BFTError: something is missing that the return will need; nothing was touched.
    """
    local = load_local(config)
    key, data = key_path(local), Path(local.data)
    chain = desk.known()
    member = desk.require_member(chain.configuration, local.id)
    process = ReplicaProcess(config)
    runs = process.pid() is not None
    holder = _holder(key, member.key)
    has_begun = key.exists() and holder in (beside(key, OLD), *lost_keys(key))
    if runs and not has_begun:
        raise BFTError(f"replica {local.id} runs with pid {process.pid()}: stop it first, if its store is lost")
    desk.require_signers(chain.configuration)
    _require_others(desk, chain.configuration, local.id)
    aside: Path | None = None
    if has_begun and (runs or not _is_lost(desk.cluster, local, key)):
        _let_vouch(key, holder)
        desk.say(f"r{local.id}: goes on with the return that was begun")
    else:
        _require_free(data)
        aside = _put_aside(data)
        _change_keys(key, holder)
    save_links(chain_file(key, desk.cluster), chain.links)
    if process.pid() is None:
        process.start()
        desk.say(f"r{local.id}: started with a new key, pid {process.pid()}, log {process.log}")
    if aside is not None:
        desk.say(f"r{local.id}: what was left of its store is in {aside}; nobody needs it any more")
    return {"replica": local.id, "old_store": None if aside is None else str(aside)}


def return_of(desk: Desk, config: Path) -> Approvals:
    """The signed change that names a returning replica's new key."""
    local = load_local(config)
    before = desk.known().configuration
    member = desk.require_member(before, local.id)
    pair = load_key(key_path(local), passphrase_from_environment())
    return desk.signed(Change.rekeyed(before, member, pair.public), desk.admins())


# --- before anything is touched -------------------------------------------------------------------------------------


def _holder(key: Path, named: bytes) -> Path:
    """The file that holds the key which the epoch names for the replica.

    Raises:
        KeyFileError: the key, or the one that vouches for it, cannot be read.
        ConfigError: none holds it.
    """
    passphrase = passphrase_from_environment()
    files = [key, beside(key, OLD), beside(key, NEXT), *lost_keys(key)]
    found: dict[Path, bytes] = {}
    for file in files:
        if file.exists():
            with contextlib.nullcontext() if file in files[:2] else contextlib.suppress(KeyFileError):
                found[file] = load_key(file, passphrase).public
    holder = next((file for file in files if found.get(file) == named), None)
    if holder is not None:
        return holder
    if not found:
        raise ConfigError(f"{key}: is lost as well, so nobody can vouch for the replica: bft cluster replace")
    held = ", ".join(f"{file.name} holds {public.hex()}" for file, public in found.items())
    raise ConfigError(
        f"{key}: the epoch names {named.hex()} for this replica, but {held}: nobody can vouch for a new one (bft"
        f" cluster replace). Nothing was touched"
    )


def _require_others(desk: Desk, configuration: Configuration, replica: int) -> None:
    """Raises BFTError unless the others can order a change, and give the state away, without this replica."""
    others = [member for member in configuration.members if member.id != replica]
    accounts = anyio.run(probe_all, desk.cluster, desk.identity, ACCOUNT_SECONDS, others, backend="trio")
    silent = [f"r{account.replica}: {account.failure}" for account in accounts if not account.answered]
    need = configuration.quorums.strong
    if len(accounts) - len(silent) < need:
        raise BFTError(
            f"{len(accounts) - len(silent)} of the {len(others)} other replicas answer, and {need} must:"
            f" {'; '.join(silent)}. Nothing was touched"
        )


def _require_free(data: Path) -> None:
    """Raises StorageError while some process holds the store, whoever has started it."""
    if data.exists():
        FolderLock(data / f"{STORE_FILE}.lock").release()


def _is_lost(cluster: Cluster, local: Local, key: Path) -> bool:
    """True if a replica whose return has begun cannot start with its store: that was lost, too.

    Raises:
        StorageError: the store cannot be used now, for another reason.
    """
    if not beside(key, USED).exists():
        return False  # it has not started yet
    try:
        store = open_store(cluster, local)
        try:
            store.load()
        finally:
            store.close()
    except VotesLost:
        return True
    return False


# --- steps ----------------------------------------------------------------------------------------------------------


def _put_aside(data: Path) -> Path | None:
    """Move a store out of the way; None if there is none."""
    if not data.exists():
        return None
    number = 1
    while (aside := data.with_name(f"{data.name}.lost{number}")).exists():
        number += 1
    data.rename(aside)
    return aside


def make_key(file: Path) -> None:
    """Make a key file that is there whole or not at all, whenever the machine stops.

    Raises:
        KeyFileError: it cannot be written.
    """
    draft = beside(file, DRAFT)
    draft.unlink(missing_ok=True)
    save_key(draft, KeyPair.generate(), passphrase_from_environment())
    draft.replace(file)
    sync(file.parent)


def _let_vouch(key: Path, holder: Path) -> None:
    """The key that the epoch names is the one beside the key that vouches for it."""
    if holder != beside(key, OLD):
        holder.replace(beside(key, OLD))
        sync(key.parent)


def _change_keys(key: Path, holder: Path) -> None:
    """The key that the epoch names may only vouch from now on; a new one takes its place. Each step is durable first.

    Safe at every crash in between: with the key out of its place there is nothing to vote with, and the mark that it
    has voted goes last, when no key file is left to which it could apply. A new key that an attempt left behind has not
    been used by anybody; one that cannot be read is replaced.

    Raises:
        KeyFileError: the new key cannot be written.
    """
    new = beside(key, NEW)
    try:
        load_key(new, passphrase_from_environment())
    except KeyFileError:
        make_key(new)
    _let_vouch(key, holder)
    for file in (beside(key, NEXT), key):  # an epoch may come to name it still: it would have to vouch then
        if file.exists():
            file.replace(next_lost(key))
            sync(key.parent)
    beside(key, USED).unlink(missing_ok=True)
    new.replace(key)
    sync(key.parent)
