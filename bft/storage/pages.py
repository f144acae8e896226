"""What a snapshot's manifest refers to, and which pages may go: shared by all stores.

Pages are content-addressed and belong to every kept manifest that names them. Garbage is found by comparing the
dropped manifests with the kept ones (a set difference over digests, no look at the pages themselves), so that a
checkpoint costs one decoding of the last manifests and the deletion of what actually fell out of use.
"""

from __future__ import annotations

from collections.abc import Iterable

from bft.digests import page_digest, state_digest
from bft.errors import VotesLost
from bft.wire.codec import Malformed, Opened, decode_manifest, open_manifest


def checked_manifest(seq: int, digest: bytes, manifest: bytes) -> Opened:
    """Open a stored manifest.

    Raises:
        VotesLost: it is not the manifest of the checkpoint at `seq` with this state digest.
    """
    if type(manifest) is not bytes or type(digest) is not bytes:
        raise VotesLost(f"snapshot at seq {seq} is corrupt: its manifest is none")
    try:
        opened = open_manifest(manifest)
    except Malformed as error:
        raise VotesLost(f"snapshot at seq {seq} is corrupt: its manifest cannot be decoded: {error}") from error
    if state_digest(opened.header_bytes) != digest:
        raise VotesLost(f"snapshot at seq {seq} is corrupt: its manifest does not have digest {digest.hex()}")
    if opened.header.seq != seq:
        raise VotesLost(f"snapshot at seq {seq} is corrupt: its manifest is of seq {opened.header.seq}")
    return opened


def manifest_pages(manifest: bytes) -> set[bytes]:
    """Digests of all pages that a manifest, which this process has made or checked, refers to."""
    decoded = decode_manifest(manifest)
    return {*decoded.service, *decoded.sessions}


def garbage(dropped: Iterable[bytes], kept: Iterable[bytes]) -> list[bytes]:
    """Digests of pages that only the `dropped` manifests refer to, ascending."""
    unused: set[bytes] = set()
    for manifest in dropped:
        unused |= manifest_pages(manifest)
    if unused:
        for manifest in kept:
            unused -= manifest_pages(manifest)
    return sorted(unused)


def is_page(digest: bytes, page: object) -> bool:
    """True if this is what the digest says; where damage has been, it may be of any type."""
    return isinstance(page, bytes) and page_digest(page) == digest


def require_page(digest: bytes, page: bytes) -> None:
    """Check a page that was read from a disk.

    Raises:
        VotesLost: the bytes do not have the digest under which they are stored.
    """
    if not is_page(digest, page):
        raise VotesLost(f"page {digest.hex()} is corrupt: its bytes have another digest")
