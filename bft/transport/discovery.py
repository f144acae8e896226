"""Find today's members from yesterday's: ask whoever answers for links, verify them, and keep them in a file.

Links prove themselves (`bft.epochs`), so neither the servers asked nor the file need trust. What a file can do is be
old: then it leads less far, and the members that it names are asked for the rest.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import msgspec

from bft.config import Cluster
from bft.crypto.signatures import Ed25519Verifier
from bft.epochs import Chain, Configuration, genesis
from bft.errors import TransportError
from bft.headers import Member
from bft.messages import EpochLink
from bft.transport.dial import ask_for_links
from bft.wire.codec import DECODE_ERRORS, encode

CHAIN_BYTES_MAX = 64 * 1024 * 1024
ROUNDS_MAX = 4096
DISCOVERY_SECONDS = 2.0

_links = msgspec.msgpack.Decoder(list[EpochLink])


@dataclass(slots=True)
class KnownChain:
    """The way from the cluster file to the newest epoch that is proven here: a chain, and whom to ask for more.

    Attributes:
        answered: members that have answered when asked; with none, later epochs may exist.
    """

    cluster_id: bytes
    chain: Chain
    answered: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, cluster: Cluster, file: Path | None = None) -> KnownChain:
        """Begin at the cluster file, and go on along what `file` keeps, as far as that holds."""
        known = cls(cluster.id, Chain(genesis(cluster), Ed25519Verifier(cluster.id, (), None)))
        if file is not None:
            known.chain.learn(load_links(file))
        return known

    @property
    def configuration(self) -> Configuration:
        """The newest epoch that is proven."""
        return self.chain.configuration

    @property
    def links(self) -> tuple[EpochLink, ...]:
        """The way to it, from genesis."""
        return self.chain.links

    async def discover(self, seconds: float = DISCOVERY_SECONDS) -> None:
        """Ask the members known, and those found by that, until nobody knows of a later epoch."""
        for _ in range(ROUNDS_MAX):
            if not await self._ask_all(seconds):
                return

    async def _ask_all(self, seconds: float) -> bool:
        epoch = self.configuration.epoch

        async def ask(member: Member) -> None:
            try:
                links = await ask_for_links(member.host, member.port, self.cluster_id, epoch, seconds)
            except TransportError:
                return
            self.answered.add(member.id)
            self.chain.learn(links)

        async with anyio.create_task_group() as tasks:
            for member in self.configuration.members:
                tasks.start_soon(ask, member)
        return self.configuration.epoch > epoch


def chain_file(key: Path, cluster: Cluster) -> Path:
    """Where the holder of a key keeps the links of a cluster: beside the key."""
    return key.with_name(f"{key.name}.{cluster.id.hex()[:12]}.epochs")


def load_links(file: Path) -> list[EpochLink]:
    """The links of a file, unproven; none if it is missing or damaged, since the cluster can be asked again."""
    try:
        if file.stat().st_size > CHAIN_BYTES_MAX:
            return []
        return _links.decode(file.read_bytes())
    except (OSError, *DECODE_ERRORS):
        return []


def save_links(file: Path, links: Sequence[EpochLink]) -> None:
    """Replace the file's content, all or nothing; a disk that refuses costs a question to the cluster later."""
    draft = file.with_name(f"{file.name}.{os.getpid()}.new")
    try:
        draft.write_bytes(encode(list(links)))
        draft.replace(file)
    except OSError:
        draft.unlink(missing_ok=True)
