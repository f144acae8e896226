"""A run as text that a person can review: one line per message delivered and per transition, in order of time.

    12.3 ms  r0 -> r1  PRE-PREPARE view 0 slot 1 digest 3fa2
    13.0 ms  r1 view-change to 1

Golden transcripts in `tests/transcripts` pin whole-cluster behaviour: a change of the protocol shows as a diff.
"""

from __future__ import annotations

from bft.config import MILLISECOND
from bft.core.proofs import opened
from bft.ids import Nanos, Peer
from bft.messages import (
    BatchBody,
    Checkpoint,
    CheckpointCertificate,
    Commit,
    CommitCertificate,
    FetchBatch,
    FetchManifest,
    FetchPages,
    ManifestBody,
    Message,
    NewView,
    Packet,
    PageBodies,
    Prepare,
    PrePrepare,
    Proposal,
    Query,
    QueryReply,
    Refusal,
    Reply,
    Signed,
    SignedRequest,
    Status,
    Suspect,
    ViewChange,
)
from bft.ports import StateMachine
from bft.sim.scenario import Scenario
from bft.sim.service import Registers
from bft.sim.world import EPOCH_NS, World
from bft.wire.codec import Malformed, decode_packet, decode_request


def describe(frame: bytes) -> str:
    """What a frame says, in one line."""
    try:
        packet = decode_packet(frame)
    except Malformed:
        return f"{len(frame)} malformed bytes"
    return describe_packet(packet)


def describe_packet(packet: Packet) -> str:
    """What a packet says, in one line."""
    match packet:
        case Signed():
            return _message(opened(packet))
        case Proposal():
            return f"{_message(opened(packet.signed))} with its batch"
        case SignedRequest():
            request = decode_request(packet.payload)
            last = request.number + len(request.operations) - 1
            numbers = f"{request.number}" if last == request.number else f"{request.number}..{last}"
            return f"REQUEST {numbers}"
        case Reply():
            return f"REPLY slot {packet.seq} digest {packet.digest.hex()[:4]}"
        case Refusal():
            return f"REFUSAL {packet.number} {packet.reason}"
        case Query():
            return f"QUERY {packet.nonce & 0xFFFF:04x}{'' if packet.wait else ' weak'}"
        case QueryReply():
            return f"QUERY-REPLY {packet.nonce & 0xFFFF:04x} at slot {packet.seq}"
        case Status():
            mode = "active" if packet.active else "changing"
            return f"STATUS view {packet.view} {mode} stable {packet.stable} executed {packet.executed}"
        case CommitCertificate():
            return f"COMMIT-CERTIFICATE slot {packet.seq} digest {packet.digest.hex()[:4]}"
        case CheckpointCertificate():
            return f"CHECKPOINT-CERTIFICATE slot {packet.seq}"
        case _:
            return _repair(packet)


def _repair(packet: Packet) -> str:
    match packet:
        case FetchBatch():
            return f"FETCH-BATCH {packet.digest.hex()[:4]}"
        case BatchBody():
            return f"BATCH of {len(packet.batch)} bytes"
        case FetchManifest():
            return f"FETCH-MANIFEST slot {packet.seq}"
        case ManifestBody():
            return f"MANIFEST of {len(packet.manifest)} bytes"
        case FetchPages():
            return f"FETCH-PAGES {len(packet.digests)}"
        case PageBodies():
            return f"PAGES {len(packet.pages)}"
        case _:
            return type(packet).__name__.upper()


def _message(message: Message | None) -> str:
    match message:
        case PrePrepare() | Prepare() | Commit():
            kind = {"PrePrepare": "PRE-PREPARE", "Prepare": "PREPARE", "Commit": "COMMIT"}[type(message).__name__]
            return f"{kind} view {message.view} slot {message.seq} digest {message.digest.hex()[:4]}"
        case Checkpoint():
            return f"CHECKPOINT slot {message.seq} digest {message.digest.hex()[:4]}"
        case Suspect():
            return f"SUSPECT view {message.view} {message.reason}"
        case ViewChange():
            return f"VIEW-CHANGE to {message.view} with {len(message.prepared)} prepared"
        case NewView():
            return f"NEW-VIEW {message.view} with {len(message.pre_prepares)} proposed again"
        case _:
            return "unreadable"


def transcript(scenario: Scenario, make_service: type[StateMachine] = Registers) -> str:
    """Run a scenario and write down what was delivered, and where everybody stood at the end."""
    lines: list[str] = []
    names: dict[bytes, str] = {}

    def name(peer: Peer) -> str:
        if isinstance(peer, int):
            return f"r{peer}"
        return names.setdefault(peer, f"c{len(names)}")

    def note(now: Nanos, what: str, source: Peer, target: Peer, frame: bytes) -> None:
        if what == "deliver":
            at = (now - EPOCH_NS) / MILLISECOND
            lines.append(f"{at:9.1f} ms  {name(source)} -> {name(target)}  {describe(frame)}")

    history = World(scenario, make_service, note).run()
    for replica, summary in history.final.items():
        where = f"view {summary['view']} executed {summary['executed']} stable {summary['stable']}"
        lines.append(f"r{replica} ends in {where}, chain {str(summary['chain'])[:8]}")
    return "\n".join(lines) + "\n"
