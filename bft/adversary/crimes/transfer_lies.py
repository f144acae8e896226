"""Lies in state transfer and repair (B13, B14, B15, P13). Expected: hashes are checked, another peer helps."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from bft.adversary.strategy import Context, Strategy
from bft.digests import page_digest, pages_digest
from bft.events import Deliver, Input
from bft.headers import Header, Manifest
from bft.ids import Peer
from bft.messages import (
    BatchBody,
    CheckpointCertificate,
    CommitCertificate,
    FetchBatch,
    FetchManifest,
    FetchPages,
    ManifestBody,
    Packet,
    PageBodies,
    PagesServed,
    Proposal,
    Status,
)
from bft.wire.codec import encode

SERVED = (BatchBody, CommitCertificate, CheckpointCertificate)
ASKED = (FetchBatch, FetchManifest, FetchPages)
"""Manifests and pages are served outside the node, by its engine: these lies are told by answering for it."""


def _served(context: Context, asked: tuple[bytes, ...], pages: tuple[bytes, ...]) -> PageBodies:
    """Pages under the own signature: nobody listens to others."""
    served = tuple(page_digest(page) for page in pages)
    return PageBodies(context.sign(PagesServed(context.epoch, asked, served)), pages)


class _BadPages(Strategy):
    """Answers requests for pages itself; at times the honest replica's answer goes out as well."""

    def incoming(self, context: Context, event: Deliver) -> Iterable[Input]:
        if not isinstance(event.packet, FetchPages):
            return (event,)
        junk = tuple(context.random.randbytes(context.random.choice((0, 9, 1000))) for _ in event.packet.digests)
        context.send(event.peer, _served(context, event.packet.digests, junk))
        return (event,) if context.random.randrange(2) else ()


class _BadManifest(Strategy):
    """A well-formed manifest of another state, with pages that fit it: nothing but the certified digest tells."""

    def __init__(self) -> None:
        pages = (encode([("k0", "never written")]), encode([0]))
        self._pages = {page_digest(page): page for page in pages}

    def incoming(self, context: Context, event: Deliver) -> Iterable[Input]:
        packet = event.packet
        if isinstance(packet, FetchManifest):
            service, sessions = self._pages
            pages = pages_digest((service,), (sessions,))
            empty = page_digest(b"")
            header = Header(context.epoch, packet.seq, empty, max(context.now, 1), 1, pages, empty, None)
            forged = Manifest(encode(header), (service,), (sessions,))
            context.send(event.peer, ManifestBody(encode(forged)))
            return ()
        if isinstance(packet, FetchPages) and any(digest in self._pages for digest in packet.digests):
            context.send(event.peer, _served(context, tuple(self._pages), tuple(self._pages.values())))
            return ()
        return (event,)


class _NoHelp(Strategy):
    def incoming(self, context: Context, event: Deliver) -> Iterable[Input]:
        return () if isinstance(event.packet, ASKED) else (event,)

    def outgoing(self, context: Context, target: Peer, packet: Packet) -> Iterable[tuple[Peer, Packet]]:
        return () if isinstance(packet, SERVED) else ((target, packet),)


class _BadBatch(Strategy):
    def outgoing(self, context: Context, target: Peer, packet: Packet) -> Iterable[tuple[Peer, Packet]]:
        if isinstance(packet, BatchBody):
            return ((target, BatchBody(packet.batch + b"\xc0")),)
        if isinstance(packet, Proposal) and packet.signed.sender != context.me:
            return ((target, Proposal(packet.signed, packet.batch[:-1])),)
        return ((target, packet),)


class _StatusStorm(Strategy):
    """Claims to stand nowhere, and asks everybody for everything, every tick."""

    def __init__(self, per_tick: int) -> None:
        self._per_tick = per_tick

    def unprompted(self, context: Context) -> Iterable[tuple[Peer, Packet]]:
        digest = page_digest(context.random.randbytes(4))
        view = context.random.choice((0, context.view, context.view + 1))
        asked: tuple[Packet, ...] = (
            Status(context.epoch, view, bool(context.random.randrange(2)), 0, 0, ()),
            FetchBatch(digest),
            FetchManifest(8, digest),
            FetchPages((digest,) * 16),
        )
        for _ in range(self._per_tick):
            for packet in asked:
                for target in context.others():
                    yield target, packet


class _StatusLie(Strategy):
    """Claims to be far ahead, so that nobody helps and somebody may ask."""

    def outgoing(self, context: Context, target: Peer, packet: Packet) -> Iterable[tuple[Peer, Packet]]:
        if isinstance(packet, Status):
            ahead = 1 << 40
            lie = msgspec.structs.replace(packet, stable=ahead, executed=ahead, view=packet.view + 1, active=True)
            return ((target, lie),)
        return ((target, packet),)


def bad_pages() -> Strategy:
    """Serve pages that are wrong, too few, or not asked for (B13). Expected: evidence of a lying page."""
    return _BadPages()


def bad_manifest() -> Strategy:
    """Serve the manifest of another state, and pages that fit it (B13)."""
    return _BadManifest()


def no_help() -> Strategy:
    """Answer no request for what was lost: batches, proofs, manifests, pages (B13)."""
    return _NoHelp()


def bad_batch_body() -> Strategy:
    """Answer requests for batches, and relay proposals, with other bytes (P13)."""
    return _BadBatch()


def status_storm(per_tick: int = 1) -> Strategy:
    """Ask for everything all the time (B14, B15). Expected: answered within a budget per peer."""
    return _StatusStorm(per_tick)


def status_lie() -> Strategy:
    """Claim to be far ahead (B14). Expected: nothing but no help for the liar."""
    return _StatusLie()
