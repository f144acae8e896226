"""Shrinking: from a failing scenario to the smallest one found in which the same checker still fires.

Delta debugging over the scenario's parts, largest first: traitors, faults, strategies, size, workload, network, time.
A step is kept only if the *same* checker fires, since another violation would be another bug. Leaving something out
shifts all chance after it, so each candidate is tried under a few seeds before it is given up; the seed is part of
the scenario like everything else.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from bft.adversary.parse import GUARDS
from bft.membership import Quorums
from bft.sim.campaign import judge
from bft.sim.diagram import chart
from bft.sim.results import Result, sparse_json, write_scenario
from bft.sim.scenario import Fault, Network, Rule, Scenario, Workload
from bft.sim.trace import record

RUNS_MAX = 600
SEEDS = 3
"""Seeds tried per candidate: the scenario's own, then others."""

Candidate = tuple[str, Scenario]
T = TypeVar("T")
replace = msgspec.structs.replace


@dataclass(frozen=True, slots=True)
class Shrunk:
    """What shrinking came to.

    Attributes:
        steps: what was taken away, in order.
        runs: simulations spent.
    """

    original: Result
    result: Result
    checker: str
    steps: tuple[str, ...]
    runs: int


def shrink(original: Result, *, runs_max: int = RUNS_MAX, tell: Callable[[str], None] | None = None) -> Shrunk:
    """Shrink a failing result until nothing more can go or the budget is spent.

    Args:
        original: a result with violations; the first one's checker must keep firing.
        tell: told of every step kept.
    """
    assert original.violations, "only a violation can be shrunk"
    checker = original.violations[0].checker
    best = original
    steps: list[str] = []
    runs = 0
    progressed = True
    while progressed and runs < runs_max:
        progressed = False
        for name, candidate in candidates(best.scenario):
            if runs >= runs_max:
                break
            smaller, spent = _fails(candidate, checker, original)
            runs += spent
            if smaller is not None:
                best, progressed = smaller, True
                steps.append(name)
                if tell is not None:
                    tell(name)
                break
    return Shrunk(original, best, checker, tuple(steps), runs)


def _fails(scenario: Scenario, checker: str, original: Result) -> tuple[Result | None, int]:
    """The result if the checker fires under one of a few seeds, and how many runs that took."""
    for attempt in range(SEEDS):
        candidate = replace(scenario, seed=scenario.seed + attempt)
        result = judge(candidate, generator="shrunk", label=f"of {original.id}", code=original.code)
        if checker in result.checkers:
            return result, attempt + 1
    return None, SEEDS


# --- what can go --------------------------------------------------------------------------------------------------


def candidates(scenario: Scenario) -> Iterator[Candidate]:
    """Scenarios that are smaller in one respect, the largest cuts first."""
    yield from _fewer_traitors(scenario)
    yield from _fewer_changes(scenario)
    yield from _fewer_replicas(scenario)
    yield from _fewer_faults(scenario)
    yield from _fewer_rules(scenario)
    yield from _simpler_strategies(scenario)
    yield from _less_work(scenario)
    yield from _kinder_network(scenario)
    yield from _less_time(scenario)


def size(scenario: Scenario) -> int:
    """A rough measure of how much a person has to follow; every candidate is smaller or kinder."""
    workload = scenario.workload
    strategies = sum(text.count("(") for text in scenario.corrupted.values())
    machines = scenario.n + scenario.spares + len(scenario.changes)
    return machines + strategies + len(scenario.faults) + len(scenario.rules) + workload.clients * workload.operations


def _fewer_traitors(scenario: Scenario) -> Iterator[Candidate]:
    for replica in scenario.corrupted:
        rest = {name: text for name, text in scenario.corrupted.items() if name != replica}
        yield f"r{replica} is honest", replace(scenario, corrupted=rest)
    for client in scenario.hostile_clients:
        others = {name: text for name, text in scenario.hostile_clients.items() if name != client}
        yield f"hostile client {client} is not there", replace(scenario, hostile_clients=others)


