"""`python -m benchmarks calibrate`: measure the cost model on this machine.

Processor costs are CPU time of one thread, each the smallest of several repetitions, so that other processes disturb
little. Signatures, TLS and the store are measured alone; what frames and operations cost besides is measured by
running the virtual cluster itself at no cost and timing its turns, at one operation per slot and at 200, with stand-in
signatures whose own time is subtracted.
"""

from __future__ import annotations

import json
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import quantiles

import click
import msgspec
import trio

from benchmarks.results import environment
from benchmarks.virtual.costs import CALIBRATION, Costs
from benchmarks.virtual.nodes import VirtualClient, VirtualNode, VirtualReplica
from benchmarks.virtual.world import MILLISECOND, VirtualCase, VirtualWorld
from benchmarks.yardstick import cpu_ns_of
from bft.config import Durability
from bft.crypto.keys import KeyPair, save_key
from bft.crypto.signatures import Ed25519Signer, Ed25519Verifier
from bft.crypto.tls import dialer_context, server_context
from bft.events import Accepted
from bft.ids import ReplicaId
from bft.messages import Signed
from bft.sim.keys import KeyVault
from bft.storage.sqlite import SqliteStore
from bft.transport.channel import Channel
from bft.transport.dial import tune

PAYLOAD = bytes(64)
REPETITIONS = 7
LOOPS = 300
SMALL_FRAME = 200
LARGE_FRAME = 64 * 1024
BATCH_BYTES = 8 * 1024
FREE = Costs(**dict.fromkeys(Costs.__struct_fields__, 0))
SLOTS = 300


def cpu_ns(action: Callable[[], object], loops: int = LOOPS) -> int:
    """CPU time of one call: the smallest mean of several repetitions."""
    return round(min(cpu_ns_of(action, loops, REPETITIONS)))


def calibrate() -> Costs:
    """Measure everything; takes about a minute."""
    keys = KeyPair.generate()
    signer = Ed25519Signer(bytes(32), ReplicaId(0), keys.seed)
    verifier = Ed25519Verifier(bytes(32), [keys.public], None)
    signature = signer.sign(PAYLOAD)
    hop, kib = trio.run(_hop)
    frame, operation, client_frame, client_operation = _steps()
    return Costs(
        sign_ns=cpu_ns(lambda: signer.sign(PAYLOAD)),
        verify_ns=cpu_ns(lambda: verifier.verify_replica(0, PAYLOAD, signature)),
        hop_ns=hop,
        kib_ns=kib,
        frame_ns=frame,
        operation_ns=operation,
        client_frame_ns=client_frame,
        client_operation_ns=client_operation,
        commit_process_ns=_commit_ns("process"),
        commit_power_ns=_commit_ns("power"),
    )


# --- connections --------------------------------------------------------------------------------------------------


async def _hop() -> tuple[int, int]:
    """(one read or write, a KiB of it) over two ends of a TLS connection in one thread, frames going to and fro."""
    with tempfile.TemporaryDirectory() as name:
        keys, path = KeyPair.generate(), Path(name) / "key.pem"
        save_key(path, keys)
        ends = _loopback()
        server = Channel(ends[0], server_context(keys, path, "r0"), server_side=True, frame_bytes_max=1 << 20)
        client = Channel(ends[1], dialer_context(), server_side=False, frame_bytes_max=1 << 20)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.handshake)
            await client.handshake()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.run_writer)
            nursery.start_soon(client.run_writer)
            nursery.start_soon(_echo, server)
            small = await _round_trip_ns(client, SMALL_FRAME)
            large = await _round_trip_ns(client, LARGE_FRAME)
            nursery.cancel_scope.cancel()
        server.close()
        client.close()
    # A round trip is two writes and two reads.
    per_kib = max(large - small, 0) * 1024 // (4 * (LARGE_FRAME - SMALL_FRAME))
    return small // 4, per_kib


