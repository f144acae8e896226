"""`bft evidence` on the files of strangers: real keys, exit codes, and nothing that a hostile file could break."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

import bft
from bft.cli.commands import cli
from bft.cli.layout import Plan, write_cluster
from bft.config import Cluster, Protocol
from bft.core.evidence import file_of
from bft.crypto.keys import load_key
from bft.crypto.signatures import Ed25519Signer
from bft.digests import batch_digest
from bft.errors import EvidenceError
from bft.events import Evidence
from bft.ids import ReplicaId
from bft.messages import Commit, CommitCertificate, Endorsement, NewView, PrePrepare, ReplicaMessage, Signed, ViewChange
from bft.runtime.archive import SEGMENTS_MAX, Archive, read_archive
from bft.wire.codec import encode

A, B = batch_digest(b"A"), batch_digest(b"B")


@dataclass
class Town:
    """A cluster's files, and the keys of everybody in it."""

    folder: Path
    cluster: Cluster
    signers: list[Ed25519Signer]

    @property
    def file(self) -> str:
        """The cluster file."""
        return str(self.folder / "cluster.toml")

    def signed(self, sender: int, message: ReplicaMessage) -> Signed:
        """A message of any replica."""
        payload = encode(message)
        return Signed(sender, payload, self.signers[sender].sign(payload))

    def certificate(self, seq: int, digest: bytes, signers: tuple[int, ...], view: int = 0) -> CommitCertificate:
        """A commit certificate."""
        commit = Commit(0, view, seq, digest)
        endorsements = tuple(Endorsement(replica, self.signed(replica, commit).signature) for replica in signers)
        return CommitCertificate(0, view, seq, digest, endorsements)

    def accusation(self) -> Evidence:
        """Replica 3 has sent two COMMITs."""
        return Evidence(3, "two-commits", self.signed(3, Commit(0, 0, 1, A)), self.signed(3, Commit(0, 0, 1, B)))

    def write(self, path: Path, evidence: Evidence, **changes: object) -> str:
        """An evidence file."""
        item = msgspec.structs.replace(file_of(evidence, self.cluster.id), **changes)
        path.write_bytes(msgspec.json.encode(item))
        return str(path)


@pytest.fixture
def town(tmp_path: Path) -> Town:
    """A cluster of four."""
    folder = tmp_path / "cluster"
    made = write_cluster(folder, Plan())
    keys = [load_key(path) for path in (next(folder.glob(f"**/r{index}*.pem")) for index in range(4))]
    assert tuple(pair.public for pair in keys) == made.replica_keys
    signers = [Ed25519Signer(made.id, ReplicaId(index), pair.seed) for index, pair in enumerate(keys)]
    return Town(folder, made, signers)


def run(*arguments: str) -> tuple[int, str]:
    """Exit code and output of a command; no traceback, whatever happens."""
    done = CliRunner().invoke(cli, ["evidence", *arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def test_verify_tells_proven_from_not_proven(town, tmp_path):
    """Exit code 0 and 1; with JSON for scripts."""
    good = town.write(tmp_path / "good.json", town.accusation())
    assert run("verify", good, "--cluster", town.file) == (0, "proven: replica 3 committed two-commits\n")
    bad = town.write(tmp_path / "bad.json", town.accusation(), kind="two-prepares")
    assert run("verify", bad, "--cluster", town.file) == (1, "not proven: it proves two-commits, not two-prepares\n")
    code, text = run("verify", bad, "--cluster", town.file, "--json")
    assert code == 1 and json.loads(text)["proven"] is False


def test_evidence_does_not_travel_between_clusters(town, tmp_path):
    """Another cluster with the very same keys: neither as it is, nor under that cluster's name."""
    other = msgspec.structs.replace(town.cluster, protocol=Protocol(pipeline=8))
    text = (town.folder / "cluster.toml").read_text()
    changed = tmp_path / "other.toml"
    assert "[protocol]" not in text
    changed.write_text(f"{text}\n[protocol]\npipeline = 8\n")
    path = town.write(tmp_path / "here.json", town.accusation())
    assert "another cluster" in run("verify", path, "--cluster", str(changed))[1]
    renamed = town.write(tmp_path / "renamed.json", town.accusation(), cluster=other.id)
    code, said = run("verify", renamed, "--cluster", str(changed))
    assert (code, said) == (1, "not proven: the signature of the first message does not hold\n")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"{}",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"cluster": 7, "kind": "x", "accused": 0, "first": [1, 0, "", ""]}',
        b'{"cluster": "AAAA", "kind": "x", "accused": 0, "first": [1, 0, "", ""]}',
        b'{"cluster": "' + b"A" * 43 + b'=", "kind": "x", "accused": 0, "first": [1, 0, "", "AAAA"]}',
        b'{"cluster": "' + b"A" * 43 + b'=", "kind": "x", "accused": 1e99, "first": 0}',
        b'{"cluster": "' + b"A" * 43 + b'=", "kind": "' + b"x" * 70 + b'", "accused": 0, "first": 0}',
    ],
)
def test_hostile_file_is_a_usage_error_in_one_line(town, tmp_path, content):
    """Nesting, wrong types, wrong lengths, no text: exit code 2, for every command that reads one."""
    path = tmp_path / "evidence" / "r0-x.json"
    path.parent.mkdir()
    path.write_bytes(content)
    for arguments in (("verify", str(path), "--cluster", town.file), ("show", str(path)), ("list", str(tmp_path))):
        code, said = run(*arguments)
        assert code == 2 and said.startswith("error:") and len(said.splitlines()) <= 2, said


