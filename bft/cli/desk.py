"""What the commands that change a membership share: their options, the present epoch, and how a change is concluded."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import anyio
import click
import msgspec

from bft.cli.change import (
    Activation,
    Approvals,
    Change,
    carry_out,
    load_admins,
    require_administrators,
    save_approvals,
    wait_ready,
)
from bft.cli.connection import Target
from bft.cli.layout import CLUSTER_FILE, key_path, replica_folder
from bft.cli.probe import Account, probe, probe_identity
from bft.cli.processes import ReplicaProcess
from bft.cli.terminal import (
    default_key,
    directory_option,
    friendly,
    json_option,
    key_option,
    passphrase_from_environment,
    print_json,
)
from bft.client.client import Client
from bft.config import Cluster, load_cluster, load_local
from bft.crypto.keys import KeyPair, load_key
from bft.epochs import Configuration, genesis
from bft.errors import BFTError, ConfigError
from bft.headers import Member
from bft.transport.discovery import KnownChain, chain_file, save_links
from bft.transport.handshake import Identity

P = ParamSpec("P")
R = TypeVar("R")
POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Desk:
    """Where a change of membership is prepared, signed and submitted.

    Attributes:
        folder: the cluster's folder.
        cluster: the cluster file's content.
        timeout_s: for newcomers to be ready, and again for the change to take effect.
    """

    folder: Path
    cluster: Cluster
    key_file: Path | None
    admin_files: tuple[Path, ...]
    sign_only: Path | None
    timeout_s: float
    as_json: bool

    # --- what there is ---

    @property
    def cluster_file(self) -> Path:
        """The shared configuration."""
        return self.folder / CLUSTER_FILE

    @property
    def identity(self) -> Identity:
        """Who asks replicas how they are."""
        key = default_key(self.cluster_file, self.key_file)
        return probe_identity(
            self.cluster, key, required=self.key_file is not None, passphrase=passphrase_from_environment()
        )

    def admins(self) -> list[KeyPair]:
        """Administrators' keys. Raises as `load_admins` does."""
        return load_admins(self.folder, self.admin_files)

    def known(self) -> KnownChain:
        """The way to the present epoch, asked for now and kept beside the client's key."""
        return discover(self.cluster, default_key(self.cluster_file, self.key_file))

    def say(self, text: str) -> None:
        """Tell a person how it goes; a script reads the result alone."""
        click.echo(text, err=self.as_json)

    def _end_of(self, replica: int) -> str:
        """What a replica's process said when it ended; empty while it runs, or where none was started here."""
        process = ReplicaProcess(replica_folder(self.folder, replica) / "replica.toml")
        if not process.pid_file.exists() or process.pid() is not None:
            return ""
        return f"{process.last_words().removeprefix('error: ')} (log: {process.log})"

    # --- what is done ---

    def conclude(
        self, approvals: Approvals, *, at: dict[int, bytes] | None = None, extra: dict[str, object] | None = None
    ) -> None:
        """Write the signatures down, or submit the change and tell what came of it.

        Args:
            approvals: the change, signed by whoever is here.
            at: see `wait_ready`.
            extra: more to tell a script.
        """
        if self.sign_only is not None:
            save_approvals(self.sign_only, approvals)
            if self.as_json:
                print_json({"file": str(self.sign_only), "signatures": len(approvals.signatures), **(extra or {})})
                return
            click.echo(f"{self.sign_only}: {approvals.change.describe()}")
            need = approvals.change.before.threshold
            click.echo(f"signed by {len(approvals.signatures)} of {need}; nothing was submitted")
            return
        activation = self.submit(approvals, at=at)
        if self.as_json:
            print_json({**activation.tree(), **(extra or {})})
            return
        click.echo(
            f"epoch {activation.epoch} is active: n = {len(approvals.change.members)}, began after slot"
            f" {activation.last}, longest pause {activation.stall_ms:.0f} ms"
        )

    def submit(self, approvals: Approvals, *, at: dict[int, bytes] | None = None) -> Activation:
        """Wait until newcomers are ready, have the change ordered, wait until it is in effect. Raises BFTErrors."""
        approvals.require_enough()
        target = Target(self.cluster_file, self.key_file, self.timeout_s)

        async def body(client: Client) -> Activation:
            windows = self.cluster.protocol.window
            ready = await wait_ready(
                approvals.change, self.identity, windows, self.timeout_s, self.say, at=at, ended=self._end_of
            )
            return await carry_out(client, approvals, ready, self.timeout_s, self.say)

        return target.run(body)

    def wait_member(self, replica: int, seconds: float) -> Account:
        """Wait until a replica votes in the present epoch and keeps up with the others.

        Raises:
            BFTError: it does not, within `seconds`.
        """
        account = anyio.run(self._wait_member, replica, seconds, backend="trio")
        if isinstance(account, str):
            raise BFTError(f"replica {replica} does not take part after {seconds:g} s: {account}")
        return account

    async def _wait_member(self, replica: int, seconds: float) -> Account | str:
        why = "no answer"
        identity = self.identity
        chain = KnownChain.of(self.cluster, chain_file(default_key(self.cluster_file, self.key_file), self.cluster))
        with anyio.move_on_after(seconds):
            while True:
                await chain.discover(1.0)
                accounts = await members_accounts(chain.configuration, identity)
                found = standing(chain.configuration, accounts, replica, self.cluster.protocol.window)
                if not isinstance(found, str):
                    return found
                why = found
                await anyio.sleep(POLL_SECONDS)
        return why


