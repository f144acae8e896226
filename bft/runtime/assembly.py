"""Put a replica together from its files: key, store, node, engine, admission."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bft.config import Cluster, Local
from bft.core.recovery import rules_of
from bft.core.replica import Replica
from bft.crypto.signatures import Ed25519Verifier
from bft.engine import Engine
from bft.epochs import Configuration, follow, genesis
from bft.events import Recovered
from bft.ids import ReplicaId
from bft.ports import Node, StateMachine, Store
from bft.ports import Signer as Signer
from bft.runtime.agent_keys import AgentKeys
from bft.runtime.own_keys import USED, OwnKeys, beside
from bft.storage.guard import require_unused
from bft.storage.memory import MemoryStore
from bft.storage.sqlite import SqliteStore
from bft.wire.admission import Admission, Limits

Keys = OwnKeys | AgentKeys
NodeWrapper = Callable[[Node, Signer], Node]
"""Puts something around the honest node: how a replica is made to lie (`bft.adversary`), never a flag inside it."""
STORE_FILE = "replica.db"
MEMO_MAX = 65536
"""Verified signatures remembered."""
NOBODY = ReplicaId(-1)
"""The name under which a node listens whose replica is a member with a key that is not its own: it takes no part."""


@dataclass(frozen=True, slots=True)
class Assembly:
    """A replica that can be driven.

    Attributes:
        me: the name under which the node runs: the replica's id, or `NOBODY`.
        replica: the honest node, whatever is wrapped around it.
    """

    me: ReplicaId
    engine: Engine
    admission: Admission
    replica: Replica

    def summary(self) -> dict[str, object]:
        """The honest node's account of itself."""
        return self.replica.summary()


def recovered_configuration(cluster: Cluster, recovered: Recovered) -> Configuration:
    """The epoch that a store stands in."""
    configuration = genesis(cluster)
    for link in recovered.epochs:
        configuration = follow(configuration, link)
    return configuration


def keys_of(local: Local, passphrase: bytes | None) -> Keys:
    """The replica's keys: in files, or behind an agent.

    Raises:
        KeyFileError: the key file cannot be used.
        SigningError: the agent cannot be reached.
    """
    return AgentKeys(local.signer) if local.signer else OwnKeys(Path(local.key), passphrase)


def open_store(cluster: Cluster, local: Local) -> Store:
    """The replica's store at its level of durability.

    Raises:
        StorageError: see `SqliteStore`; also when a key that has voted from a durable store asks for "memory".
    """
    if local.durability == "memory":  # never with an agent (`Local`)
        require_unused(beside(Path(local.key), USED), Path(local.data))
        return MemoryStore()
    marker = beside(Path(local.key), USED) if local.key else None  # an agent keeps the marker of its key itself
    return SqliteStore(Path(local.data) / STORE_FILE, cluster.id, local.id, local.durability, marker)


def name_of(configuration: Configuration, replica: int, keys: Keys) -> ReplicaId:
    """The name under which a node may run in this epoch.

    Under its id, unless that id votes with a key that is not in its files: it must neither count a vote of its own nor
    make one. Safe: a node that is no member signs nothing that counts.
    """
    member = configuration.member(replica)
    is_own = member is None or keys.find(member.key) is not None
    return ReplicaId(replica) if is_own else NOBODY


def assemble(
    cluster: Cluster,
    local: Local,
    keys: Keys,
    store: Store,
    service: StateMachine,
    wrapper: NodeWrapper | None = None,
) -> tuple[Assembly, Recovered]:
    """Build the node from what the store remembers, and everything around it.

    Raises:
        StorageError: the store's content is corrupt.
        SigningError: the agent refuses to vote with this store.
    """
    recovered = store.load()
    configuration = recovered_configuration(cluster, recovered)
    me = name_of(configuration, local.id, keys)
    recovered = keys.remember(store, recovered, me)
    verifier = Ed25519Verifier(cluster.id, configuration.keys, cluster.client_keys)
    signers = keys.signers(cluster.id, ReplicaId(local.id))
    rate = local.transfer_bytes_per_second
    replica = Replica(cluster, me, signers, recovered, verifier, transfer_rate=rate)
    protocol = cluster.protocol
    limits = Limits(protocol.session_window, protocol.batch_operations_max, protocol.batch_bytes_max)
    node: Node = replica if wrapper is None else wrapper(replica, signers[keys.current.public])
    admission = Admission(verifier, rules_of(cluster, configuration), limits, MEMO_MAX, replica.links)
    return Assembly(me, Engine(node, service, store), admission, replica), recovered
