"""The life of a campaign: run, store, list, replay, report, shrink, and the two exhaustive searches."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import msgspec
import pytest
from click.testing import CliRunner, Result

from bft.adversary.strategy import Context, Strategy
from bft.cli.campaign import campaign
from bft.ids import Peer
from bft.membership import Quorums
from bft.messages import Packet
from bft.sim import shrink as shrinking
from bft.sim.campaign import jobs, run_campaign, run_jobs, run_scenario
from bft.sim.explore import Explorer
from bft.sim.report import page
from bft.sim.results import Result as Run
from bft.sim.results import Results, read_scenario
from bft.sim.scenario import Fault, Network, Scenario, Workload
from bft.sim.trace import record
from bft.sim.twins_search import partitions, schedules, search

CHROMIUM = shutil.which("chromium")
FAILING = Scenario(
    seed=3,
    n=7,
    network=Network(delay_us=(100, 5000), duplicate_permille=50),
    corrupted={"0": 'equivocate() & during(view=0) & to("replicas")', "1": "silent()"},
    faults=(
        Fault(at_ms=100, kind="partition", groups=((0, 1, 2), (3, 4, 5, 6))),
        Fault(at_ms=200, kind="heal"),
        Fault(at_ms=250, kind="crash", replica=5),
    ),
    gst_ms=500,
    patience_ms=3000,
    workload=Workload(clients=2, operations=10),
)
"""Breaks agreement once quorums are too small."""

replaces_quorums = pytest.mark.interpreted("it replaces a method of Quorums")
explores = pytest.mark.interpreted("the explorer pickles replicas")


@pytest.fixture
def broken_quorums() -> Iterator[None]:
    """A protocol that takes f + 1 for a quorum, everywhere, so that no validator disagrees (mutant M01)."""
    sound = vars(Quorums)["among"]

    def among(cls: type[Quorums], members: Iterable[int]) -> Quorums:
        ascending = tuple(sorted(members))
        n = len(ascending)
        f = (n - 1) // 3
        return cls(n, f, f + 1, f + 1, ascending, frozenset(ascending))

    Quorums.among = classmethod(among)  # type: ignore[assignment, method-assign]
    yield
    Quorums.among = sound  # type: ignore[method-assign]


def invoke(*arguments: object) -> Result:
    """Run `bft campaign` with these arguments."""
    return CliRunner().invoke(campaign, [str(argument) for argument in arguments])


# --- run, list, replay --------------------------------------------------------------------------------------------


def test_run_stores_what_replay_repeats(tmp_path: Path) -> None:
    """Results land in the database with everything needed to repeat them to the message."""
    database = tmp_path / "campaign.db"
    ran = invoke("run", "--seeds", 3, "--n", 4, "--jobs", 1, "--crime", "silent()", "--db", database, "--json")
    assert ran.exit_code == 0, ran.output
    summary = json.loads(ran.stdout)
    assert summary["outcomes"] == {"pass": 3, "violation": 0, "inconclusive": 0}
    assert summary["totals"]["delivered"] > 100
    with Results(database) as results:
        stored = results.get(2)
    assert stored.generator == "uniform"
    assert stored.code
    again = invoke("replay", 2, "--db", database)
    assert again.exit_code == 0, again.output
    assert "the same digest as before" in again.output
    assert "silent" in invoke("list", "--db", database, "--json").output


def test_run_in_two_processes_gives_the_results_of_one() -> None:
    """Results do not depend on how many processes share the work."""
    work = jobs(("uniform",), first=0, seeds=9, sizes=(4,))
    alone, shared = (
        {run.scenario.seed: run.digest for chunk in run_campaign(work, workers=workers) for run in chunk}
        for workers in (1, 2)
    )
    assert alone == shared
    assert len(alone) == 9


def test_replay_says_that_the_simulator_is_broken_when_digests_differ(tmp_path: Path) -> None:
    """With equal code another digest can only mean a simulator that draws chance from elsewhere."""
    database = tmp_path / "campaign.db"
    invoke("run", "--seeds", 1, "--n", 4, "--jobs", 1, "--generator", "uniform", "--db", database)
    with Results(database) as results:
        forged = msgspec.structs.replace(results.get(1), digest="00" * 16)
        (number,) = results.add([forged])
    told = invoke("replay", number, "--db", database)
    assert told.exit_code == 4
    assert "the simulator is broken" in told.output


def test_run_that_never_orders_anything_is_inconclusive(tmp_path: Path) -> None:
    """Reads alone break nothing and decide nothing: no pass, and exit code 3."""
    reads = Scenario(seed=1, workload=Workload(clients=1, operations=3, query_permille=1000), gst_ms=0)
    path = tmp_path / "reads.json"
    path.write_bytes(msgspec.json.encode(reads))
    assert run_scenario(reads).outcome == "inconclusive"
    told = invoke("replay", "--scenario", path, "--chart")
    assert told.exit_code == 3, told.output
    assert "QueryReply" not in told.output, "charts leave heartbeats and reads out"
    assert "client" in told.output or "GST" in told.output


@pytest.mark.usefixtures("broken_quorums")
@replaces_quorums
def test_run_stops_on_the_first_violation_if_asked(tmp_path: Path) -> None:
    """Exit code 1, and the rest of the seeds is not run."""
    arguments = ("--seeds", 200, "--n", 4, "--jobs", 1, "--crime", "equivocate()", "--stop-on-first", "--json")
    ran = invoke("run", *arguments, "--db", tmp_path / "campaign.db")
    assert ran.exit_code == 1, ran.output
    summary = json.loads(ran.stdout)
    assert summary["outcomes"]["violation"] >= 1
    assert summary["runs"] < 200


def test_cluster_that_is_cut_apart_does_not_pass(tmp_path: Path) -> None:
    """With every replica cut off until the end of patience nothing is decided, and nobody is served."""
    cut = Scenario(
        seed=1,
        faults=(Fault(at_ms=0, kind="partition", groups=((0,), (1,), (2,), (3,))),),
        gst_ms=60_000,
        patience_ms=1,
        workload=Workload(clients=1, operations=1, query_permille=0),
    )
    run = run_scenario(cut)
    assert run.counters["slots"] == 0
    assert run.outcome != "pass"
    path = tmp_path / "cut.json"
    path.write_bytes(msgspec.json.encode(cut))
    assert invoke("replay", "--scenario", path).exit_code in (1, 3)


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--crime", "nonsense()", "--seeds", 1),
        ("run", "--crime", 'to("odd")', "--seeds", 1),
        ("run", "--generator", "other", "--seeds", 1),
        ("run", "--n", 3),
        ("replay",),
        ("replay", 77),
        ("shrink", 77),
        ("report",),
    ],
)
def test_usage_errors_have_exit_code_2(tmp_path: Path, arguments: tuple[object, ...]) -> None:
    """What a user did wrong is told in words, with exit code 2."""
    told = invoke(*arguments, "--db", tmp_path / "campaign.db")
    assert told.exit_code == 2, told.output
    assert "Error" in told.output


def crime_that_raises() -> Strategy:
    """A user's strategy with a bug."""

    class Buggy(Strategy):
        def outgoing(self, context: Context, target: Peer, packet: Packet) -> Iterable[tuple[Peer, Packet]]:
            raise ZeroDivisionError("a bug in a user's strategy")

    return Buggy()


