"""The exactly-once table against a model of a few lines: which operations execute, in which order, and what is kept."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from bft.config import Protocol
from bft.core.clients import SessionTable
from bft.messages import Request
from bft.sim.scenario import SIMULATED

SESSIONS_MAX = 3
PROTOCOL = msgspec.convert({**SIMULATED, "sessions_max": SESSIONS_MAX, "sessions_per_client": 1}, Protocol)
CLIENTS = [bytes([letter]) * 32 for letter in b"ABCDE"]
TIME_NS = 1_000_000
Key = tuple[bytes, int, int]


@dataclass
class _Session:
    incarnation: int
    used: int
    low: int = 0
    done: set[int] = field(default_factory=set)
    held: dict[int, int] = field(default_factory=dict)


class _Model:
    """Exactly once, by the words of the specification and without regard to speed."""

    def __init__(self) -> None:
        self.sessions: dict[bytes, _Session] = {}
        self.floor = 0
        self.executed: list[Key] = []

    def batch(self, requests: list[tuple[bytes, Request]], seq: int) -> list[Key]:
        before = len(self.executed)
        for client, request in requests:
            session = self._session(client, request.session, seq)
            if session is not None:
                session.used = seq
                self._acknowledge(session, request.acknowledged)
                self._execute(client, session, [n for n, after in session.held.items() if after <= session.low])
                for place in range(len(request.operations)):
                    after = request.after[place] if request.after else 0
                    self._operation(client, session, request.number + place, after)
        return self.executed[before:]

    def _session(self, client: bytes, incarnation: int, seq: int) -> _Session | None:
        known = self.sessions.get(client)
        if known is not None and known.incarnation == incarnation:
            return known
        if incarnation <= self.floor or (known is not None and incarnation < known.incarnation):
            return None
        if known is None and len(self.sessions) == SESSIONS_MAX:
            oldest = min(self.sessions, key=lambda name: (self.sessions[name].used, name))
            self.floor = max(self.floor, self.sessions.pop(oldest).incarnation)
        self.sessions[client] = _Session(incarnation, seq)
        return self.sessions[client]

    @staticmethod
    def _acknowledge(session: _Session, acknowledged: int) -> None:
        session.low = max(session.low, acknowledged - 1)
        session.done = {number for number in session.done if number > session.low}
        session.held = {number: after for number, after in session.held.items() if number > session.low}

    def _operation(self, client: bytes, session: _Session, number: int, after: int) -> None:
        if number <= session.low or number in session.done or number in session.held:
            return
        if after > session.low and after not in session.done:
            session.held[number] = after
        else:
            self._execute(client, session, [number])

    def _execute(self, client: bytes, session: _Session, ready: list[int]) -> None:
        """Execute what waits for nobody, then what waited for that, in order of number."""
        queue = sorted(ready)
        while queue:
            current = queue.pop(0)
            session.held.pop(current, None)
            session.done.add(current)
            self.executed.append((client, session.incarnation, current))
            queue += sorted(waiting for waiting, before in session.held.items() if before == current)


@st.composite
def envelopes(draw: st.DrawFn) -> tuple[bytes, Request]:
    """An envelope that passes the static checks: small numbers, so that they collide."""
    client = draw(st.sampled_from(CLIENTS))
    number = draw(st.integers(1, 6))
    count = draw(st.integers(1, 3))
    acknowledged = draw(st.integers(1, number))
    after: tuple[int, ...] = ()
    if draw(st.booleans()):
        after = tuple(draw(st.integers(0, number + place - 1)) for place in range(count))
    operations = tuple(b"op%d" % (number + place) for place in range(count))
    return client, Request(draw(st.integers(1, 3)), number, acknowledged, operations, after)


BATCHES = st.lists(st.lists(envelopes(), min_size=1, max_size=4), max_size=10)


def _run(table: SessionTable, batches: list[list[tuple[bytes, Request]]], first: int = 1) -> list[list[Key]]:
    executed = []
    for seq, requests in enumerate(batches, start=first):
        calls = table.select(tuple(requests), seq, TIME_NS)
        assert [call.index for call in calls] == list(range(len(calls))), "places in the slot count from 0"
        assert all(call.operation == b"op%d" % call.number for call in calls)
        table.record(seq, calls, [(0, b"")] * len(calls), [])
        executed.append([(call.client, call.session, call.number) for call in calls])
    return executed


@given(BATCHES)
@settings(max_examples=150)
def test_table_executes_what_the_model_executes(batches: list[list[tuple[bytes, Request]]]) -> None:
    """The same operations in the same order, slot by slot; no operation of one incarnation twice."""
    model = _Model()
    expected = [model.batch(requests, seq) for seq, requests in enumerate(batches, start=1)]
    table = SessionTable(PROTOCOL)
    assert _run(table, batches) == expected
    assert len(table) == len(model.sessions) <= SESSIONS_MAX
    assert len(model.executed) == len(set(model.executed))


@given(BATCHES, BATCHES)
@settings(max_examples=80)
def test_restored_table_goes_on_like_the_original(
    before: list[list[tuple[bytes, Request]]], after: list[list[tuple[bytes, Request]]]
) -> None:
    """A replica that fetched the state executes the same as one that lived through it, and checkpoints the same."""
    original = SessionTable(PROTOCOL)
    pages: dict[bytes, bytes] = {}
    for step in range(len(before)):
        _run(original, before[step : step + 1], first=step + 1)
        digests, fresh = original.checkpoint()
        pages |= fresh
    digests, fresh = original.checkpoint()
    pages |= fresh
    restored = SessionTable(PROTOCOL)
    restored.restore([pages[digest] for digest in digests])
    first = len(before) + 1
    assert _run(restored, after, first) == _run(original, after, first)
    assert restored.checkpoint()[0] == original.checkpoint()[0]
