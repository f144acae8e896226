"""Fight a battle between processes: one process a general, TCP on localhost between them, deadlines as
rounds.

The parent deals out *posts* (who you are, the plan, your crime if any, the keys that you may hold), learns
the ports, and names the time at which round 1 starts; from there on the processes are alone. Round r lasts
from `start + (r - 1) * round_ms` to `start + r * round_ms`; a message that comes after the deadline of its
round is absent [LSP82 3, A3].

Who sent a message (A2) is settled by a token shared by each pair of generals, dealt with the posts and shown
once a connection. A loyal general's process holds his own key only, a traitor's the keys of all traitors.

Deviations from `run`: traitors do not wait for the loyal (they are not rushing), each traitor's process has
its own board and its own dice seeded by its number, and the clock is the machine's, shared by all processes.

The chronicle is put together from what each process reports; a message sent but not received in time is noted
as absent.
"""

from __future__ import annotations

import math
import random
import secrets
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from subprocess import PIPE

import msgspec
import trio

from bft.cli.generals_camp import MILLISECOND_NS, Diary, Listening, Post, Start, crime_of
from bft.crypto.generals_keys import battle_seeds, public_keys
from bft.generals.algorithms import Algorithm, require_feasible
from bft.generals.ids import GeneralId, GeneralsError
from bft.generals.plan import Plan
from bft.generals.run import Flight, Outcome, conclude
from bft.generals.scripts import Lie, scripted

START_DELAY_MS = 400  # for everybody to connect before round 1
PATIENCE_S = 30.0  # for processes to come up, and to report after the last round
PROCESSES_MAX = 16


class _Lines:
    """Read a child's reports line by line."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.held = b""

    async def line(self) -> bytes:
        assert self.process.stdout is not None, "the child was started with a pipe"
        while b"\n" not in self.held:
            some = await self.process.stdout.receive_some()
            if not some:
                raise GeneralsError(f"general's process {self.process.pid} ended without a report")
            self.held += some
        found, _, self.held = self.held.partition(b"\n")
        return found


def make_posts(
    algorithm: Algorithm,
    plan: Plan,
    traitors: Mapping[GeneralId, str | Sequence[Lie]],
    *,
    seed: int,
    round_ms: int,
) -> list[Post]:
    """Deal out the posts: to a loyal general his own key, to each traitor the keys of all traitors."""
    seeds = battle_seeds(random.Random(seed).randbytes(32), plan.n)
    public = public_keys(seeds)
    tokens = {(a, b): secrets.token_bytes(16) for a in plan.generals for b in plan.generals if a < b}
    members = tuple(sorted(traitors))
    posts: list[Post] = []
    for me in plan.generals:
        crime = traitors.get(me)
        held = members if me in traitors else (me,)
        posts.append(
            Post(
                me=me,
                n=plan.n,
                m=plan.m,
                order=plan.order,
                orders=plan.orders,
                graph=None if plan.graph is None else plan.graph.name,
                hops=plan.hops,
                instance=plan.instance,
                algorithm=algorithm.name,
                crime=crime if isinstance(crime, str) else None,
                lies=() if crime is None or isinstance(crime, str) else tuple(crime),
                traitors=members if me in traitors else (),
                seeds={general: seeds[general] for general in held},
                public=public,
                tokens={peer: tokens[min(me, peer), max(me, peer)] for peer in plan.others(me)},
                round_ms=round_ms,
                seed=seed,
            )
        )
    return posts


async def _command(posts: Sequence[Post], rounds: int) -> list[Diary]:
    """Start the processes, give the signal, collect the diaries; no process outlives this call."""
    processes: list[trio.Process] = []
    try:
        for _ in posts:
            command = [sys.executable, "-m", "bft.cli.generals_camp"]
            processes.append(await trio.lowlevel.open_process(command, stdin=PIPE, stdout=PIPE))
        lines = [_Lines(process) for process in processes]
        with trio.fail_after(PATIENCE_S):
            for process, post in zip(processes, posts, strict=True):
                await _tell(process, post)
            ports = {
                post.me: msgspec.json.decode(await line.line(), type=Listening).port
                for line, post in zip(lines, posts, strict=True)
            }
            start = Start(ports, time.time_ns() + START_DELAY_MS * MILLISECOND_NS)
            for process in processes:
                await _tell(process, start)
        with trio.fail_after(PATIENCE_S + math.ceil(rounds * posts[0].round_ms / 1000)):
            return [msgspec.json.decode(await line.line(), type=Diary) for line in lines]
    finally:
        with trio.CancelScope(shield=True):
            for process in processes:
                if process.poll() is None:
                    process.kill()
                await process.wait()
                for pipe in (process.stdin, process.stdout):
                    if pipe is not None:
                        await pipe.aclose()


async def _tell(process: trio.Process, order: Post | Start) -> None:
    assert process.stdin is not None, "the child was started with a pipe"
    await process.stdin.send_all(msgspec.json.encode(order) + b"\n")


def fight_over_sockets(
    algorithm: Algorithm,
    plan: Plan,
    traitors: Mapping[GeneralId, str | Sequence[Lie]],
    *,
    seed: int,
    round_ms: int,
) -> tuple[Outcome, int]:
    """Fight one battle between processes; return the outcome and how many messages were late or lost.

    Raises:
        GeneralsError: too many generals, or a process did not come up or report in time.
    """
    require_feasible(algorithm, plan)
    if plan.n > PROCESSES_MAX:
        raise GeneralsError(f"n = {plan.n} processes, expected {PROCESSES_MAX} at most")
    posts = make_posts(algorithm, plan, traitors, seed=seed, round_ms=round_ms)
    try:
        diaries = trio.run(_command, posts, algorithm.rounds(plan))
    except trio.TooSlowError as error:
        raise GeneralsError(f"a general's process did not report within {PATIENCE_S:.0f} s") from error
    except (OSError, trio.BrokenResourceError) as error:
        raise GeneralsError(f"a general's process could not be reached: {error}") from error
    return _chronicle(algorithm, plan, traitors, diaries), sum(diary.late for diary in diaries)


def _chronicle(
    algorithm: Algorithm,
    plan: Plan,
    traitors: Mapping[GeneralId, str | Sequence[Lie]],
    diaries: Sequence[Diary],
) -> Outcome:
    """Put what senders and receivers report together."""
    received = {(f.round, f.sender, f.receiver, f.message): f for diary in diaries for f in diary.received}
    flights: list[Flight] = []
    for flight in (flight for diary in diaries for flight in diary.sent):
        arrived = received.get((flight.round, flight.sender, flight.receiver, flight.message))
        fault = None if arrived is None else arrived.fault
        flights.append(replace(flight, sent=flight.sent and arrived is not None, fault=fault))
    crimes = {
        general: crime_of(crime, (), plan) if isinstance(crime, str) else scripted(crime)
        for general, crime in sorted(traitors.items())
    }
    decisions = {
        GeneralId(general): diary.decision
        for general, diary in enumerate(diaries)
        if diary.decision is not None
    }
    return conclude(algorithm, plan, {g: c for g, c in crimes.items() if c is not None}, flights, decisions)
