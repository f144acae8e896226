"""One encoding for state, results and arguments: MessagePack whose bytes depend on the value alone.

Sets and dicts with text keys are written in sorted order. Dicts with other keys keep their order of insertion, which
is a function of the operations executed and survives decoding; a value that mixes those with sets has no such order
and is refused.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence
from typing import Protocol

import msgspec

_sorted = msgspec.msgpack.Encoder(order="deterministic").encode
_as_inserted = msgspec.msgpack.Encoder().encode


class _Field(Protocol):
    name: str


def encode(value: object) -> bytes:
    """Encode a value that a service returns or keeps.

    Raises:
        TypeError: the value's type has no MessagePack encoding, or a set stands beside a dict without text keys.
        OverflowError: an integer does not fit into 64 bits.
        UnicodeEncodeError: a text holds lone surrogates.
    """
    try:
        return _sorted(value)
    except TypeError:
        require_ordered(value)
        return _as_inserted(value)


def require_ordered(value: object) -> None:
    """Refuse sets: their order of iteration differs between processes.

    Raises:
        TypeError: a set was found inside `value`.
    """
    if isinstance(value, set | frozenset):
        raise TypeError("a set cannot be encoded beside a dict whose keys are not text")
    if isinstance(value, dict):
        for key, item in value.items():
            require_ordered(key)
            require_ordered(item)
    elif isinstance(value, list | tuple):
        for item in value:
            require_ordered(item)
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            require_ordered(getattr(value, name))
    elif isinstance(value, enum.Enum):
        require_ordered(value.value)
    else:
        fields = dataclasses.fields(value) if dataclasses.is_dataclass(value) else _attrs_fields(value)
        for field in fields:
            require_ordered(getattr(value, field.name))


def _attrs_fields(value: object) -> Sequence[_Field]:
    """Fields of an instance of an `attrs` class, which msgspec encodes as well; none of anything else."""
    found: Sequence[_Field] = getattr(type(value), "__attrs_attrs__", ())
    return found