def test_file_that_is_too_long_or_no_file_is_refused(town, tmp_path):
    """A sparse file of a terabyte and a pipe that nobody writes to cost nothing."""
    bomb = tmp_path / "bomb.json"
    with bomb.open("wb") as file:
        os.truncate(file.fileno(), 1 << 40)
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    assert "longer than" in run("verify", str(bomb), "--cluster", town.file)[1]
    assert "no regular file" in run("verify", str(pipe), "--cluster", town.file)[1]
    assert run("verify", str(tmp_path / "absent"), "--cluster", town.file)[0] == 2


def test_show_tells_what_is_said(town, tmp_path):
    """Shortened, as messages may be long."""
    many = ViewChange(0, 1, None, ())
    first = town.signed(3, NewView(0, 1, (town.signed(0, many),) * 90, ()))
    code, said = run("show", town.write(tmp_path / "x.json", Evidence(3, "invalid-new-view", first)))
    assert code == 0 and "replica 3 is accused of invalid-new-view" in said and "characters more" in said


def _fork(town: Town) -> list[CommitCertificate]:
    return [town.certificate(1, A, (0, 1, 2)), town.certificate(2, A, (0, 1, 2)), town.certificate(1, B, (0, 1, 3))]


def test_forensics_reads_archives_and_writes_evidence_that_verifies(town, tmp_path):
    """Exit code 1, since there was a fork; the files convict the culprits to anybody."""
    for replica, certificate in enumerate(_fork(town)):
        archive = Archive(tmp_path / "data" / f"r{replica}" / "archive", 16)
        archive.commits.append(certificate)
        archive.flush()
    code, said = run("forensics", str(tmp_path / "data"), "--cluster", town.file, "--out", str(tmp_path / "out"))
    assert code == 1 and "slot 1: r0, r1" in said
    files = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in files] == ["r0-two-commits.json", "r1-two-commits.json"]
    for path in files:
        assert run("verify", str(path), "--cluster", town.file)[0] == 0
    code, text = run("forensics", str(tmp_path / "data" / "r0"), "--cluster", town.file, "--json")
    assert code == 0 and json.loads(text)["forks"] == []


def test_forensics_that_cannot_tell_says_so(town, tmp_path):
    """Exit code 3: a fork across views, and no NEW-VIEW in any archive."""
    archive = Archive(tmp_path / "archive", 16)
    archive.commits.extend([town.certificate(1, A, (0, 1, 2)), town.certificate(1, B, (0, 1, 3), view=1)])
    archive.flush()
    code, said = run("forensics", str(tmp_path), "--cluster", town.file)
    assert code == 3 and "NEW-VIEWs" in said


def test_public_function_names_culprits_and_refuses_what_proves_nothing(town):
    """`bft.forensics`: at least f + 1, ascending; certificates that are forged or agree are errors."""
    first, _, second = _fork(town)
    assert [item.accused for item in bft.forensics(first, second, [], town.cluster)] == [0, 1]
    with pytest.raises(EvidenceError, match="do not conflict"):
        bft.forensics(first, first, [], town.cluster)
    forged = msgspec.structs.replace(second, digest=batch_digest(b"C"))
    with pytest.raises(EvidenceError, match="bad signature"):
        bft.forensics(first, forged, [], town.cluster)
    with pytest.raises(EvidenceError, match="wrong-quorum"):
        bft.forensics(first, msgspec.structs.replace(second, commits=second.commits[:2]), [], town.cluster)


def test_archive_is_bounded_and_survives_torn_and_foreign_files(town, tmp_path):
    """The oldest go; what cannot be read is passed over."""
    folder = tmp_path / "archive"
    archive = Archive(folder, 2 * SEGMENTS_MAX)
    for seq in range(1, 61):
        archive.commits.append(town.certificate(seq, A, (0, 1, 2)))
        archive.flush()
    for view in range(1, 41):
        inner = (town.signed(0, ViewChange(0, view, None, ())),)
        archive.enter(town.signed(view % 4, NewView(0, view, inner, ())))
        archive.flush()
    assert len(list(folder.iterdir())) <= SEGMENTS_MAX + 1 + 32
    commits, new_views = read_archive(folder)
    assert [item.seq for item in commits][-1] == 60 and 2 * SEGMENTS_MAX <= len(commits) <= 2 * SEGMENTS_MAX + 2
    assert len(new_views) == 32
    last = max(folder.glob("commits-*.bin"))
    last.write_bytes(last.read_bytes()[:-1])
    (folder / "junk.bin").write_bytes(b"\x00\x00\x00\x01\xc1" + encode(town.signed(0, PrePrepare(0, 0, 1, A))))
    again, _ = read_archive(folder)
    assert again == commits[:-1]


def test_archive_of_nothing_keeps_nothing(town, tmp_path):
    """archive_slots = 0."""
    archive = Archive(tmp_path / "archive", 0)
    archive.commits.append(town.certificate(1, A, (0, 1, 2)))
    archive.enter(town.signed(1, NewView(0, 1, (town.signed(0, ViewChange(0, 1, None, ())),), ())))
    archive.flush()
    assert read_archive(tmp_path) == ([], [])
