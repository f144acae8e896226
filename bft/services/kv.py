"""`KeyValue`: a replicated map from text to text, and its typed client.

Keys and values are text so that they can be typed and printed; store other things as JSON or base64, or write a
service of your own. This is also the replicated map of the Apache Ratis exercise: `add`, `get`, `del_` and `clear` are
its four operations (`add` and `del_` are other names of `put` and `delete`).
"""

from __future__ import annotations

from bft.services.service import Service, command, query
from bft.state.map import Map

KEY_BYTES_MAX = 1024
VALUE_BYTES_MAX = 512 * 1024
SCAN_MAX = 1000
SCAN_BYTES_MAX = 768 * 1024
"""Bytes of keys and values in one answer of `scan`, beside the last entry: it is cut off beyond them."""
INTEGER_MIN, INTEGER_MAX = -(2**63), 2**64 - 1
"""What a result can carry."""


class KeyTooLong(ValueError):
    """A key has 1 to 1024 bytes of UTF-8."""


class ValueTooLong(ValueError):
    """A value has at most 512 KiB of UTF-8."""


class NotAnInteger(ValueError):
    """`increment` met a value that is no decimal integer, or its result would be none of 64 bits."""


class KeyValue(Service):
    """Text to text, in order of key."""

    errors = (KeyTooLong, ValueTooLong, NotAnInteger)

    def __init__(self) -> None:
        self.entries = Map[str, str]()

    @command
    def put(self, key: str, value: str) -> str | None:
        """Store `value` under `key`; returns the value before."""
        entries = self.entries
        before = entries.get(key)
        if before is None:
            _require_key(key)
        _require_value(value)
        entries[key] = value
        return before

    @command
    def delete(self, key: str) -> str | None:
        """Remove `key`; returns its value, None if there was none."""
        return self.entries.pop(key)

    @command
    def cas(self, key: str, expected: str | None, value: str | None) -> bool:
        """Store `value` (None: remove) if the value is `expected` (None: absent); returns whether it was."""
        if self.entries.get(key) != expected:
            return False
        if value is None:
            self.entries.pop(key)
            return True
        _require_key(key)
        _require_value(value)
        self.entries[key] = value
        return True

    @command
    def increment(self, key: str, by: int = 1) -> int:
        """Add `by` to the decimal integer under `key`, an absent one counting as 0; returns the sum."""
        text = self.entries.get(key, "0")
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdigit()) or len(digits) > len(str(INTEGER_MAX)):
            raise NotAnInteger(f"{key} holds {text[:40]!r}")
        total = int(text) + by
        if not INTEGER_MIN <= total <= INTEGER_MAX:
            raise NotAnInteger(f"{key} would exceed 64 bits")
        _require_key(key)
        self.entries[key] = str(total)
        return total

    @command
    def clear(self) -> int:
        """Remove everything; returns how many entries there were."""
        count = len(self.entries)
        self.entries.clear()
        return count

    @command
    def add(self, key: str, value: str) -> str | None:
        """Other name of `put`."""
        return self.put(key, value)

    @command
    def del_(self, key: str) -> str | None:
        """Other name of `delete`."""
        return self.delete(key)

    @query
    def get(self, key: str) -> str | None:
        """The value under `key`, None if there is none."""
        return self.entries.get(key)

    @query
    def scan(
        self, prefix: str = "", start: str | None = None, end: str | None = None, limit: int = SCAN_MAX
    ) -> list[tuple[str, str]]:
        """Entries in key order with `prefix`, from `start` (included) to `end` (excluded).

        At most `limit`, 1000 and 768 KiB; to go on, scan again from the last key followed by a NUL character.
        """
        found: list[tuple[str, str]] = []
        left = SCAN_BYTES_MAX
        for key, value in self.entries.items(start, end, prefix=prefix, limit=max(0, min(limit, SCAN_MAX))):
            left -= _utf8_bytes(key) + _utf8_bytes(value)
            if found and left < 0:
                break
            found.append((key, value))
        return found

    @query
    def size(self) -> int:
        """How many entries there are."""
        return len(self.entries)


def _require_key(key: str) -> None:
    if not key:
        raise KeyTooLong(f"the key is empty, allowed are 1 to {KEY_BYTES_MAX} bytes")
    if _utf8_bytes(key) > KEY_BYTES_MAX:
        raise KeyTooLong(f"{_utf8_bytes(key)} bytes, allowed are 1 to {KEY_BYTES_MAX}")


def _require_value(value: str) -> None:
    if len(value) * 4 > VALUE_BYTES_MAX and _utf8_bytes(value) > VALUE_BYTES_MAX:
        raise ValueTooLong(f"{_utf8_bytes(value)} bytes, allowed are at most {VALUE_BYTES_MAX}")


def _utf8_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
