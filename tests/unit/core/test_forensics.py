"""Forensics in a later epoch: its members, keys and quorums, proven from the cluster file."""

from __future__ import annotations

import msgspec
import pytest

from bft.core.evidence import file_of
from bft.core.forensics import conflicts, culprits
from bft.core.verdict import verdict
from bft.crypto.signatures import Ed25519Verifier
from bft.errors import EvidenceError
from bft.messages import Commit, CommitCertificate, Endorsement
from bft.wire.codec import encode
from tests.unit.test_epochs import Town

SEQ = 30


@pytest.fixture(scope="module")
def town() -> Town:
    """Four replicas, which have become seven."""
    return Town()


def _certificate(town: Town, epoch: int, digest: bytes, signers: tuple[int, ...]) -> CommitCertificate:
    payload = encode(Commit(epoch, 0, SEQ, digest))
    endorsements = tuple(Endorsement(replica, town.sign_as(replica, payload)) for replica in signers)
    return CommitCertificate(epoch, 0, SEQ, digest, endorsements)


def test_fork_of_a_later_epoch_is_held_against_its_members(town):
    """At least f + 1 = 3 of seven; nothing can be said without the links, and none of a shorter quorum."""
    link = town.link(town.genesis, town.change(*range(7)), 24)
    one = _certificate(town, 1, b"1" * 32, (0, 1, 2, 3, 4))
    other = _certificate(town, 1, b"2" * 32, (2, 3, 4, 5, 6))
    verifier = Ed25519Verifier(town.cluster.id, town.cluster.replica_keys, None)
    found = culprits(one, other, [], town.cluster, verifier, [link])
    assert [item.accused for item in found] == [2, 3, 4]
    for item in found:
        made = file_of(item, town.cluster.id)
        assert verdict(made, town.cluster, verifier) is None
        assert verdict(msgspec.structs.replace(made, links=()), town.cluster, verifier) is not None
    with pytest.raises(EvidenceError, match=r"slot 30 cannot be judged.*nothing here says who"):
        culprits(one, other, [], town.cluster, verifier)
    with pytest.raises(EvidenceError, match="is invalid"):
        culprits(one, _certificate(town, 1, b"2" * 32, (2, 3, 4)), [], town.cluster, verifier, [link])


def test_certificates_of_two_epochs_are_no_pair(town):
    """Forensics explains a fork within an epoch; a slot belongs to one epoch."""
    one = _certificate(town, 0, b"1" * 32, (0, 1, 2))
    other = _certificate(town, 1, b"2" * 32, (2, 3, 4, 5, 6))
    assert conflicts([one, other]) == []
