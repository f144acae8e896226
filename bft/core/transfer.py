"""State transfer: catching up from a stable checkpoint when the slots before it are gone [CL99 4.3; CL02 4.6].

    upon a proof ahead that ordinary repair does not reach:  ask its signers for the manifest
    upon the manifest (it hashes to the certified digest):   look up pages in the own store, ask peers for the others
    upon a page (it hashes to what the manifest says):       keep it, durably, so that a restart goes on from there
    when nothing is missing:                                 persist(snapshot); install; go on with the decided suffix

Nothing unverified is ever installed: one replica with a wrong state and one liar would make a weak quorum of equal
wrong replies. Any peer may lie or be silent: it is named and left (`sources`).

Meanwhile the replica goes on voting where it safely can: for slots above the checkpoint being fetched and within its
own window, since PREPARE and COMMIT rest on batches and certificates, never on the state. It executes nothing, answers
no read and takes no checkpoint before the state is here
(`test_receiver_goes_on_voting_above_the_checkpoint_it_fetches`).
"""

from __future__ import annotations

from itertools import islice

from bft.config import MILLISECOND
from bft.core import checkpoint, execution, ordering, queries, reconfig
from bft.core.sources import PAGES_PER_REQUEST
from bft.core.state import Divergence, Fetching, State
from bft.digests import page_digest, state_digest
from bft.events import (
    Doubted,
    ExplainState,
    InstallState,
    LoadPages,
    Pages,
    PagesLoaded,
    PagesRead,
    Snapshot,
    StateExplained,
)
from bft.ids import Peer
from bft.messages import CheckpointCertificate, FetchManifest, FetchPages, ManifestBody, PageBodies, PagesServed
from bft.wire.codec import Malformed, Opened, open_manifest

REQUESTS_IN_FLIGHT = 4
PAGE_BYTES_GUESS = 16 * 1024
LOOKS_PER_SECOND = 20
SECOND = 1000 * MILLISECOND


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
    """Start fetching, or move to a newer checkpoint and keep the verified pages and what is known of the sources."""
    before = state.fetching
    state.fetching = Fetching(certificate, progressed=state.now, began=state.now)
    if before is not None:
        state.fetching.pages = before.pages
        state.fetching.sources = before.sources
        state.fetching.began = before.began
        state.fetching.overtaken = before.overtaken + 1
        state.fetching.fetched, state.fetching.size = before.fetched, before.size
        state.fetching.paid_until = before.paid_until
    signers = [item.replica for item in certificate.checkpoints if item.replica != state.me]
    if certificate.epoch != state.epoch:
        # Certified by the members of an epoch that is over: some may be gone, and those of this one have it as well.
        signers += [replica for replica in state.quorums.members if replica != state.me and replica not in signers]
    state.fetching.sources.know(signers)
    state.fetching.sources.turn = max(state.fetching.sources.turn, state.me)
    state.progress("transfer", certificate.seq, "begins")
    ask(state)


def repair(state: State, ours: bytes, certificate: CheckpointCertificate) -> None:
    """The own state at a stable checkpoint is wrong: give nothing of it out, and fetch the right one."""
    if not state.serves and state.fetching is not None and certificate.seq <= state.fetching.certificate.seq:
        return
    doubt(state, ours, certificate)
    begin(state, certificate)


def doubt(state: State, ours: bytes, certificate: CheckpointCertificate) -> None:
    """The own state is known to be wrong, also after a restart: that begins at the stable checkpoint.

    Those between it and the certificate may be wrong already: nobody has certified them
    (`test_no_uncertified_state_comes_back`).
    """
    state.divergences += state.serves
    state.divergence = Divergence(certificate.seq, ours)
    state.doubted = max(state.doubted, state.executed)
    state.persist(Doubted(state.log.low + 1, state.executed))
    state.progress("diverged", certificate.seq, f"own state {ours.hex()[:8]}, certified {certificate.digest.hex()[:8]}")


def overtaken(state: State, seq: int) -> bool:
    """The own state at `seq` is certified: what is being fetched from there or below it is needed no more.

    Safe: a state that a strong quorum certified is right, whatever it was before (`test_overtaken_repair_ends`).

    Returns:
        True if a transfer ended with that, and execution may go on.
    """
    if state.fetching is None or state.fetching.certificate.seq > seq:
        return False
    state.progress("transfer", state.fetching.certificate.seq, f"overtaken by the own state at {seq}")
    state.fetching = None
    if state.divergence is not None:
        state.divergence.repaired = True
    return True


