"""Test traitors: what they see, what they can sign, what they are called, what a script makes them say."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from bft.generals.algorithms import ORAL, SIGNED
from bft.generals.crimes import CRIME_NAMES, crime_named, frame
from bft.generals.ids import GeneralId, GeneralsError
from bft.generals.plan import Plan
from bft.generals.run import fight
from bft.generals.scripts import Lie, crimes_of, parse_lie, parse_script
from bft.generals.seam import Fault, Send
from bft.generals.traitors import Crime, Seen, View

G = GeneralId
PLAN = Plan(n=4, m=1)


def _spy(views: list[View]) -> Crime:
    def corrupt(send: Send, view: View) -> Sequence[Send]:
        views.append(view)
        return (send,)

    return Crime("spy", corrupt)


def test_traitor_sees_its_own_inbox_and_the_coalition_only() -> None:
    """A crime's view holds messages to traitors only, and signers of traitors only.

    [LSP82 4]
    """
    views: list[View] = []
    fight(SIGNED, Plan(n=5, m=2), {G(2): _spy(views), G(3): _spy(views)})
    for view in views:
        assert all(seen.receiver == view.me for seen in view.inbox)
        assert all(seen.receiver in (2, 3) for seen in view.coalition.board)
        assert sorted(view.coalition.signers) == [2, 3]


def test_traitor_is_rushing() -> None:
    """When a traitor must speak, it has seen what the loyal say in the same round.

    [LSP82 2]
    """
    seen: list[Seen] = []

    def corrupt(send: Send, view: View) -> Sequence[Send]:
        seen.extend(entry for entry in view.inbox if entry.round == view.round == 2)
        return (send,)

    fight(ORAL, PLAN, {G(3): Crime("watch", corrupt)})
    assert [entry.sender for entry in seen[:2]] == [1, 2]


def test_honest_traitor_changes_nothing() -> None:
    """A traitor who behaves is marked truthful throughout.

    [LSP82 1]
    """
    outcome = fight(ORAL, PLAN, {G(3): crime_named("honest", PLAN)})
    assert all(flight.truthful for flight in outcome.flights)
    assert outcome.verdict.holds


def test_lies_and_silence_are_marked() -> None:
    """The chronicle tells lies from truth and notes what was withheld.

    [LSP82 3]
    """
    lies = fight(ORAL, PLAN, {G(3): crime_named("flip", PLAN)})
    assert [f.truthful for f in lies.flights if f.sender == 3] == [False, False]
    silent = fight(ORAL, PLAN, {G(3): crime_named("silent", PLAN)})
    assert [f.sent for f in silent.flights if f.sender == 3] == [False, False]
    assert silent.messages == 7


@pytest.mark.parametrize("name", CRIME_NAMES)
def test_every_crime_runs_and_repeats(name: str) -> None:
    """The same seed gives the same battle.

    [LSP82 1]
    """
    for algorithm in (ORAL, SIGNED):
        plan = Plan(n=7, m=2)
        crimes = {G(0): crime_named(name, plan), G(4): crime_named(name, plan)}
        once = fight(algorithm, plan, crimes, dice=random.Random(3))
        again = fight(algorithm, plan, crimes, dice=random.Random(3))
        assert once == again


@pytest.mark.parametrize(
    ("crime", "traitors", "fault"),
    [
        ("forge", (2,), Fault.BAD_SIGNATURE),
        ("replay", (2,), Fault.BAD_SIGNATURE),
        ("too-late", (0,), Fault.WRONG_ROUND),
        ("duplicate", (0,), Fault.REPEATED_SIGNER),
        ("truncate", (2,), Fault.NOT_THE_COMMANDER),
        ("reorder", (2,), Fault.NOT_THE_COMMANDER),
        ("loop", (2,), Fault.OWN_SIGNATURE),
    ],
)
def test_signed_crime_is_refused_for_its_reason(crime: str, traitors: tuple[int, ...], fault: Fault) -> None:
    """Each crime against chains meets the check that it is named after.

    [LSP82 4]
    """
    plan = Plan(n=5, m=2)
    outcome = fight(SIGNED, plan, {G(i): crime_named(crime, plan) for i in traitors})
    assert fault in [flight.fault for flight in outcome.flights]
    assert outcome.verdict.holds


def test_frame_twists_the_words_of_its_victim_only() -> None:
    """Words that came through others are told honestly.

    [LSP82 3]
    """
    plan = Plan(n=7, m=2)
    outcome = fight(ORAL, plan, {G(6): frame(G(2))})
    for flight in outcome.flights:
        assert flight.truthful == (flight.sender != 6 or 2 not in flight.path[:-1])


@pytest.mark.parametrize(
    "text",
    ["nonsense", "flip:3", "split:9", "split:a", "constant:sing", "crash:soon", "frame:7", "silent-to:"],
)
def test_crime_without_sense_is_refused(text: str) -> None:
    """Unknown crimes, strangers and unknown orders are the user's error.

    [LSP82 1]
    """
    if text == "silent-to:":
        assert crime_named(text, PLAN).name == "silent-to:1"
        return
    with pytest.raises(GeneralsError):
        crime_named(text, PLAN)


def test_lie_is_read_from_the_command_line() -> None:
    """All parts of a lie but liar and order may be left out.

    [LSP82 3]
    """
    assert parse_lie("3>1@2/0.2=retreat", PLAN) == Lie(G(3), "retreat", G(1), 2, (G(0), G(2)))
    assert parse_lie("2=attack", PLAN) == Lie(G(2), "attack")
    assert parse_lie("3>*@2=-", PLAN) == Lie(G(3), None, None, 2)
    for text in ("", "x=attack", "3", "3=sing", "9=attack", "3>7=attack", "3/0.9=attack"):
        with pytest.raises(GeneralsError):
            parse_lie(text, PLAN)


def test_script_files_say_the_same_as_the_command_line() -> None:
    """TOML and JSON scripts hold the same lies.

    [LSP82 3]
    """
    first = '[[lie]]\nfrom = 3\nto = 1\nround = 2\npath = [0]\nsay = "retreat"\n'
    toml = first + '[[lie]]\nfrom = 2\nsay = "nothing"\n'
    json = (
        '{"lie": [{"from": 3, "to": 1, "round": 2, "path": [0], "say": "retreat"}, {"from": 2, "say": "-"}]}'
    )
    expected = (parse_lie("3>1@2/0=retreat", PLAN), parse_lie("2=-", PLAN))
    assert parse_script(toml, PLAN, is_json=False) == parse_script(json, PLAN, is_json=True) == expected
    for bad in (
        "lie = 3",
        "[[lie]]\nfrom = 3",
        "[[lie]]\nfrom = 3\nsay = 'sing'",
        "[[lie]]\nwho = 3",
        "][",
        "x = 1",
    ):
        with pytest.raises(GeneralsError):
            parse_script(bad, PLAN, is_json=False)


def test_scripted_lies_are_told_and_nothing_else() -> None:
    """Only the message that the lie is about is changed.

    [LSP82 3]
    """
    outcome = fight(ORAL, PLAN, crimes_of([parse_lie("3>1@2/0=retreat", PLAN)]))
    lies = [(f.sender, f.receiver, f.message.value) for f in outcome.flights if not f.truthful]
    assert lies == [(3, 1, "retreat")]
