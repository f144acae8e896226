"""Campaigns: many runs of many scenarios over several processes, each judged by every checker.

What a run is lies in its scenario, so a job is only a generator's name and a seed: cheap to hand to a process. Results
come back in whatever order they end; nothing of them depends on it.
"""

from __future__ import annotations

import signal
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from itertools import islice
from multiprocessing import get_context
from types import FrameType

import msgspec

from bft.adversary.parse import parse
from bft.errors import ConfigError
from bft.sim import generate
from bft.sim.checkers import check, decided
from bft.sim.generate_changes import reconfigured
from bft.sim.history import History
from bft.sim.results import Found, Outcome, Result
from bft.sim.scenario import Scenario
from bft.sim.service import Registers
from bft.sim.world import World

CHUNK = 8
"""Jobs handed to a process at once: a run takes some tens of milliseconds."""
RUN_SECONDS_MAX = 30.0
"""A run that takes more processor time is ended and counts as broken by "simulator": one runaway (two strategies that
answer each other without end) must not hold up a campaign."""
AHEAD = 3
"""Chunks in flight per process: bounds what a stop on the first violation throws away."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One run to do.

    Attributes:
        generator: `uniform`, `reconfigured`, `structured` or `directed` (`generators`).
        seed: names the scenario; for `directed` it is the index in the list.
        crimes: what corrupted replicas do instead of what the generator would choose; not `structured`.
    """

    generator: str
    seed: int
    n: int
    crimes: tuple[str, ...] = ()


def _uniform(job: Job) -> tuple[str, Scenario]:
    if job.crimes:
        return "", generate.scenario(job.seed, job.n, tuple(f"({crime})" for crime in job.crimes))
    return "", generate.scenario(job.seed, job.n)


def _structured(job: Job) -> tuple[str, Scenario]:
    make: Callable[[int, int], Scenario] = vars(generate)["structured"]
    return "", make(job.seed, job.n)


def _reconfigured(job: Job) -> tuple[str, Scenario]:
    return "", reconfigured(job.seed, job.n, tuple(f"({crime})" for crime in job.crimes) or generate.CRIMES)


def _directed(job: Job) -> tuple[str, Scenario]:
    name = list(directed_scenarios())[job.seed]
    return name, directed_scenarios()[name]


@cache
def directed_scenarios() -> dict[str, Scenario]:
    """The catalogue's fixed schedules by name; empty if the generator has none."""
    make: Callable[[], object] | None = vars(generate).get("directed")
    if make is None:
        return {}
    made = make()
    if isinstance(made, dict):
        return {str(name): scenario for name, scenario in made.items()}
    assert isinstance(made, Iterable), "directed() gives scenarios"
    return {f"directed-{index}": scenario for index, scenario in enumerate(made)}


def generators() -> dict[str, Callable[[Job], tuple[str, Scenario]]]:
    """Where scenarios come from: name -> job -> (label, scenario)."""
    known: dict[str, Callable[[Job], tuple[str, Scenario]]] = {"uniform": _uniform, "reconfigured": _reconfigured}
    if "structured" in vars(generate):
        known["structured"] = _structured
    if "directed" in vars(generate):
        known["directed"] = _directed
    return known


def jobs(
    names: Iterable[str], *, first: int, seeds: int, sizes: Iterable[int], crimes: tuple[str, ...] = ()
) -> list[Job]:
    """Every seed with every size and generator, so that a stop in the middle has seen a bit of everything.

    Raises:
        ConfigError: no such generator, or a crime that is no strategy.
    """
    for crime in crimes:
        parse(crime)
    listed = list(dict.fromkeys(names))
    for name in listed:
        if name not in generators():
            raise ConfigError(f"no generator {name!r}; there are {', '.join(generators())}")
    made = []
    if "directed" in listed:
        listed.remove("directed")
        made = [
            Job(generator="directed", seed=index, n=scenario.n)
            for index, scenario in enumerate(directed_scenarios().values())
        ]
    for seed in range(first, first + seeds):
        made += [
            Job(generator=name, seed=seed, n=n, crimes=crimes if name in ("uniform", "reconfigured") else ())
            for name in listed
            for n in sizes
        ]
    return made


