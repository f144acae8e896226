"""Take the pages of a typed service apart, to say in words where two states differ.

Works on bytes alone, so that a replica can explain its own pages beside a quorum's, and a checker those of two
processes. What it says is for people: nothing is decided by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import msgspec
from msgspec import Raw

K = TypeVar("K")
VALUE_CHARACTERS_MAX = 160
DIFFERENCES_MAX = 8
ABSENT = "absent"
_MISSING = object()


class Head(msgspec.Struct, array_like=True):
    """First page of a typed service: plain attributes by name, and how many pages each map has."""

    attributes: dict[str, Raw]
    maps: dict[str, int]


@dataclass(frozen=True, slots=True)
class Difference:
    """One place where two states, or two results, are not the same.

    Attributes:
        path: where, as Python would write it: `accounts['alice'].2`, `attribute total`, `result[0]`.
        first, second: what stands there on either side, as short text; `absent` if nothing does.
        page: which page of the state, as `accounts page 3`; empty for results.
    """

    path: str
    first: str
    second: str
    page: str = ""

    def __str__(self) -> str:
        where = f"{self.page}: " if self.page else ""
        return f"{where}{self.path}: {self.first} != {self.second}"


head_decoder = msgspec.msgpack.Decoder(Head)
_page_decoder = msgspec.msgpack.Decoder(tuple[list[object], list[Raw]])


def state_differences(first: Sequence[bytes], second: Sequence[bytes]) -> list[Difference]:
    """Where two typed services' pages differ: at most `DIFFERENCES_MAX` places, attributes first, then maps by key.

    Pages of another layout (a `StateMachine` on bytes) are compared whole.
    """
    try:
        places = list(islice(_typed_differences(first, second), DIFFERENCES_MAX))
    except (msgspec.DecodeError, UnicodeDecodeError, IndexError, TypeError):
        places = []
    return places or list(islice(_raw_differences(first, second), DIFFERENCES_MAX))


def value_difference(path: str, first: bytes, second: bytes) -> Difference:
    """The first place where two encoded values differ; they must not be equal as bytes."""
    try:
        left, right = msgspec.msgpack.decode(first), msgspec.msgpack.decode(second)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Difference(path, short(first), short(second))
    return _first(path, left, right) or Difference(path, short(first), short(second))


def short(value: object) -> str:
    """A value as text that fits into a line."""
    if value is _MISSING:
        return ABSENT
    text = repr(value)
    return text if len(text) <= VALUE_CHARACTERS_MAX else f"{text[:VALUE_CHARACTERS_MAX]}... ({len(text)} characters)"


def _typed_differences(first: Sequence[bytes], second: Sequence[bytes]) -> Iterator[Difference]:
    ours, theirs = head_decoder.decode(first[0]), head_decoder.decode(second[0])
    for name in _either(ours.attributes, theirs.attributes):
        yield from _entry(f"attribute {name}", "attributes", ours.attributes.get(name), theirs.attributes.get(name))
    own_pages, their_pages = _pages_by_map(ours, first), _pages_by_map(theirs, second)
    for name in _either(own_pages, their_pages):
        yield from _map_differences(name, own_pages.get(name, []), their_pages.get(name, []))


def _pages_by_map(head: Head, pages: Sequence[bytes]) -> dict[str, list[bytes]]:
    found = {}
    start = 1
    for name, count in head.maps.items():
        found[name] = list(pages[start : start + count])
        start += count
    if start != len(pages):
        raise IndexError(f"the head announces {start} pages, found {len(pages)}")
    return found


def _map_differences(name: str, first: list[bytes], second: list[bytes]) -> Iterator[Difference]:
    same = set(first) & set(second)  # asked for membership only
    left, right = _entries(first, same), _entries(second, same)
    before = 0
    for key in _either(left, right):
        page, value = left.get(key, (-1, None))
        other_page, other = right.get(key, (-1, None))
        for difference in _entry(f"{name}[{key!r}]", f"{name} page {max(page, other_page)}", value, other):
            before += 1
            yield difference
    if not before and first != second:
        yield Difference(name, f"{len(first)} pages", f"{len(second)} pages, cut elsewhere", f"{name} pages")


def _entries(pages: list[bytes], skipped: set[bytes]) -> dict[object, tuple[int, Raw]]:
    found: dict[object, tuple[int, Raw]] = {}
    for index, page in enumerate(pages):
        if page not in skipped:
            keys, values = _page_decoder.decode(page)
            found.update((key, (index, value)) for key, value in zip(keys, values, strict=True))
    return found


def _entry(path: str, page: str, first: Raw | None, second: Raw | None) -> Iterator[Difference]:
    if first is None or second is None:
        yield Difference(path, _decoded(first), _decoded(second), page)
    elif bytes(first) != bytes(second):
        found = value_difference(path, bytes(first), bytes(second))
        yield Difference(found.path, found.first, found.second, page)


def _decoded(value: Raw | None) -> str:
    return ABSENT if value is None else short(msgspec.msgpack.decode(value))


def _raw_differences(first: Sequence[bytes], second: Sequence[bytes]) -> Iterator[Difference]:
    for index in range(max(len(first), len(second))):
        left: object = first[index] if index < len(first) else _MISSING
        right: object = second[index] if index < len(second) else _MISSING
        if left != right:
            yield Difference(f"page {index}", short(left), short(right), f"page {index}")


def _first(path: str, left: object, right: object) -> Difference | None:
    """The first difference inside two decoded values, in the order in which they were written."""
    if isinstance(left, list) and isinstance(right, list):
        for index, (one, other) in enumerate(zip(left, right, strict=False)):
            found = _first(f"{path}[{index}]", one, other)
            if found is not None:
                return found
        return None if len(left) == len(right) else Difference(f"len({path})", str(len(left)), str(len(right)))
    if isinstance(left, dict) and isinstance(right, dict):
        for key in _either(left, right):
            found = _first(f"{path}[{key!r}]", left.get(key, _MISSING), right.get(key, _MISSING))
            if found is not None:
                return found
        keys, others = list(left), list(right)
        return None if keys == others else Difference(f"order of {path}", short(keys), short(others))
    if type(left) is type(right) and (left == right or (left != left and right != right)):
        return None
    return Difference(path, short(left), short(right))


def _either(first: Mapping[K, object], second: Mapping[K, object]) -> list[K]:
    """Keys of both, those of the first in its order, then what only the second has."""
    return [*first, *(key for key in second if key not in first)]
