"""A node together with its service and store: what production and the simulator both drive.

The engine carries out the effects that need neither clock nor wire (execute, read pages) and hands out the others, in
order: `Persist`, `Send`, `Broadcast`, `SetTimer` and reports are for the driver.
"""

from __future__ import annotations

from collections import deque

from bft.digests import page_digest
from bft.events import (
    AnswerQuery,
    Effect,
    Execute,
    Input,
    InstallState,
    LoadPages,
    PagesLoaded,
    Rejected,
    Send,
    SendManifest,
    SendPages,
)
from bft.ids import Nanos, Peer
from bft.messages import ManifestBody, Message, Packet, PageBodies
from bft.ports import Node, StateMachine, Store
from bft.state.executor import Executor

PAGES_PACKET_BYTES = 4 * 1024 * 1024
PAGES_ANSWER_BYTES = 4 * PAGES_PACKET_BYTES
"""One request brings about this much; who asked asks again for the rest. Else 256 large pages would fill the memory."""
PAGES_WINDOW_NS = 100_000_000
PAGES_WINDOW_BYTES = 8 * PAGES_ANSWER_BYTES
"""One peer gets no more of pages per tenth of a second, whatever it asks for."""


class Engine:
    """Drives one node.

    Args:
        node: the protocol.
        service: the replicated state machine.
        store: where pages are read from; records are written by the driver.
    """

    def __init__(self, node: Node, service: StateMachine, store: Store) -> None:
        self._node = node
        self._executor = Executor(service)
        self._store = store
        self._paged: dict[Peer, tuple[Nanos, int]] = {}

    def wants(self, peer: Peer, packet: Packet, message: Message | None, /) -> bool:
        """The node's cheap filter."""
        return self._node.wants(peer, packet, message)

    def step(self, event: Input, now: Nanos) -> list[Effect]:
        """Step the node, and again for everything that the service or the store answers at once."""
        out: list[Effect] = []
        inputs: deque[Input] = deque((event,))
        while inputs:
            for effect in self._node.step(inputs.popleft(), now):
                match effect:
                    case Execute():
                        inputs.append(self._executor.execute(effect))
                    case AnswerQuery():
                        inputs.append(self._executor.answer(effect))
                    case InstallState():
                        self._executor.install(effect)
                    case LoadPages():
                        pages = self._store.read_pages(effect.digests)
                        inputs.append(PagesLoaded({page_digest(page): page for page in pages}))
                    case SendPages():
                        out.extend(self._page_packets(effect, now))
                    case SendManifest():
                        manifest = self._store.read_manifest(effect.digest)
                        if manifest is not None:
                            out.append(Send(effect.to, ManifestBody(manifest)))
                    case _:
                        out.append(effect)
        return out

    def _page_packets(self, effect: SendPages, now: Nanos) -> list[Effect]:
        """Group the stored pages into packets of bounded size, up to a bounded number of bytes."""
        since, sent = self._paged.get(effect.to, (now, 0))
        if now - since >= PAGES_WINDOW_NS:
            since, sent = now, 0
        if sent >= PAGES_WINDOW_BYTES:
            return [Rejected(effect.to, "asks-too-much")]
        packets: list[Effect] = []
        group: list[bytes] = []
        size = total = 0
        for digest in dict.fromkeys(effect.digests):
            (page,) = self._store.read_pages((digest,)) or (None,)
            if page is None:
                continue
            total += len(page)
            if total > PAGES_ANSWER_BYTES and total > len(page):
                break
            if group and size + len(page) > PAGES_PACKET_BYTES:
                packets.append(Send(effect.to, PageBodies(tuple(group))))
                group, size = [], 0
            group.append(page)
            size += len(page)
        if group:
            packets.append(Send(effect.to, PageBodies(tuple(group))))
        self._paged[effect.to] = (since, sent + total)
        return packets
