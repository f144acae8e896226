"""Virtual time: reproducible to the digit, right in the limits that can be computed by hand, and counted exactly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from benchmarks.counts import Count
from benchmarks.virtual.calibrate import cpu_ns
from benchmarks.virtual.costs import Costs, load_costs
from benchmarks.virtual.world import WIRES, VirtualCase, VirtualWorld, run_case, virtual_cluster
from bft.sim.keys import KeyVault

ROOT = Path(__file__).parent.parent.parent.parent
FREE = Costs(**dict.fromkeys(Costs.__struct_fields__, 0))
SHORT = VirtualCase(callers=20, clients=3, durability="power", warm_up_ms=20, measured_ms=60)


def test_figures_are_equal_to_the_digit_in_every_process() -> None:
    """Another process, another hash seed, the same digits."""
    code = (
        "import json; from benchmarks.virtual.costs import load_costs;"
        "from benchmarks.virtual.world import VirtualCase, run_case;"
        "case = VirtualCase(callers=20, clients=3, durability='power', warm_up_ms=20, measured_ms=60);"
        "print(json.dumps(run_case(case, load_costs())))"
    )
    here = run_case(SHORT, load_costs())
    for seed in ("1", "77"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        output = subprocess.run(
            [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert json.loads(output.stdout) == here


def test_lone_caller_without_costs_waits_for_five_message_delays() -> None:
    """Request, PRE-PREPARE, PREPARE, COMMIT, reply [CL99 4.2]; what bytes take on the line comes on top."""
    case = VirtualCase(callers=1, warm_up_ms=0, measured_ms=50)
    figures = run_case(case, FREE)
    delays_ms = 5 * WIRES["lan"].latency_ns / 1e6
    assert delays_ms < figures["p50_ms"] < delays_ms + 0.01


def test_five_regions_cost_what_their_latencies_say() -> None:
    """The client sits beside the primary; a quorum needs the third-nearest region each way."""
    figures = run_case(VirtualCase(network="wan", callers=1, warm_up_ms=500, measured_ms=2000), FREE)
    assert 100 < figures["p50_ms"] < 300


def test_stable_storage_costs_three_transactions_on_the_way() -> None:
    """The primary's and the backups' acceptance, then the prepared certificate, each before what follows is sent."""
    case = VirtualCase(callers=1, warm_up_ms=0, measured_ms=100)
    slow_disk = msgspec.structs.replace(FREE, commit_power_ns=1_000_000)
    memory = run_case(case, slow_disk)["p50_ms"]
    power = run_case(msgspec.structs.replace(case, durability="power"), slow_disk)["p50_ms"]
    assert power - memory == pytest.approx(3.0, abs=0.3)


def test_slower_signatures_make_everything_slower() -> None:
    costs = load_costs()
    slow = msgspec.structs.replace(costs, verify_ns=10 * costs.verify_ns)
    case = VirtualCase(callers=50, warm_up_ms=50, measured_ms=100)
    assert run_case(case, slow)["op_s"] < run_case(case, costs)["op_s"] / 1.5


def test_bandwidth_limits_what_passes() -> None:
    """With 64 KiB operations and a free processor the primary's line is what limits: n - 1 copies of each."""
    case = VirtualCase(callers=32, request_bytes=65536, warm_up_ms=10, measured_ms=30)
    figures = run_case(case, FREE)
    line = WIRES["lan"].mbit_s * 1e6 / 8 / (3 * 65536)
    one_batch = 32 / 0.03  # what was under way when measuring began counts when it ends
    assert line * 0.7 < figures["op_s"] <= line + one_batch


def test_processor_of_the_primary_is_never_busier_than_all_the_time() -> None:
    figures = run_case(VirtualCase(callers=64, clients=64, warm_up_ms=100, measured_ms=200), load_costs())
    assert 30 < figures["primary_cpu_percent"] <= 101


@pytest.mark.parametrize("n", [4, 13, 49, 100])
def test_every_size_of_cluster_has_a_window_that_fits(n: int) -> None:
    cluster = virtual_cluster(VirtualCase(n=n), KeyVault(1))
    assert cluster.protocol.window == {4: 256, 13: 256, 49: 128, 100: 32}[n]


@pytest.mark.parametrize(("n", "callers"), [(4, 1), (4, 64), (7, 1), (10, 8)])
def test_messages_and_signatures_are_those_of_the_formulas(n: int, callers: int) -> None:
    """Not about as many: exactly as many, checkpoints included, and no kind of message beside [CL99 4.2, 4.3]."""
    count = Count(n, callers=callers, operations=256)
    expected = {kind: frames for kind, frames in count.expected_frames().items() if frames}
    assert dict(count.frames) == expected
    assert count.signed == count.expected_signed()
    fewest, most = count.verified_bounds()
    assert fewest <= count.verified <= most
    assert count.slots == 256 // callers
    assert count.checkpoints == count.slots // 128


def test_cost_model_is_positive_and_nothing_else() -> None:
    costs = load_costs()
    assert all(getattr(costs, name) > 0 for name in Costs.__struct_fields__)
    assert costs.verify_ns > costs.sign_ns
    assert costs.commit_power_ns > costs.commit_process_ns
    assert costs.commit_ns("memory") == 0
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({**msgspec.structs.asdict(costs), "sign_ns": -1}, Costs)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"sign_ns": 1}, Costs)


def test_calibration_measures_processor_time() -> None:
    assert cpu_ns(lambda: sum(range(20_000)), loops=3) > cpu_ns(lambda: sum(range(2_000)), loops=3) > 0


def test_world_refuses_to_lose_an_operation_silently() -> None:
    """A client that is told that its session ended stops the run: figures of a broken run are no figures."""
    case = VirtualCase(callers=2, clients=2, warm_up_ms=0, measured_ms=50, protocol={"sessions_max": 1})
    with pytest.raises(AssertionError, match="lost operation"):
        world = VirtualWorld(case, load_costs())
        world.start()
        world.run_until(world.now + 500_000_000)
