"""The agent over its socket: permissions, protocol, refusals, restarts; and its client."""

from __future__ import annotations

import socket
import sqlite3
import stat
import threading
import time
from pathlib import Path

import pytest

from bft.crypto.keys import KeyPair
from bft.crypto.signatures import Ed25519Signer, Ed25519Verifier
from bft.crypto.tls import certificate_key, vouches_for
from bft.errors import BFTError, SigningError, StorageError
from bft.events import Accepted, Recovered, Stable, ViewRecord
from bft.ids import ReplicaId
from bft.messages import (
    PAYLOAD_BYTES_MAX,
    CheckpointCertificate,
    Commit,
    Endorsement,
    NewView,
    Prepare,
    PrePrepare,
    Signed,
    ViewChange,
)
from bft.signing.agent import CONNECTIONS_MAX, AgentServer
from bft.signing.client import AgentSigner, FollowedStore
from bft.signing.frames import FRAME_BYTES_MAX, LENGTH, PAYLOADS_MAX, PROPOSAL_BYTES_MAX, Opened
from bft.signing.guard import Guard
from bft.signing.memory import reconcile
from bft.signing.rules import ViewVote, Vote
from bft.storage.guard import Mark, claim, write_mark
from bft.storage.memory import MemoryStore
from bft.transport.handshake import hello_bytes
from bft.wire.codec import encode
from tests.unit.signing.rig import CLUSTER, STORE, RunningAgent

A, B = b"a" * 32, b"b" * 32
KEYS = KeyPair.of_seed(bytes(32))


@pytest.fixture
def agent(tmp_path):
    """An agent of replica 1."""
    running = RunningAgent(tmp_path, KEYS, marker=tmp_path / "key.used")
    yield running
    running.stop()


def prepare(seq: int, digest: bytes = A, view: int = 0) -> bytes:
    """A PREPARE's payload."""
    return encode(Prepare(0, view, seq, digest))


def refused(code: str):
    """The client raises with this code."""
    return pytest.raises(SigningError, match=rf"\({code}\)$")


def test_signature_is_that_of_the_key(agent):
    """Byte by byte what a signer in the process makes; in batches too."""
    with AgentSigner(agent.path) as signer:
        signer.open(STORE, 0)
        plain = Ed25519Signer(CLUSTER, ReplicaId(1), KEYS.seed)
        payloads = [prepare(seq) for seq in range(1, 100)]
        assert list(signer.sign_many(payloads)) == [plain.sign(payload) for payload in payloads]
        assert signer.sign(payloads[0]) == plain.sign(payloads[0])
        assert signer.public == KEYS.public
        verifier = Ed25519Verifier(CLUSTER, [KeyPair.generate().public, KEYS.public], None)
        assert verifier.verify_replica(1, payloads[0], signer.sign(payloads[0]))


def test_socket_is_its_owners(agent):
    """Mode 0600 from the start; another agent on the same socket or guard is refused."""
    assert stat.S_IMODE(agent.path.stat().st_mode) == 0o600
    with pytest.raises(BFTError, match="another agent listens here"):
        _second_listener(agent.path)
    with pytest.raises(StorageError, match="in use by another process"):
        Guard(agent.path.with_name("guard.db"), CLUSTER, 1)


def _second_listener(path: Path) -> None:
    AgentServer(None, path)  # type: ignore[arg-type] # it does not get so far


def test_conflicting_vote_is_refused_and_counted(agent):
    """The replica learns which, and why; the agent counts it."""
    with AgentSigner(agent.path) as signer:
        signer.open(STORE, 0)
        signer.sign(prepare(1))
        with refused("conflict") as caught:
            signer.sign(prepare(1, B))
        assert "prepare at slot 1 in view 0" in str(caught.value) and caught.value.code == "conflict"
        signer.sign(prepare(2, B))
        assert signer.report()["counts"]["refused-conflict"] == 1  # type: ignore[index]


def test_batch_is_signed_as_a_whole_or_not_at_all(agent):
    """One refusal among many records nothing; a batch that contradicts itself is refused."""
    with AgentSigner(agent.path) as signer:
        signer.open(STORE, 0)
        signer.sign(prepare(1))
        with refused("conflict"):
            signer.sign_many([prepare(5), prepare(1, B)])
        with refused("conflict"):
            signer.sign_many([prepare(6), prepare(6, B)])
        signer.sign_many([prepare(5, B), prepare(6, B)])


