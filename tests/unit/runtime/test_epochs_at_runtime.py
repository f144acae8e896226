"""What a replica process knows and holds across epochs: its keys, the age of its store, who may knock."""

from __future__ import annotations

from pathlib import Path

import pytest

from bft.crypto.keys import KeyPair, load_key, save_key
from bft.epochs import ANSWER_BYTES_MAX, LINKS_PER_ANSWER
from bft.errors import KeyFileError
from bft.ids import ReplicaId
from bft.runtime.own_keys import NEXT, OLD, OwnKeys, OwnSigners, beside, lost_keys, next_lost
from bft.runtime.roster import Roster
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


def test_keys_put_aside_are_found_by_number(tmp_path: Path) -> None:
    """The latest first, beyond nine as well; names that only look like it are nobody's, and a folder may be gone."""
    path = tmp_path / "r3.pem"
    assert lost_keys(tmp_path / "gone" / "r3.pem") == []
    assert next_lost(path) == tmp_path / "r3.pem.lost1"
    for suffix in ("1", "2", "10", "", "x", "1.draft"):
        (tmp_path / f"r3.pem.lost{suffix}").touch()
    assert [file.name for file in lost_keys(path)] == ["r3.pem.lost10", "r3.pem.lost2", "r3.pem.lost1"]
    assert next_lost(path) == tmp_path / "r3.pem.lost11"
