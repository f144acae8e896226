"""Typed client of `bft.services.kv.KeyValue`.

kv = KeyValueClient(client.service(KeyValue))
await kv.put("greeting", "hello")
"""

from __future__ import annotations

from typing import cast

from bft.services.kv import SCAN_MAX
from bft.services.outcome import Remote


class KeyValueClient:
    """The methods of `KeyValue`, awaitable; the codes of their `ServiceError`s are its `errors`."""

    def __init__(self, remote: Remote) -> None:
        """Call through `remote`, which `client.service(KeyValue)` makes."""
        self._remote = remote

    async def put(self, key: str, value: str) -> str | None:
        """Store `value` under `key`; returns the value before."""
        return cast("str | None", await self._remote.invoke("put", key, value))

    async def get(self, key: str) -> str | None:
        """The value under `key`, None if there is none."""
        return cast("str | None", await self._remote.invoke("get", key))

    async def delete(self, key: str) -> str | None:
        """Remove `key`; returns its value, None if there was none."""
        return cast("str | None", await self._remote.invoke("delete", key))

    async def cas(self, key: str, expected: str | None, value: str | None) -> bool:
        """Store `value` (None: remove) if the value is `expected` (None: absent); returns whether it was."""
        return cast("bool", await self._remote.invoke("cas", key, expected, value))

    async def increment(self, key: str, by: int = 1) -> int:
        """Add `by` to the decimal integer under `key`; returns the sum."""
        return cast("int", await self._remote.invoke("increment", key, by))

    async def scan(
        self, prefix: str = "", start: str | None = None, end: str | None = None, limit: int = SCAN_MAX
    ) -> list[tuple[str, str]]:
        """Entries in key order; one answer has at most 1000 entries and 768 KiB."""
        found = await self._remote.invoke("scan", prefix, start, end, limit)
        return cast("list[tuple[str, str]]", found)

    async def clear(self) -> int:
        """Remove everything; returns how many entries there were."""
        return cast("int", await self._remote.invoke("clear"))

    async def size(self) -> int:
        """How many entries there are."""
        return cast("int", await self._remote.invoke("size"))
