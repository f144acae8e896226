"""`Map`: a sorted, paged dictionary whose checkpoint costs what changed.

Entries live in a hash table for access and, by key order, in pages for checkpoints. This file decides what may be
stored and when a page is dirty; `bft.state.pages` decides where pages begin and end. Nothing but the content of the
pages influences either, so a replica that restored a checkpoint lays out its pages like one that executed everything
(guarded by `test_restored_map_lays_out_pages_like_the_original`).

Values are kept so that nobody can change them behind the map's back: plain scalars as they are, everything else
encoded. Reading such a value gives a fresh copy; to change it, store it again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar, cast, get_args, overload

import msgspec
from msgspec import Raw

from bft.digests import page_digest
from bft.state.encoding import encode, require_sortable
from bft.state.pages import Layout

K = TypeVar("K", str, bytes, int)
V = TypeVar("V")
D = TypeVar("D")

ENTRY_BYTES_MAX = 2 * 1024 * 1024
"""Texts are counted in characters, at most four bytes each: a page with one such value still fits into a packet."""
KEY_BYTES_MAX = ENTRY_BYTES_MAX // 2
"""Counted alike. With longer keys a page of one entry could be too large for a packet, and nobody could fetch it."""
KEY_TYPES = (str, bytes, int)
_UNTYPED_SCALARS: frozenset[type] = frozenset({str, bytes, int, bool, float, type(None)})
_TYPED_SCALARS = frozenset({str, bytes, int, bool})
_UNTYPED_CONTAINERS = frozenset({list, dict})
_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1
_SIZED = (str, bytes, Raw)
_SCALAR_SIZE = 9
_MISSING = object()


class ReadOnlyError(Exception):
    """A query tried to change the service's state."""


class Guard:
    """Shared by the maps of a service: while `closed`, they refuse to be written."""

    __slots__ = ("closed",)

    def __init__(self) -> None:
        self.closed = False


_OPEN = Guard()


