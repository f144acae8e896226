"""Where a cluster and its replicas stand: the present epoch, who is a healthy member, how a replica of this machine is
reached."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import anyio
import msgspec

from bft.cli.layout import key_path
from bft.cli.probe import Account, front
from bft.cli.terminal import passphrase_from_environment
from bft.config import Cluster, Local, load_local
from bft.crypto.keys import load_key
from bft.epochs import Configuration, genesis
from bft.errors import ConfigError, SigningError
from bft.headers import Member
from bft.signing.client import AgentSigner, socket_path
from bft.transport.discovery import KnownChain, chain_file, save_links


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
        return f"it fetches the state{account.chases}"
    ahead = front(accounts, configuration.quorums, "executed")
    if account.number("executed") + lag_max < ahead:
        return f"it has executed slot {account.number('executed')}, the others {ahead}"
    return account


def local_member(cluster: Cluster, config: Path) -> Member:
    """A replica that lives here, as a member with the key that it shows now.

    Raises:
        ConfigError: its files do not say where it listens, or with which key.
        KeyFileError: its key cannot be used.
        SigningError: its key is held by an agent that does not answer, and the cluster file does not know it.
    """
    local = load_local(config)
    entry = genesis(cluster).member(local.id)
    key = _shown_key(local, entry)
    if local.port:
        return Member(local.id, key, local.host, local.port)
    if entry is None:
        raise ConfigError(f"{config}: replica {local.id} is not in the cluster file: host and port must be given here")
    return msgspec.structs.replace(entry, key=key)


def _shown_key(local: Local, entry: Member | None) -> bytes:
    """The public key of a replica's key file or agent; the cluster file's while the agent does not run."""
    if not local.signer:
        return load_key(key_path(local), passphrase_from_environment()).public
    try:
        with AgentSigner(socket_path(local.signer), seconds=0) as agent:
            return agent.public
    except SigningError:
        if entry is None:
            raise
        return entry.key