def test_a_run_that_raises_costs_only_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """A strategy that raises makes its own runs violations of `simulator`; the campaign goes on."""
    module = ModuleType("user_crimes")
    module.crime = crime_that_raises  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "user_crimes", module)
    work = jobs(("uniform",), first=0, seeds=8, sizes=(4,), crimes=('use("user_crimes:crime")',))
    done = run_jobs(work, "")
    assert {run.outcome for run in done} == {"pass", "violation"}
    assert all(run.checkers == ["simulator"] for run in done if run.violations)
    assert "ZeroDivisionError" in next(run.violations[0].detail for run in done if run.violations)
    assert page([msgspec.structs.replace(run, id=index) for index, run in enumerate(done)])


# --- broken code: violation, report, shrinking --------------------------------------------------------------------


def _failing_run() -> Run:
    run = run_scenario(FAILING, generator="uniform")
    assert "agreement" in run.checkers
    return msgspec.structs.replace(run, id=7)


@pytest.mark.usefixtures("broken_quorums")
@replaces_quorums
def test_shrinking_gives_a_scenario_that_a_person_can_follow(tmp_path: Path) -> None:
    """Of two traitors, four faults and twenty operations, one equivocating primary and one request are left."""
    shrunk = shrinking.shrink(_failing_run())
    small = shrunk.result.scenario
    assert shrunk.checker == "agreement"
    assert "agreement" in shrunk.result.checkers
    assert (small.n, list(small.corrupted.values()), small.faults) == (4, ["equivocate()"], ())
    assert small.workload.clients * small.workload.operations == 1
    assert shrinking.size(small) < shrinking.size(FAILING) / 4
    scenario, test, chart = shrinking.write_out(shrunk, tmp_path)
    assert read_scenario(scenario) == small
    assert "LIE" in chart.read_text()
    assert max(map(len, test.read_text().splitlines())) <= 120


