"""State transfer: catching up from a stable checkpoint when the slots before it are gone [CL99 4.3; CL02 4.6].

    upon a proof ahead that ordinary repair does not reach:  ask its signers for the manifest
    upon the manifest (it hashes to the certified digest):   look up pages in the own store, ask peers for the others
    upon a page (it hashes to what the manifest says):       keep it, durably, so that a restart goes on from there
    when nothing is missing:                                 persist(snapshot); install; go on with the decided suffix

Nothing unverified is ever installed: one replica with a wrong state and one liar would make a weak quorum of equal
wrong replies. Any peer may lie or be silent: it is passed over on the next turn.
"""

from __future__ import annotations

from bft.core import checkpoint, execution, ordering, queries, reconfig
from bft.core.state import Fetching, State
from bft.digests import page_digest, state_digest
from bft.events import InstallState, LoadPages, Pages, PagesLoaded, Snapshot
from bft.ids import Peer
from bft.messages import CheckpointCertificate, FetchManifest, FetchPages, ManifestBody, PageBodies
from bft.wire.codec import Malformed, Opened, open_manifest

PAGES_PER_REQUEST = 32
REQUESTS_IN_FLIGHT = 4


def consider(state: State) -> None:
    """On STATUS ticks: begin a transfer if a proof is ahead and nothing was executed for two intervals."""
    target = state.target
    if state.fetching is not None:
        # Peers keep the last two stable checkpoints: a fetch that stands still has been overtaken.
        stands_still = state.now - state.fetching.progressed >= 2 * state.status_interval_ns
        if target is not None and target.seq > state.fetching.certificate.seq and stands_still:
            begin(state, target)
        else:
            ask(state)
        return
    if target is None or target.seq <= state.executed:
        return
    patience = 2 * state.status_interval_ns
    if state.now - max(state.target_since, state.timing.progressed) >= patience and state.executing is None:
        begin(state, target)


def begin(state: State, certificate: CheckpointCertificate) -> None:
    """Start fetching, or move to a newer checkpoint and keep the verified pages."""
    held = state.fetching.pages if state.fetching is not None else {}
    state.fetching = Fetching(certificate, pages=held, progressed=state.now)
    state.progress("transfer", certificate.seq, "begins")
    ask(state)


def ask(state: State) -> None:
    """Ask for the manifest, or for the next pages, from the next peer in turn; again when an answer is late."""
    fetching = state.fetching
    if fetching is None:
        return
    if fetching.manifest is None:
        if state.now - fetching.manifest_asked >= state.status_interval_ns or not fetching.manifest_asked:
            fetching.manifest_asked = state.now
            certificate = fetching.certificate
            state.send(_next_peer(state, fetching), FetchManifest(certificate.seq, certificate.digest))
        return
    patience = 2 * state.status_interval_ns
    late = [digest for digest, at in fetching.asked.items() if state.now - at >= patience]
    for digest in late:
        del fetching.asked[digest]
    room = REQUESTS_IN_FLIGHT * PAGES_PER_REQUEST - len(fetching.asked)
    wanted: list[bytes] = []
    for digest in fetching.missing:
        if room <= len(wanted):
            break
        if digest not in fetching.asked:
            wanted.append(digest)
    for start in range(0, len(wanted), PAGES_PER_REQUEST):
        group = tuple(wanted[start : start + PAGES_PER_REQUEST])
        for digest in group:
            fetching.asked[digest] = state.now
        state.send(_next_peer(state, fetching), FetchPages(group))


def _next_peer(state: State, fetching: Fetching) -> int:
    """The next of those who vouch for the checkpoint: the correct ones among them have it."""
    signers = [item.replica for item in fetching.certificate.checkpoints if item.replica != state.me]
    if fetching.certificate.epoch != state.epoch:
        # Certified by the members of an epoch that is over: some may be gone, and those of this one have it as well.
        signers += [replica for replica in state.quorums.members if replica != state.me and replica not in signers]
    fetching.turn += 1
    return signers[(fetching.turn + state.me) % len(signers)]


def wants_manifest(state: State, message: ManifestBody) -> bool:
    """True if it is the manifest being fetched."""
    fetching = state.fetching
    if fetching is None or fetching.manifest is not None:
        return False
    try:
        return state_digest(open_manifest(message.manifest).header_bytes) == fetching.certificate.digest
    except Malformed:
        return False


def on_manifest(state: State, peer: Peer, message: ManifestBody) -> None:
    """Take the manifest that the certificate commits to, and find out which pages are missing."""
    if not wants_manifest(state, message):
        state.reject(peer, "unknown-manifest")
        return
    fetching = state.fetching
    assert fetching is not None, "wanted above"
    manifest = open_manifest(message.manifest)
    fetching.manifest = manifest
    fetching.progressed = state.now
    fetching.manifest_bytes = message.manifest
    digests = dict.fromkeys((*manifest.service, *manifest.sessions))
    fetching.pages = {digest: page for digest, page in fetching.pages.items() if digest in digests}
    fetching.missing = {digest: None for digest in digests if digest not in fetching.pages}
    state.out.append(LoadPages(tuple(fetching.missing)))


def on_pages_loaded(state: State, event: PagesLoaded) -> None:
    """Pages that the own store had already: only what differs is fetched."""
    if state.fetching is None:
        return
    _take(state, event.pages)


def on_pages(state: State, peer: Peer, message: PageBodies) -> None:
    """Keep the pages that were asked for; whatever else a peer sends is dropped."""
    fetching = state.fetching
    if fetching is None:
        return
    found = {}
    for page in message.pages:
        digest = page_digest(page)
        if digest in fetching.missing:
            found[digest] = page
        else:
            state.reject(peer, "unknown-page")
    if found:
        state.persist(Pages(found))
        _take(state, found)


def _take(state: State, found: dict[bytes, bytes]) -> None:
    fetching = state.fetching
    assert fetching is not None, "checked by the callers"
    for digest, page in found.items():
        if digest in fetching.missing:
            del fetching.missing[digest]
            fetching.asked.pop(digest, None)
            fetching.pages[digest] = page
            fetching.progressed = state.now
    if fetching.manifest is not None and not fetching.missing:
        _install(state, fetching, fetching.manifest)
    else:
        ask(state)


def _install(state: State, fetching: Fetching, manifest: Opened) -> None:
    """Everything is here and verified: make it durable, switch to it, and go on."""
    certificate = fetching.certificate
    header = manifest.header
    assert header.seq == certificate.seq, "the certified digest covers the sequence number"
    needed = {digest: fetching.pages[digest] for digest in (*manifest.service, *manifest.sessions)}
    state.persist(Snapshot(header.seq, certificate.digest, fetching.manifest_bytes, needed, None))
    state.sessions.restore([needed[digest] for digest in manifest.sessions])
    state.take_header(header)
    if header.epoch == state.epoch:
        reconfig.set_pending(state, header.pending)
        state.boundary = manifest.header_bytes
    state.timing.progressed = state.now
    state.fetching = None
    state.out.append(InstallState(header.seq, tuple(needed[digest] for digest in manifest.service)))
    state.progress("transfer", header.seq, f"installed {len(needed)} pages")
    checkpoint.make_stable(state, certificate)
    for seq in sorted(state.log.slots):
        ordering.vote(state, state.log.slots[seq])
    queries.serve_waiting(state)
    execution.execute_ready(state)
