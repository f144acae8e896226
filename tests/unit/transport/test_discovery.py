"""The way from the cluster file to today, kept in a file that nobody needs to trust."""

from __future__ import annotations

from pathlib import Path

import pytest

from bft.messages import EpochLink
from bft.transport.discovery import KnownChain, chain_file, load_links, save_links
from tests.unit.test_epochs import Town


@pytest.fixture(scope="module")
def town() -> Town:
    return Town()


def _links(town: Town):
    first = town.link(town.genesis, town.change(0, 1, 2, 3, 4), 24)
    chain = KnownChain.of(town.cluster)
    assert chain.chain.learn([first])
    second = town.link(chain.configuration, town.change(1, 2, 3, 4, epoch=1), 48)
    return first, second


def test_chain_is_taken_up_from_its_file(town: Town, tmp_path: Path) -> None:
    """Written by one process, verified by the next, from the cluster file on."""
    first, second = _links(town)
    file = chain_file(tmp_path / "alice.pem", town.cluster)
    save_links(file, [first, second])
    chain = KnownChain.of(town.cluster, file)
    assert (chain.configuration.epoch, chain.configuration.quorums.members) == (2, (1, 2, 3, 4))
    assert load_links(file) == list(chain.links) == [first, second]
    assert file.name.startswith("alice.pem.") and town.cluster.id.hex()[:12] in file.name


def test_file_of_another_cluster_or_of_nonsense_leads_nowhere(town: Town, tmp_path: Path) -> None:
    """It proves nothing there; the chain begins at the cluster file."""
    other = Town(admins=1, threshold=1)
    foreign = tmp_path / "foreign.epochs"
    save_links(foreign, [other.link(other.genesis, other.change(0, 1, 2, 3, 4, who=(0,)), 24)])
    nonsense = tmp_path / "nonsense.epochs"
    nonsense.write_bytes(b"\xc1 no list")
    for file in (foreign, nonsense, tmp_path / "absent.epochs"):
        chain = KnownChain.of(town.cluster, file)
        assert (chain.configuration.epoch, chain.links) == (0, ())


def test_links_that_are_known_or_do_not_hold_change_nothing(town: Town) -> None:
    """What stands before one that does not hold is proven all the same; what stands after it is not."""
    first, second = _links(town)
    chain = KnownChain.of(town.cluster)
    assert not chain.chain.learn([second])
    forged = town.link(town.genesis, town.change(0, 1, 2, 3, 5, who=(0,)), 24)
    assert not chain.chain.learn([forged])
    assert not chain.chain.learn([forged, first])
    assert chain.configuration.epoch == 0
    no_second = EpochLink(first.header, second.certificate)
    assert chain.chain.learn([first, first, no_second, second])
    assert (chain.configuration.epoch, chain.links) == (1, (first,))
    assert not chain.chain.learn([first])
    assert chain.chain.learn([first, second])
    assert chain.links == (first, second)


async def test_discovery_ends_where_nobody_answers(town: Town) -> None:
    """Ports without listeners; the chain stays as it is."""
    chain = KnownChain.of(town.cluster)
    await chain.discover(0.2)
    assert chain.configuration.epoch == 0
