"""Where the pages of a map begin and end.

Every rule reads page contents only: number of keys, sizes of entries, order of pages. What was stored or removed
before the last checkpoint, and when checkpoints happen, leaves no other trace.

- A key belongs to the last page whose first key is not above it, or to the first page.
- A page with more than `PAGE_KEYS_MAX` keys or a size above `PAGE_SIZE_MAX` is split, unless it has one entry: behind
  its last-but-one key when a new last key of the last page made it too large (so that loading in key order fills
  pages), otherwise where its size halves.
- When a removal leaves a page empty, it goes; when it leaves it small, it is merged with its right neighbour, or else
  its left one, if the two together are at most half full.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", str, bytes, int)

PAGE_KEYS_MAX = 128
PAGE_SIZE_MAX = 16 * 1024


@dataclass(slots=True)
class Page(Generic[K]):
    """Neighbouring keys; `size` is the sum of their entries' sizes, `digest` is None while the page is dirty."""

    keys: list[K]
    size: int
    digest: bytes | None = None


class Layout(Generic[K]):
    """The pages of a map, in key order. `sizes` arguments tell the size of the entry under a key."""

    __slots__ = ("_firsts", "pages")

    def __init__(self) -> None:
        self.pages: list[Page[K]] = []
        self._firsts: list[K] = []

    def first(self) -> K:
        """The lowest key; there must be one."""
        return self._firsts[0]

    def keys_from(self, start: K | None) -> Iterator[K]:
        """Keys in order, from `start` (included) on. Pages may be split meanwhile, keys may not change."""
        keys: list[K] = []
        if self.pages and start is None:
            keys = self.pages[0].keys[:]
        elif self.pages and start is not None:
            keys = self._run(self._index(start), start, bisect_left)
        while keys:
            yield from keys
            keys = self._run(self._index(keys[-1]), keys[-1], bisect_right)

    def _run(self, index: int, key: K, bisect: Callable[[list[K], K], int]) -> list[K]:
        """The rest of the page behind `key`, or else the whole next page."""
        page = self.pages[index]
        keys = page.keys[bisect(page.keys, key) :]
        return keys if keys or index + 1 == len(self.pages) else self.pages[index + 1].keys[:]

    def grow(self, key: K, by: int, sizes: Callable[[K], int]) -> None:
        """The entry under the existing `key` was replaced by one larger by `by` (negative: smaller)."""
        index = bisect_right(self._firsts, key) - 1
        page = self.pages[index]
        page.digest = None
        page.size += by
        if page.size > PAGE_SIZE_MAX:
            self._split(index, sizes)

    def add(self, key: K, size: int, sizes: Callable[[K], int]) -> None:
        """A new entry of `size` was stored under `key`."""
        if not self.pages:
            self._insert(0, Page([key], size))
            return
        index = self._index(key)
        page = self.pages[index]
        insort(page.keys, key)
        page.size += size
        page.digest = None
        self._firsts[index] = page.keys[0]
        if len(page.keys) > PAGE_KEYS_MAX or page.size > PAGE_SIZE_MAX:
            if index == len(self.pages) - 1 and page.keys[-1] == key and len(page.keys) > 1:
                page.keys.pop()
                page.size -= size
                self._insert(index + 1, Page([key], size))
            else:
                self._split(index, sizes)

    def remove(self, key: K, size: int) -> None:
        """The entry of `size` under `key` was removed."""
        index = self._index(key)
        page = self.pages[index]
        del page.keys[bisect_left(page.keys, key)]
        page.size -= size
        page.digest = None
        if not page.keys:
            del self.pages[index], self._firsts[index]
            return
        self._firsts[index] = page.keys[0]
        if len(page.keys) <= PAGE_KEYS_MAX // 4 and page.size <= PAGE_SIZE_MAX // 4:
            _ = self._merge(index, index + 1) or self._merge(index - 1, index)

    def append(self, keys: list[K], digest: bytes, sizes: Callable[[K], int]) -> None:
        """Add a restored page behind the others."""
        assert not self.pages or self.pages[-1].keys[-1] < keys[0], f"pages ascend: {keys[0]!r}"
        self._insert(len(self.pages), Page(keys, sum(map(sizes, keys)), digest))

    def _index(self, key: K) -> int:
        return max(bisect_right(self._firsts, key) - 1, 0)

    def _insert(self, index: int, page: Page[K]) -> None:
        self.pages.insert(index, page)
        self._firsts.insert(index, page.keys[0])

    def _split(self, index: int, sizes: Callable[[K], int]) -> None:
        """Split the page, and its halves, until each keeps the limits or has one entry."""
        page = self.pages[index]
        if len(page.keys) == 1 or (len(page.keys) <= PAGE_KEYS_MAX and page.size <= PAGE_SIZE_MAX):
            return
        left, cut = 0, 0
        while cut < len(page.keys) - 1 and (cut == 0 or 2 * left < page.size):
            left += sizes(page.keys[cut])
            cut += 1
        right = Page(page.keys[cut:], page.size - left)
        del page.keys[cut:]
        page.size, page.digest = left, None
        self._insert(index + 1, right)
        self._split(index + 1, sizes)
        self._split(index, sizes)

    def _merge(self, left: int, right: int) -> bool:
        if left < 0 or right >= len(self.pages):
            return False
        into, page = self.pages[left], self.pages[right]
        if len(into.keys) + len(page.keys) > PAGE_KEYS_MAX // 2 or into.size + page.size > PAGE_SIZE_MAX // 2:
            return False
        into.keys += page.keys
        into.size += page.size
        into.digest = None
        del self.pages[right], self._firsts[right]
        return True
