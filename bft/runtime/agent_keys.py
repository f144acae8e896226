"""The key of a replica behind its signing agent, in the place of key files (`bft.runtime.own_keys`).

The agent holds one key and decides for itself what it signs. So nothing follows it, nothing replaces it here: a replica
behind an agent changes its key by another agent and a restart.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from bft.crypto.keys import KeyPair
from bft.crypto.tls import endpoint_context
from bft.events import Recovered
from bft.ids import ReplicaId
from bft.ports import Signer, Store
from bft.signing.client import AgentSigner, FollowedStore, socket_path
from bft.signing.memory import reconcile


@dataclass(frozen=True, slots=True)
class AgentKey:
    """What the agent lets its replica say about itself; signs hellos.

    Attributes:
        public: 32 bytes.
    """

    public: bytes
    agent: AgentSigner

    @property
    def public_hex(self) -> str:
        """The public key as the cluster file writes it."""
        return self.public.hex()

    def sign(self, data: bytes, /) -> bytes:
        """See `bft.transport.handshake.Prover`."""
        return self.agent.prove(data)


class AgentKeys:
    """The keys of one replica as its server sees them; all but one of them are never there.

    Attributes:
        path: the agent's socket.
        current: the key.
        next, old: as in `OwnKeys`; always None.
    """

    next: KeyPair | None = None
    old: KeyPair | None = None

    def __init__(self, signer: str) -> None:
        """Connect to the agent at `unix:PATH`.

        Raises:
            SigningError: it cannot be reached.
        """
        self.path = socket_path(signer)
        self._agent = AgentSigner(self.path)
        self.current = AgentKey(self._agent.public, self._agent)

    def context(self, name: str) -> ssl.SSLContext:
        """The listening side of TLS: a key of its own, for which the agent vouches."""
        endpoint = KeyPair.generate()
        return endpoint_context(endpoint, self._agent.certificate(endpoint.public))

    def signers(self, cluster_id: bytes, me: ReplicaId) -> dict[bytes, Signer]:
        """Signers by public key."""
        return {self.current.public: self._agent}

    def find(self, public: bytes) -> tuple[AgentKey, Path] | None:
        """The key that may vote under this public key, and where it is."""
        return (self.current, self.path) if public == self.current.public else None

    def settle(self, public: bytes) -> bool:
        """An epoch names `public`: False, the key stays what it is."""
        return False

    def erase(self, why: str) -> None:
        """The replica was removed: it lets go of the agent, whose key is for the operator to destroy."""
        self._agent.close()

    def remember(self, store: Store, recovered: Recovered, me: ReplicaId) -> Recovered:
        """The store's memory, with what the agent has signed beyond it.

        Raises:
            SigningError: the agent refuses to vote with this store.
        """
        stable = recovered.stable.seq if recovered.stable is not None else 0
        memory = self._agent.open(store.store_id, stable)
        return reconcile(recovered, memory, me, self._agent)

    def follow(self, store: Store) -> Store:
        """A store that tells the agent what is stable."""
        return FollowedStore(store, self._agent)

    def close(self) -> None:
        """Leave the agent, so that another process may vote."""
        self._agent.close()
