"""Signing agents in a thread of the test's process, over real sockets."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

from bft.crypto.keys import KeyPair
from bft.ids import ReplicaId
from bft.ports import Signer
from bft.signing.agent import Agent, AgentServer
from bft.signing.client import AgentSigner
from bft.signing.guard import Guard
from bft.sim.keys import Ed25519Vault

CLUSTER = bytes(range(32))
STORE = "ab" * 16


class RunningAgent:
    """An agent that listens in `folder`; its guard stays there when it is stopped."""

    def __init__(
        self, folder: Path, keys: KeyPair, *, cluster: bytes = CLUSTER, replica: int = 1, marker: Path | None = None
    ) -> None:
        self.path = folder / "agent.sock"
        self.guard = Guard(folder / "guard.db", cluster, replica, "process")
        self.agent = Agent(cluster, ReplicaId(replica), keys, self.guard, marker)
        self._server = AgentServer(self.agent, self.path)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._server.run()
        finally:
            self.guard.close()
            self._ended.set()

    def stop(self) -> None:
        """End it, as SIGTERM does."""
        self._server.stop()
        self._thread.join(10)
        assert self._ended.is_set(), "the agent did not end"


class AgentVault(Ed25519Vault):
    """Keys of a world of which the replicas' are held by agents."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._folder = tempfile.TemporaryDirectory(prefix="bft-")
        self._agents: dict[int, RunningAgent] = {}
        self._signers: dict[int, AgentSigner] = {}

    def replica_signer(self, replica: int) -> Signer:
        """The same connection each time: one process votes with a key."""
        if replica not in self._signers:
            folder = Path(self._folder.name) / f"r{replica}"
            folder.mkdir()
            keys = self._keys(f"replica {replica}")
            self._agents[replica] = RunningAgent(folder, keys, cluster=self._cluster_id, replica=replica)
            self._signers[replica] = AgentSigner(self._agents[replica].path)
            self._signers[replica].open(STORE, 0)
        return self._signers[replica]

    def close(self) -> None:
        """End all agents."""
        for signer in self._signers.values():
            signer.close()
        for agent in self._agents.values():
            agent.stop()
        self._folder.cleanup()
