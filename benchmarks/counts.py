"""Messages, bytes and signatures per operation, counted in virtual time beside what the protocol's formulas say.

Normal case of [CL99 4.2] with n replicas, per slot (a batch, whatever it holds): the client's envelope, n - 1
PRE-PREPAREs, (n - 1)^2 PREPAREs (the primary sends none), n (n - 1) COMMITs, n replies; n (n - 1) CHECKPOINTs every K
slots. Signatures: one of the client and one under each distinct message: 2 n + 1, and n every K slots. Deviation from
the paper's counts: replies are authenticated by their connection and carry no signature.

Verifications have bounds instead of a value, since votes beyond a quorum are dropped unchecked.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from benchmarks import results
from benchmarks.options import file_options
from benchmarks.virtual.costs import load_costs
from benchmarks.virtual.world import EPOCH_NS, MILLISECOND, VirtualCase, VirtualWorld
from bft.ids import Peer
from bft.membership import Quorums
from bft.messages import Packet, Proposal, Signed
from bft.wire.codec import decode_packet, decode_replica_message

SIZES_OF_N = (4, 7, 10, 13)
OPERATIONS = 512
LIMIT_MS = 60_000
KINDS = ("SignedRequest", "PrePrepare", "Prepare", "Commit", "Reply", "Checkpoint")


class Count:
    """What one run sent, signed and verified.

    Attributes:
        slots: how many the cluster ordered.
        frames, size: by kind of message; bytes are those of frames, without their length and TLS.
        signed, verified: signatures, of everybody.
    """

    def __init__(self, n: int, *, callers: int, operations: int = OPERATIONS) -> None:
        """Let one client make `operations` operations, and everything end."""
        self.n = n
        self.operations = operations
        self.frames: Counter[str] = Counter()
        self.size: Counter[str] = Counter()
        # Without the witnesses of `bft.client.witness`, which come by the clock and not by the operation.
        case = VirtualCase(n=n, callers=callers, operations=operations, protocol={"witness_interval_ms": 0})
        world = VirtualWorld(case, load_costs(), self._note)
        world.start()
        end = world.now
        while any(replica.executed < world.replicas[0].executed for replica in world.replicas) or (
            len(world.clients[0].latencies_ns) < operations
        ):
            end += 10 * MILLISECOND
            world.run_until(end)
            assert end < EPOCH_NS + LIMIT_MS * MILLISECOND, "the run does not end"
        world.run_until(end + 10 * MILLISECOND)
        self.slots = world.replicas[0].executed
        self.interval = world.cluster.protocol.checkpoint_interval
        nodes = [*world.replicas, *world.clients]
        self.signed = sum(node.meter.signed for node in nodes)
        self.verified = sum(node.meter.verified for node in nodes)

    def _note(self, source: Peer, target: Peer, frame: bytes) -> None:
        kind = kind_of(decode_packet(frame))
        if kind == "Status" and not self.frames:
            return  # replicas that start ask each other where they stand, before the first request
        self.frames[kind] += 1
        self.size[kind] += len(frame)

    @property
    def checkpoints(self) -> int:
        """Checkpoints within the run."""
        return self.slots // self.interval

    def expected_frames(self) -> dict[str, int]:
        """What the formulas say was sent."""
        n, slots = self.n, self.slots
        return {
            "SignedRequest": slots,
            "PrePrepare": slots * (n - 1),
            "Prepare": slots * (n - 1) ** 2,
            "Commit": slots * n * (n - 1),
            "Reply": slots * n,
            "Checkpoint": self.checkpoints * n * (n - 1),
        }

    def expected_signed(self) -> int:
        """What the formulas say was signed."""
        return self.slots * (2 * self.n + 1) + self.checkpoints * self.n

    def verified_bounds(self) -> tuple[int, int]:
        """Fewest and most signatures that can have been verified, each once by whom it reached."""
        n, strong = self.n, Quorums.of(self.n).strong
        always = self.slots * (n + n - 1)  # the client's by all, the PRE-PREPARE's by the backups
        prepares = (n - 1) * (strong - 2) + (strong - 1)
        fewest = always + self.slots * (prepares + n * (strong - 1))
        most = always + self.slots * ((n - 1) ** 2 + n * (n - 1)) + self.checkpoints * n * (n - 1)
        return fewest, most


def kind_of(packet: Packet) -> str:
    """The name of what a packet carries."""
    signed = packet.signed if isinstance(packet, Proposal) else packet
    if isinstance(signed, Signed):
        return type(decode_replica_message(signed.payload)).__name__
    return type(packet).__name__


def rows_of(count: Count, callers: int) -> list[dict[str, Any]]:
    """A row per kind of message, and one for all."""
    expected = count.expected_frames()
    base = {"n": count.n, "callers": callers}
    rows = []
    for kind in [*KINDS, *sorted(count.frames.keys() - set(KINDS))]:
        frames, size = count.frames[kind], count.size[kind]
        rows.append(_row({**base, "what": kind}, frames, expected.get(kind, 0), size, count))
    rows.append(_row({**base, "what": "all"}, count.frames.total(), sum(expected.values()), count.size.total(), count))
    signatures = {**base, "what": "signatures"}
    rows.append(_row(signatures, count.signed, count.expected_signed(), 0, count))
    return rows


def _row(name: dict[str, Any], found: int, expected: int, size: int, count: Count) -> dict[str, Any]:
    return {
        **name,
        "slots": results.spread([count.slots]),
        "per_slot": results.spread([found / count.slots]),
        "formula_per_slot": results.spread([expected / count.slots]),
        "per_op": results.spread([found / count.operations]),
        "bytes_per_op": results.spread([size / count.operations]),
    }


@click.command("counts", epilog="Example: python -m benchmarks counts --json")
@file_options("counts")
def counts(output: Path, name: str, as_json: bool) -> None:
    """Messages, bytes and signatures per operation against the protocol's formulas, for n = 4, 7, 10, 13.

    Exit code 1: a count differs from its formula.
    """
    found = [(callers, Count(n, callers=callers)) for callers in (1, 64) for n in SIZES_OF_N]
    rows = [row for callers, count in found for row in rows_of(count, callers)]
    path = results.write(name, rows, output, exact=True, about=__doc__.split("\n\n")[0], plot={"callers": 1})
    equal = all(row["per_slot"]["median"] == row["formula_per_slot"]["median"] for row in rows)
    if as_json:
        click.echo(json.dumps(rows))
    else:
        _print(rows, path)
    click.get_current_context().exit(0 if equal else 1)


def _print(rows: list[dict[str, Any]], path: Path) -> None:
    console = Console()
    table = Table(box=None)
    for column in ("n", "callers", "what", "per slot", "formula", "per operation", "bytes per operation"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for row in rows:
        cells = [row[key]["median"] for key in ("per_slot", "formula_per_slot", "per_op", "bytes_per_op")]
        table.add_row(str(row["n"]), str(row["callers"]), row["what"], *(f"{cell:,.3f}" for cell in cells))
    console.print(table)
    console.print(f"written to {path}")