def discover(cluster: Cluster, key: Path) -> KnownChain:
    """The present epoch of a cluster, as far as anybody who answers can prove it; kept beside a key.

    Where it leads is proven; that nothing follows is not: who lags, or lies, does not tell.
    """
    file = chain_file(key, cluster)
    chain = KnownChain.of(cluster, file if cluster.admin else None)
    if not cluster.admin:
        return chain
    before = len(chain.links)
    anyio.run(chain.discover, backend="trio")
    if len(chain.links) > before and key.exists():
        save_links(file, chain.links)
    return chain


async def members_accounts(configuration: Configuration, identity: Identity) -> list[Account]:
    """What all members say about themselves, by id."""
    accounts: list[Account] = []

    async def ask(member: Member) -> None:
        accounts.append(await probe(member, identity, seconds=2.0))

    async with anyio.create_task_group() as tasks:
        for member in configuration.members:
            tasks.start_soon(ask, member)
    return sorted(accounts, key=lambda account: account.replica)


def standing(configuration: Configuration, accounts: Sequence[Account], replica: int, lag_max: int) -> Account | str:
    """A member's account if it votes and keeps up; else why not."""
    account = next((account for account in accounts if account.replica == replica), None)
    if account is None:
        return f"it is no member of epoch {configuration.epoch}"
    if not account.answered:
        return account.failure
    if account.report.get("role") != "member":
        return f"it says it is a {account.report.get('role')}"
    if account.number("epoch") != configuration.epoch:
        return f"it is in epoch {account.number('epoch')}, the cluster in {configuration.epoch}"
    if account.report.get("fetching") is not None:
        return "it fetches the state"
    claims = sorted((other.number("executed") for other in accounts if other.answered), reverse=True)
    ahead = claims[min(configuration.quorums.f, len(claims) - 1)]
    if account.number("executed") + lag_max < ahead:
        return f"it has executed slot {account.number('executed')}, the others {ahead}"
    return account


def local_member(cluster: Cluster, config: Path) -> Member:
    """A replica that lives here, as a member with the key that it shows now.

    Raises:
        ConfigError: its files do not say where it listens, or with which key.
        KeyFileError: its key cannot be used.
    """
    local = load_local(config)
    entry = genesis(cluster).member(local.id)
    if local.signer and entry is not None:
        key = entry.key  # an agent holds no other: it refuses a key that the cluster file does not list
    else:
        key = load_key(key_path(local), passphrase_from_environment()).public
    if local.port:
        return Member(local.id, key, local.host, local.port)
    if entry is None:
        raise ConfigError(f"{config}: replica {local.id} is not in the cluster file: host and port must be given here")
    return msgspec.structs.replace(entry, key=key)


def change_of(before: Configuration, members: Sequence[Member]) -> Change:
    """A change to these members, in order."""
    return Change(before, tuple(sorted(members, key=lambda member: member.id)))


def with_desk(function: Callable[Concatenate[Desk, P], R]) -> Callable[..., R]:
    """Give a command the options of a change of membership, and friendly errors."""

    @directory_option
    @key_option
    @click.option(
        "--admin",
        "admin_files",
        multiple=True,
        type=click.Path(dir_okay=False, path_type=Path),
        help="An administrator's private key; once per administrator.  [default: keys/admin.pem in the folder]",
    )
    @click.option(
        "--sign-only",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Submit nothing: write the change and the signatures into this file, for other administrators.",
    )
    @click.option(
        "--timeout",
        "timeout_s",
        type=click.FloatRange(min=0.1),
        default=60.0,
        show_default=True,
        help="Seconds for newcomers to be ready, and again for the change to take effect.",
    )
    @json_option
    @functools.wraps(function)
    @friendly
    def wrapper(
        folder: Path,
        key_file: Path | None,
        admin_files: tuple[Path, ...],
        sign_only: Path | None,
        timeout_s: float,
        as_json: bool,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        cluster = load_cluster(folder / CLUSTER_FILE)
        require_administrators(cluster)
        desk = Desk(folder, cluster, key_file, admin_files, sign_only, timeout_s, as_json)
        return function(desk, *args, **kwargs)

    return wrapper
