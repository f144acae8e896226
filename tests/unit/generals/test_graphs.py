"""Test graphs: names, edges, disjoint paths, regular sets."""

from __future__ import annotations

import random
from itertools import combinations, pairwise

import pytest

from bft.generals.graphs import (
    GRAPH_NAMES,
    Graph,
    disjoint_paths,
    distances,
    loyal_diameter,
    make_graph,
    named_graph,
    parse_graph,
    regular_set,
    regularity,
)
from bft.generals.ids import GeneralId, GeneralsError

G = GeneralId


@pytest.mark.parametrize(
    ("name", "n", "p"),
    [
        ("complete", 6, 5),
        ("ring", 6, 2),
        ("wheel", 6, 2),
        ("k33", 6, 3),
        ("cube", 8, 3),
        ("line", 4, 0),
        ("star", 4, 0),
    ],
)
def test_regularity_is_known(name: str, n: int, p: int) -> None:
    """The largest p of the usual graphs.

    [LSP82 5]
    """
    assert regularity(named_graph(name, n)) == p


def test_every_name_can_be_built() -> None:
    """Each name of the list makes a graph of the size it exists for.

    [LSP82 5]
    """
    sizes = {"k33": 6, "prism": 6, "cube": 8}
    for name in GRAPH_NAMES:
        n = sizes.get(name, 5)
        assert named_graph(name, n).n == n


def test_edges_are_read_and_nonsense_is_refused() -> None:
    """Edges are written 0-1,1-2; loops, strangers, and unknown names are the user's error.

    [LSP82 5]
    """
    assert parse_graph("0-1, 1-2", 3).adjacency == ((1,), (0, 2), (1,))
    for text in ("0-0", "0-9", "a-b", "0-", "dodecahedron", "cube"):
        with pytest.raises(GeneralsError):
            parse_graph(text, 3)


def _is_valid(
    graph: Graph, sources: tuple[GeneralId, ...], target: GeneralId, paths: tuple[tuple[GeneralId, ...], ...]
) -> bool:
    inner = [general for path in paths for general in path if general != target]
    return (
        [path[0] for path in paths] == list(sources)
        and all(path[-1] == target for path in paths)
        and all(graph.is_edge(a, b) for path in paths for a, b in pairwise(path))
        and len(inner) == len(dict.fromkeys(inner))
    )


def _exist_by_brute_force(
    graph: Graph, sources: tuple[GeneralId, ...], target: GeneralId, used: frozenset[GeneralId]
) -> bool:
    """Search disjoint paths by trying all."""
    if not sources:
        return True
    first, *rest = sources
    stack: list[tuple[GeneralId, ...]] = [(first,)]
    while stack:
        path = stack.pop()
        if path[-1] == target:
            if _exist_by_brute_force(graph, tuple(rest), target, used | (frozenset(path) - {target})):
                return True
            continue
        stack.extend(
            (*path, step)
            for step in graph.neighbours(path[-1])
            if step not in path and step not in used and (step not in rest or step == target)
        )
    return False


@pytest.mark.parametrize("seed", range(25))
def test_disjoint_paths_exist_exactly_when_brute_force_finds_them(seed: int) -> None:
    """The flow finds disjoint paths when there are any, and what it finds is disjoint.

    [LSP82 5]
    """
    dice = random.Random(seed)
    n = 6
    edges = [edge for edge in combinations(range(n), 2) if dice.random() < 0.45]
    graph = make_graph("random", n, edges)
    sources = tuple(G(i) for i in sorted(dice.sample(range(1, n), dice.choice((2, 3)))))
    target = G(dice.randrange(1, n))
    found = disjoint_paths(graph, sources, target, frozenset({G(0)}))
    wanted = [source for source in sources if source != target]
    exists = _exist_by_brute_force(graph, tuple(wanted), target, frozenset({G(0)}))
    assert (found is not None) == exists
    if found is not None:
        assert _is_valid(graph, sources, target, found)


def test_regular_set_may_avoid_generals() -> None:
    """Without some generals a set may no longer exist.

    [LSP82 5]
    """
    complete = named_graph("complete", 5)
    assert regular_set(complete, G(0), 4) == (1, 2, 3, 4)
    assert regular_set(complete, G(1), 4, frozenset({G(0)})) is None
    assert regular_set(complete, G(1), 3, frozenset({G(0)})) == (2, 3, 4)


def test_distances_and_loyal_diameter() -> None:
    """Traitors are no roads: without general 1 a line falls apart.

    [LSP82 5]
    """
    line = named_graph("line", 4)
    assert distances(line, G(0)) == {0: 0, 1: 1, 2: 2, 3: 3}
    assert loyal_diameter(line, [G(3)]) == 2
    assert loyal_diameter(line, [G(1)]) is None
