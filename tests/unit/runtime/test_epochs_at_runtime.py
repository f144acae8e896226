"""What a replica process knows and holds across epochs: its keys, the age of its store, who may knock."""

from __future__ import annotations

from pathlib import Path

import pytest

from bft.crypto.keys import KeyPair, load_key, save_key
from bft.errors import KeyFileError, StorageError
from bft.events import Stable
from bft.ids import ReplicaId
from bft.messages import CheckpointCertificate, Endorsement
from bft.runtime.own_keys import NEXT, OLD, OwnKeys, OwnSigners, beside
from bft.runtime.rollback import AgedStore
from bft.runtime.roster import ANSWER_BYTES_MAX, LINKS_PER_ANSWER, Roster
from bft.storage.memory import MemoryStore
from tests.unit.test_epochs import Town

CLUSTER = b"c" * 32
FIRST, SECOND, THIRD = (KeyPair.of_seed(name.ljust(32, b".")) for name in (b"first", b"second", b"third"))


# --- keys -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "r3.pem"
    save_key(path, FIRST)
    return path


def test_next_key_becomes_the_key_when_an_epoch_names_it(path: Path) -> None:
    """The old one is erased with it; a key made while the process runs is seen."""
    keys = OwnKeys(path, None)
    assert (keys.next, keys.find(SECOND.public)) == (None, None)
    save_key(beside(path, NEXT), SECOND)
    assert keys.find(SECOND.public) == (SECOND, beside(path, NEXT))
    assert not keys.settle(FIRST.public)
    assert keys.settle(SECOND.public)
    assert (keys.current, load_key(path), beside(path, NEXT).exists()) == (SECOND, SECOND, False)
    assert keys.find(FIRST.public) is None


def test_old_key_vouches_and_never_votes(path: Path) -> None:
    """What a replica had before it lost its store is in no way to be found for voting; settling erases it."""
    save_key(beside(path, OLD), THIRD)
    keys = OwnKeys(path, None)
    assert (keys.old, keys.find(THIRD.public)) == (THIRD, None)
    assert THIRD.public not in OwnSigners(CLUSTER, ReplicaId(3), keys)
    assert not keys.settle(THIRD.public)
    assert keys.old == THIRD
    assert not keys.settle(FIRST.public)
    assert keys.old is None


def test_signers_are_the_present_key_and_the_next(path: Path) -> None:
    """By public key, the present one first."""
    signers = OwnSigners(CLUSTER, ReplicaId(3), OwnKeys(path, None))
    assert list(signers) == [FIRST.public] and len(signers) == 1
    save_key(beside(path, NEXT), SECOND)
    assert list(signers) == [FIRST.public, SECOND.public] and len(signers) == 2
    assert signers[FIRST.public].sign(b"x") != signers[SECOND.public].sign(b"x")
    assert signers.get(THIRD.public) is None


def test_removed_replica_erases_its_keys_and_says_so_later(path: Path) -> None:
    """The key of a removed replica must not fall into anybody's hands."""
    save_key(beside(path, NEXT), SECOND)
    OwnKeys(path, None).erase("replica 3 was removed from cluster town")
    assert not path.exists() and not beside(path, NEXT).exists()
    with pytest.raises(KeyFileError, match="replica 3 was removed from cluster town; ids are never used again"):
        OwnKeys(path, None)


# --- the age of a store ---------------------------------------------------------------------------------------------


def stable(seq: int) -> Stable:
    return Stable(seq, CheckpointCertificate(0, seq, bytes(32), (Endorsement(0, bytes(64)),)))


def start(tmp_path: Path, *records: Stable, seq: int = 0) -> None:
    """A replica's life: start with a store that stands at `seq`, write, end."""
    inner = MemoryStore()
    if seq:
        inner.write([stable(seq)])
    store = AgedStore(inner, tmp_path / "r3.pem.age", tmp_path / "data")
    store.load()
    store.load()  # a replica that comes back loads again: one start
    for record in records:
        store.write([record])


