"""Put a replica together from its files: key, store, node, engine, admission."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bft.config import Cluster, Local
from bft.core.proofs import Rules
from bft.core.replica import Replica
from bft.crypto.keys import KeyPair, load_key
from bft.crypto.signatures import Ed25519Signer, Ed25519Verifier
from bft.engine import Engine
from bft.errors import ConfigError, KeyFileError
from bft.ids import ReplicaId
from bft.ports import Node, Signer, StateMachine, Store
from bft.storage.guard import require_unused
from bft.storage.memory import MemoryStore
from bft.storage.sqlite import SqliteStore
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
    if local.id >= len(cluster.replica):
        raise ConfigError(f"id is {local.id}: cluster {cluster.name} has replicas 0 to {len(cluster.replica) - 1}")
    keys = load_key(Path(local.key), passphrase)
    expected = cluster.replica_keys[local.id]
    if keys.public != expected:
        raise KeyFileError(
            f"{local.key}: holds the key {keys.public_hex},"
            f" the cluster file says {expected.hex()} for replica {local.id}"
        )
    return keys


def open_store(cluster: Cluster, local: Local) -> Store:
    """The replica's store at its level of durability.

    Raises:
        StorageError: see `SqliteStore`; also when a key that has voted from a durable store asks for "memory".
    """
    marker = Path(local.key + ".used")
    if local.durability == "memory":
        require_unused(marker, Path(local.data))
        return MemoryStore()
    return SqliteStore(Path(local.data) / STORE_FILE, cluster.id, local.id, local.durability, marker)


def assemble(
    cluster: Cluster,
    local: Local,
    keys: KeyPair,
    store: Store,
    service: StateMachine,
    wrapper: NodeWrapper | None = None,
) -> tuple[Assembly, Ed25519Verifier]:
    """Build the node from what the store remembers, and everything around it.

    Raises:
        StorageError: the store's content is corrupt.
    """
    me = ReplicaId(local.id)
    verifier = Ed25519Verifier(cluster.id, cluster.replica_keys, cluster.client_keys)
    signer = Ed25519Signer(cluster.id, me, keys.seed)
    replica = Replica(cluster, me, signer, store.load(), local.transfer_bytes_per_second)
    protocol = cluster.protocol
    rules = Rules(cluster.quorums, 0, protocol.checkpoint_interval, protocol.window)
    limits = Limits(protocol.session_window, protocol.batch_operations_max, protocol.batch_bytes_max)
    node: Node = replica if wrapper is None else wrapper(replica, signer)
    admission = Admission(verifier, rules, limits, MEMO_MAX)
    return Assembly(Engine(node, service, store), admission, replica.summary), verifier
