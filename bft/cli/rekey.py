"""`bft keys rotate`, `bft cluster recover`: give replicas that have their stores new keys, and so a new life.

Rotate: the replica goes on, with the next key from the next epoch on. Recover: each replica in turn is restarted,
checks its store, and gets a new key; one whose store does not hold rejoins (`bft.cli.returning`). Whoever had crept
into a replica is out, or must begin anew.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

import anyio
import click

from bft.cli.change import Approvals, Change
from bft.cli.desk import ACCOUNT_SECONDS, Desk, with_desk
from bft.cli.layout import key_path, replica_configs
from bft.cli.probe import probe_all
from bft.cli.processes import ReplicaProcess
from bft.cli.returning import config_argument, make_key, prepare_return, return_of
from bft.cli.standing import standing
from bft.cli.terminal import Seconds, example, passphrase_from_environment, print_json
from bft.config import load_local
from bft.crypto.keys import KeyPair, load_key
from bft.errors import BFTError, ConfigError
from bft.runtime.own_keys import NEXT, beside
from bft.transport.discovery import KnownChain

UP_SECONDS = 30.0
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

# --- rotate ---------------------------------------------------------------------------------------------------------


@click.command(
    "rotate",
    epilog=example("keys rotate cluster/r2/replica.toml", "keys rotate r2/replica.toml --dir . --sign-only new.json"),
)
@config_argument
@with_desk
def rotate(desk: Desk, config: Path) -> None:
    """Replace the key of the running replica that CONFIG (a replica.toml) describes, without stopping it.

    The next key is on disk before anything is submitted; the replica signs with both that it is ready, votes with the
    next one from the next epoch on, and erases the present one.
    """
    change, shown, extra = _rotation(desk, config)
    desk.conclude(change, at=shown, extra=extra)


def _rotation(desk: Desk, config: Path) -> tuple[Approvals, dict[int, bytes], dict[str, object]]:
    """The signed change, the key that the replica shows until then, and what to tell a script."""
    local = load_local(config)
    key = key_path(local)
    before = desk.known().configuration
    member = desk.require_member(before, local.id)
    present = load_key(key, passphrase_from_environment())
    if present.public != member.key:
        raise ConfigError(
            f"{key}: holds {present.public_hex}, epoch {before.epoch} names {member.key.hex()} for replica {local.id}:"
            f" if its store is lost, bft replica rejoin {config}"
        )
    following = _next_key(key)
    approvals = desk.signed(Change.rekeyed(before, member, following.public), desk.admins())
    return approvals, {local.id: member.key}, {"replica": local.id, "key": following.public_hex}


def _next_key(key: Path) -> KeyPair:
    """The key that is to follow: that of an attempt that did not end, or a new one."""
    file = beside(key, NEXT)
    if not file.exists():
        make_key(file)
    return load_key(file, passphrase_from_environment())


# --- recover --------------------------------------------------------------------------------------------------------


def _seconds(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    found = re.fullmatch(r"([0-9]+)([smhd])", value)
    if found is None or int(found[1]) == 0:
        raise click.BadParameter(f"found {value!r}, expected a time such as 30m, 24h or 7d")
    return int(found[1]) * UNITS[found[2]]


@click.command(
    "recover",
    epilog=example("cluster recover", "cluster recover --every 24h", "cluster recover --only 2 --dir cluster"),
)
@click.option("--every", "every_s", callback=_seconds, metavar="TIME", help="Again and again: 30m, 24h, 7d.")
@click.option("--only", "only", multiple=True, type=int, metavar="ID", help="These replicas only.")
@click.option(
    "--settle", "settle_s", type=Seconds(0), default=0.0, show_default=True, help="Seconds between two replicas."
)
@with_desk
def recover(desk: Desk, every_s: int | None, only: tuple[int, ...], settle_s: float) -> None:
    """Proactive recovery: restart every replica of this folder in turn, with a check of its store and a new key.

    A replica that an attacker has taken over without being noticed is clean afterwards, so that f bounds those taken
    over between two rounds and not for ever. Before each step all members must be healthy, since the replica being
    recovered counts as one of the f faulty. Exit code 1 at the first step that fails: nothing further is touched.
    """
    if desk.sign_only is not None:
        raise ConfigError("recovery changes the membership once per replica: signatures cannot be made beforehand")
    while True:
        done = []
        for config in _members_here(desk, only):
            local = load_local(config)
            if desk.known().configuration.member(local.id) is None:
                continue
            _require_healthy(desk)
            done.append({"replica": local.id, **_recover_one(desk, config)})
            time.sleep(settle_s)
        _require_healthy(desk)
        if desk.as_json:
            print_json(done)
        else:
            click.echo(f"recovered: {', '.join(str(step['replica']) for step in done) or 'nobody'}")
        if every_s is None:
            return
        time.sleep(every_s)


def _members_here(desk: Desk, only: tuple[int, ...]) -> list[Path]:
    """Configurations of the members in this folder, or of these of them.

    Raises:
        ConfigError: one of them is not here, or cannot be given a new key, which is said before any is touched.
    """
    before = desk.known().configuration
    found, unknown = [], set(only)
    for config in replica_configs(desk.folder):
        local = load_local(config)
        if before.member(local.id) is not None and (not only or local.id in only):
            key_path(local)
            found.append(config)
            unknown.discard(local.id)
    if unknown:
        raise ConfigError(
            f"--only: replica {', '.join(map(str, sorted(unknown)))} is no member that lives in {desk.folder}; the"
            f" members are {', '.join(map(str, before.quorums.members))}"
        )
    return found


def _recover_one(desk: Desk, config: Path) -> dict[str, object]:
    """Restart, check, re-key one replica. Raises BFTError if it does not come back."""
    local = load_local(config)
    process = ReplicaProcess(config)
    if process.pid() is None:
        raise BFTError(f"replica {local.id} does not run, or was not started here (bft cluster up): nothing was done")
    end = process.stop()
    process.start()
    desk.say(f"r{local.id}: {end}, started again with pid {process.pid()}")
    if not _comes_up(desk, process, local.id):
        if "bft replica rejoin" not in process.last_words():
            raise BFTError(f"replica {local.id} does not start again: {process.last_words()} (log: {process.log})")
        desk.say(f"r{local.id}: does not start ({process.last_words()}): it rejoins")
        extra = prepare_return(desk, config)
        activation = desk.submit(return_of(desk, config))
        desk.wait_member(local.id, desk.timeout_s)
        return {"how": "rejoined", **activation.tree(), **extra}
    approvals, shown, extra = _rotation(desk, config)
    activation = desk.submit(approvals, at=shown)
    desk.wait_member(local.id, desk.timeout_s)
    desk.say(f"r{local.id}: votes with a new key since epoch {activation.epoch}")
    return {"how": "rotated", **activation.tree(), **extra}


def _comes_up(desk: Desk, process: ReplicaProcess, replica: int) -> bool:
    """True when the replica takes part again; False if its process ended."""
    deadline = time.monotonic() + desk.timeout_s
    while process.pid() is not None:
        try:
            desk.wait_member(replica, 1.0)
        except BFTError:
            if time.monotonic() >= deadline:
                raise
            continue
        return True
    return False


def _require_healthy(desk: Desk) -> None:
    """All members take part and keep up; waits a little for that.

    Raises:
        BFTError: one does not.
    """
    anyio.run(_until_healthy, desk, backend="trio")


async def _until_healthy(desk: Desk) -> None:
    chain, identity = KnownChain.of(desk.cluster), desk.identity
    deadline = time.monotonic() + UP_SECONDS
    while True:
        await chain.discover(1.0)
        accounts = await probe_all(desk.cluster, identity, ACCOUNT_SECONDS, chain.configuration.members)
        window = desk.cluster.protocol.window
        found = {
            replica: standing(chain.configuration, accounts, replica, window)
            for replica in chain.configuration.quorums.members
        }
        ill = [f"r{replica}: {why}" for replica, why in found.items() if isinstance(why, str)]
        if not ill:
            return
        if time.monotonic() >= deadline:
            raise BFTError(f"recovery stops, since not every member is healthy: {'; '.join(ill)}")
        await anyio.sleep(0.2)
