"""Test the oral general: what it refuses, and how it fills in silence."""

from __future__ import annotations

import pytest

from bft.generals.ids import GeneralId
from bft.generals.oral import OralGeneral, grow, paths, resolve
from bft.generals.plan import Plan
from bft.generals.seam import (
    Ballot,
    Decide,
    Deliver,
    Fault,
    Message,
    Oral,
    Report,
    RoundEnds,
    RoundStarts,
    Send,
)

G = GeneralId
PLAN = Plan(n=4, m=1)


def _in_round(round_: int) -> OralGeneral:
    general = OralGeneral(G(1), PLAN)
    for number in range(1, round_):
        general.step(RoundStarts(number), 0)
        general.step(RoundEnds(number), 0)
    general.step(RoundStarts(round_), 0)
    return general


@pytest.mark.parametrize(
    ("round_", "sender", "message", "fault"),
    [
        (1, 2, Oral((G(0),), "attack"), Fault.WRONG_SENDER),
        (1, 0, Oral((), "attack"), Fault.WRONG_SENDER),
        (2, 0, Oral((G(0),), "attack"), Fault.WRONG_ROUND),
        (1, 2, Oral((G(0), G(2)), "attack"), Fault.WRONG_ROUND),
        (2, 2, Oral((G(3), G(2)), "attack"), Fault.WRONG_PATH),
        (2, 2, Oral((G(1), G(2)), "attack"), Fault.WRONG_PATH),
        (2, 0, Oral((G(0), G(0)), "attack"), Fault.WRONG_PATH),
        (1, 0, Oral((G(0),), "sing"), Fault.UNKNOWN_ORDER),
        (1, 0, Ballot(1, "attack"), Fault.WRONG_KIND),
    ],
)
def test_oral_general_refuses_what_does_not_fit(
    round_: int, sender: int, message: Message, fault: Fault
) -> None:
    """Every reason to refuse a message is reported, and the message changes nothing.

    [LSP82 3]
    """
    general = _in_round(round_)
    before = dict(general.heard)
    assert general.step(Deliver(G(sender), message), 0) == [Report(G(sender), fault)]
    assert general.heard == before


def test_oral_general_keeps_the_first_of_two_words() -> None:
    """A second word along the same path is refused.

    [LSP82 3]
    """
    general = _in_round(1)
    assert general.step(Deliver(G(0), Oral((G(0),), "attack")), 0) == []
    assert general.step(Deliver(G(0), Oral((G(0),), "retreat")), 0) == [Report(G(0), Fault.REPEATED)]
    assert general.heard == {(0,): "attack"}


def test_oral_general_passes_the_default_on_when_nothing_came() -> None:
    """Silence counts as retreat when the round closes, and is relayed as if it had been received.

    [LSP82 3, step 2]
    """
    general = _in_round(1)
    general.step(RoundEnds(1), 0)
    assert general.absent == [(0,)]
    sends = general.step(RoundStarts(2), 0)
    assert [s.message for s in sends if isinstance(s, Send)] == [Oral((G(0), G(1)), "retreat")] * 2


def test_oral_general_decides_once_in_the_last_round() -> None:
    """The decision comes after round m + 1 and not before.

    [LSP82 3]
    """
    general = OralGeneral(G(2), PLAN)
    decided = []
    for number in (1, 2):
        general.step(RoundStarts(number), 0)
        decided.append([e for e in general.step(RoundEnds(number), 0) if isinstance(e, Decide)])
    assert decided == [[], [Decide("retreat")]]


def test_paths_avoid_the_listener_and_repeat_nobody() -> None:
    """Paths are lexicographic, start at the commander, and avoid the listener.

    [LSP82 3]
    """
    assert list(paths(PLAN, G(1), 2)) == [(0, 2), (0, 3)]
    assert list(paths(PLAN, G(0), 1)) == []


def test_own_value_takes_its_seat_in_the_vote() -> None:
    """With three values A, A, R the order is attack; without the own value it would be a tie.

    [LSP82 3, step 3]
    """
    heard = {(G(0),): "attack", (G(0), G(2)): "attack", (G(0), G(3)): "retreat"}
    assert resolve(heard.__getitem__, (G(0),), G(1), PLAN) == "attack"


def test_tree_shows_what_was_absent() -> None:
    """A path along which nothing came is shown as absent and resolves to the default.

    [LSP82 3]
    """
    tree = grow(PLAN, G(1), {(G(0),): "attack", (G(0), G(2)): "attack"})
    assert [branch.heard for branch in tree.branches] == ["attack", None]
    assert tree.branches[1].resolved == "retreat"
    assert tree.resolved == "attack"
