"""A replica whose store is an old copy learns of it from what it has signed itself, and falls silent."""

from __future__ import annotations

import copy

import pytest

from bft.errors import VotesLost
from bft.events import Broadcast, Forgotten, Persist, Progress, Send
from bft.messages import Checkpoint, Commit, Prepare, ReplicaMessage, Signed
from bft.sim.crashpoints import base, boundaries, families
from bft.sim.disk import SimulatedDisk
from bft.sim.service import Registers
from bft.sim.world import World
from tests.conftest import Bench

DIGEST = b"d" * 32


@pytest.mark.parametrize(
    "message",
    [
        Prepare(0, 0, 1, DIGEST),
        Commit(0, 0, 1, DIGEST),
        Checkpoint(0, 8, DIGEST),
    ],
    ids=lambda message: type(message).__name__,
)
def test_replica_that_sees_a_forgotten_vote_falls_silent_for_ever(message: ReplicaMessage) -> None:
    """It says so, remembers it, and says nothing else, now or after a restart."""
    bench = Bench()
    out = bench.deliver(2, bench.signed(bench.me, message))
    assert any(isinstance(effect, Persist) and isinstance(effect.record, Forgotten) for effect in out)
    assert any(isinstance(effect, Progress) and effect.what == "forgotten" for effect in out)
    assert not any(isinstance(effect, Send | Broadcast) for effect in out)
    assert bench.replica.summary()["refuses"]
    assert bench.wait(3000) == []
    with pytest.raises(VotesLost, match="refuses to vote"):
        bench.restart()


def test_forged_reminder_is_rejected() -> None:
    """Only what the own key has signed counts."""
    bench = Bench()
    forged = bench.signed(2, Prepare(0, 0, 1, DIGEST))
    bench.deliver(2, Signed(bench.me, forged.payload, forged.signature))
    assert bench.rejections() == ["bad-signature"]
    assert not bench.replica.summary()["refuses"]


@pytest.mark.parametrize("family", [name for name in families() if not name.startswith("seven")])
def test_own_statements_are_known_after_any_restart(family: str) -> None:
    """Every correct replica is shown everything that it ever let out, by what its disk holds at the end."""
    world = World(base(family), Registers)
    history = world.run()
    shown = 0
    for replica in history.correct:
        bench = Bench(me=replica, n=world.scenario.n, protocol=world.scenario.protocol)
        bench.vault = world.vault  # type: ignore[assignment]
        bench.cluster = world.cluster
        bench.store = copy.deepcopy(world.replicas[replica]._disk.durable)
        bench.restart()
        for signed in history.signed[replica]:
            other = (replica + 1) % world.scenario.n
            bench.deliver(other, signed)
            shown += 1
            assert not bench.replica.summary()["refuses"], bench.replica.summary()["refuses"]
    assert shown > 50


def _run_with_rollback(family: str, at: int, later: int) -> dict[str, int]:
    """Replica 1 is stopped at a boundary, gets a copy of its disk from an earlier one, and starts; what it reports."""
    world = World(base(family), Registers)
    host = world.replicas[1]
    stops = host._stops_at
    copies: list[SimulatedDisk] = []

    def stops_at(what: str) -> bool:
        if host._boundary == at and not copies:
            copies.append(copy.deepcopy(host._disk))
        if host._boundary == later and copies:
            host.stop(lose_unsynced=False)
            host._disk = copies.pop()
            world.at(world.now + 3_000_000, host.start)
            return True
        return stops(what)

    host._stops_at = stops_at  # type: ignore[method-assign]
    return world.run().transitions


@pytest.mark.parametrize("family", ["ordering", "view-change"])
def test_replica_restored_from_an_old_copy_is_reminded_and_refuses(family: str) -> None:
    """A copy of the disk from one boundary is brought back a few votes later: the answers to its STATUS tell."""
    firsts = range(5, len(boundaries(family)[1]) // 2, 9)
    reminded = sum(_run_with_rollback(family, at, at + 20).get("forgotten", 0) for at in firsts)
    assert reminded >= len(firsts) // 2, f"{reminded} of {len(firsts)}"


@pytest.mark.parametrize("epoch", [1, 5])
def test_statements_of_other_epochs_are_no_alarm(epoch: int) -> None:
    """An epoch that is over is closed; who has gone on is reminded of it by those who have not."""
    bench = Bench()
    bench.deliver(2, bench.signed(bench.me, Prepare(epoch, 0, 1, DIGEST)))
    assert not bench.replica.summary()["refuses"]
    assert bench.rejections() == []