def _fewer_changes(scenario: Scenario) -> Iterator[Candidate]:
    """Without some changes of membership; without any, those who would have joined are not there either."""
    for name, rest in _halves(scenario.changes):
        yield f"changes {name} are not made", replace(scenario, changes=rest)
    if scenario.spares and not scenario.changes:
        corrupted = {name: text for name, text in scenario.corrupted.items() if int(name) < scenario.n}
        yield "nobody waits to join", replace(scenario, spares=0, corrupted=corrupted)


def _fewer_replicas(scenario: Scenario) -> Iterator[Candidate]:
    """Fewer replicas, without letting the adversary's share grow; not while changes name them."""
    if scenario.changes:
        return
    surplus = len(scenario.corrupted) - Quorums.of(scenario.n).f
    for n in (4, 7, scenario.n - 3):
        if not 4 <= n < scenario.n:
            continue
        corrupted = {name: text for name, text in scenario.corrupted.items() if int(name) < n}
        if len(corrupted) - Quorums.of(n).f > max(surplus, 0):
            continue
        faults = tuple(fault for fault in (_within(fault, n) for fault in scenario.faults) if fault is not None)
        rules = tuple(rule for rule in (_rule_within(rule, n) for rule in scenario.rules) if rule is not None)
        yield f"{n} replicas", replace(scenario, n=n, corrupted=corrupted, faults=faults, rules=rules)


def _within(fault: Fault, n: int) -> Fault | None:
    if fault.replica >= n:
        return None
    groups = tuple(tuple(member for member in group if member < n) for group in fault.groups)
    if fault.groups and not all(groups):
        return None
    return replace(fault, groups=groups)


def _rule_within(rule: Rule, n: int) -> Rule | None:
    sources = tuple(replica for replica in rule.sources if replica < n)
    targets = tuple(replica for replica in rule.targets if replica < n)
    if bool(sources) != bool(rule.sources) or bool(targets) != bool(rule.targets):
        return None
    return replace(rule, sources=sources, targets=targets)


def _fewer_faults(scenario: Scenario) -> Iterator[Candidate]:
    for name, rest in _halves(scenario.faults):
        yield f"faults {name} do not happen", replace(scenario, faults=rest)


def _fewer_rules(scenario: Scenario) -> Iterator[Candidate]:
    for name, rest in _halves(scenario.rules):
        yield f"rules {name} do not hold", replace(scenario, rules=rest)


def _halves(items: tuple[T, ...]) -> Iterator[tuple[str, tuple[T, ...]]]:
    """The items without a chunk of them, the largest chunks first [ZH02 ddmin]."""
    length = len(items)
    while length:
        for start in range(0, len(items), length):
            yield f"{start} to {start + length - 1}", items[:start] + items[start + length :]
        length //= 2


def _simpler_strategies(scenario: Scenario) -> Iterator[Candidate]:
    for replica, text in scenario.corrupted.items():
        for simpler in _parts(text):
            yield (
                f"r{replica} only does {simpler}",
                replace(scenario, corrupted={**scenario.corrupted, replica: simpler}),
            )


def _parts(expression: str) -> list[str]:
    """The expression with one operand of `&` or `|` left out, in every way that leaves a strategy."""
    tree = ast.parse(expression.strip(), mode="eval").body
    return [ast.unparse(part) for part in _without_one(tree) if _is_crime(part)]


def _without_one(tree: ast.expr) -> Iterator[ast.expr]:
    if not isinstance(tree, ast.BinOp):
        return
    yield tree.left
    yield tree.right
    for left in _without_one(tree.left):
        yield ast.BinOp(left, tree.op, tree.right)
    for right in _without_one(tree.right):
        yield ast.BinOp(tree.left, tree.op, right)


def _is_crime(tree: ast.expr) -> bool:
    """True if some operand is more than a condition."""
    if isinstance(tree, ast.BinOp):
        both = (_is_crime(tree.left), _is_crime(tree.right))
        return all(both) if isinstance(tree.op, ast.BitOr) else any(both)
    name = tree.func if isinstance(tree, ast.Call) else tree
    return isinstance(name, ast.Name) and name.id not in (*GUARDS, "only")