def _loopback() -> tuple[socket.socket, socket.socket]:
    """Both ends of a TCP connection, tuned as the library's."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        dialed = socket.create_connection(listening.getsockname())
        accepted, _ = listening.accept()
    for end in (accepted, dialed):
        end.setblocking(False)
        tune(end)
    return accepted, dialed


async def _echo(channel: Channel) -> None:
    while True:
        channel.send(await channel.receive())


async def _round_trip_ns(channel: Channel, size: int) -> int:
    frame, best = bytes(size), None
    for _ in range(REPETITIONS):
        started = time.thread_time_ns()
        for _ in range(LOOPS):
            channel.send([frame])
            await channel.receive_one()
        used = (time.thread_time_ns() - started) // LOOPS
        best = used if best is None else min(best, used)
    assert best is not None
    return best


# --- stepping -----------------------------------------------------------------------------------------------------


class _Timed:
    """CPU time and counts of the turns of some nodes of a world that costs nothing."""

    def __init__(self, nodes: list[VirtualNode]) -> None:
        self.cpu_ns = self.frames = 0
        self._nodes = nodes
        for node in nodes:
            node.step = self._timed(node.step)  # type: ignore[method-assign]  # a stop watch around each turn

    def _timed(self, step: Callable[..., int]) -> Callable[..., int]:
        def timed(inbox: list[object], ticks: bool) -> int:
            started = time.thread_time_ns()
            cost = step(inbox, ticks)
            self.cpu_ns += time.thread_time_ns() - started
            self.frames += len(inbox)
            return cost

        return timed

    def without_signatures(self, sign_ns: int, verify_ns: int) -> int:
        """The time, less that of the stand-in signatures."""
        signed = sum(node.meter.signed for node in self._nodes)
        verified = sum(node.meter.verified for node in self._nodes)
        return self.cpu_ns - signed * sign_ns - verified * verify_ns


def _steps() -> tuple[int, int, int, int]:
    """(frame, operation) at a replica and (frame, operation) at a client, in nanoseconds of CPU time."""
    stand_in = KeyVault(1).replica_signer(0)
    verifier = KeyVault(1).verifier(4)
    signature = stand_in.sign(PAYLOAD)
    sign = cpu_ns(lambda: stand_in.sign(PAYLOAD))
    verify = cpu_ns(lambda: verifier.verify_replica(0, PAYLOAD, signature))
    best = [min(values) for values in zip(*(_one_fit(sign, verify) for _ in range(3)), strict=True)]
    return best[0], best[1], best[2], best[3]


def _one_fit(sign: int, verify: int) -> tuple[int, int, int, int]:
    few = _timed_run(1)
    many = _timed_run(200)
    fitted = []
    for lone, loaded in zip(few, many, strict=True):
        # time = frames * per frame + operations * per operation, at two very different ratios of the two
        t1, f1, o1 = lone[0].without_signatures(sign, verify), lone[0].frames, lone[1]
        t2, f2, o2 = loaded[0].without_signatures(sign, verify), loaded[0].frames, loaded[1]
        determinant = f1 * o2 - f2 * o1
        fitted += [max((t1 * o2 - t2 * o1) // determinant, 0), max((f1 * t2 - f2 * t1) // determinant, 0)]
    return fitted[0], fitted[1], fitted[2], fitted[3]


def _timed_run(callers: int) -> list[tuple[_Timed, int]]:
    """(stop watch, operations executed or completed) of the replicas and of the client."""
    world = VirtualWorld(VirtualCase(callers=callers), FREE)
    replicas, clients = _Timed(list(world.replicas)), _Timed(list(world.clients))
    world.start()
    end = world.now
    while world.replicas[0].executed < SLOTS:
        end += MILLISECOND
        world.run_until(end)
    executed = sum(_operations(replica) for replica in world.replicas)
    return [(replicas, executed), (clients, sum(_operations(client) for client in world.clients))]


def _operations(node: VirtualReplica | VirtualClient) -> int:
    return len(node.latencies_ns) if isinstance(node, VirtualClient) else node.meter.operations


# --- disk ---------------------------------------------------------------------------------------------------------


def _commit_ns(durability: Durability) -> int:
    """A transaction with one batch of 8 KiB: the lower quartile of many, since other writers disturb."""
    assert durability != "memory"
    with tempfile.TemporaryDirectory() as name:
        store = SqliteStore(Path(name) / "store.db", bytes(32), 0, durability)
        times = []
        for seq in range(1, 151):
            record = Accepted(seq, 0, Signed(0, PAYLOAD, bytes(64)), bytes(BATCH_BYTES))
            started = time.perf_counter_ns()
            store.write([record])
            times.append(time.perf_counter_ns() - started)
        store.close()
    return round(quantiles(times, n=4)[0])


def _smallest(runs: int) -> Costs:
    """The smallest of several calibrations, cost by cost."""
    found = [calibrate() for _ in range(runs)]
    return Costs(**{name: min(getattr(costs, name) for costs in found) for name in Costs.__struct_fields__})


@click.command("calibrate", epilog="Example: python -m benchmarks calibrate --output here.json")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), default=CALIBRATION, show_default=True)
@click.option("--runs", type=click.IntRange(1, 20), default=3, show_default=True, help="The smallest counts.")
def calibrate_command(output: Path, runs: int) -> None:
    """Measure the cost model of this machine, for the benchmarks in virtual time.

    With the default output it replaces the checked-in model, and every figure in virtual time changes.
    """
    document = {"environment": environment(), "runs": runs, "costs": msgspec.structs.asdict(_smallest(runs))}
    output.write_text(json.dumps(document, indent=1) + "\n")
    click.echo(output.read_text(), nl=False)
