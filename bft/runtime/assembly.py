"""Put a replica together from its files: key, store, node, engine, admission."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bft.config import Cluster, Local
from bft.core.proofs import Rules
from bft.core.replica import Replica
from bft.crypto.keys import KeyPair, load_key
from bft.crypto.signatures import Ed25519Signer, Ed25519Verifier
from bft.crypto.tls import endpoint_context, server_context
from bft.engine import Engine
from bft.errors import ConfigError, KeyFileError
from bft.ids import ReplicaId, peer_name
from bft.ports import Node, Signer, StateMachine, Store
from bft.signing.client import AgentSigner, socket_path
from bft.signing.memory import reconcile
from bft.storage.guard import require_unused
from bft.storage.memory import MemoryStore
from bft.storage.sqlite import SqliteStore
from bft.transport.handshake import Prover
from bft.wire.admission import Admission, Limits

NodeWrapper = Callable[[Node, Signer], Node]
"""Puts something around the honest node: how a replica is made to lie (`bft.adversary`), never a flag inside it."""
STORE_FILE = "replica.db"
MEMO_MAX = 65536
"""Verified signatures remembered."""


@dataclass(frozen=True, slots=True)
class Assembly:
    """A replica that can be driven.

    Attributes:
        summary: the honest node's account of itself, whatever is wrapped around it.
    """

    engine: Engine
    admission: Admission
    summary: Callable[[], dict[str, object]]


def load_replica_key(cluster: Cluster, local: Local, passphrase: bytes | None) -> KeyPair:
    """The replica's private key, checked against the cluster file.

    Raises:
        ConfigError: the cluster has no replica with this id.
        KeyFileError: the key cannot be loaded, or is not the one that the cluster file names.
    """
    keys = load_key(Path(local.key), passphrase)
    _require_own_key(cluster, local, local.key, keys.public)
    return keys


def _require_own_key(cluster: Cluster, local: Local, where: str, public: bytes) -> None:
    if local.id >= len(cluster.replica):
        raise ConfigError(f"id is {local.id}: cluster {cluster.name} has replicas 0 to {len(cluster.replica) - 1}")
    expected = cluster.replica_keys[local.id]
    if public != expected:
        raise KeyFileError(
            f"{where}: holds the key {public.hex()}, the cluster file says {expected.hex()} for replica {local.id}"
        )


@dataclass(slots=True)
class Credentials:
    """How a replica proves who it is: by a key that it holds, or by an agent that does.

    Attributes:
        prover: signs hellos.
        signer: signs messages.
        context: the listening side of TLS.
        agent: the signer, if it is an agent.
    """

    prover: Prover
    signer: Signer
    context: ssl.SSLContext
    agent: AgentSigner | None = None

    def close(self) -> None:
        """Leave the agent, so that another process may vote."""
        if self.agent is not None:
            self.agent.close()


class _AgentProver:
    """Hellos by an agent."""

    def __init__(self, agent: AgentSigner) -> None:
        self._agent = agent

    def sign(self, data: bytes, /) -> bytes:
        """See `bft.transport.handshake.Prover`."""
        return self._agent.prove(data)


def load_credentials(cluster: Cluster, local: Local, passphrase: bytes | None) -> Credentials:
    """The replica's key, from its file or behind its agent, checked against the cluster file.

    Raises:
        ConfigError, KeyFileError: as `load_replica_key`.
        SigningError: the agent cannot be reached.
    """
    name = peer_name(ReplicaId(local.id))
    if local.signer:
        agent = AgentSigner(socket_path(local.signer))
        try:
            _require_own_key(cluster, local, local.signer, agent.public)
            endpoint = KeyPair.generate()
            context = endpoint_context(endpoint, agent.certificate(endpoint.public))
        except BaseException:  # also an interrupt must not leave the connection open
            agent.close()
            raise
        return Credentials(_AgentProver(agent), agent, context, agent)
    keys = load_replica_key(cluster, local, passphrase)
    context = server_context(keys, Path(local.key), name, passphrase)
    return Credentials(keys, Ed25519Signer(cluster.id, ReplicaId(local.id), keys.seed), context)


def open_store(cluster: Cluster, local: Local) -> Store:
    """The replica's store at its level of durability.

    Raises:
        StorageError: see `SqliteStore`; also when a key that has voted from a durable store asks for "memory".
    """
    marker = Path(local.key + ".used") if local.key else None  # an agent keeps the marker of its key itself
    if local.durability == "memory":
        if marker is not None:
            require_unused(marker, Path(local.data))
        return MemoryStore()
    return SqliteStore(Path(local.data) / STORE_FILE, cluster.id, local.id, local.durability, marker)


def assemble(
    cluster: Cluster,
    local: Local,
    credentials: Credentials,
    store: Store,
    service: StateMachine,
    wrapper: NodeWrapper | None = None,
) -> tuple[Assembly, Ed25519Verifier]:
    """Build the node from what the store remembers, and everything around it.

    Raises:
        StorageError: the store's content is corrupt.
        SigningError: the agent refuses to vote with this store.
    """
    me = ReplicaId(local.id)
    verifier = Ed25519Verifier(cluster.id, cluster.replica_keys, cluster.client_keys)
    signer = credentials.signer
    recovered = store.load()
    if credentials.agent is not None:
        stable = recovered.stable.seq if recovered.stable is not None else 0
        memory = credentials.agent.open(getattr(store, "store_id", os.urandom(16).hex()), stable)
        recovered = reconcile(recovered, memory, me, signer)
    replica = Replica(cluster, me, signer, recovered, transfer_rate=local.transfer_bytes_per_second)
    protocol = cluster.protocol
    rules = Rules(cluster.quorums, 0, protocol.checkpoint_interval, protocol.window)
    limits = Limits(protocol.session_window, protocol.batch_operations_max, protocol.batch_bytes_max)
    node: Node = replica if wrapper is None else wrapper(replica, signer)
    admission = Admission(verifier, rules, limits, MEMO_MAX, replica.links)
    return Assembly(Engine(node, service, store), admission, replica.summary), verifier
