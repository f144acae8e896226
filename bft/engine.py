"""A node together with its service and store: what production and the simulator both drive.

The engine carries out the effects that need neither clock nor wire (execute, read pages) and hands out the others, in
order: `Persist`, `Send`, `Broadcast`, `SetTimer` and reports are for the driver.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from bft.digests import page_digest
from bft.events import (
    AnswerQuery,
    Effect,
    Execute,
    ExplainState,
    Input,
    InstallState,
    LoadPages,
    PagesLoaded,
    PagesRead,
    Rejected,
    Send,
    SendManifest,
    SendPages,
    StateExplained,
)
from bft.ids import Nanos, Peer
from bft.messages import ManifestBody, Message, Packet
from bft.ports import Inspectable, Node, StateMachine, Store
from bft.state.executor import Executor
from bft.wire.codec import decode_manifest

PAGES_PACKET_BYTES = 4 * 1024 * 1024
PAGES_ANSWER_BYTES = 4 * PAGES_PACKET_BYTES
"""One request brings about this much; who asked asks again for the rest. Else 256 large pages would fill the memory."""
PAGES_WINDOW_NS = 500_000_000
PAGES_WINDOW_BYTES = 2 * PAGES_ANSWER_BYTES
"""One peer gets about so much of the state per half a second, whatever it asks for: several times what a receiver
takes, and a fraction of what a processor can read, hash, sign and encrypt."""


PAGES_NAMED_MAX = 16


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
                    case ExplainState():
                        inputs.append(StateExplained(self._explain(effect)))
                    case SendPages():
                        if self._may_ask(effect.to, now):
                            inputs.extend(self._page_groups(effect))
                        else:
                            out.append(Rejected(effect.to, "asks-too-much"))
                    case SendManifest():
                        if not self._may_ask(effect.to, now):
                            out.append(Rejected(effect.to, "asks-too-much"))
                        elif (manifest := self._store.read_manifest(effect.digest)) is not None:
                            self._charge(effect.to, len(manifest))
                            out.append(Send(effect.to, ManifestBody(manifest)))
                    case _:
                        out.append(effect)
        return out

    def _explain(self, effect: ExplainState) -> tuple[str, ...]:
        """Which pages differ, by number; and what in them, if the certified pages are here and the service can say."""
        stored = self._store.read_manifest(effect.ours)
        if stored is None:
            return ()
        ours, theirs = decode_manifest(stored), decode_manifest(effect.manifest)
        lines = [*_pages("service", ours.service, theirs.service), *_pages("session", ours.sessions, theirs.sessions)]
        machine = self._executor.machine
        if effect.pages and isinstance(machine, Inspectable) and ours.service != theirs.service:
            right = dict(zip(theirs.service, effect.pages, strict=True))
            wrong = [digest for digest in ours.service if digest not in right]
            right.update((page_digest(page), page) for page in self._store.read_pages(wrong))
            if all(digest in right for digest in ours.service):
                lines += machine.explain([right[digest] for digest in ours.service], effect.pages)
        return tuple(lines)

    def _may_ask(self, peer: Peer, now: Nanos) -> bool:
        """True while a peer has had less than its bytes of the present window."""
        since, sent = self._paged.get(peer, (now, 0))
        if now - since >= PAGES_WINDOW_NS:
            since, sent = now, 0
        self._paged[peer] = (since, sent)
        return sent < PAGES_WINDOW_BYTES

    def _charge(self, peer: Peer, size: int) -> None:
        since, sent = self._paged[peer]
        self._paged[peer] = (since, sent + size)

    def _page_groups(self, effect: SendPages) -> list[PagesRead]:
        """Group the stored pages by packets of bounded size, up to a bounded number of bytes.

        A page that rotted on the disk is not served: the node signs for what it sends.
        """
        groups: list[PagesRead] = []
        group: dict[bytes, bytes] = {}
        size = total = 0
        for digest in dict.fromkeys(effect.digests):
            (page,) = self._store.read_pages((digest,)) or (None,)
            if page is None or page_digest(page) != digest:
                continue
            total += len(page)
            if total > PAGES_ANSWER_BYTES and total > len(page):
                break
            if group and size + len(page) > PAGES_PACKET_BYTES:
                groups.append(PagesRead(effect.to, tuple(group), tuple(group.values())))
                group, size = {}, 0
            group[digest] = page
            size += len(page)
        if group:
            groups.append(PagesRead(effect.to, tuple(group), tuple(group.values())))
        self._charge(effect.to, total)
        return groups


def _pages(what: str, left: Sequence[bytes], right: Sequence[bytes]) -> list[str]:
    """One line that numbers the places at which two lists of page digests differ, or that one of them lacks."""
    shorter, longer = sorted((len(left), len(right)))
    numbers = [*(place for place in range(shorter) if left[place] != right[place]), *range(shorter, longer)]
    named = ", ".join(map(str, numbers[:PAGES_NAMED_MAX])) + (", ..." if len(numbers) > PAGES_NAMED_MAX else "")
    return [f"{what} pages {named} of {longer}"] if numbers else []
