"""`bft.Map` against a dictionary, and against itself restored from its own pages."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from bft.digests import page_digest
from bft.messages import PageBodies, PagesServed, Signed
from bft.state.map import ENTRY_BYTES_MAX, KEY_BYTES_MAX, Guard, Map, ReadOnlyError
from bft.state.pages import PAGE_KEYS_MAX, PAGE_SIZE_MAX
from bft.wire.codec import decode_packet, encode


class Account(Struct):
    owner: str
    cents: int


@dataclass
class Plain:
    x: int


def pages_of(content: Map[str, object]) -> tuple[list[bytes], dict[bytes, bytes]]:
    """Digests and bytes of all pages, dirty or not."""
    twin: dict[bytes, bytes] = {}
    for page in content._layout.pages:
        page.digest = None
    digests = content.checkpoint(twin)
    return digests, twin


def restored(content: Map[str, object]) -> Map[str, object]:
    digests, bodies = pages_of(content)
    copy: Map[str, object] = Map()
    copy.restore([bodies[digest] for digest in digests])
    return copy


KEYS = ["", *(first + second for first in "abcdé" for second in ("", "a", "é", "z"))]
"""Few enough that removals and replacements hit."""
keys = st.sampled_from(KEYS)
values = st.one_of(
    st.text(max_size=5), st.integers(-(2**63), 2**64 - 1), st.sampled_from(["x" * 9000, "y" * 40000, b"z" * 5000])
)
puts = st.tuples(st.just("put"), keys, values)
removals = st.tuples(st.just("remove"), keys, st.none())
operations = st.lists(st.one_of(puts, puts, removals), min_size=25, max_size=120)


def apply(content: Map[str, object], model: dict[str, object], operation: tuple[str, str, object]) -> None:
    what, key, value = operation
    if what == "put":
        content[key] = value
        model[key] = value
    else:
        assert content.pop(key) == model.pop(key, None)


@settings(max_examples=150, deadline=None)
@given(operations)
def test_map_behaves_like_a_sorted_dictionary(steps: list[tuple[str, str, object]]) -> None:
    """Every reading agrees with a plain dict, in key order."""
    content: Map[str, object] = Map()
    model: dict[str, object] = {}
    for step in steps:
        apply(content, model, step)
    assert list(content) == sorted(model)
    assert list(content.items()) == sorted(model.items(), key=lambda item: item[0])
    assert len(content) == len(model)
    for key in ["", "a", "b", "é"]:
        assert content.get(key) == model.get(key)
        assert (key in content) == (key in model)
        assert [name for name, _ in content.items(prefix=key)] == sorted(n for n in model if n.startswith(key))
        assert list(content.keys(key)) == sorted(name for name in model if name >= key)


@settings(max_examples=150, deadline=None)
@given(operations, operations)
def test_restored_map_lays_out_pages_like_the_original(
    before: list[tuple[str, str, object]], after: list[tuple[str, str, object]]
) -> None:
    """restore(checkpoint) followed by any operations gives the very pages of the map that never stopped."""
    original: Map[str, object] = Map()
    model: dict[str, object] = {}
    for step in before:
        apply(original, model, step)
    copy = restored(original)
    for step in after:
        apply(original, dict(model), step) if step[0] == "put" else original.pop(step[1])
        apply(copy, dict(model), step) if step[0] == "put" else copy.pop(step[1])
    assert pages_of(original) == pages_of(copy)


@settings(max_examples=100, deadline=None)
@given(operations)
def test_incremental_checkpoints_report_every_page_once(steps: list[tuple[str, str, object]]) -> None:
    """A store that only ever adds fresh pages can rebuild the state at any checkpoint."""
    content: Map[str, object] = Map()
    model: dict[str, object] = {}
    store: dict[bytes, bytes] = {}
    for place, step in enumerate(steps):
        apply(content, model, step)
        if place % 7 == 0:
            fresh: dict[bytes, bytes] = {}
            digests = content.checkpoint(fresh)
            store |= fresh
            copy: Map[str, object] = Map()
            copy.restore([store[digest] for digest in digests])
            assert dict(copy.items()) == model


def test_restoring_replaces_what_was_there() -> None:
    """A replica that fell behind has a state of its own: what the others have removed meanwhile must not live on."""
    source: Map[str, object] = Map()
    source["kept"] = "new"
    digests, bodies = pages_of(source)
    behind: Map[str, object] = Map()
    behind["kept"], behind["removed"] = "old", 7
    behind.restore([bodies[digest] for digest in digests])
    assert dict(behind.items()) == {"kept": "new"}
    assert "removed" not in behind and behind.get("removed") is None and len(behind) == 1
    assert pages_of(behind) == pages_of(source)
    behind["removed"] = source["removed"] = 8
    assert pages_of(behind) == pages_of(source)


@settings(max_examples=100, deadline=None)
@given(operations)
def test_pages_keep_their_limits(steps: list[tuple[str, str, object]]) -> None:
    """No page is empty or over its limits, unless it has one entry; sizes are what the entries say."""
    content: Map[str, object] = Map()
    for step in steps:
        apply(content, {}, step) if step[0] == "put" else content.pop(step[1])
    for page in content._layout.pages:
        assert page.keys == sorted(page.keys) and page.keys
        assert page.size == sum(content._size(key) for key in page.keys)
        assert len(page.keys) == 1 or (len(page.keys) <= PAGE_KEYS_MAX and page.size <= PAGE_SIZE_MAX)
    assert content._layout._firsts == [page.keys[0] for page in content._layout.pages]


def test_loading_in_key_order_fills_pages() -> None:
    """Sequential keys leave full pages behind, not half-full ones."""
    content: Map[int, int] = Map()
    for key in range(1280):
        content[key] = key
    assert [len(page.keys) for page in content._layout.pages] == [PAGE_KEYS_MAX] * 10


def test_emptied_pages_go_and_small_neighbours_merge() -> None:
    """Removing most entries leaves few pages."""
    content: Map[int, int] = Map()
    for key in range(1280):
        content[key] = key
    for key in range(1280):
        if key % 64:
            del content[key]
    assert list(content) == list(range(0, 1280, 64))
    assert len(content._layout.pages) <= 3
    content.clear()
    assert content.checkpoint({}) == []


def test_checkpoint_costs_what_changed() -> None:
    """One changed entry among ten thousand makes one page fresh."""
    content: Map[str, str] = Map()
    for key in range(10_000):
        content[f"{key:05}"] = "v"
    first: dict[bytes, bytes] = {}
    before = content.checkpoint(first)
    content["05000"] = "w"
    fresh: dict[bytes, bytes] = {}
    after = content.checkpoint(fresh)
    assert len(fresh) == 1 and len(before) == len(after) > 50
    assert sum(old != new for old, new in zip(before, after, strict=True)) == 1
    assert all(page_digest(body) == digest for digest, body in fresh.items())
    again: dict[bytes, bytes] = {}
    assert content.checkpoint(again) == after and not again


def test_stored_values_cannot_be_changed_from_outside() -> None:
    """Changing a list that was stored, or that was read, leaves the map alone."""
    content: Map[str, list[int]] = Map()
    mine = [1]
    content["a"] = mine
    mine.append(2)
    content["a"].append(3)
    assert content["a"] == [1]


def test_typed_map_returns_structs_before_and_after_restoring() -> None:
    """`Map[str, Account]()` decodes to Account, also on a replica that restored it."""
    content = Map[str, Account]()
    content["a"] = Account("alice", 5)
    assert content["a"] == Account("alice", 5)
    fresh: dict[bytes, bytes] = {}
    digests = content.checkpoint(fresh)
    copy = Map[str, Account]()
    copy.restore([fresh[digest] for digest in digests])
    assert copy["a"] == Account("alice", 5)


def test_untyped_map_refuses_values_whose_type_it_would_forget() -> None:
    """Structs, tuples and sets need a declared type: a restored replica could not give them back."""
    content: Map[str, object] = Map()
    for value in (Account("a", 1), (1, 2), {1}, Plain(1)):
        with pytest.raises(TypeError, match="value type"):
            content["k"] = value
    assert len(content) == 0


def test_scalar_map_refuses_other_types() -> None:
    """A wrong value is refused where it is stored, not where somebody restores."""
    content = Map[str, int]()
    for value in ("5", True, None, [1]):
        with pytest.raises(TypeError):
            content["k"] = value  # type: ignore[assignment]
    content["k"] = 5
    assert content.pop("k") == 5


@pytest.mark.parametrize(
    "value", [2**64, -(2**63) - 1, "\ud800", "x" * (ENTRY_BYTES_MAX + 1), [2**64], {"a": {1}, 2: 3}]
)
def test_values_that_could_not_be_checkpointed_are_refused_at_once(value: object) -> None:
    """Nothing that cannot be encoded waits for the next checkpoint to crash the replica."""
    content: Map[str, object] = Map()
    with pytest.raises((OverflowError, UnicodeEncodeError, ValueError, TypeError)):
        content["k"] = value
    assert "k" not in content and len(content._layout.pages) == 0


@pytest.mark.parametrize("value", [2**64 - 1, -(2**63), "x" * ENTRY_BYTES_MAX, 1.5, None, True, {}, {"b": 1, "a": [2]}])
def test_values_at_the_edge_are_kept(value: object) -> None:
    """The limits themselves are allowed, and survive a restore."""
    content: Map[str, object] = Map()
    content["k"] = value
    assert content["k"] == value == restored(content)["k"]


def test_keys_have_one_type() -> None:
    """A map's first key decides, unless its type was declared; a failed store leaves no trace."""
    content: Map[object, int] = Map()  # type: ignore[type-var]
    content["a"] = 1
    for key in (1, b"a", 1.5, True, None):
        with pytest.raises(TypeError):
            content[key] = 1
    assert list(content) == ["a"]
    with pytest.raises(TypeError):
        Map[str, int]()[b"a"] = 1  # type: ignore[index]
    with pytest.raises(TypeError):
        Map[float, int]()[1.5] = 1  # type: ignore[type-var]


