"""How commands reach a cluster: options, a connected client, and a clear word when too few replicas can be reached."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import anyio

from bft.cli.terminal import (
    cluster_option,
    default_key,
    friendly,
    key_option,
    passphrase_from_environment,
    timeout_option,
)
from bft.client.client import Client, Consistency, connect
from bft.config import Cluster, load_cluster
from bft.crypto.keys import KeyPair, load_key
from bft.errors import OutcomeUnknown, TransportError
from bft.transport.discovery import chain_file

P = ParamSpec("P")
R = TypeVar("R")
CONNECT_SECONDS_MAX = 5.0


class Unreachable(OutcomeUnknown):
    """Too few replicas answered for anything to be sent."""


@dataclass(frozen=True, slots=True)
class Target:
    """Which cluster a command means, as whom, and how long it waits."""

    cluster_file: Path
    key_file: Path | None
    timeout_s: float

    def load(self) -> tuple[Cluster, KeyPair]:
        """The cluster's configuration and the client's key.

        Raises:
            ConfigError: the cluster file is missing or malformed.
            KeyFileError: the key cannot be used.
        """
        cluster = load_cluster(self.cluster_file)
        return cluster, load_key(default_key(self.cluster_file, self.key_file), passphrase_from_environment())

    def run(self, body: Callable[[Client], Awaitable[R]], consistency: Consistency = "linearizable") -> R:
        """Connect to as many replicas as that needs, run `body`, disconnect.

        Raises:
            Unreachable: too few replicas can be reached; nothing was sent.
            BFTError: whatever `body` raises.
        """
        cluster, keys = self.load()
        file = chain_file(default_key(self.cluster_file, self.key_file), cluster)
        return anyio.run(self._run, cluster, keys, file, body, consistency, backend="trio")

    async def _run(
        self,
        cluster: Cluster,
        keys: KeyPair,
        file: Path,
        body: Callable[[Client], Awaitable[R]],
        consistency: Consistency,
    ) -> R:
        async with connect(cluster, key=keys, chain=file) as client:
            try:
                await client.wait_connected(min(self.timeout_s, CONNECT_SECONDS_MAX), consistency)
            except TransportError as error:
                raise Unreachable(f"{error}; nothing was sent{_reasons(client)}") from error
            return await body(client)


def _reasons(client: Client) -> str:
    """A line for each replica that cannot be reached."""
    missing = [replica for replica in client.configuration.quorums.members if replica not in client.connected]
    return "".join(f"\n  replica {replica}: {client.failures.get(replica, 'no answer')}" for replica in missing)


def with_target(function: Callable[Concatenate[Target, P], R]) -> Callable[..., R]:
    """Give a command the options that say which cluster it means, and friendly errors."""

    @cluster_option
    @key_option
    @timeout_option
    @functools.wraps(function)
    @friendly
    def wrapper(cluster_file: Path, key_file: Path | None, timeout_s: float, *args: P.args, **kwargs: P.kwargs) -> R:
        return function(Target(cluster_file, key_file, timeout_s), *args, **kwargs)

    return wrapper
