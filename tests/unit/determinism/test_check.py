"""`bft check` and `local_cluster(check_determinism=True)`: what they run, what they find, what they say."""

from __future__ import annotations

import json
import random
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest
import trio
from click.testing import CliRunner

import bft
from bft.cli.check import check
from bft.client.client import connect
from bft.determinism.check import HIDDEN, Check
from bft.determinism.operations import from_file, interface_at, made_up
from bft.determinism.pair import QUERY_WRITES
from bft.determinism.surroundings import ASPECTS, UNCONTROLLED
from bft.errors import ConfigError, NonDeterminism
from bft.runtime.local import local_cluster
from bft.services.interface import interface_of
from tests.unit.determinism import culprits

MODULE = culprits.__name__


class Colour(Enum):
    """An argument type."""

    RED = "red"
    GREEN = "green"


class Line(msgspec.Struct, forbid_unknown_fields=True):
    """An argument type."""

    item: str
    amount: Annotated[int, msgspec.Meta(ge=1, le=99)]


class Manifold(bft.Service):
    """Arguments of every kind."""

    def __init__(self) -> None:
        self.count = 0

    @bft.command
    def many(
        self,
        name: Annotated[str, msgspec.Meta(min_length=3, max_length=5)],
        colour: Colour,
        kind: Literal["a", "b"],
        lines: list[Line],
        pairs: dict[str, tuple[int, float]],
        tags: set[str],
        maybe: int | None = None,
        data: bytes = b"",
    ) -> int:
        """Counts."""
        self.count += 1
        return self.count

    @bft.query
    def total(self) -> int:
        """How many."""
        return self.count


class Picky(bft.Service):
    """An argument that cannot be made up."""

    def __init__(self) -> None:
        self.count = 0

    @bft.command
    def take(self, code: Annotated[str, msgspec.Meta(pattern="^Q[0-9]{9}$")]) -> int:
        """Counts."""
        self.count += 1
        return self.count


def test_made_up_operations_are_valid_and_of_every_method():
    """Whatever the annotations ask for; equal seeds make equal operations."""
    interface = interface_of(Manifold)
    operations = [item for item, _ in zip(made_up(interface, random.Random(3)), range(300), strict=False)]
    again = [item for item, _ in zip(made_up(interface, random.Random(3)), range(300), strict=False)]
    assert operations == again
    decoded = [interface.decode(operation) for _, operation in operations]
    assert {interface.by_type[type(item)].name for item in decoded} == {"many", "total"}
    assert len({operation for _, operation in operations}) > 100


def test_argument_that_cannot_be_made_up_is_told():
    """A pattern: the user is asked for a file instead of being told that all is well."""
    with pytest.raises(ConfigError, match=r"no valid arguments for take\(code.*give operations by a file"):
        next(made_up(interface_of(Picky), random.Random(1)))


def test_operations_of_a_file(tmp_path: Path):
    """JSON arrays, comments, and a line that is wrong is named."""
    interface = interface_at(f"{MODULE}:Innocent")
    good = tmp_path / "good.jsonl"
    good.write_text('# two\n["touch", "x", 1]\n\n["count"]\n')
    assert [kind for kind, _ in from_file(good, interface)] == ["command", "query"]
    bad = tmp_path / "bad.jsonl"
    bad.write_text('["touch", "x", 1]\n["touch", "x"]\n')
    with pytest.raises(ConfigError, match=r"bad\.jsonl:2"):
        list(from_file(bad, interface))


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("SetOrder", f"hash seed: {ASPECTS['hash seed']}"),
        ("WallClock", f"clock: {ASPECTS['clock']}"),
        ("LocalZone", f"clock: {ASPECTS['clock']}"),
        ("Dice", f"dice: {ASPECTS['dice']}"),
        ("SystemDice", UNCONTROLLED),
        ("HiddenState", HIDDEN),
        ("QueryWrites", QUERY_WRITES),
    ],
)
def test_cause_is_found_by_changing_one_thing_at_a_time(name, cause):
    """The report does not only say that two runs differ, but what to look for."""
    interface = interface_at(f"{MODULE}:{name}")
    assert interface is not None
    run = Check(f"{MODULE}:{name}")
    operations = (item for item, _ in zip(made_up(interface, random.Random(1)), range(600), strict=False))
    with pytest.raises(NonDeterminism) as caught:
        run.run(operations)
    assert caught.value.cause == cause


