"""Test stories and pictures: two languages, well-formed SVG and HTML, nothing left out."""

from __future__ import annotations

import random
import xml.etree.ElementTree as ET
from typing import get_args

import pytest
from rich.console import Console

from bft.generals import exhaustive
from bft.generals.algorithms import ALGORITHMS, ORAL, SIGNED, Algorithm
from bft.generals.crimes import crime_named
from bft.generals.explain import explain, verdict
from bft.generals.graphs import named_graph
from bft.generals.html import battle_page
from bft.generals.ids import GeneralId
from bft.generals.impossibility import twin_scenarios
from bft.generals.matrix import Mark, rows_of
from bft.generals.plan import Plan
from bft.generals.run import Outcome, fight
from bft.generals.seam import Fault
from bft.generals.svg import Series, boundary_picture, curves, short_number
from bft.generals.svg_battle import sequence_picture, tree_picture, twin_picture
from bft.generals.terminal import eig_tree, round_table, sequence_chart, twin_triangles
from bft.generals.words import Language, Names

G = GeneralId
LANGUAGES: tuple[Language, ...] = get_args(Language)


def _battle(algorithm: Algorithm, crime: str = "flip") -> Outcome:
    graph = named_graph("complete", 4) if algorithm.name == "om-graph" else None
    plan = Plan(n=4, m=1, graph=graph)
    return fight(algorithm, plan, {G(3): crime_named(crime, plan)})


def _text(renderable: object) -> str:
    console = Console(width=120, record=True, file=None, force_terminal=False, color_system=None)
    with console.capture() as captured:
        console.print(renderable)
    return captured.get()


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: algorithm.name)
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_battle_can_be_told_and_drawn(algorithm: Algorithm, language: Language) -> None:
    """Stories, charts and pages exist for each algorithm in both languages.

    [LSP82 1]
    """
    for crime in ("flip", "silent", "forge"):
        outcome = _battle(algorithm, crime)
        sections = explain(outcome, language)
        assert len(sections) == outcome.rounds + 3
        assert all(section.sentences for section in sections)
        ET.fromstring(sequence_picture(outcome, language))
        page = battle_page(outcome, language)
        assert f'<html lang="{language}">' in page
        assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
        assert _text(round_table(outcome, language))
        assert _text(sequence_chart(outcome, language))


def test_story_uses_the_words_of_the_field() -> None:
    """Portuguese stories say general, tenente, traidor, ataque, retirada; English ones their equals."""
    told = {
        language: " ".join(
            sentence for section in explain(_battle(ORAL), language) for sentence in section.sentences
        )
        for language in LANGUAGES
    }
    for word in ("generais", "tenente 1", "raidores", "ataque", "retirada", "comandante", "leais", "maioria"):
        assert word in told["pt"]
    for word in (
        "generals",
        "lieutenant 1",
        "raitors",
        "attack",
        "retreat",
        "commander",
        "loyal",
        "majority",
    ):
        assert word in told["en"]
    assert "attack" not in told["pt"]


def test_every_fault_has_words_in_both_languages() -> None:
    """A refused message can be explained whatever the reason.

    [LSP82 4]
    """
    for language in LANGUAGES:
        names = Names(Plan(n=4, m=1), language)
        assert len(dict.fromkeys(names.fault(fault) for fault in Fault)) == len(Fault)


def test_words_name_receivers_and_paths() -> None:
    """Names decline as the language wants them."""
    plan = Plan(n=4, m=2)
    english, portuguese = Names(plan, "en"), Names(plan, "pt")
    assert english.addressed([G(1), G(2)]) == "to lieutenants 1 and 2"
    assert portuguese.addressed([G(1), G(2)]) == "aos tenentes 1 e 2"
    assert portuguese.addressed([G(1)]) == "ao tenente 1"
    assert english.quote((G(0), G(1), G(2)), "attack") == (
        "lieutenant 1 told me that the commander told him “attack”"
    )
    assert portuguese.quote((G(0), G(2)), "attack") == "o comandante disse-me “ataque”"


def test_letters_tell_orders_apart() -> None:
    """The shortest prefix that is unique stands for an order.

    [LSP82 3]
    """
    names = Names(Plan(n=4, m=1, orders=("red", "rest", "go"), order="go"), "en")
    assert [names.letter(order) for order in ("red", "rest", "go")] == ["RED", "RES", "G"]


def test_grid_marks_lies_silence_and_refusals() -> None:
    """The marks of the grid are those of the chronicle."""
    marks = {
        crime: {
            cell.mark for row in rows_of(_battle(algorithm, crime)) for column in row.cells for cell in column
        }
        for algorithm, crime in ((ORAL, "flip"), (ORAL, "silent"), (SIGNED, "forge"))
    }
    assert Mark.LIE in marks["flip"]
    assert Mark.WITHHELD in marks["silent"]
    assert Mark.REFUSED in marks["forge"]


def test_terminal_shows_table_tree_and_chart() -> None:
    """The table of rounds, the tree and the chart show the lie of general 3."""
    outcome = _battle(ORAL)
    assert "R!" in _text(round_table(outcome, "en"))
    assert "0.3 = R!" in _text(eig_tree(outcome, G(1), "en"))
    assert "◀──R!────●" in _text(sequence_chart(outcome, "en"))
    assert "∅→R" in _text(eig_tree(_battle(ORAL, "silent"), G(1), "pt"))


def test_deep_trees_are_folded() -> None:
    """Below the depth asked for a tree shows dots."""
    outcome = fight(ORAL, Plan(n=7, m=2))
    assert "…" in _text(eig_tree(outcome, G(1), "en", depth=2))
    assert "…" not in _text(eig_tree(outcome, G(1), "en", depth=3))
    ET.fromstring(tree_picture(outcome, G(1), "en", depth=3))


@pytest.mark.parametrize("language", LANGUAGES)
def test_three_generals_are_drawn_as_in_the_paper(language: Language) -> None:
    """Two triangles, the witness framed, the same words to him in both.

    [LSP82 2, Figures 1 and 2]
    """
    twins = twin_scenarios()
    assert twins is not None
    drawn = twin_triangles(twins, language)
    assert drawn.count("[L1]" if language == "en" else "[T1]") == 3
    assert "IC1" in drawn
    ET.fromstring(twin_picture(twins, language))


def test_verdict_names_who_disobeys_and_why() -> None:
    """A violated condition names the lieutenants and the theorem.

    [LSP82 3, Theorem 1]
    """
    plan = Plan(n=3, m=1)
    lines = verdict(fight(ORAL, plan, {G(2): crime_named("flip", plan)}), "en")
    assert "✗" in lines[1]
    assert "lieutenant 1" in lines[1]
    assert "n = 3 ≤ 3·1" in lines[2]


def test_boundary_and_curves_are_well_formed() -> None:
    """Pictures of searches and of costs parse as XML."""
    cells = [exhaustive.verify(n, 1, random.Random(1)) for n in (3, 4)]
    ET.fromstring(boundary_picture("OM & SM <m>", cells, "two cells"))
    ET.fromstring(curves("t", "x", "y", [Series("a", ((1, 1.0), (2, 100.0))), Series("b", ((1, 0.0),))]))
    ET.fromstring(curves("t", "x", "y", []))
    assert short_number(99_999) == "99 999"
    assert short_number(123_456) == "1.2e5"
    assert short_number(32_992_193_937_474) == "3.3e13", "rounded, as the README has it"
    assert short_number(999_999) == "1.0e6"
    assert short_number(10**400) == "1.0e400"