def _less_work(scenario: Scenario) -> Iterator[Candidate]:
    workload = scenario.workload
    cuts: list[tuple[str, Workload]] = []
    for clients in {1, workload.clients // 2, workload.clients - 1}:
        if 1 <= clients < workload.clients:
            cuts.append((f"{clients} clients", replace(workload, clients=clients)))
    for operations in sorted({1, 2, workload.operations // 4, workload.operations // 2, workload.operations - 1}):
        if 1 <= operations < workload.operations:
            cuts.append((f"{operations} operations a client", replace(workload, operations=operations)))
    for name, least in (("outstanding", 1), ("keys", 1), ("query_permille", 0), ("lanes", False)):
        if getattr(workload, name) != least:
            cuts.append((f"{name} = {least}", replace(workload, **{name: least})))
    for name, cut in cuts:
        yield name, replace(scenario, workload=cut)


def _kinder_network(scenario: Scenario) -> Iterator[Candidate]:
    network = scenario.network
    kind = Network(delay_us=(500, 500))
    if network == kind:
        return
    yield "the network is benign", replace(scenario, network=kind)
    for name in ("loss_permille", "duplicate_permille", "slow_permille", "regions", "bandwidth_mbit", "slow_ms"):
        if getattr(network, name) != getattr(kind, name):
            kinder = replace(network, **{name: getattr(kind, name)})
            yield f"{name} = {getattr(kind, name)}", replace(scenario, network=kinder)
    low, high = network.delay_us
    for delay in ((500, 500), (100, 2000), (low, max(low, high // 2))):
        if delay[1] - delay[0] < high - low:
            yield f"delays of {delay[0]} to {delay[1]} us", replace(scenario, network=replace(network, delay_us=delay))


def _less_time(scenario: Scenario) -> Iterator[Candidate]:
    last = max((fault.at_ms for fault in scenario.faults), default=0)
    for gst in (0, last + 1, scenario.gst_ms // 2):
        if last <= gst < scenario.gst_ms:
            yield f"stable after {gst} ms", replace(scenario, gst_ms=gst)
    # Patience stays: with less of it the mended code would fail for want of time, and the test file with it.
    for name in scenario.protocol:
        rest = {key: value for key, value in scenario.protocol.items() if key != name}
        yield f"{name} as usual", replace(scenario, protocol=rest)


# --- what a person gets -------------------------------------------------------------------------------------------

TEST = '''"""Shrunk from run {run} ({generator}, seed {seed}, n={n}): `{checker}` fired.

{detail}

Fails on the code that broke it, passes on the mended. `bft campaign replay --scenario {name}.json`
"""

from __future__ import annotations

import msgspec

from bft.sim.campaign import run_scenario
from bft.sim.scenario import Scenario

SCENARIO = r"""
{scenario}
"""


def test_{function}() -> None:
    """The scenario keeps every property; it once broke `{checker}`."""
    result = run_scenario(msgspec.json.decode(SCENARIO, type=Scenario))
    assert result.violations == ()
    assert result.outcome == "pass"
'''


def write_out(shrunk: Shrunk, folder: Path) -> list[Path]:
    """Write the scenario, a pytest file and a sequence chart; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"shrunk_{shrunk.checker.replace('-', '_')}_{shrunk.original.id}"
    scenario = shrunk.result.scenario
    paths = [folder / f"{name}.json", folder / f"test_{name}.py", folder / f"{name}.txt"]
    write_scenario(paths[0], scenario)
    detail = next(found.detail for found in shrunk.result.violations if found.checker == shrunk.checker)
    paths[1].write_text(
        TEST.format(
            run=shrunk.original.id,
            generator=shrunk.original.generator,
            seed=shrunk.original.scenario.seed,
            n=shrunk.original.scenario.n,
            checker=shrunk.checker,
            detail=f"There: {detail.splitlines()[-1] if detail else ''}".replace("\\", "/"),
            name=name,
            scenario=msgspec.json.format(sparse_json(scenario), indent=2),
            function=name,
        )
    )
    paths[2].write_text(chart(record(scenario)))
    return paths
