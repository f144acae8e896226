"""The signing agent as a foreground process."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Literal

import click

from bft.config import Cluster
from bft.crypto.keys import KeyPair
from bft.errors import KeyFileError
from bft.ids import ReplicaId
from bft.runtime.own_keys import GUARD, USED, beside
from bft.signing.agent import Agent, AgentServer
from bft.signing.client import AgentSigner
from bft.signing.guard import Guard

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
        KeyFileError: the key is no replica's of the cluster.
        StorageError: the guard cannot be used, or failed while serving.
        BFTError: the socket cannot be used.
    """
    if keys.public not in cluster.replica_keys:
        raise KeyFileError(f"{file}: holds the key {keys.public_hex}, which is no replica's in {cluster.name}")
    replica = ReplicaId(cluster.replica_keys.index(keys.public))
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


def report(socket_file: Path) -> dict[str, object]:
    """What a running agent says about itself.

    Raises:
        SigningError: none answers.
    """
    with AgentSigner(socket_file, seconds=REPORT_SECONDS) as signer:
        return signer.report()
