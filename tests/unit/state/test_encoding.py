"""One encoding per value, whatever the process."""

from __future__ import annotations

import enum
import subprocess
import sys
from dataclasses import dataclass

import attrs
import msgspec
import pytest

from bft.state.encoding import encode, require_sortable
from bft.state.map import Map


@dataclass
class Holder:
    inner: object


class Record(msgspec.Struct):
    inner: object


def test_sets_and_text_dicts_are_sorted() -> None:
    """Order of insertion and of hashing leave no trace."""
    assert encode({"b": 1, "a": 2}) == encode({"a": 2, "b": 1})
    script = "from bft.state.encoding import encode; print(encode({'names': {'x','y','z','w'}}).hex())"
    outputs = set()
    for seed in ("1", "2", "3"):
        ran = subprocess.run(
            [sys.executable, "-c", script], env={"PYTHONHASHSEED": seed, "PATH": ""}, capture_output=True, check=True
        )
        outputs.add(ran.stdout)
    assert len(outputs) == 1


def test_other_dicts_keep_their_order() -> None:
    """Integer keys stay in order of insertion, and decode in it."""
    assert list(msgspec.msgpack.decode(encode({3: "a", 1: "b"}))) == [3, 1]


@attrs.define
class Defined:
    inner: object


def member(inner: object) -> enum.Enum:
    return enum.Enum("Names", {"ALL": frozenset(inner)}).ALL  # type: ignore[call-overload,attr-defined,no-any-return]


@pytest.mark.parametrize(
    "wrap", [list, lambda s: {5: s}, lambda s: {"a": Record(s)}, Holder, lambda s: (s,), Defined, member]
)
def test_sets_beside_unsortable_dicts_are_refused(wrap) -> None:
    """No order would be left to rely on."""
    inner = {"x", "y"} if wrap is not list else [{"x"}]
    with pytest.raises(TypeError):
        encode([{1: 2}, wrap(inner)])


class Tree(msgspec.Struct):
    names: set[str]
    children: list[Tree]


class Nested(msgspec.Struct):
    inner: dict[str, tuple[frozenset[str], int] | None]


def test_declared_sets_of_sets_are_refused() -> None:
    """Sets are sorted, but among sets "less" is "part of": the order would be that of hashing."""
    script = "from bft.state.encoding import encode; print(encode({frozenset(c) for c in 'abcd'}).hex())"
    outputs = set()
    for seed in ("1", "2", "3", "4", "5"):
        environment = {"PYTHONHASHSEED": seed, "PATH": ""}
        outputs.add(subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True).stdout)
    assert len(outputs) > 1
    for kind in (set[frozenset[str]], list[set[tuple[int, frozenset[int]]]], frozenset[Nested]):
        with pytest.raises(TypeError, match="inside of a set"):
            require_sortable(kind)
        with pytest.raises(TypeError, match="inside of a set"):
            Map().declare(str, kind)
    for kind in (set[str], Tree, Nested, dict[str, set[tuple[int, str]]], object, str | None):
        require_sortable(kind)