def test_iteration_notices_changed_keys_but_allows_changed_values() -> None:
    """Storing under existing keys while iterating is fine, even if pages split; adding keys is not."""
    content: Map[int, str] = Map()
    for key in range(300):
        content[key] = ""
    for key in content:
        content[(key * 7) % 300] = "x" * 3000
    assert len(list(content)) == 300
    with pytest.raises(RuntimeError):
        for key in content:
            content[key + 1000] = ""


def test_guarded_map_refuses_every_kind_of_writing() -> None:
    """A query's view of a map is read-only."""
    content: Map[str, int] = Map()
    content["a"] = 1
    content.guard = Guard()
    content.guard.closed = True
    for write in (lambda: content.__setitem__("a", 2), lambda: content.pop("a"), content.clear):
        with pytest.raises(ReadOnlyError):
            write()
    assert content["a"] == 1


def test_missing_keys() -> None:
    """The dictionary's manners: KeyError, defaults, limits."""
    content: Map[bytes, int] = Map()
    content[b"a"] = 1
    with pytest.raises(KeyError):
        content[b"b"]
    with pytest.raises(KeyError):
        del content[b"b"]
    assert content.pop(b"b", 7) == 7
    assert list(content.items(limit=0)) == []
    assert list(content.values()) == [1]
    with pytest.raises(TypeError):
        list(Map[int, int]().items(prefix=1))


