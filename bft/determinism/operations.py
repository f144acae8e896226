"""Operations to check a service with: made up from its annotations, or read from a file.

Made-up arguments come from small pools on purpose: keys that meet again are what makes state.
"""

from __future__ import annotations

import datetime
import decimal
import math
import random
import string
import uuid
from collections.abc import Callable, Iterator
from functools import reduce
from operator import or_
from pathlib import Path

import msgspec
import msgspec.inspect as shape

from bft.errors import ConfigError
from bft.services.interface import DECODE_ERRORS, Interface, Kind, Method
from bft.services.loading import load_service_class
from bft.services.service import Service
from bft.state.encoding import encode

TRIES = 50
DEPTH_ITEMS = (4, 2, 1)
"""Longest made-up collection, by depth."""
WORDS = (
    "alice",
    "bob",
    "carol",
    "dave",
    "erin",
    "frank",
    "grace",
    "heidi",
    "ivan",
    "judy",
    "",
    "ä/ö",
    "Zoë",
    "10",
    "9",
)
NUMBERS = (0, 1, 2, 3, 5, 8, 13, 100, 127, 128, 255, 1000, 65536, 2**31, 2**53, -1, -2, -100)
EPOCH = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)


def made_up(interface: Interface[Service], dice: random.Random) -> Iterator[tuple[Kind, bytes]]:
    """Operations without end: (kind of method, bytes); every method as often as the others.

    Raises:
        ConfigError: no valid arguments were found for a method; the text says for which.
    """
    methods = [interface.methods[name] for name in sorted(interface.methods)]
    types = {method.name: operation for operation, method in interface.by_type.items()}
    while True:
        method = dice.choice(methods)
        yield method.kind, _operation(interface, method, types[method.name], dice)


def from_file(path: Path, interface: Interface[Service] | None) -> Iterator[tuple[Kind, bytes]]:
    """Operations of a file: per line a JSON array `["method", argument, ...]`, bytes as base64; or, for a state machine
    on bytes (`interface` is None), hex digits. Empty lines and lines that begin with # are skipped.

    Raises:
        ConfigError: the file cannot be read, or a line is no operation of the service.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    read = _hex if interface is None else _json_reader(interface)
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            yield read(line)
        except (*DECODE_ERRORS, ValueError, RecursionError) as error:
            raise ConfigError(f"{path}:{number}: is no operation of the service: {error}") from error


def interface_at(path: str) -> Interface[Service] | None:
    """The typed interface of the service at `package.module:Class`; None for a state machine on bytes.

    Raises:
        ConfigError: there is no such class, it is neither of the two, or its methods cannot be replicated.
    """
    found = load_service_class(path)
    if not issubclass(found, Service):
        return None
    try:
        return Interface(found)
    except TypeError as error:
        raise ConfigError(f"service is {path!r}: {error}") from error


def _hex(line: str) -> tuple[Kind, bytes]:
    return "command", bytes.fromhex(line.strip())


def _json_reader(interface: Interface[Service]) -> Callable[[str], tuple[Kind, bytes]]:
    decoder: msgspec.json.Decoder[object] = msgspec.json.Decoder(reduce(or_, interface.by_type))

    def read(line: str) -> tuple[Kind, bytes]:
        operation = decoder.decode(line)
        return interface.by_type[type(operation)].kind, encode(operation)

    return read


def _operation(interface: Interface[Service], method: Method, kind: type, dice: random.Random) -> bytes:
    """Valid arguments for a method: tried until the service's own decoder takes them."""
    info = shape.type_info(kind)
    assert isinstance(info, shape.StructType), "operations are structs"
    failure = ""
    for _ in range(TRIES):
        try:
            operation = encode((method.name, *(_value(field.type, dice, 0) for field in info.fields)))
            interface.decode(operation)
        except (*DECODE_ERRORS, TypeError, ValueError) as error:
            failure = str(error)
            continue
        return operation
    raise ConfigError(
        f"no valid arguments for {method.name}{method.signature} were found ({failure}): give operations by a file"
    )