def test_command_reports_a_difference_with_exit_code_1():
    """For people a panel, for scripts JSON."""
    ran = CliRunner().invoke(check, [f"{MODULE}:NumberedFromSet", "--count", "10", "--json"])
    assert ran.exit_code == 1
    report = json.loads(ran.stdout)
    assert report["deterministic"] is False
    assert report["operation"].startswith("number(") and "numbers page 0" in report["where"]
    ran = CliRunner().invoke(check, [f"{MODULE}:NumberedFromSet", "--count", "10"])
    assert ran.exit_code == 1 and "not deterministic" in ran.stdout and "first run" in ran.stdout


def test_command_ends_with_0_when_nothing_differs(tmp_path: Path):
    """It says what it has run."""
    ran = CliRunner().invoke(check, [f"{__name__}:Manifold", "--count", "1200", "--json"])
    assert ran.exit_code == 0, ran.output
    report = json.loads(ran.stdout)
    assert report["operations"] == 1200 and report["restarts"] == 1 and report["checkpoints"] == 5
    assert sum(report["outcomes"]["many"].values()) + sum(report["outcomes"]["total"].values()) == 1200
    file = tmp_path / "some.jsonl"
    file.write_text('["total"]\n')
    ran = CliRunner().invoke(check, [f"{__name__}:Manifold", "--operations", str(file)])
    assert ran.exit_code == 0 and "no difference in 1 operations" in ran.stdout


@pytest.mark.parametrize(
    ("service", "why"),
    [
        ("no.such:Module", "cannot import"),
        (f"{MODULE}:Nobody", "has no Nobody"),
        ("nonsense", "expected package.module:Class"),
        ("bft.cli.layout:Plan", "neither a bft.Service nor a class with"),
        ("bft.services.null:Null", "takes bytes, so nothing can be made up"),
    ],
)
def test_command_refuses_what_is_no_service(service, why):
    """Exit code 2, one line."""
    ran = CliRunner().invoke(check, [service])
    assert ran.exit_code == 2 and why in ran.output and "Traceback" not in ran.output


async def test_local_cluster_ends_with_the_difference():
    """The block ends with the typed error as soon as a replica has executed the operation."""
    with pytest.raises(NonDeterminism, match=r"number\('x'\) is not deterministic: numbers\["), trio.fail_after(30):
        async with (
            local_cluster(f"{MODULE}:NumberedFromSet", check_determinism=True) as cluster,
            connect(cluster.cluster, key=cluster.client) as client,
        ):
            await client.service(culprits.NumberedFromSet).number("x")


async def test_local_cluster_serves_a_deterministic_service():
    """Results are the service's; a restarted replica goes on from its store, in both processes."""
    with trio.fail_after(60):
        async with (
            local_cluster(f"{MODULE}:Innocent", check_determinism=True) as cluster,
            connect(cluster.cluster, key=cluster.client) as client,
        ):
            service = client.service(culprits.Innocent)
            for place in range(10):
                assert "n0" in await service.touch(f"n{place}", place)
            await cluster.stop(3)
            await cluster.start(3)
            await service.touch("last", 1)
            assert await service.count() == 11


async def test_local_cluster_cannot_check_what_it_cannot_import():
    """A factory of this process means nothing in another."""
    with pytest.raises(ConfigError, match="name its class"):
        async with local_cluster(make_service=lambda: None, check_determinism=True):  # type: ignore[arg-type,return-value]
            raise AssertionError("not reached")