def on_explained(state: State, event: StateExplained) -> None:
    """Keep what is known about a divergence, and say it."""
    divergence = state.divergence
    if divergence is None or not event.lines:
        return
    divergence.where = event.lines
    for line in event.lines:
        state.progress("differs", divergence.seq, line)


def _explain(state: State, fetching: Fetching, pages: tuple[bytes, ...]) -> None:
    """Ask which pages differ, while the wrong ones are still stored; for people only."""
    divergence = state.divergence
    if divergence is not None and not divergence.repaired and divergence.seq == fetching.certificate.seq:
        state.out.append(ExplainState(divergence.ours, fetching.manifest_bytes, pages))


def ask(state: State) -> None:
    """Ask for the manifest, or for the next pages, from several sources at once; again when an answer is late."""
    fetching = state.fetching
    if fetching is None:
        return
    sources = fetching.sources
    if fetching.manifest is None:
        if state.now - fetching.manifest_asked >= state.status_interval_ns or not fetching.manifest_asked:
            fetching.manifest_asked = state.now
            certificate = fetching.certificate
            state.note_asked((certificate.digest,))
            state.send(sources.next(), FetchManifest(certificate.seq, certificate.digest))
        return
    for replica in sources.overdue(state.now, sources.patience(2 * state.status_interval_ns)):
        _leave(state, fetching, replica, "slow" if sources.by_replica[replica].pages else "silent")
    if state.now < fetching.paid_until:
        return
    room = _room(state, fetching)
    wanted = [digest for digest in islice(fetching.missing, room + sources.open_pages) if not sources.is_open(digest)]
    wanted = wanted[:room]
    while wanted:
        ready = sources.next_for_pages()
        if ready is None:
            return
        source = sources.by_replica[ready]
        group, wanted = tuple(wanted[: source.batch]), wanted[source.batch :]
        source.open.update(dict.fromkeys(group, state.now))
        state.note_asked(group)
        state.send(ready, FetchPages(group))