@pytest.mark.parametrize("payload", [b"", b"junk", b"\xc1", bytes(32), encode(Signed(1, b"x", bytes(64)))])
def test_nothing_but_votes_is_signed(agent, payload):
    """No request signs arbitrary bytes."""
    with AgentSigner(agent.path) as signer:
        signer.open(STORE, 0)
        with refused("not-a-vote"):
            signer.sign(payload)


def test_hello_is_signed_for_this_replica_and_cluster_only(agent):
    """What proves a dialer's identity cannot be turned into anything else."""
    with AgentSigner(agent.path) as signer:
        hello = hello_bytes(CLUSTER, ReplicaId(2), bytes(32), ReplicaId(1))
        assert signer.prove(hello) == KEYS.sign(hello)
        for wrong in (
            hello_bytes(bytes(32), ReplicaId(2), bytes(32), ReplicaId(1)),
            hello_bytes(CLUSTER, ReplicaId(2), bytes(32), ReplicaId(0)),
            hello + b"x",
            hello[:-1],
        ):
            with refused("not-a-vote"):
                signer.prove(wrong)


def test_certificate_lets_an_endpoint_stand_for_the_key(agent):
    """Peers accept the replica's key or an endpoint that it signed, and nothing else."""
    endpoint, stranger = KeyPair.generate(), KeyPair.generate()
    with AgentSigner(agent.path) as signer:
        der = signer.certificate(endpoint.public)
    assert certificate_key(der) == endpoint.public
    assert vouches_for(KEYS.public, der)
    assert not vouches_for(stranger.public, der)
    from bft.crypto.tls import endpoint_certificate

    assert not vouches_for(KEYS.public, endpoint_certificate(stranger, endpoint.public, "r1"))
    assert not vouches_for(KEYS.public, der[:-1] + bytes([der[-1] ^ 1]))
    assert not vouches_for(KEYS.public, b"junk")


def test_one_process_votes_at_a_time(agent):
    """A second one is refused while the first is there, and may vote afterwards."""
    first, second = AgentSigner(agent.path), AgentSigner(agent.path)
    first.open(STORE, 0)
    with refused("busy"):
        second.open(STORE, 0)
    with refused("not-open"):
        second.sign(prepare(1))
    first.close()
    deadline = time.monotonic() + 5
    while True:
        try:
            second.open(STORE, 0)
            break
        except SigningError:
            assert time.monotonic() < deadline
    second.close()


def test_guard_survives_the_agent(tmp_path):
    """What was signed before is refused after: votes, views, floor, store."""
    running = RunningAgent(tmp_path, KEYS)
    change = encode(ViewChange(0, 2, None, ()))
    with AgentSigner(running.path) as signer:
        signer.open(STORE, 8)
        signer.sign_many([prepare(9), change, encode(PrePrepare(0, 2, 10, A))])
    running.stop()
    running = RunningAgent(tmp_path, KEYS)
    with AgentSigner(running.path) as signer:
        with refused("other-store"):
            signer.open("cd" * 16, 8)
        with refused("rolled-back"):
            signer.open(STORE, 7)
        memory = signer.open(STORE, 8)
        assert memory == Opened(change, b"", (encode(PrePrepare(0, 2, 10, A)),))
        with refused("conflict"):
            signer.sign(prepare(9, B))
        with refused("below-floor"):
            signer.sign(prepare(8))
        with refused("old-view"):
            signer.sign(prepare(11, view=1))
    running.stop()


def test_memory_at_its_largest_is_given_back(tmp_path):
    """A VIEW-CHANGE and a NEW-VIEW of the largest size, and more proposals than a frame has room for: the last ones."""
    running = RunningAgent(tmp_path, KEYS)
    longest = bytes(PAYLOAD_BYTES_MAX)
    ledger = running.guard.ledger
    for kind in ("view-change", "new-view"):
        ledger.views[kind] = ViewVote(kind, 0, 2**63 - 1, longest)
    first = 2**63 - 1 - PAYLOADS_MAX - 7
    for seq in range(first, 2**63 - 1):
        ledger.record(Vote(0, seq, "prepare", 2**63 - 1, A, proposed=True))
    with AgentSigner(running.path) as signer:
        memory = signer.open(STORE, 0)
    assert memory.view_change == memory.new_view == longest
    assert len(memory.proposals) == PAYLOADS_MAX
    assert memory.proposals[0] == encode(PrePrepare(0, 2**63 - 1, first + 7, A))
    assert len(memory.proposals[0]) <= PROPOSAL_BYTES_MAX
    running.stop()


