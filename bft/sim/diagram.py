"""Space-time diagrams of recorded runs: as data for the page that draws them, and as text for a terminal or a comment.

Both are bounded. What is left out is said: first the heartbeats go, then whatever lies far from the violation.
"""

from __future__ import annotations

from collections.abc import Iterator

from bft.ids import Peer
from bft.sim.trace import LOST, SHOWN, Hop, Mark, Trace

HOPS_MAX = 1200
MARKS_MAX = 600
AFTER_FOCUS = 4
"""A quarter of a cut diagram lies after the violation: what follows may explain it to those who expect repair."""
HEARTBEATS = ("Status", "Query", "QueryReply")
LINES_MAX = 400
MICROSECOND = 1000


def chosen(trace: Trace, hops_max: int = HOPS_MAX) -> list[Hop]:
    """The hops that a diagram shows, in order of sending."""
    hops = sorted(trace.hops, key=lambda hop: hop.sent)
    if len(hops) > hops_max:
        hops = [hop for hop in hops if hop.kind not in HEARTBEATS or hop.is_lie]
    if len(hops) > hops_max:
        if trace.violations:
            before = sum(hop.sent <= trace.focus for hop in hops)
            start = max(0, min(before - hops_max + hops_max // AFTER_FOCUS, len(hops) - hops_max))
        else:
            start = 0
        hops = hops[start : start + hops_max]
    trace.dropped = len(trace.hops) - len(hops)
    return hops


def diagram(trace: Trace, *, title: str, run: int, hops_max: int = HOPS_MAX) -> dict[str, object]:
    """Everything that the page's script needs to draw one run; times in microseconds."""
    hops = chosen(trace, hops_max)
    first = hops[0].sent if hops else 0
    last = max([hop.sent for hop in hops] + [hop.arrived for hop in hops], default=0)
    is_whole = len(hops) == len(trace.hops)
    lanes = _lanes(trace)
    kinds = sorted({hop.kind for hop in hops})
    contents: dict[str, int] = {}
    rows = [
        [
            lanes[hop.source],
            lanes[hop.target],
            hop.sent // MICROSECOND,
            hop.arrived // MICROSECOND if hop.arrived != LOST else LOST,
            kinds.index(hop.kind),
            contents.setdefault(hop.content, len(contents)),
            int(hop.is_lie),
        ]
        for hop in hops
    ]
    marks = [mark for mark in trace.marks if is_whole or first <= mark.at <= last]
    return {
        "run": run,
        "title": title,
        "lanes": [{"name": _name(peer), "crime": _crime(trace, peer)} for peer in lanes],
        "kinds": kinds,
        "contents": list(contents),
        "hops": rows,
        "marks": [[mark.at // MICROSECOND, lanes.get(mark.node, -1), mark.kind, mark.text] for mark in _bounded(marks)],
        "columns": list(SHOWN),
        "states": {str(lanes[replica]): _states(trace, replica, first, last) for replica in sorted(trace.states)},
        "focus": trace.focus // MICROSECOND if trace.violations else -1,
        "violations": [f"{found.checker}: {found.detail}" for found in trace.violations],
        "dropped": trace.dropped,
    }


def _lanes(trace: Trace) -> dict[Peer, int]:
    peers: list[Peer] = [*trace.clients, *range(trace.scenario.n + trace.scenario.spares)]
    return {peer: lane for lane, peer in enumerate(peers)}


def _name(peer: Peer) -> str:
    return f"r{peer}" if isinstance(peer, int) else f"client {peer[:2].hex()}"


def _crime(trace: Trace, peer: Peer) -> str:
    if isinstance(peer, int):
        return trace.scenario.corrupted.get(str(peer), "")
    hostile = dict(zip(trace.clients[trace.scenario.workload.clients :], _hostile(trace), strict=False))
    return hostile.get(peer, "")


def _hostile(trace: Trace) -> list[str]:
    """What hostile clients do, in the order in which the world makes them: after the correct ones, by name."""
    return [does for _, does in sorted(trace.scenario.hostile_clients.items())]


def _bounded(marks: list[Mark]) -> list[Mark]:
    """At most `MARKS_MAX` marks; a crime of omission against heartbeats says nothing and goes first."""
    if len(marks) > MARKS_MAX:
        marks = [mark for mark in marks if mark.kind != "crime" or "Status" not in mark.text]
    return marks[:MARKS_MAX]


def _states(trace: Trace, replica: int, first: int, last: int) -> list[list[object]]:
    """Changes of state within the diagram, and the state in which the replica comes into it."""
    changes = trace.states[replica]
    before = [change for change in changes if change[0] <= first][-1:]
    within = [change for change in changes if first < change[0] <= last]
    return [[at // MICROSECOND, list(values)] for at, values in before + within]


# --- text ---------------------------------------------------------------------------------------------------------


def chart(trace: Trace, lines_max: int = LINES_MAX) -> str:
    """The run as text: one line per message, crime, execution and fault, in order of time."""
    scenario = trace.scenario
    lines = [f"n={scenario.n} seed={scenario.seed} gst={scenario.gst_ms} ms"]
    lines += [f"r{replica} is corrupt: {text}" for replica, text in scenario.corrupted.items()]
    lines += [f"broken: {found.checker}: {found.detail}" for found in trace.violations]
    lines.append("")
    events = sorted(_events(trace), key=lambda event: event[0])
    shown = [event for event in events if event[0] <= trace.focus] if trace.violations else events
    if len(shown) > lines_max:
        lines.append(f"({len(shown) - lines_max} earlier lines left out)")
    for at, text in shown[-lines_max:]:
        lines.append(f"{at / 1e6:10.3f} ms  {text}")
    return "\n".join(lines) + "\n"


def _events(trace: Trace) -> Iterator[tuple[int, str]]:
    for hop in trace.hops:
        if hop.kind in HEARTBEATS and not hop.is_lie:
            continue
        fate = "LOST" if hop.arrived == LOST else f"+{(hop.arrived - hop.sent) / 1e6:.1f} ms"
        lie = "  << LIE" if hop.is_lie else ""
        way = f"{_name(hop.source)} -> {_name(hop.target)}"
        yield hop.sent, f"{way:<24} {hop.kind:<12} {fate:<10} {hop.content[:90]}{lie}"
    for mark in trace.marks:
        if mark.kind == "crime" and "Status" in mark.text:
            continue
        where = f"r{mark.node}" if mark.node >= 0 else "all"
        yield mark.at, f"{where:<24} {mark.kind.upper():<12} {mark.text[:110]}"