def _room(state: State, fetching: Fetching) -> int:
    """Pages that may be asked for now: bounded, and with a cap no more than it lets pass between two looks."""
    room = REQUESTS_IN_FLIGHT * PAGES_PER_REQUEST
    if state.transfer_rate:
        page = fetching.size // fetching.fetched if fetching.fetched else PAGE_BYTES_GUESS
        room = min(room, max(1, state.transfer_rate // LOOKS_PER_SECOND // max(1, page)))
    return max(0, room - fetching.sources.open_pages)


def _leave(state: State, fetching: Fetching, replica: int, reason: str) -> None:
    """Ask this source no more, and say why."""
    source = fetching.sources.by_replica.get(replica)
    if source is None or source.left:
        return
    source.left = reason
    source.named[reason] = None
    source.open.clear()
    state.progress("source-left", fetching.certificate.seq, f"r{replica}: {reason}")


def wants_manifest(state: State, message: ManifestBody) -> bool:
    """True if it is the manifest being fetched."""
    fetching = state.fetching
    if fetching is None or fetching.manifest is not None:
        return False
    return _described(message) == fetching.certificate.digest


def _described(message: ManifestBody) -> bytes | None:
    """The digest of the state that a manifest describes; None if it describes none."""
    try:
        return state_digest(open_manifest(message.manifest).header_bytes)
    except Malformed:
        return None


def on_manifest(state: State, peer: Peer, message: ManifestBody) -> None:
    """Take the manifest that the certificate commits to, and find out which pages are missing."""
    if not wants_manifest(state, message):
        state.reject(peer, "unknown-manifest")
        fetching = state.fetching
        if fetching is None or fetching.manifest is not None or not isinstance(peer, int):
            return
        if _described(message) not in state.asked:
            _leave(state, fetching, peer, "stale or lying: sent the manifest of another state")
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
    _explain(state, fetching, ())
    state.out.append(LoadPages(tuple(fetching.missing)))


def on_pages_loaded(state: State, event: PagesLoaded) -> None:
    """Pages that the own store had already: only what differs is fetched."""
    if state.fetching is None:
        return
    _take(state, event.pages)


def on_pages_read(state: State, event: PagesRead) -> None:
    """Send pages, and sign that they are what was asked for: who sends others convicts itself.

    Who is no member, such as one that was removed and still serves newcomers, has no key that others know.
    """
    if state.is_member:
        signed = state.sign(PagesServed(state.epoch, event.digests, event.digests))
        state.send(event.to, PageBodies(signed, event.pages))
    elif state.me not in state.quorums.ids:
        state.send(event.to, PageBodies(None, event.pages))


def on_pages(state: State, peer: Peer, message: PageBodies) -> None:
    """Keep the pages that were asked for; whatever else a peer sends is dropped."""
    fetching = state.fetching
    if fetching is None:
        return
    found = {}
    is_lie = False
    for page in message.pages:
        digest = page_digest(page)
        if digest in fetching.missing:
            found[digest] = page
            fetching.sources.took_page(peer, digest, len(page), state.now)
        elif digest not in state.asked:
            state.reject(peer, "unknown-page")
            # Not a late or repeated answer: nobody was ever asked for it.
            is_lie = is_lie or (fetching.manifest is not None and not fetching.is_of_interest(digest))
    if is_lie and isinstance(peer, int):
        _leave(state, fetching, peer, "lying: sent a page that nobody asked for")
    if found:
        size = sum(map(len, found.values()))
        fetching.fetched += len(found)
        fetching.size += size
        if state.transfer_rate:
            fetching.paid_until = max(fetching.paid_until, state.now) + size * SECOND // state.transfer_rate
        state.persist(Pages(found))
        _take(state, found)
    elif is_lie and not fetching.sources.are_all_left:
        ask(state)  # else on the next tick: liars must not make this replica ask as fast as they lie


def _take(state: State, found: dict[bytes, bytes]) -> None:
    fetching = state.fetching
    assert fetching is not None, "checked by the callers"
    for digest, page in found.items():
        if digest in fetching.missing:
            del fetching.missing[digest]
            fetching.pages[digest] = page
            fetching.progressed = state.now
    if fetching.manifest is not None and not fetching.missing:
        _install(state, fetching, fetching.manifest)
    else:
        ask(state)


def account(state: State) -> dict[str, object] | None:
    """How far a transfer is, for people; None if there is none."""
    fetching = state.fetching
    if fetching is None:
        return None
    manifest = fetching.manifest
    return {
        "seq": fetching.certificate.seq,
        "pages": len({*manifest.service, *manifest.sessions}) if manifest is not None else None,
        "missing": len(fetching.missing) if manifest is not None else None,
        "fetched": fetching.fetched,
        "bytes": fetching.size,
        "milliseconds": (state.now - fetching.began) // MILLISECOND,
        "overtaken": fetching.overtaken,
        "sources": fetching.sources.report(),
    }


def _install(state: State, fetching: Fetching, manifest: Opened) -> None:
    """Everything is here and verified: make it durable, switch to it, and go on."""
    certificate = fetching.certificate
    header = manifest.header
    assert header.seq == certificate.seq, "the certified digest covers the sequence number"
    needed = {digest: fetching.pages[digest] for digest in (*manifest.service, *manifest.sessions)}
    _explain(state, fetching, tuple(needed[digest] for digest in manifest.service))
    if state.divergence is not None:
        state.divergence.repaired = True
    state.persist(Snapshot(header.seq, certificate.digest, fetching.manifest_bytes, needed, None))
    state.sessions.restore([needed[digest] for digest in manifest.sessions])
    state.take_header(header)
    if header.epoch == state.epoch:
        reconfig.set_pending(state, header.pending)
        state.boundary = manifest.header_bytes
    state.timing.progressed = state.now
    state.fetching = None
    took = (state.now - fetching.began) // MILLISECOND
    state.last_transfer = {
        "seq": header.seq,
        "pages": len(needed),
        "fetched": fetching.fetched,
        "bytes": fetching.size,
        "milliseconds": took,
        "sources": fetching.sources.report(),
    }
    state.transferred.update(count=1, fetched=fetching.fetched, bytes=fetching.size, milliseconds=took)
    state.out.append(InstallState(header.seq, tuple(needed[digest] for digest in manifest.service)))
    state.progress("transfer", header.seq, f"installed {len(needed)} pages")
    checkpoint.make_stable(state, certificate)
    for seq in sorted(state.log.slots):
        ordering.vote(state, state.log.slots[seq])
    queries.serve_waiting(state)
    execution.execute_ready(state)