@replaces_quorums
def test_shrunk_pytest_file_fails_on_broken_code_and_passes_on_mended(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The file written for a bug is a regression test: red before the mend, green after it."""
    sound = vars(Quorums)["among"]
    request.getfixturevalue("broken_quorums")
    path = shrinking.write_out(shrinking.shrink(_failing_run()), tmp_path)[1]
    namespace: dict[str, object] = {}
    exec(compile(path.read_text(), str(path), "exec"), namespace)
    test = next(value for name, value in namespace.items() if name.startswith("test_"))
    assert callable(test)
    with pytest.raises(AssertionError):
        test()
    Quorums.among = sound  # type: ignore[method-assign]
    test()


@pytest.mark.usefixtures("broken_quorums")
@replaces_quorums
def test_shrink_command_writes_files(tmp_path: Path) -> None:
    """`bft campaign shrink ID` leaves three files and stores the small run."""
    database = tmp_path / "campaign.db"
    with Results(database) as results:
        (number,) = results.add([_failing_run()])
    told = invoke("shrink", number, "--db", database, "--out", tmp_path / "out")
    assert told.exit_code == 0, told.output
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".json", ".py", ".txt"]
    with Results(database) as results:
        assert results.get(number + 1).generator == "shrunk"


class _Page(HTMLParser):
    """Collects what the page is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.links += [value for name, value in attributes.items() if name in ("src", "href") and value]
        self.ids += [value for name, value in attributes.items() if name == "id" and value]
        if tag not in ("meta", "br", "input", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"


@pytest.fixture
def report_page(tmp_path: Path, broken_quorums: None) -> Path:
    """A report with a failure and a passing run."""
    calm = run_scenario(Scenario(seed=5, workload=Workload(clients=1, operations=3)), generator="uniform")
    database = tmp_path / "campaign.db"
    with Results(database) as results:
        results.add([calm, _failing_run()])
    told = invoke("report", "--db", database, "--out", tmp_path / "report.html", "--include", 1)
    assert told.exit_code == 0, told.output
    return tmp_path / "report.html"


@replaces_quorums
def test_report_is_one_well_formed_page_without_external_assets(report_page: Path) -> None:
    """Nothing is fetched; tables, coverage and the data of both diagrams are there; its size is bounded."""
    html = report_page.read_text(encoding="utf-8")
    parser = _Page()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    assert all(link.startswith("#") for link in parser.links)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", html)
    assert "1 of 2 runs broke a property" in html
    assert "equivocate" in html
    match = re.search(r'id="data">(.*?)</script>', html, re.DOTALL)
    assert match is not None
    failed, passed = sorted(json.loads(match.group(1)), key=lambda one: one["focus"], reverse=True)
    assert failed["violations"]
    assert not passed["violations"]
    assert any(hop[6] for hop in failed["hops"]), "lies are marked"
    assert any(mark[2] == "crash" for mark in failed["marks"])
    assert all(len(one["hops"]) <= 1200 for one in (failed, passed))
    assert len(html) < 3_000_000


@replaces_quorums
def test_report_draws_itself_in_a_browser(report_page: Path) -> None:
    """Headless Chromium builds the diagram: lanes, messages, panel; without it the script is there to read."""
    if CHROMIUM is None:
        assert "class Diagram" in report_page.read_text(encoding="utf-8")
        return
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=4000", "--window-size=1500,5000"]
    profile = f"--user-data-dir={report_page.parent / 'profile'}"
    done = subprocess.run(
        [CHROMIUM, *flags, "--dump-dom", profile, report_page.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert 'data-drawn="2"' in done.stdout, "the script ran to its end"
    assert done.stdout.count('class="hop') > 50
    assert 'class="hop lie"' in done.stdout
    assert 'class="halo"' in done.stdout
    assert 'class="event"' in done.stdout
    assert done.stdout.count('class="panel"') >= 1
    assert "here the property is broken" in done.stdout


STEPPING = """<script>setTimeout(() => {
  const one = diagrams[0], log = [], note = () => log.push(one.step + 1);
  const press = (key, shiftKey) => one.scroll.dispatchEvent(new KeyboardEvent("keydown", { key, shiftKey }));
  note(); press("Home"); note(); one.root.querySelector(".forward").click(); note(); press("ArrowRight", true); note();
  one.root.querySelector(".back").click(); note(); press("End"); note();
  one.root.querySelector("g.message").dispatchEvent(new MouseEvent("mousemove", { clientX: 5, clientY: 5 }));
  document.body.dataset.log = log.join() + " " + tip.style.display;
}, 300)</script></body>"""


@replaces_quorums
def test_report_steps_forward_and_back_in_a_browser(report_page: Path) -> None:
    """Buttons and keys move the present step; hovering a message shows its content."""
    if CHROMIUM is None:
        assert "ArrowRight" in report_page.read_text(encoding="utf-8")
        return
    path = report_page.with_name("stepping.html")
    path.write_text(report_page.read_text(encoding="utf-8").replace("</body>", STEPPING), encoding="utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=4000", "--dump-dom"]
    command += [f"--user-data-dir={path.parent / 'profile'}", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    match = re.search(r'data-log="([\d,]+) block"', done.stdout)
    assert match is not None
    _, first, second, third, fourth, last = map(int, match.group(1).split(","))
    assert first == 1
    assert first < second < fourth < third < last


def test_page_bounds_its_diagrams() -> None:
    """A long run loses heartbeats first, and says what it left out."""
    long = run_scenario(Scenario(seed=2, workload=Workload(clients=3, operations=120)), generator="uniform")
    html = page([msgspec.structs.replace(long, id=1)], include=[msgspec.structs.replace(long, id=1)])
    match = re.search(r'id="data">(.*?)</script>', html, re.DOTALL)
    assert match is not None
    (drawn,) = json.loads(match.group(1))
    assert len(drawn["hops"]) == 1200
    assert drawn["dropped"] == len(record(long.scenario).hops) - 1200


# --- exhaustive searches ------------------------------------------------------------------------------------------


@explores
def test_exploration_visits_every_state_up_to_a_depth() -> None:
    """The number of states that real replicas reach by any eleven arrivals, and what was seen on the way."""
    found = Explorer().run(depth_max=11)
    assert found.violations == []
    assert not found.complete
    assert found.states > 25_000
    assert found.sometimes["a slot commits"] > 0


@explores
def test_exploration_with_an_equivocating_primary_keeps_agreement() -> None:
    """Both proposals get votes, a slot commits, and no two replicas execute different batches."""
    found = Explorer(byzantine=True).run(states_max=30_000)
    assert found.violations == []
    assert found.sometimes["two proposals get votes"] > 0
    assert found.sometimes["a slot commits"] > 0


@pytest.mark.usefixtures("broken_quorums")
@explores
def test_exploration_finds_the_shortest_way_to_a_fork() -> None:
    """With quorums of f + 1 a few arrivals suffice, and they are told."""
    found = Explorer(byzantine=True).run()
    assert len(found.violations) == 1
    assert found.violations[0].startswith("agreement")
    assert 2 <= found.violations[0].count("->") <= 6


@explores
def test_explore_and_twins_commands(tmp_path: Path) -> None:
    """Both commands end with 0 when nothing breaks, and give figures."""
    explored = invoke("explore", "--states", 2000, "--json")
    assert explored.exit_code == 0, explored.output
    assert json.loads(explored.stdout)["states"] == 2000
    twins = invoke("twins", "--rounds", 2, "--limit", 5)
    assert twins.exit_code == 0, twins.output
    assert "5 schedules" in twins.output
    assert invoke("speed", "--seeds", 1).exit_code == 0


def test_twins_schedules_are_counted_once_per_symmetry() -> None:
    """Two groups of five instances: 1 + 15 partitions; exchanging the twins gives no new schedule."""
    assert len(list(partitions(5))) == 16
    assert len(list(schedules(4, 1, 0))) == 12
    assert len(list(schedules(4, 2, 0))) == 160


def test_twins_of_two_rounds_break_nothing_and_prove_equivocation() -> None:
    """All 160 schedules: agreement holds, everything is done after healing, equivocation leaves evidence."""
    found = search(rounds=2)
    assert found.violations == []
    assert found.stuck == []
    assert found.schedules == 160
    assert all(found.sometimes.values())


@pytest.mark.usefixtures("broken_quorums")
@replaces_quorums
def test_twins_break_small_quorums() -> None:
    """The enumeration sees a fork at once when two quorums need not share a correct replica."""
    found = search(rounds=1)
    assert any(violation.checker == "agreement" for _, violation in found.violations)


def test_module_is_a_command() -> None:
    """The group runs as a program of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "bft.cli.campaign", "--help"], capture_output=True, text=True, timeout=30, check=True
    )
    for name in ("run", "replay", "list", "report", "shrink", "explore", "twins", "speed"):
        assert f"  {name}" in done.stdout
