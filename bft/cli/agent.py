"""The signing agent as a foreground process."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Literal

import click

from bft.cli.standing import discover
from bft.config import Cluster
from bft.crypto.keys import KeyPair
from bft.errors import KeyFileError
from bft.ids import ReplicaId
from bft.runtime.own_keys import GUARD, USED, beside
from bft.signing.agent import Agent, AgentServer
from bft.signing.client import AgentSigner
from bft.signing.guard import Guard
from bft.transport.discovery import KnownChain, chain_file

REPORT_SECONDS = 2.0


def run(
    file: Path,
    keys: KeyPair,
    cluster: Cluster,
    socket_file: Path,
    guard_file: Path | None,
    durability: Literal["power", "process"],
) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        KeyFileError: the key is no replica's of the cluster, in any epoch.
        StorageError: the guard cannot be used, or failed while serving.
        BFTError: the socket cannot be used.
    """
    replica = replica_of(file, keys, cluster)
    guard = Guard(guard_file or beside(file, GUARD), cluster.id, replica, durability)
    try:
        agent = Agent(cluster.id, replica, keys, guard, beside(file, USED))
        server = AgentServer(agent, socket_file, lambda text: click.echo(text, err=True))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: server.stop())
        click.echo(f"signs for r{replica} of {cluster.name} at {socket_file}, durability {durability}", err=True)
        server.run()
    finally:
        guard.close()


def replica_of(file: Path, keys: KeyPair, cluster: Cluster) -> ReplicaId:
    """Whose key this is, in the cluster file or in any later epoch: by the links beside the key, else the members' own.

    Raises:
        KeyFileError: no epoch that is proven names it.
    """
    known = KnownChain.of(cluster, chain_file(file, cluster))
    found = _named(known, keys.public)
    if found is None and cluster.admin:
        known = discover(cluster, file)
        found = _named(known, keys.public)
    if found is None:
        raise KeyFileError(
            f"{file}: holds the key {keys.public_hex}, which is no replica's in {cluster.name} up to epoch"
            f" {known.configuration.epoch}"
        )
    return found


def _named(known: KnownChain, public: bytes) -> ReplicaId | None:
    for configuration in known.chain.epochs:
        for member in configuration.members:
            if member.key == public:
                return ReplicaId(member.id)
    return None


def report(socket_file: Path) -> dict[str, object]:
    """What a running agent says about itself.

    Raises:
        SigningError: none answers.
    """
    with AgentSigner(socket_file, seconds=REPORT_SECONDS) as signer:
        return signer.report()
