"""Which replies are believed, and that whatever a replica sends takes of its own budget only, and gives it back."""

from __future__ import annotations

from bft.client.tally import BYTES_MAX, Tally
from bft.digests import bundle_digest
from bft.membership import Quorums
from bft.messages import Reply

GOOD = b"the bundle that correct replicas send"
KEPT_MAX = 4


def _reply(seq: int, bundle: bytes = GOOD, *, sent: bytes | None = None, epoch: int = 0) -> Reply:
    """A reply that names a bundle by its digest, and sends these bytes for it."""
    return Reply(1, seq, epoch, 0, bundle_digest(bundle), bundle if sent is None else sent)


def _tally() -> Tally:
    return Tally(Quorums.of(4), KEPT_MAX)


def test_weak_many_equal_digests_of_one_epoch_are_believed() -> None:
    """Not one replica twice, not different ones, not those of two epochs; bytes may come from either."""
    tally = _tally()
    assert tally.add(0, _reply(1)) is None
    assert tally.add(0, _reply(1)) is None
    assert tally.add(3, _reply(1, b"a lie")) is None
    assert tally.add(1, _reply(1, epoch=1)) is None
    assert tally.add(2, _reply(1, sent=b"")) == GOOD
    assert tally.add(1, _reply(1)) is None, "told once"
    assert tally.disagreements == {3: 1}
    assert len(tally) == 0 and set(tally._bytes.values()) == {0}


def test_believed_digest_waits_for_its_bytes() -> None:
    """Bytes that do not have it are forgotten, and hashed once; whoever brings the right ones ends it."""
    tally = _tally()
    assert tally.add(0, _reply(1, sent=b"")) is None
    assert tally.add(1, _reply(1, sent=b"other bytes")) == b""
    assert set(tally._bytes.values()) == {0}, "what is forgotten is not counted"
    assert tally.add(2, _reply(1)) == GOOD
    assert len(tally) == 0 and set(tally._bytes.values()) == {0}


def test_latest_reply_of_a_replica_takes_the_place_of_the_one_before() -> None:
    """Bytes after a digest, and another bundle; a digest alone after its bytes says nothing new."""
    tally = _tally()
    for reply, size in ((_reply(1, sent=b""), 0), (_reply(1), len(GOOD)), (_reply(1, sent=b""), len(GOOD))):
        assert tally.add(0, reply) is None
        assert (len(tally), tally._bytes[0]) == (1, size)
    assert tally.add(0, _reply(1, b"another", sent=b"")) is None
    assert (len(tally), tally._bytes[0]) == (1, 0)
    assert tally.add(1, _reply(1)) is None, "the first counts for the other bundle now"


def test_flood_of_a_replica_evicts_its_own_replies_only() -> None:
    """The oldest of them, by number and by bytes."""
    tally = _tally()
    assert tally.add(1, _reply(1)) is None
    for seq in range(1, 1 + 2 * KEPT_MAX):
        assert tally.add(0, _reply(seq, b"a lie")) is None
    assert len(tally) == KEPT_MAX + 1
    assert tally.add(2, _reply(1)) == GOOD
    large = bytes(BYTES_MAX // 2)
    for seq in (21, 22, 23):
        assert tally.add(3, _reply(seq, sent=large)) is None
    assert tally._bytes[3] == BYTES_MAX
    assert tally.add(0, _reply(21)) is None, "the oldest was evicted"
    assert tally.add(0, _reply(22)) == GOOD, "the next was not"


def test_new_epoch_counts_anew_and_tells_nothing_twice() -> None:
    """Votes of the one before count no more."""
    tally = _tally()
    assert tally.add(0, _reply(1)) is None
    assert tally.add(0, _reply(2)) is None and tally.add(1, _reply(2)) == GOOD
    tally.enter(Quorums.of(7))
    assert len(tally) == 0 and tally._bytes == dict.fromkeys(range(7), 0)
    assert tally.add(5, _reply(2)) is None, "believed before"
    assert tally.add(1, _reply(1)) is None and tally.add(2, _reply(1)) is None
    assert tally.add(6, _reply(1)) == GOOD, "weak is three now"
