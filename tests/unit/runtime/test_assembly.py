"""What a replica process is put together from: which store its key may vote with, under which name it may run."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from bft.config import Local
from bft.crypto.keys import KeyPair, save_key
from bft.epochs import approved, change_bytes
from bft.errors import KeyFileError, VotesLost
from bft.ids import ReplicaId
from bft.runtime.assembly import NOBODY, name_of, open_store
from bft.runtime.own_keys import NEXT, OwnKeys, beside
from bft.runtime.roster import Roster
from bft.runtime.server import ReplicaServer
from bft.storage.memory import MemoryStore
from bft.storage.sqlite import SqliteStore
from tests.unit.test_epochs import Town

TOWN = Town()
ANOTHER = TOWN.pair("another")


def _local(folder: Path, **fields: str) -> Local:
    save_key(folder / "r3.pem", TOWN.pairs[3])
    return Local(id=3, cluster="", key=str(folder / "r3.pem"), data=str(folder), **fields)


def test_key_that_has_voted_from_a_disk_gets_no_store_in_memory(tmp_path: Path) -> None:
    """What it said would be forgotten. One that never voted may."""
    local = _local(tmp_path)
    memory = replace(local, durability="memory")
    assert isinstance(open_store(TOWN.cluster, memory), MemoryStore)
    store = open_store(TOWN.cluster, local)
    assert isinstance(store, SqliteStore)
    store.load()
    store.close()
    with pytest.raises(VotesLost, match="Byzantine"):
        open_store(TOWN.cluster, memory)
    with pytest.raises(ValueError, match="cannot use a signing agent"):
        Local(id=3, cluster="", signer="unix:agent", data="", durability="memory")


# --- who it is in an epoch ------------------------------------------------------------------------------------------


def _epoch_with_another_key(key: KeyPair) -> Roster:
    """After the first epoch replica 3 votes with this key."""
    members = [TOWN.member(replica) for replica in range(3)] + [TOWN.member(3, key)]
    change = change_bytes(0, members)
    ready = [TOWN.ready(3, key=key, by=TOWN.pairs[3]), TOWN.ready(3, key=key)]
    return Roster(TOWN.cluster, [TOWN.link(TOWN.genesis, approved(change, TOWN.approve(change), ready), 24)])


def _epoch_without(replica: int) -> Roster:
    """Replica 4 takes the place of one of the first four."""
    ids = [member for member in range(5) if member != replica]
    return Roster(TOWN.cluster, [TOWN.link(TOWN.genesis, TOWN.change(*ids), 24)])


def test_id_that_votes_with_a_key_from_elsewhere_is_nobody(tmp_path: Path) -> None:
    """Else it would count a vote of its own that the epoch's key never gave."""
    keys = OwnKeys(Path(_local(tmp_path).key), None)
    assert name_of(TOWN.genesis, 3, keys) == ReplicaId(3)
    assert name_of(_epoch_without(3).configuration, 3, keys) == ReplicaId(3), "no member: whatever it says is no vote"
    roster = _epoch_with_another_key(ANOTHER)
    assert name_of(roster.configuration, 3, keys) == NOBODY
    save_key(beside(tmp_path / "r3.pem", NEXT), ANOTHER)
    assert name_of(roster.configuration, 3, keys) == ReplicaId(3)


@pytest.mark.parametrize(
    ("roster", "role", "needs_voucher"),
    [
        (Roster(TOWN.cluster, []), "member", False),
        (_epoch_without(0), "member", False),
        (_epoch_without(3), "leaver", False),
        (_epoch_with_another_key(ANOTHER), "learner", True),
    ],
    ids=["first", "stays", "removed", "comes-back"],
)
def test_who_comes_back_needs_a_voucher_and_who_was_removed_needs_none(
    tmp_path: Path, roster: Roster, role: str, needs_voucher: bool
) -> None:
    """A removed replica is known by the epoch before; one that comes back has a key that no epoch names."""
    local = _local(tmp_path)
    server = ReplicaServer(TOWN.cluster, local)
    server._roster, server._keys = roster, OwnKeys(Path(local.key), None)
    assert (server.account()["role"], server._needs_voucher()) == (role, needs_voucher)


def test_newcomer_needs_a_voucher(tmp_path: Path) -> None:
    """No epoch has heard of it."""
    local = replace(_local(tmp_path), id=9)
    server = ReplicaServer(TOWN.cluster, local)
    server._roster, server._keys = _epoch_without(3), OwnKeys(Path(local.key), None)
    assert (server.account()["role"], server._needs_voucher()) == ("learner", True)


def test_only_a_replica_that_was_removed_erases_its_keys(tmp_path: Path) -> None:
    """A member whose key is elsewhere ends with an error: what is here may be all that there is of it."""
    local = _local(tmp_path)
    server = ReplicaServer(TOWN.cluster, local)
    server._roster, server._keys = _epoch_with_another_key(ANOTHER), OwnKeys(Path(local.key), None)
    with pytest.raises(KeyFileError, match=f"epoch 1 names the key {ANOTHER.public_hex} for replica 3"):
        server.retire("nobody needs it")
    assert server.retired is None and Path(local.key).exists()
    server._roster = _epoch_without(3)
    server.retire("nobody needs it")
    assert server.retired == "nobody needs it" and not Path(local.key).exists()