def _value(kind: shape.Type, dice: random.Random, depth: int) -> object:
    """A value of a type, often one that was made before."""
    match kind:
        case shape.Metadata():
            return _value(kind.type, dice, depth)
        case shape.NoneType():
            return None
        case shape.BoolType():
            return dice.random() < 0.5
        case shape.IntType():
            return _integer(kind, dice)
        case shape.FloatType():
            return _bounded_float(kind, dice)
        case shape.StrType():
            return _text(kind, dice)
        case shape.BytesType() | shape.ByteArrayType():
            return dice.choice(WORDS).encode().ljust(kind.min_length or 0, b"x")[: kind.max_length]
        case shape.EnumType():
            return dice.choice(list(kind.cls))
        case shape.LiteralType():
            return dice.choice(kind.values)
        case shape.UnionType():
            return _value(dice.choice(kind.types), dice, depth)
        case _:
            return _composite(kind, dice, depth)


def _composite(kind: shape.Type, dice: random.Random, depth: int) -> object:
    match kind:
        case shape.StructType():
            return kind.cls(**{field.name: _value(field.type, dice, depth + 1) for field in kind.fields})
        case shape.NamedTupleType():
            return tuple(_value(field.type, dice, depth + 1) for field in kind.fields)
        case shape.TupleType():
            return tuple(_value(item, dice, depth + 1) for item in kind.item_types)
        case shape.DictType():
            length = _length(kind.min_length, kind.max_length, dice, depth)
            entries = (
                (_value(kind.key_type, dice, depth + 1), _value(kind.value_type, dice, depth + 1))
                for _ in range(length)
            )
            return dict(entries)
        case shape.CollectionType():
            length = _length(kind.min_length, kind.max_length, dice, depth)
            return [_value(kind.item_type, dice, depth + 1) for _ in range(length)]
        case _:
            return _standard(kind, dice)


def _standard(kind: shape.Type, dice: random.Random) -> object:
    moment = EPOCH + datetime.timedelta(seconds=dice.randrange(400 * 86_400))
    match kind:
        case shape.DateTimeType():
            return moment if kind.tz is not False else moment.replace(tzinfo=None)
        case shape.DateType():
            return moment.date()
        case shape.TimeType():
            return moment.timetz() if kind.tz is not False else moment.time()
        case shape.TimeDeltaType():
            return datetime.timedelta(seconds=dice.choice(NUMBERS[:12]))
        case shape.DecimalType():
            return decimal.Decimal(dice.choice(NUMBERS)) / 100
        case shape.UUIDType():
            return uuid.UUID(int=dice.randrange(16))
        case _:
            raise TypeError(f"no values of {type(kind).__name__.removesuffix('Type')} are known")


def _integer(kind: shape.IntType, dice: random.Random) -> int:
    low = -(2**63) if kind.ge is None and kind.gt is None else _least(kind)
    high = 2**64 - 1 if kind.le is None and kind.lt is None else _greatest(kind)
    fitting = [number for number in NUMBERS if low <= number <= high]
    number = dice.choice(fitting) if fitting and dice.random() < 0.9 else dice.randint(low, min(high, low + 1000))
    return number - number % kind.multiple_of if kind.multiple_of else number


def _least(kind: shape.IntType) -> int:
    return int(kind.ge) if kind.ge is not None else int(kind.gt or 0) + 1


def _greatest(kind: shape.IntType) -> int:
    return int(kind.le) if kind.le is not None else int(kind.lt or 0) - 1


def _bounded_float(kind: shape.FloatType, dice: random.Random) -> float:
    low = next((bound for bound in (kind.ge, kind.gt) if bound is not None), -1e6)
    high = next((bound for bound in (kind.le, kind.lt) if bound is not None), max(1e6, low + 1e6))
    value = dice.choice((0.1, 0.2, 0.3, 1 / 3, 1e-9, 1e9, float(dice.randrange(100)), dice.uniform(low, high)))
    return value if low <= value <= high and math.isfinite(value) else dice.uniform(low, high)


def _text(kind: shape.StrType, dice: random.Random) -> str:
    word = dice.choice(WORDS) if dice.random() < 0.8 else "".join(dice.choices(string.ascii_lowercase, k=6))
    return word.ljust(kind.min_length or 0, "x")[: kind.max_length]


def _length(least: int | None, most: int | None, dice: random.Random, depth: int) -> int:
    low = least or 0
    high = low + DEPTH_ITEMS[min(depth, len(DEPTH_ITEMS) - 1)]
    return dice.randint(low, high if most is None else max(low, min(high, most)))
