"""Decide which generals can reach each other, and along which disjoint roads.

A graph is *p-regular* in the special sense of [LSP82 5]: every general i has a set of p neighbours from which
p paths, disjoint but for their end and avoiding i, lead to any other general. It does not mean that all
degrees equal p.

Sizes here are small (at most `plan.GENERALS_MAX` generals), so a set of neighbours is found by trying all of
them and its roads by unit-capacity maximum flow. Everything is ordered, so the same graph always gives the
same roads: all generals compute the same public map. Read next: `oral_graph`, which sends couriers along
these roads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from bft.generals.ids import GeneralId, GeneralsError, Path

_Port = tuple[
    int, int
]  # (general, 0) is where a road enters, (general, 1) where it leaves; the source is (-1, 1)


@dataclass(frozen=True, slots=True)
class Graph:
    """Hold an undirected simple graph; `adjacency[i]` lists the neighbours of i in increasing order."""

    name: str
    adjacency: tuple[tuple[GeneralId, ...], ...]

    @property
    def n(self) -> int:
        """Return the number of generals."""
        return len(self.adjacency)

    def neighbours(self, general: GeneralId) -> tuple[GeneralId, ...]:
        """Return those whom `general` can send a messenger to."""
        return self.adjacency[general]

    def is_edge(self, one: GeneralId, other: GeneralId) -> bool:
        """Say whether a messenger can walk between the two."""
        return other in self.adjacency[one]


def make_graph(name: str, n: int, edges: Iterable[tuple[int, int]]) -> Graph:
    """Build a graph from its edges.

    Raises:
        GeneralsError: an edge leaves the range `0..n-1` or joins a general to itself.
    """
    lists: list[list[GeneralId]] = [[] for _ in range(n)]
    for one, other in edges:
        if one == other or not (0 <= one < n and 0 <= other < n):
            raise GeneralsError(f"edge {one}-{other} does not join two of the generals 0..{n - 1}")
        for start, end in ((one, other), (other, one)):
            if GeneralId(end) not in lists[start]:
                lists[start].append(GeneralId(end))
    return Graph(name, tuple(tuple(sorted(row)) for row in lists))


def named_graph(name: str, n: int) -> Graph:
    """Build one of the graphs that the paper and this package talk about; see `GRAPH_NAMES`.

    Raises:
        GeneralsError: no such graph, or it does not exist for this number of generals.
    """
    ring = [(i, (i + 1) % n) for i in range(n)] if n >= 3 else []
    families: dict[str, tuple[int | None, list[tuple[int, int]]]] = {
        "complete": (None, list(combinations(range(n), 2))),
        "ring": (None, ring),
        "line": (None, [(i, i + 1) for i in range(n - 1)]),
        "star": (None, [(0, i) for i in range(1, n)]),
        "wheel": (None, [(0, i) for i in range(1, n)] + [(i, i % (n - 1) + 1) for i in range(1, n) if n > 3]),
        "k33": (6, [(i, j) for i in range(3) for j in range(3, 6)]),
        "prism": (6, [(0, 1), (1, 2), (0, 2), (3, 4), (4, 5), (3, 5), (0, 3), (1, 4), (2, 5)]),
        "cube": (8, [(i, i ^ bit) for i in range(8) for bit in (1, 2, 4) if i < i ^ bit]),
    }
    if name not in families:
        raise GeneralsError(
            f"graph {name!r} is unknown, expected {', '.join(GRAPH_NAMES)} or edges such as 0-1,1-2"
        )
    size, edges = families[name]
    if size not in (None, n):
        raise GeneralsError(f"graph {name!r} has {size} generals, found n = {n}")
    return make_graph(name, n, edges)


GRAPH_NAMES = ("complete", "ring", "line", "star", "wheel", "k33", "prism", "cube")


def parse_graph(text: str, n: int) -> Graph:
    """Read a graph given by name (`"cube"`) or by edges (`"0-1,1-2,0-2"`).

    Raises:
        GeneralsError: the text is neither.
    """
    if "-" not in text:
        return named_graph(text, n)
    edges: list[tuple[int, int]] = []
    for part in text.split(","):
        one, _, other = part.strip().partition("-")
        if not (one.isdecimal() and other.isdecimal()):
            raise GeneralsError(f"edge {part!r} is not of the form 0-1")
        edges.append((int(one), int(other)))
    return make_graph(text, n, edges)


def distances(
    graph: Graph, start: GeneralId, avoiding: frozenset[GeneralId] = frozenset()
) -> dict[GeneralId, int]:
    """Return the number of roads from `start` to each general that can be reached without those avoided."""
    found = {start: 0}
    queue = deque([start])
    while queue:
        here = queue.popleft()
        for neighbour in graph.neighbours(here):
            if neighbour not in found and neighbour not in avoiding:
                found[neighbour] = found[here] + 1
                queue.append(neighbour)
    return found


def loyal_diameter(graph: Graph, traitors: Iterable[GeneralId]) -> int | None:
    """Return the diameter of the subgraph of loyal generals, None when it is not connected [LSP82 5]."""
    avoided = frozenset(traitors)
    loyal = [GeneralId(i) for i in range(graph.n) if GeneralId(i) not in avoided]
    longest = 0
    for start in loyal:
        found = distances(graph, start, avoided)
        if len(found) < len(loyal):
            return None
        longest = max(longest, *found.values())
    return longest


def disjoint_paths(
    graph: Graph, sources: Sequence[GeneralId], target: GeneralId, avoiding: frozenset[GeneralId]
) -> tuple[Path, ...] | None:
    """Return one path to `target` from each source, sharing no general but the target; None when there are
    none.

    A source that is the target has the path that stays where it is.
    """
    starts = [source for source in sources if source != target]
    follows: dict[_Port, _Port] = {}  # the flow: which port a road goes on to
    comes: dict[_Port, _Port] = {}
    for start in starts:
        if not _augment(graph, starts, start, target, avoiding, follows, comes):
            return None
    paths: list[Path] = []
    for source in sources:
        path = [source]
        while path[-1] != target:
            path.append(GeneralId(follows[(path[-1], 1)][0]))
        paths.append(tuple(path))
    return tuple(paths)


def _augment(
    graph: Graph,
    starts: Sequence[GeneralId],
    start: GeneralId,
    target: GeneralId,
    avoiding: frozenset[GeneralId],
    follows: dict[_Port, _Port],
    comes: dict[_Port, _Port],
) -> bool:
    """Add one more road, from `start`, to a flow of disjoint roads, rerouting the others where needed."""
    # Every start has a road of its own, so a road that entered another start could not stay disjoint.
    blocked: list[_Port] = [(other, 0) for other in starts if other != start]
    entrance: _Port = (start, 0)
    before: dict[_Port, _Port | None] = {entrance: None}
    queue: deque[_Port] = deque([entrance])
    while queue:
        port = queue.popleft()
        if port == (target, 0):
            _reroute(port, before, target, follows, comes)
            return True
        for onward in _residual(graph, port, target, avoiding, follows, comes):
            if onward not in before and onward not in blocked:
                before[onward] = port
                queue.append(onward)
    return False


def _residual(
    graph: Graph,
    port: _Port,
    target: GeneralId,
    avoiding: frozenset[GeneralId],
    follows: dict[_Port, _Port],
    comes: dict[_Port, _Port],
) -> list[_Port]:
    """List where a new road may go on from a port: along an unused road, or back along a used one."""
    general, leaving = port
    if leaving:
        onward: list[_Port] = [
            (neighbour, 0)
            for neighbour in graph.neighbours(GeneralId(general))
            if neighbour not in avoiding and follows.get(port) != (neighbour, 0)
        ]
        return onward + ([(general, 0)] if comes.get(port) == (general, 0) else [])
    backward = comes.get(port)
    if general == target:
        return []
    inward: list[_Port] = [] if follows.get(port) else [(general, 1)]
    return inward + ([backward] if backward is not None else [])


def _reroute(
    port: _Port,
    before: dict[_Port, _Port | None],
    target: GeneralId,
    follows: dict[_Port, _Port],
    comes: dict[_Port, _Port],
) -> None:
    """Write the road that was found into the flow, cancelling used roads that it walks backwards."""
    steps: list[tuple[_Port, _Port]] = []
    previous = before[port]
    while previous is not None:
        steps.append((previous, port))
        port, previous = previous, before[previous]
    forward = [(start, end) for start, end in steps if follows.get(end) != start]
    for start, end in ((start, end) for start, end in steps if follows.get(end) == start):
        del follows[end]
        if start != (target, 0):
            del comes[start]
    for start, end in forward:
        follows[start] = end
        if end != (target, 0):
            comes[end] = start


def regular_set(
    graph: Graph, general: GeneralId, p: int, avoiding: frozenset[GeneralId] = frozenset()
) -> tuple[GeneralId, ...] | None:
    """Return the first regular set of p neighbours of `general`, None when it has none [LSP82 5]."""
    removed = avoiding | {general}
    others = [GeneralId(i) for i in range(graph.n) if GeneralId(i) not in removed]
    near = [neighbour for neighbour in graph.neighbours(general) if neighbour not in avoiding]
    for candidate in combinations(near, p):
        if all(disjoint_paths(graph, candidate, other, removed) is not None for other in others):
            return candidate
    return None


def is_regular(graph: Graph, p: int) -> bool:
    """Say whether every general has a regular set of p neighbours."""
    return all(regular_set(graph, GeneralId(i), p) is not None for i in range(graph.n))


def regularity(graph: Graph) -> int:
    """Return the largest p for which the graph is p-regular; 0 when there is none."""
    smallest_degree = min((len(row) for row in graph.adjacency), default=0)
    return next((p for p in range(smallest_degree, 0, -1) if is_regular(graph, p)), 0)