def test_store_that_saw_every_start_is_let_vote(tmp_path: Path) -> None:
    """Ordinary restarts, with and without progress."""
    (tmp_path / "data").mkdir()
    start(tmp_path)
    start(tmp_path, stable(32), stable(64))
    start(tmp_path, seq=64)
    assert (tmp_path / "r3.pem.age").read_text() == "starts 3\nstable 64\n"


def test_copy_from_before_the_last_start_is_refused(tmp_path: Path) -> None:
    """The counter in the folder went back with it."""
    (tmp_path / "data").mkdir()
    start(tmp_path)
    backup = (tmp_path / "data" / "starts").read_text()
    start(tmp_path)
    (tmp_path / "data" / "starts").write_text(backup)
    with pytest.raises(StorageError, match="old copy: it has seen 1 starts"):
        start(tmp_path)


def test_copy_from_before_a_stable_checkpoint_is_refused(tmp_path: Path) -> None:
    """Also within one life of the process."""
    (tmp_path / "data").mkdir()
    start(tmp_path, stable(32), stable(64))
    with pytest.raises(StorageError, match="and the stable slot 32"):
        start(tmp_path, seq=32)


def test_crash_between_the_two_notes_is_no_rollback(tmp_path: Path) -> None:
    """The store's own count is written first."""
    (tmp_path / "data").mkdir()
    start(tmp_path)
    note = (tmp_path / "r3.pem.age").read_text()
    start(tmp_path)
    (tmp_path / "r3.pem.age").write_text(note)
    start(tmp_path)


@pytest.mark.parametrize("text", ["", "starts x\nstable 1\n", "starts 1\n"])
def test_note_that_cannot_be_read_is_no_permission(tmp_path: Path, text: str) -> None:
    """A damaged note refuses."""
    (tmp_path / "data").mkdir()
    (tmp_path / "r3.pem.age").write_text(text)
    with pytest.raises(StorageError, match="age cannot be read"):
        start(tmp_path)


# --- the roster -----------------------------------------------------------------------------------------------------


def test_roster_lets_in_members_and_those_of_the_epoch_before() -> None:
    """A removed replica may still learn of its end, until the next change."""
    town = Town()
    roster = Roster(town.cluster, [])
    first = town.link(town.genesis, town.change(1, 2, 3, 4), 24)
    roster = Roster(town.cluster, [first])
    assert set(roster.door_keys()) == {0, 1, 2, 3, 4}
    assert (roster.was_member(0), roster.was_member(4), roster.configuration.epoch) == (True, False, 1)
    second = town.link(roster.configuration, town.change(1, 2, 3, 4, 5, epoch=1), 48)
    later = Roster(town.cluster, [first, second])
    roster.enter(later.configuration, [second])
    assert set(roster.door_keys()) == {1, 2, 3, 4, 5}
    assert [replica for replica in range(8) if roster.is_gone(replica)] == [0]
    assert [list(roster.links_from(epoch)) for epoch in (0, 1, 2, 9)] == [[first, second], [second], [], []]


def test_roster_tells_whose_key_has_changed() -> None:
    """Connections proven with the old key are closed, others are not."""
    from bft.epochs import approved, change_bytes

    town = Town()
    new = town.pair("another")
    members = [town.member(replica) for replica in range(3)] + [town.member(3, new)]
    change = change_bytes(0, members)
    ready = [town.ready(3, key=new, by=town.pairs[3]), town.ready(3, key=new)]
    operation = approved(change, town.approve(change), ready)
    assert town.flaw(operation) is None
    roster = Roster(town.cluster, [town.link(town.genesis, operation, 24)])
    assert roster.changed_keys() == {3: new.public}
    assert roster.door_keys()[3] == new.public


def test_links_are_shown_a_part_at_a_time() -> None:
    """Bounded in number and bytes, and never less than one."""
    town = Town()
    roster = Roster(town.cluster, [])
    link = town.link(town.genesis, town.change(0, 1, 2, 3, 4), 24)
    roster._links = [link] * 40
    assert len(roster.links_from(0)) == LINKS_PER_ANSWER
    huge = type(link)(b"x" * ANSWER_BYTES_MAX, link.certificate)
    roster._links = [huge] * 3
    assert len(roster.links_from(1)) == 1