def test_marker_says_that_the_key_has_voted(agent, tmp_path):
    """A key that leaves its agent is not taken for a fresh one."""
    with AgentSigner(agent.path) as signer:
        signer.open(STORE, 0)
    assert f"store {STORE}" in (tmp_path / "key.used").read_text()


def test_store_that_the_marker_does_not_name_is_refused_and_binds_nothing(tmp_path):
    """The key voted with another store before it came to the agent: that one is still welcome, and the agent lives."""
    marker = tmp_path / "key.used"
    claim(marker, STORE)
    running = RunningAgent(tmp_path, KEYS, marker=marker)
    with AgentSigner(running.path) as signer:
        with refused("other-store"):
            signer.open("cd" * 16, 0)
        assert signer.report()["store"] is None
        signer.open(STORE, 8)
    marker.unlink()
    with AgentSigner(running.path) as signer:
        with refused("other-store"):
            signer.open("cd" * 16, 8)
        with refused("rolled-back"):
            signer.open(STORE, 7)
        assert not marker.exists(), "what the guard refuses is not noted"
    running.stop()


def test_what_the_marker_knows_of_the_store_counts_before_the_guard_knows_anything(tmp_path):
    """A key that comes to an agent has a past: old copies, forgotten votes and a damaged note are refusals."""
    marker = tmp_path / "key.used"
    for mark, why in (
        (Mark(STORE, 7, 100, "", "power", is_clean=True), "rolled-back"),
        (Mark(STORE, 7, 8, "", "power", is_clean=True, refused="it has forgotten votes"), "must-not-vote"),
        (None, "bad-marker"),
    ):
        if mark is None:
            marker.write_bytes(b"\xff nothing that was ever written here")
        else:
            write_mark(marker, mark)
        running = RunningAgent(tmp_path, KEYS, marker=marker)
        with AgentSigner(running.path) as signer:
            with refused(why):
                signer.open(STORE, 8)
            assert signer.report()["store"] is None
        running.stop()


def test_client_waits_for_an_agent_that_comes_back(tmp_path):
    """A killed agent has a few seconds; the replica opens again and goes on where it was."""
    running = RunningAgent(tmp_path, KEYS)
    signer = AgentSigner(running.path)
    signer.open(STORE, 0)
    signer.sign(prepare(1))
    running.stop()
    started: list[RunningAgent] = []

    def again() -> None:
        time.sleep(0.3)
        started.append(RunningAgent(tmp_path, KEYS))

    thread = threading.Thread(target=again)
    thread.start()
    signer.sign(prepare(2))
    with refused("conflict"):
        signer.sign(prepare(1, B))
    thread.join()
    signer.close()
    started[0].stop()


def test_client_gives_up_on_an_agent_that_does_not_come_back(tmp_path):
    """A typed error that says where it was expected."""
    with pytest.raises(SigningError, match=r"agent\.sock: the signing agent does not answer.*\(unavailable\)"):
        AgentSigner(tmp_path / "agent.sock", seconds=0.2)