def run_scenario(scenario: Scenario, *, generator: str = "file", label: str = "", code: str = "") -> Result:
    """Run one scenario and judge it."""
    began = time.perf_counter()
    history = World(scenario, Registers).run()
    violations = tuple(Found(found.checker, found.detail) for found in check(history))
    outcome: Outcome = "violation" if violations else "pass" if decided(history) else "inconclusive"
    return Result(
        generator=generator,
        label=label,
        scenario=scenario,
        outcome=outcome,
        violations=violations,
        counters=counters(history),
        digest=history.trace_digest,
        milliseconds=(time.perf_counter() - began) * 1000,
        code=code,
    )


def counters(history: History) -> dict[str, int]:
    """What happened in a run: a campaign in which one of these stays zero has not tested what it claims."""
    operations = [operation for operation in history.operations if operation.completed is not None]
    views = [view for final in history.final.values() if isinstance(view := final.get("view"), int)]
    return {
        "delivered": history.delivered,
        "slots": len({execution.effect.seq for execution in history.executions}),
        "nulls": len({item.effect.seq for item in history.executions if not item.effect.calls}),
        "completed": sum(not operation.is_query for operation in operations),
        "fast_reads": sum(operation.is_query for operation in operations),
        "views": max(views, default=0),
        "new_views": history.transitions.get("new-view", 0),
        "suspects": history.transitions.get("suspect", 0),
        "checkpoints": history.transitions.get("stable", 0),
        "transfers": history.transitions.get("transfer-installed", 0),
        "epochs": history.newest.epoch if history.newest is not None else 0,
        "crimes": history.crimes,
        "accusations": len(history.accusations),
        "rejections": sum(history.rejections.values()),
        "halted": len(history.halted),
        "milliseconds_virtual": max(0, history.end - history.gst) // 1_000_000,
    }


def run_jobs(chunk: list[Job], code: str) -> list[Result]:
    """Run some jobs in this process."""
    return [_run_job(job, code) for job in chunk]


def _run_job(job: Job, code: str) -> Result:
    label, scenario = generators()[job.generator](job)
    return judge(scenario, generator=job.generator, label=label, code=code)


def judge(scenario: Scenario, *, generator: str = "file", label: str = "", code: str = "") -> Result:
    """Run one scenario as `run_scenario` does, within bounds: whatever is raised is a violation of "simulator"."""
    try:
        with _patience(RUN_SECONDS_MAX):
            return run_scenario(scenario, generator=generator, label=label, code=code)
    # The edge of a worker: a strategy, checker or simulator that raises must cost its own run, not a night's campaign;
    # the run is a violation and keeps the campaign from passing.
    except Exception:
        return Result(
            generator=generator,
            label=label,
            scenario=scenario,
            outcome="violation",
            violations=(Found("simulator", traceback.format_exc(limit=-4)),),
            counters={},
            digest="",
            milliseconds=0.0,
            code=code,
        )


@contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """Interrupt what takes longer than it may, where the platform and the thread allow an alarm.

    Raises:
        TimeoutError: inside the block, when the time is over.
    """
    if not hasattr(signal, "ITIMER_VIRTUAL") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def expire(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"the run took more than {seconds:.0f} s of processor time")

    before = signal.signal(signal.SIGVTALRM, expire)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def run_campaign(work: list[Job], *, workers: int, code: str = "") -> Generator[list[Result], None, None]:
    """Run all jobs; yields results as they come in. Closing the generator stops the rest.

    Args:
        workers: processes; with 1 everything runs in this one.
    """
    chunks = iter([work[start : start + CHUNK] for start in range(0, len(work), CHUNK)])
    if workers == 1:
        for chunk in chunks:
            yield run_jobs(chunk, code)
        return
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    try:
        pending: set[Future[list[Result]]] = set()
        while True:
            pending |= {pool.submit(run_jobs, chunk, code) for chunk in islice(chunks, workers * AHEAD - len(pending))}
            if not pending:
                return
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