class Map(Generic[K, V]):
    """A dictionary from text, bytes or integers to values, iterated in key order.

    Create it as `bft.Map[str, Account]()` when values are Structs or other typed values; `bft.Map()` is enough for
    text, bytes, numbers, booleans, None, and lists and dicts of those. Integers fit into 64 bits; a value has at most
    2 MiB encoded, a text 2 Mi characters, and a key half of that.

    Costs: reading is a dictionary lookup (and a decoding, unless the value is a scalar); storing under an existing
    key adds a binary search over pages; a new key also an insertion into one page of at most 128 keys.
    """

    __slots__ = ("_changes", "_data", "_decoder", "_key", "_layout", "_scalars", "_typed", "guard")

    def __init__(self) -> None:
        self._data: dict[K, object] = {}
        self._layout: Layout[K] = Layout()
        self._key: type | None = None
        self._typed = False
        self._decoder: msgspec.msgpack.Decoder[object] = msgspec.msgpack.Decoder()
        self._scalars: frozenset[type] = _UNTYPED_SCALARS
        self._changes = 0
        self.guard = _OPEN

    # --- types ----------------------------------------------------------------------------------------------------

    @property
    def __orig_class__(self) -> object:
        """Set by `typing` when the map is created as `Map[K, V]()`."""
        return None

    @__orig_class__.setter
    def __orig_class__(self, alias: object) -> None:
        arguments = get_args(alias)
        if len(arguments) == 2 and not any(isinstance(argument, TypeVar) for argument in arguments):
            self.declare(*arguments)

    def declare(self, key: object, value: object) -> None:
        """Fix the types of keys and values; the service machine calls this for maps annotated on the class.

        Raises:
            TypeError: `key` is none of str, bytes, int; values would have sets of sets; or entries stored before do
                not fit.
        """
        if key not in KEY_TYPES:
            raise TypeError(f"a map's keys are str, bytes or int, found {key!r}")
        require_sortable(value)
        entries = list(self.items())
        self._key = key
        self._typed = True
        self._decoder = cast("msgspec.msgpack.Decoder[object]", msgspec.msgpack.Decoder(value))
        self._scalars = frozenset({value}) if value in _TYPED_SCALARS else frozenset()
        for name, content in entries:
            self[name] = content

    # --- reading --------------------------------------------------------------------------------------------------

    def __getitem__(self, key: K) -> V:
        value = self._data[key]
        return cast("V", self._decoder.decode(value) if type(value) is Raw else value)

    @overload
    def get(self, key: K) -> V | None: ...
    @overload
    def get(self, key: K, default: D) -> V | D: ...
    def get(self, key: K, default: D | None = None) -> V | D | None:
        """The value under `key`, or `default`."""
        value = self._data.get(key, _MISSING)
        if value is _MISSING:
            return default
        return cast("V", self._decoder.decode(value) if type(value) is Raw else value)

    def __contains__(self, key: object) -> bool:
        return key in self._data

    def __len__(self) -> int:
        return len(self._data)

    def __iter__(self) -> Iterator[K]:
        return self.keys()

    def __repr__(self) -> str:
        return f"<Map of {len(self)} entries in {len(self._layout.pages)} pages>"

    def keys(self, start: K | None = None, end: K | None = None, *, limit: int | None = None) -> Iterator[K]:
        """Keys in order, from `start` (included) to `end` (excluded), at most `limit`.

        Raises:
            RuntimeError: while iterating, a key was added or removed.
        """
        changes = self._changes
        left = len(self._data) if limit is None else limit
        for key in self._layout.keys_from(start):
            if left <= 0 or (end is not None and key >= end):
                return
            left -= 1
            yield key
            if self._changes != changes:
                raise RuntimeError("map changed its keys during iteration")

    def items(
        self, start: K | None = None, end: K | None = None, *, prefix: K | None = None, limit: int | None = None
    ) -> Iterator[tuple[K, V]]:
        """Entries in key order, from `start` (included) to `end` (excluded), with `prefix`, at most `limit`.

        Raises:
            TypeError: `prefix` is an integer.
            RuntimeError: while iterating, a key was added or removed.
        """
        if prefix is None:
            for key in self.keys(start, end, limit=limit):
                yield key, self[key]
            return
        if isinstance(prefix, int):
            raise TypeError("integers have no prefix")
        first = prefix if start is None else max(start, prefix)
        for key in self.keys(first, end, limit=limit):
            if not key.startswith(prefix):
                return
            yield key, self[key]

    def values(self) -> Iterator[V]:
        """Values in key order."""
        for key in self.keys():
            yield self[key]

    # --- writing --------------------------------------------------------------------------------------------------

    def __setitem__(self, key: K, value: V) -> None:
        if self.guard.closed:
            raise ReadOnlyError("a query cannot change a map")
        stored = self._checked(value) if type(value) in self._scalars else self._encoded(value)
        size = len(stored) if isinstance(stored, _SIZED) else _SCALAR_SIZE
        if key in self._data:
            old = self._data[key]
            self._data[key] = stored
            self._layout.grow(key, size - (len(old) if isinstance(old, _SIZED) else _SCALAR_SIZE), self._size)
            return
        self._require_key(key)
        self._data[key] = stored
        self._changes += 1
        self._layout.add(key, self._size(key), self._size)

    def __delitem__(self, key: K) -> None:
        if self.guard.closed:
            raise ReadOnlyError("a query cannot change a map")
        if key not in self._data:
            raise KeyError(key)
        size = self._size(key)
        del self._data[key]
        self._changes += 1
        self._layout.remove(key, size)

    @overload
    def pop(self, key: K) -> V | None: ...
    @overload
    def pop(self, key: K, default: D) -> V | D: ...
    def pop(self, key: K, default: D | None = None) -> V | D | None:
        """Remove `key` and return its value, or `default` if there is none."""
        if key not in self._data:
            return default
        value = self[key]
        del self[key]
        return value

    def clear(self) -> None:
        """Remove all entries."""
        if self.guard.closed:
            raise ReadOnlyError("a query cannot change a map")
        self._data.clear()
        self._changes += 1
        self._layout = Layout()

    def _checked(self, value: object) -> object:
        """A scalar that is sure to encode at the next checkpoint."""
        if isinstance(value, str):
            value.isascii() or value.encode()
        elif isinstance(value, int) and not _INT_MIN <= value <= _INT_MAX:
            raise OverflowError(f"a map's integers fit into 64 bits, found one of {value.bit_length()} bits")
        if isinstance(value, str | bytes) and len(value) > ENTRY_BYTES_MAX:
            raise ValueError(f"a map's value has at most {ENTRY_BYTES_MAX} bytes, found {len(value)}")
        return value

    def _encoded(self, value: object) -> Raw:
        if not self._typed and type(value) not in _UNTYPED_CONTAINERS:
            name = type(value).__name__
            raise TypeError(f"this map does not know its value type: create it as bft.Map[..., {name}]()")
        if self._scalars and self._typed:
            (expected,) = self._scalars
            raise TypeError(f"this map's values are {expected.__name__}, found {type(value).__name__}")
        encoded = encode(value)
        if len(encoded) > ENTRY_BYTES_MAX:
            raise ValueError(f"a map's value has at most {ENTRY_BYTES_MAX} bytes, found {len(encoded)}")
        return Raw(encoded)

    def _require_key(self, key: K) -> None:
        expected = self._key or (type(self._layout.first()) if self._data else None)
        kind = type(key)
        if kind not in KEY_TYPES or (expected is not None and kind is not expected):
            names = expected.__name__ if expected is not None else "str, bytes or int"
            raise TypeError(f"this map's keys are {names}, found {kind.__name__}")
        self._checked(key)
        if not isinstance(key, int) and len(key) > KEY_BYTES_MAX:
            raise ValueError(f"a map's key has at most {KEY_BYTES_MAX} bytes, found {len(key)}")

    def _size(self, key: K) -> int:
        """Characters or bytes of an entry, scalars counting as 9: what pages are measured by."""
        value = self._data[key]
        size = len(value) if isinstance(value, _SIZED) else _SCALAR_SIZE
        return size + (_SCALAR_SIZE if isinstance(key, int) else len(key))

    # --- checkpoints: for the service machine ---------------------------------------------------------------------

    def checkpoint(self, fresh: dict[bytes, bytes]) -> list[bytes]:
        """Digests of all pages, in key order; the bytes of pages changed since the last call go into `fresh`."""
        data = self._data
        digests = []
        for page in self._layout.pages:
            if page.digest is None:
                content = encode((page.keys, [data[key] for key in page.keys]))
                page.digest = page_digest(content)
                fresh[page.digest] = content
            digests.append(page.digest)
        return digests

    def restore(self, pages: Sequence[bytes]) -> None:
        """Replace the content by these pages, which must stem from `checkpoint` of a map of the same types."""
        self._data = {}
        self._layout = Layout()
        self._changes += 1
        for content in pages:
            keys, values = msgspec.msgpack.decode(content, type=tuple[list[object], list[Raw]])
            assert keys and len(keys) == len(values), f"a page has as many keys as values: {len(keys)}, {len(values)}"
            for key, raw in zip(cast("list[K]", keys), values, strict=True):
                self._data[key] = self._stored(raw)
            self._layout.append(cast("list[K]", keys), page_digest(content), self._size)

    def _stored(self, raw: Raw) -> object:
        """What `__setitem__` kept for the value that is encoded as `raw`."""
        if self._scalars:
            value: object = msgspec.msgpack.decode(raw)
            if type(value) in self._scalars:
                return value
        return raw.copy()