@pytest.mark.parametrize(
    "junk",
    [
        b"\xff\xff\xff\xff",
        LENGTH.pack(FRAME_BYTES_MAX + 1),
        LENGTH.pack(3) + b"abc",
        LENGTH.pack(0),
        LENGTH.pack(2) + b"\x91\x63",
        b"GET / HTTP/1.1\r\n\r\n" * 4,
    ],
)
def test_junk_ends_the_connection_and_nothing_else(agent, junk):
    """The agent goes on serving."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5)
        sock.connect(str(agent.path))
        sock.sendall(junk)
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""
    with AgentSigner(agent.path) as signer:
        signer.open(STORE, 0)
        signer.sign(prepare(1))


def test_connections_are_bounded(agent):
    """Beyond the bound they are closed; the voter keeps its own."""
    with AgentSigner(agent.path) as signer:
        signer.open(STORE, 0)
        crowd = []
        for _ in range(20):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(str(agent.path))
            crowd.append(sock)
        deadline = time.monotonic() + 5
        while agent.agent.counts["dropped-crowd"] < 20 - (CONNECTIONS_MAX - 1):
            signer.sign(prepare(1))
            assert time.monotonic() < deadline
        for sock in crowd:
            sock.close()


def test_guard_of_another_replica_or_rotten_is_refused(tmp_path):
    """An agent does not sign with somebody else's memory, or a broken one."""
    Guard(tmp_path / "guard.db", CLUSTER, 1).close()
    with pytest.raises(StorageError, match="the guard is of replica 1"):
        Guard(tmp_path / "guard.db", CLUSTER, 2)
    with sqlite3.connect(tmp_path / "guard.db") as database:
        database.execute("delete from identity")
    database.close()
    with pytest.raises(StorageError, match="corrupt"):
        Guard(tmp_path / "guard.db", CLUSTER, 1)
    (tmp_path / "guard.db").write_bytes(b"SQLite format 3\0" + bytes(5000))
    with pytest.raises(StorageError):
        Guard(tmp_path / "guard.db", CLUSTER, 1)


def test_floor_follows_what_is_durable(agent):
    """Only after the store has the stable checkpoint is the agent told of it."""
    with AgentSigner(agent.path) as signer:
        signer.open(STORE, 0)
        store = FollowedStore(MemoryStore(), signer)
        signer.sign(prepare(4))
        certificate = CheckpointCertificate(0, 8, A, (Endorsement(0, bytes(64)),))
        store.write([Stable(8, certificate)])
        assert signer.report()["stable"] == 0, "told with the next request"
        signer.sign(prepare(9))
        assert signer.report()["stable"] == 8 and signer.report()["votes"] == 1
        with refused("below-floor"):
            signer.sign(prepare(4))


def test_replica_takes_up_what_it_signed_and_lost():
    """Views and own proposals come back as if their records had been written; nothing else is changed."""
    signer = Ed25519Signer(CLUSTER, ReplicaId(1), KEYS.seed)
    change, later = encode(ViewChange(0, 5, None, ())), encode(ViewChange(0, 6, None, ()))
    new_view = encode(NewView(0, 5, (Signed(0, change, bytes(64)),), ()))
    proposal = encode(PrePrepare(0, 5, 3, A))

    found = reconcile(Recovered(), Opened(change, b"", ()), 1, signer)
    assert found.view == ViewRecord(5, False, Signed(1, change, signer.sign(change)), None)

    found = reconcile(Recovered(), Opened(change, new_view, (proposal,)), 1, signer)
    assert found.view is not None and (found.view.view, found.view.active) == (5, True)
    assert found.view.new_view == Signed(1, new_view, signer.sign(new_view))
    assert found.view.view_change == Signed(1, change, signer.sign(change))
    assert found.accepted == [Accepted(3, 5, Signed(1, proposal, signer.sign(proposal)), b"")]

    known = Recovered(view=ViewRecord(6, False, Signed(1, later, signer.sign(later)), None))
    found = reconcile(known, Opened(change, new_view, (proposal,)), 1, signer)
    assert found.view is not None and (found.view.view, found.view.active) == (6, False) and not found.accepted

    held = Accepted(3, 0, Signed(1, encode(PrePrepare(0, 0, 3, A)), bytes(64)), b"batch")
    found = reconcile(Recovered(accepted=[held]), Opened(b"", b"", (encode(PrePrepare(0, 0, 3, A)),)), 1, signer)
    assert found.accepted == [held]


def test_commit_needs_no_more_than_its_prepare(agent):
    """The normal case: three votes of one slot."""
    with AgentSigner(agent.path) as signer:
        signer.open(STORE, 0)
        signer.sign_many([encode(PrePrepare(0, 0, 1, A)), prepare(1), encode(Commit(0, 0, 1, A))])
        with refused("conflict"):
            signer.sign(encode(Commit(0, 0, 1, B)))
