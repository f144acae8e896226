"""One encoding for state, results and arguments: MessagePack whose bytes depend on the value alone.

Sets and dicts with text keys are written in sorted order. Dicts with other keys keep their order of insertion, which
is a function of the operations executed and survives decoding; a value that mixes those with sets has no such order
and is refused. Nor has a set of sets, since "less" means "part of" among them: declared types that have one are refused
(`require_sortable`), while undeclared values are not searched for them. A set with a NaN is nobody's to declare.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence
from typing import Protocol

import msgspec
import msgspec.inspect as shape

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


def require_sortable(kind: object) -> None:
    """Refuse a declared type that holds a set of sets: their order would be that of hashing.

    Raises:
        TypeError: it does, or it is no type that can be decoded.
    """
    _require_sortable(shape.type_info(kind), False, set())


def _require_sortable(kind: shape.Type, in_set: bool, seen: set[tuple[type, bool]]) -> None:
    is_set = isinstance(kind, shape.SetType | shape.FrozenSetType)
    if is_set and in_set:
        raise TypeError("a set inside of a set has no order to be encoded in: use tuples of sorted items")
    cls = getattr(kind, "cls", None)
    if isinstance(cls, type):
        if (cls, in_set) in seen:
            return  # it holds itself
        seen.add((cls, in_set))
    for inner in _inner_types(kind):
        _require_sortable(inner, in_set or is_set, seen)


def _inner_types(kind: shape.Type) -> list[shape.Type]:
    match kind:
        case shape.Metadata():
            return [kind.type]
        case shape.UnionType():
            return list(kind.types)
        case shape.TupleType():
            return list(kind.item_types)
        case shape.CollectionType():
            return [kind.item_type]
        case shape.DictType():
            return [kind.key_type, kind.value_type]
        case shape.StructType() | shape.NamedTupleType() | shape.DataclassType() | shape.TypedDictType():
            return [field.type for field in kind.fields]
        case _:
            return []
