"""Every way to be non-deterministic is caught at the operation that shows it, and nothing else is."""

from __future__ import annotations

import signal
import subprocess
from typing import Any

import pytest

from bft.determinism.pair import QUERY_WRITES, CheckedMachine, ServiceStopped
from bft.errors import ConfigError, NonDeterminism
from bft.events import OperationCall
from bft.services.interface import interface_of
from bft.state.context import Context
from tests.unit.determinism import culprits

MODULE = culprits.__name__
CALLS: dict[str, tuple[str, tuple[object, ...], str]] = {
    "SetOrder": ("members", ("x",), "result["),
    "DictFromSet": ("keys", ("x",), "result"),
    "NumberedFromSet": ("number", ("x",), "numbers["),
    "WallClock": ("stamp", ("x",), "stamps['x']"),
    "ImportedClock": ("stamp", (), "result"),
    "Calendar": ("today", (), "result"),
    "LocalZone": ("show", (), "result"),
    "Dice": ("draw", ("x",), "drawn['x']"),
    "SystemDice": ("draw", (), "attribute token"),
    "Address": ("address", (), "result"),
    "CachedAddress": ("find", ("x",), "result"),
    "Events": ("tell", (), "event 0"),
}


def run(machine: CheckedMachine, name: str, *operations: tuple[object, ...]) -> list[tuple[int, bytes]]:
    """Execute operations as one slot."""
    methods = interface_of(getattr(culprits, name)).methods
    calls = [
        OperationCall(bytes(32), 1, number, number, methods[str(method)].encode(arguments, {}))
        for number, (method, *arguments) in enumerate(operations, 1)
    ]
    context = Context()
    context.seq, context.time_ns = 1, 1_700_000_000_000_000_000
    return machine.execute_slot(calls, context)


@pytest.mark.parametrize("name", CALLS)
def test_culprit_is_caught_at_its_first_operation(name):
    """The report names the operation, its arguments, the place, and what stands there in either run."""
    method, arguments, path = CALLS[name]
    with CheckedMachine(f"{MODULE}:{name}") as machine, pytest.raises(NonDeterminism) as caught:
        run(machine, name, (method, *arguments))
    found = caught.value
    assert (found.operation, found.number) == (method, 1)
    assert found.arguments == ", ".join(map(repr, arguments))
    assert found.path.startswith(path), found
    assert found.first != found.second


def test_sum_of_floats_is_caught_when_the_order_matters():
    """Addition of floats in the order of a set: the first differing operation is named, not the last of the slot."""
    with CheckedMachine(f"{MODULE}:FloatOrder") as machine, pytest.raises(NonDeterminism) as caught:
        run(machine, "FloatOrder", *(("add", f"name-{place}", place * 37) for place in range(200)))
    assert caught.value.path == "attribute total" and 2 < caught.value.number < 200


def test_query_is_compared_too():
    """A query whose answers differ would never reach a quorum."""
    with CheckedMachine(f"{MODULE}:Answers") as machine:
        run(machine, "Answers", ("tag", "x"))
        with pytest.raises(NonDeterminism, match=r"names\(\) is not deterministic"):
            machine.query(interface_of(culprits.Answers).methods["names"].encode((), {}))


def test_query_that_changes_the_state_is_caught():
    """Alike in both processes, and yet replicas would not agree: they do not answer the same queries."""
    with CheckedMachine(f"{MODULE}:QueryWrites") as machine, pytest.raises(NonDeterminism) as caught:
        machine.query(interface_of(culprits.QueryWrites).methods["look"].encode(("x",), {}))
    assert (caught.value.operation, caught.value.cause) == ("look", QUERY_WRITES)
    assert (caught.value.path, caught.value.first, caught.value.second) == ("len(attribute seen)", "0", "1")


def test_state_outside_the_attributes_is_caught_by_a_restart():
    """A counter in a module global survives every checkpoint comparison, but no restart."""
    with CheckedMachine(f"{MODULE}:HiddenState") as machine:
        run(machine, "HiddenState", ("count",), ("count",))
        machine.restart_second()
        with pytest.raises(NonDeterminism) as caught:
            run(machine, "HiddenState", ("count",))
        assert (caught.value.first, caught.value.second) == ("3", "1")


def test_one_stop_of_two_is_a_difference():
    """A service that would stop some replicas only."""
    with CheckedMachine(f"{MODULE}:RaisesSometimes") as machine, pytest.raises(NonDeterminism) as caught:
        run(machine, "RaisesSometimes", *(("touch", f"name-{place}") for place in range(64)))
    assert caught.value.path == "outcome" and "returned" in (caught.value.first, caught.value.second)


def test_stop_of_both_is_told_as_such():
    """What stops every replica is no difference, and no success."""
    with CheckedMachine(f"{MODULE}:AlwaysStops") as machine, pytest.raises(ServiceStopped, match="no such device"):
        run(machine, "AlwaysStops", ("stop",))


def test_innocent_service_passes_with_restarts_and_checkpoints():
    """Sets whose order does not matter, agreed clock and agreed dice are nobody's fault."""
    with CheckedMachine(f"{MODULE}:Innocent") as machine:
        for round_ in range(4):
            run(machine, "Innocent", *(("touch", f"n{place % 40}", place) for place in range(100)))
            machine.checkpoint()
            if round_ == 1:
                machine.restart_second()
        assert machine.executed == 400


def test_results_and_pages_are_those_of_the_service_itself():
    """The checked machine answers and checkpoints as the service in this process does."""
    from bft.services.loading import load_service

    path = "bft.services.kv:KeyValue"
    plain = load_service(path)
    operations = [b"\x93\xa3put\xa1%c\xa1v" % (97 + place) for place in range(20)]
    context = Context()
    context.seq, context.time_ns = 1, 5
    with CheckedMachine(path) as machine:
        assert [machine.execute(item, context) for item in operations] == [
            plain.execute(item, context) for item in operations
        ]
        digests, fresh = machine.checkpoint()
        assert digests == plain.checkpoint()[0]
        assert set(fresh) == set(digests)
        assert list(machine.checkpoint()[1]) == [digests[0]], "only the first page is written anew"


class Interrupted(subprocess.Popen[bytes]):
    """A process that gets a Ctrl-C at once."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.send_signal(signal.SIGINT)


def test_interrupt_is_left_to_the_checker(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """Ctrl-C reaches the processes of a check too: they go on until they are ended, and print no traceback."""
    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with CheckedMachine(f"{MODULE}:Innocent") as machine:
        run(machine, "Innocent", ("touch", "x", 1))
        machine.restart_second()
        machine.checkpoint()
    assert capfd.readouterr().err == ""


def test_unknown_service_is_refused():
    """A typing error in the path is told as such."""
    with pytest.raises(ConfigError, match="has no Nobody"):
        CheckedMachine(f"{MODULE}:Nobody")
