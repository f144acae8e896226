"""What the commands that change a membership share: their options, the present epoch, and how a change is concluded."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import anyio
import click

from bft.cli.change import (
    Activation,
    Approvals,
    Change,
    carry_out,
    load_admins,
    require_administrator,
    require_administrators,
    require_threshold,
    save_approvals,
    wait_ready,
)
from bft.cli.connection import Target
from bft.cli.layout import CLUSTER_FILE, replica_folder
from bft.cli.probe import Account, probe_all, probe_identity
from bft.cli.processes import ReplicaProcess
from bft.cli.standing import discover, standing
from bft.cli.terminal import (
    Seconds,
    default_key,
    directory_option,
    friendly,
    json_option,
    key_option,
    passphrase_from_environment,
    print_json,
)
from bft.client.client import Client
from bft.config import Cluster, load_cluster
from bft.crypto.keys import KeyPair
from bft.epochs import Configuration
from bft.errors import BFTError, ConfigError
from bft.headers import Member
from bft.transport.discovery import KnownChain, chain_file
from bft.transport.handshake import Identity

P = ParamSpec("P")
R = TypeVar("R")
POLL_SECONDS = 0.1
ACCOUNT_SECONDS = 2.0
"""For members to say how they are."""


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

    def require_signers(self, before: Configuration) -> None:
        """Before anything is done that cannot be undone: whoever must sign is here.

        Raises:
            ConfigError: a key is no administrator's, or they are too few to submit a change.
            KeyFileError: one cannot be used.
        """
        admins = self.admins()
        for key in admins:
            require_administrator(self.cluster, key)
        if self.sign_only is None:
            require_threshold(len({key.public for key in admins}), before)

    def known(self) -> KnownChain:
        """The way to the present epoch, asked for now and kept beside the client's key."""
        return discover(self.cluster, default_key(self.cluster_file, self.key_file))

    def require_reachable(self) -> None:
        """Before newcomers are made and started: there is somebody who can order the change.

        Raises:
            Unreachable: too few members can be reached.
        """

        async def nothing(client: Client) -> None:
            return

        if self.sign_only is None:
            Target(self.cluster_file, self.key_file, self.timeout_s).run(nothing)

    @staticmethod
    def require_member(configuration: Configuration, replica: int) -> Member:
        """The member of this id.

        Raises:
            ConfigError: there is none.
        """
        member = configuration.member(replica)
        if member is None:
            raise ConfigError(
                f"replica {replica} is no member of epoch {configuration.epoch}: the members are"
                f" {', '.join(map(str, configuration.quorums.members))}"
            )
        return member

    def signed(self, change: Change, admins: Sequence[KeyPair]) -> Approvals:
        """A change with these administrators' signatures. Raises as `Approvals.sign`."""
        approvals = Approvals(change)
        for key in admins:
            approvals.sign(self.cluster, key)
        return approvals

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
        self.say(approvals.change.describe())
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
            ready = await wait_ready(
                approvals.change, self.cluster, self.identity, self.timeout_s, self.say, at=at, ended=self._end_of
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
                accounts = await probe_all(self.cluster, identity, ACCOUNT_SECONDS, chain.configuration.members)
                found = standing(chain.configuration, accounts, replica, self.cluster.protocol.window)
                if not isinstance(found, str):
                    return found
                why = found
                await anyio.sleep(POLL_SECONDS)
        return why


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
        type=Seconds(min=0.1),
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