def test_pages_are_plain_messagepack() -> None:
    """A page is [keys, values]: the format that other replicas fetch (frozen)."""
    content: Map[str, object] = Map()
    content["b"] = [1, 2]
    content["a"] = "x"
    fresh: dict[bytes, bytes] = {}
    (digest,) = content.checkpoint(fresh)
    assert fresh[digest].hex() == "9292a161a16292a178920102"
    assert msgspec.msgpack.decode(fresh[digest]) == [["a", "b"], ["x", [1, 2]]]


def test_page_of_the_largest_entry_can_be_sent() -> None:
    """A state with a page that fits into no packet could never be fetched by a replica that fell behind."""
    content: Map[str, str] = Map()
    widest = "\U0001f600"
    with pytest.raises(ValueError, match="a map's key has at most"):
        content[widest * (KEY_BYTES_MAX + 1)] = ""
    assert len(content) == 0 and content.checkpoint({}) == []
    content[widest * KEY_BYTES_MAX] = widest * ENTRY_BYTES_MAX
    fresh: dict[bytes, bytes] = {}
    (digest,) = content.checkpoint(fresh)
    served = encode(PagesServed(0, (digest,), (digest,)))
    packet = PageBodies(Signed(1, served, bytes(64)), (fresh[digest],))
    assert decode_packet(encode(packet)) == packet
