"""The key-value service, its limits and its client."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bft.errors import ServiceError
from bft.services.interface import interface_of
from bft.services.kv import INTEGER_MAX, INTEGER_MIN, KEY_BYTES_MAX, SCAN_BYTES_MAX, SCAN_MAX, VALUE_BYTES_MAX, KeyValue
from bft.services.kv_client import KeyValueClient
from bft.services.machine import ServiceMachine
from bft.services.outcome import result_of
from bft.state.context import Context


class Direct:
    """Calls a machine without a cluster."""

    def __init__(self) -> None:
        self.machine = ServiceMachine(KeyValue())

    async def invoke(self, name: str, /, *args: object) -> object:
        return self.run(name, *args)

    def run(self, name: str, *args: object) -> Any:
        method = interface_of(KeyValue).methods[name]
        return result_of(method, *self.machine.execute(method.encode(args, {}), Context()))


def test_put_get_delete() -> None:
    """Each returns what was there before."""
    kv = Direct()
    assert kv.run("put", "a", "1") is None
    assert kv.run("put", "a", "2") == "1"
    assert kv.run("get", "a") == "2"
    assert kv.run("delete", "a") == "2"
    assert kv.run("delete", "a") is None
    assert kv.run("get", "a") is None


def test_names_of_the_ratis_exercise() -> None:
    """add, get, del_ and clear do what put, get, delete and clear do."""
    kv = Direct()
    assert kv.run("add", "a", "1") is None
    assert kv.run("del_", "a") == "1"
    kv.run("add", "b", "1")
    assert kv.run("clear") == 1 and kv.run("size") == 0


def test_cas_compares_and_swaps() -> None:
    """None stands for absent, on both sides."""
    kv = Direct()
    assert kv.run("cas", "a", None, "1") is True
    assert kv.run("cas", "a", None, "2") is False
    assert kv.run("cas", "a", "1", "2") is True
    assert kv.run("cas", "a", "2", None) is True
    assert kv.run("size") == 0
    assert kv.run("cas", "a", None, None) is True


def test_increment_counts() -> None:
    """Absent counts as 0; what is no integer, or too large, is refused and unchanged."""
    kv = Direct()
    assert kv.run("increment", "a") == 1
    assert kv.run("increment", "a", -5) == -4
    assert kv.run("get", "a") == "-4"
    for text in ("x", "", "1.5", "٣", "-", "9" * 50):
        kv.run("put", "b", text)
        with pytest.raises(ServiceError, match="NotAnInteger"):
            kv.run("increment", "b")
        assert kv.run("get", "b") == text
    for edge, by in ((INTEGER_MAX, 1), (INTEGER_MIN, -1)):
        kv.run("put", "c", str(edge - by))
        assert kv.run("increment", "c", by) == edge
        with pytest.raises(ServiceError, match="NotAnInteger"):
            kv.run("increment", "c", by)
        assert kv.run("get", "c") == str(edge)
    with pytest.raises(ServiceError, match="KeyTooLong"):
        kv.run("increment", "")


def test_limits_at_their_edge() -> None:
    """Keys of 1 to 1024 bytes, values up to 512 KiB, counted in UTF-8."""
    kv = Direct()
    kv.run("put", "k" * KEY_BYTES_MAX, "é" * (VALUE_BYTES_MAX // 2))
    for key in ("", "k" * (KEY_BYTES_MAX + 1), "é" * (KEY_BYTES_MAX // 2 + 1)):
        with pytest.raises(ServiceError, match="KeyTooLong"):
            kv.run("put", key, "")
        with pytest.raises(ServiceError, match="KeyTooLong"):
            kv.run("cas", key, None, "x")
    with pytest.raises(ServiceError, match="the key is empty"):
        kv.run("put", "", "x")
    with pytest.raises(ServiceError, match="ValueTooLong"):
        kv.run("put", "a", "é" * (VALUE_BYTES_MAX // 2 + 1))
    assert kv.run("size") == 1


def test_scan_is_bounded_in_number_and_bytes() -> None:
    """A client goes on from the last key."""
    kv = Direct()
    for number in range(SCAN_MAX + 5):
        kv.run("put", f"{number:05}", "v")
    first = kv.run("scan", "", None, None, 10**9)
    assert len(first) == SCAN_MAX
    rest = kv.run("scan", "", first[-1][0] + "\0", None, SCAN_MAX)
    assert [key for key, _ in rest] == [f"{number:05}" for number in range(SCAN_MAX, SCAN_MAX + 5)]
    assert kv.run("scan", "0000", "00003", "00005", 9) == [("00003", "v"), ("00004", "v")]
    assert kv.run("scan", "", None, None, -1) == []
    for number in range(4):
        kv.run("put", f"large{number}", "x" * VALUE_BYTES_MAX)
    large = kv.run("scan", "large", None, None, 9)
    assert 1 <= len(large) < 4 and sum(len(value) for _, value in large) <= SCAN_BYTES_MAX


commands = st.lists(
    st.tuples(st.sampled_from(["put", "delete", "get"]), st.text("ab", min_size=1, max_size=2), st.text(max_size=3)),
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(commands)
def test_kv_behaves_like_a_dictionary(steps: list[tuple[str, str, str]]) -> None:
    """Against the obvious model."""
    kv, model = Direct(), dict[str, str]()
    for name, key, value in steps:
        match name:
            case "put":
                assert kv.run(name, key, value) == model.get(key)
                model[key] = value
            case "delete":
                assert kv.run(name, key) == model.pop(key, None)
            case _:
                assert kv.run(name, key) == model.get(key)
    assert kv.run("scan") == sorted(model.items())


async def test_typed_client_calls_every_method() -> None:
    """The client beside the service fits it."""
    kv = KeyValueClient(Direct())
    assert await kv.put("a", "1") is None
    assert await kv.get("a") == "1"
    assert await kv.cas("a", "1", "2") is True
    assert await kv.increment("n", 4) == 4
    assert await kv.scan("a") == [("a", "2")]
    assert await kv.size() == 2
    assert await kv.delete("a") == "2"
    assert await kv.clear() == 1


def test_operation_format_is_frozen() -> None:
    """An operation is [method, argument, ...] in MessagePack."""
    encoded = interface_of(KeyValue).methods["put"].encode(("k", "v"), {})
    assert encoded.hex() == "93a3707574a16ba176" and msgspec.msgpack.decode(encoded) == ["put", "k", "v"]
