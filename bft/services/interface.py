"""From annotated methods to bytes and back: what a service's operations look like, worked out once per class.

An operation is a MessagePack array `[method, argument, ...]`. All operations of a service form one tagged union, so
that hostile bytes meet a single strict decoding: unknown method, wrong number of arguments and wrong type all fail
there. Argument types must not nest without bound, since how deep a decoder can follow depends on the process, and
replicas must agree on what they refuse.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any, Generic, Literal, TypeVar, cast, get_type_hints

import msgspec
import msgspec.inspect as shape

from bft.state.encoding import encode, require_sortable

S = TypeVar("S")
Kind = Literal["command", "query"]
Invoke = Callable[[Any, Any], object]  # a service and a decoded operation: types that exist at run time only
Fields = list[tuple[str, Any] | tuple[str, Any, Any]]  # name, annotation, default: as msgspec.defstruct takes them
MARK = "__bft_method__"
PROXY_METHODS = frozenset({"invoke", "lane", "weak", "within"})
"""What typed clients have beside a service's own methods, which they would hide."""
_interfaces: dict[type, object] = {}

ARGUMENT_PATH = re.compile(r"`\$\[(\d+)\]")
DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, OverflowError)
"""What decoding hostile bytes can raise."""
_LEAVES = (
    shape.NoneType,
    shape.BoolType,
    shape.IntType,
    shape.FloatType,
    shape.StrType,
    shape.BytesType,
    shape.ByteArrayType,
    shape.DateTimeType,
    shape.DateType,
    shape.TimeType,
    shape.TimeDeltaType,
    shape.DecimalType,
    shape.UUIDType,
    shape.EnumType,
    shape.LiteralType,
)


@dataclass(frozen=True, slots=True)
class Mark:
    """What a decorator leaves on a method."""

    kind: Kind
    errors: tuple[type[Exception], ...]


@dataclass(frozen=True, slots=True)
class Method:
    """One operation of a service.

    Attributes:
        invoke: calls the method of a service with a decoded operation.
        errors: exceptions that travel as results.
        signature: parameters without `self`.
        keywords: names of those that can be given by name only; as operations are arrays, they are the last ones.
        operation: decodes calls of this method.
        result: decodes what the method returned.
    """

    name: str
    kind: Kind
    invoke: Invoke
    errors: tuple[type[Exception], ...]
    signature: inspect.Signature
    keywords: tuple[str, ...]
    operation: msgspec.msgpack.Decoder[msgspec.Struct]
    result: msgspec.msgpack.Decoder[object]

    def encode(self, args: Sequence[object], kwargs: dict[str, object]) -> bytes:
        """The operation that calls this method, refused here already if replicas would answer `BadArguments`.

        Raises:
            TypeError: the arguments do not fit the signature in number, name or type, or cannot be encoded.
            UnicodeEncodeError: a text holds lone surrogates.
        """
        try:
            if kwargs or len(args) != len(self.signature.parameters) or self.keywords:
                bound = self.signature.bind(*args, **kwargs)
                bound.apply_defaults()
                args = bound.args + tuple(bound.kwargs.values())
            operation = encode((self.name, *args))
            self.operation.decode(operation)
        except (TypeError, OverflowError, msgspec.DecodeError) as error:
            raise TypeError(f"{self.name}{self.signature}: {self._named(str(error))}") from error
        return operation

    def _named(self, flaw: str) -> str:
        """msgspec counts arguments from 1, after the method's name: call them as the signature does."""
        names = list(self.signature.parameters)
        return ARGUMENT_PATH.sub(lambda found: f"`{names[int(found[1]) - 1]}", flaw)


class Interface(Generic[S]):
    """The operations of one service class.

    Attributes:
        methods: by name.
        decode: bytes to an instance of one of the operation types.
        by_type: method by operation type.
    """

    def __init__(self, service: type[S]) -> None:
        self.service = service
        self.methods: dict[str, Method] = {}
        self.by_type: dict[type, Method] = {}
        for name in sorted(dir(service)):
            found = inspect.getattr_static(service, name)
            is_bound = isinstance(found, staticmethod | classmethod)
            mark = getattr(found, MARK, None) or (getattr(found.__func__, MARK, None) if is_bound else None)
            if isinstance(mark, Mark):
                if is_bound:
                    raise TypeError(f"{service.__name__}.{name} has no self: commands and queries are plain methods")
                self._add(name, mark)
        if not self.by_type:
            raise TypeError(f"{service.__name__} has no method marked @bft.command or @bft.query")
        union = reduce(or_, self.by_type)
        self.decode: Callable[[bytes], object] = msgspec.msgpack.Decoder(union).decode

    def _add(self, name: str, mark: Mark) -> None:
        function = getattr(self.service, name)
        where = f"{self.service.__name__}.{name}"
        if name in PROXY_METHODS:
            raise TypeError(f"{where}: typed clients have a method of this name: choose another one")
        hints = _hints(function, where)
        parameters = list(inspect.signature(function).parameters.values())[1:]
        fields: Fields = []
        for place, parameter in enumerate(parameters):
            kind = _argument_type(parameter, hints, where)
            has_default = parameter.default is not parameter.empty
            fields.append((f"a{place}", kind, parameter.default) if has_default else (f"a{place}", kind))
        operation = _operation_type(name, fields)
        if "return" not in hints:
            raise TypeError(f"{where} does not say what it returns")
        result = _result_decoder(hints["return"], where)
        signature = inspect.Signature([each.replace(annotation=hints[each.name]) for each in parameters])
        keywords = tuple(each.name for each in parameters if each.kind is each.KEYWORD_ONLY)
        invoke = _invoker(function, len(parameters), keywords)
        decoder = msgspec.msgpack.Decoder(operation)
        method = Method(name, mark.kind, invoke, mark.errors, signature, keywords, decoder, result)
        self.methods[name] = method
        self.by_type[operation] = method

    def method(self, wanted: Callable[..., object] | str) -> Method:
        """The method of this name, or that stands so in the class or one of its bases.

        Raises:
            AttributeError: the service has no such command or query.
        """
        name = wanted if isinstance(wanted, str) else getattr(wanted, "__name__", repr(wanted))
        found = self.methods.get(name)
        is_ours = isinstance(wanted, str) or any(vars(kind).get(name) is wanted for kind in self.service.__mro__)
        if found is None or not is_ours:
            what = repr(name) if isinstance(wanted, str) else getattr(wanted, "__qualname__", name)
            raise AttributeError(f"{self.service.__name__} has no command or query {what}")
        return found

    def refuse(self, operation: bytes) -> tuple[str, str]:
        """Why `decode` refuses these bytes: (code, detail). A function of the bytes and the class alone."""
        name = method_name(operation)
        if name is None:
            return "BadOperation", "expected an array that begins with a method's name"
        method = self.methods.get(name)
        if method is None:
            return "UnknownMethod", name
        return "BadArguments", f"expected {name}({', '.join(method.signature.parameters)})"


def interface_of(service: type[S]) -> Interface[S]:
    """The interface of a service class.

    Raises:
        TypeError: a method's annotations are missing or not allowed; the text says where and why.
    """
    found = _interfaces.get(service)
    if found is None:
        found = _interfaces[service] = Interface(service)
    return cast("Interface[S]", found)


def method_name(operation: bytes) -> str | None:
    """The name that an operation begins with, at most 64 characters; None if it does not begin like an operation."""
    try:
        header = operation[0]
        start = {0xDC: 3, 0xDD: 5}.get(header, 1)
        if start == 1 and not 0x91 <= header <= 0x9F:
            return None
        size = operation[start]
        if size == 0xD9:
            start += 1
            size = operation[start]
        elif 0xA0 <= size <= 0xBF:
            size -= 0xA0
        else:
            return None
        return operation[start + 1 : start + 1 + size].decode()[:64]
    except (IndexError, UnicodeDecodeError):
        return None


def _hints(function: Callable[..., object], where: str) -> dict[str, object]:
    if inspect.iscoroutinefunction(function):
        raise TypeError(f"{where} is async: services compute, they do not wait")
    try:
        return get_type_hints(function, include_extras=True)
    except NameError as error:
        raise TypeError(f"{where}: an annotation cannot be resolved: {error}") from error


def _argument_type(parameter: inspect.Parameter, hints: dict[str, object], where: str) -> object:
    place = f"argument {parameter.name!r} of {where}"
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        raise TypeError(f"{place} is variable: operations have a fixed list of arguments")
    if parameter.name not in hints:
        raise TypeError(f"{place} has no annotation")
    kind = hints[parameter.name]
    try:
        _require_bounded(shape.type_info(kind))
    except TypeError as error:
        raise TypeError(f"{place}: {error}") from error
    return kind


def _result_decoder(kind: object, where: str) -> msgspec.msgpack.Decoder[object]:
    try:
        require_sortable(kind)
        found = shape.type_info(kind)
        decoder: msgspec.msgpack.Decoder[object] = msgspec.msgpack.Decoder(kind)
    except TypeError as error:
        raise TypeError(f"what {where} returns: {error}") from error
    if isinstance(found, shape.CustomType) and found.cls is not object:
        raise TypeError(f"what {where} returns: {kind} has no MessagePack encoding (of many things return a list)")
    return decoder


def _require_bounded(kind: shape.Type, above: tuple[type, ...] = ()) -> None:
    """Refuse types whose decoding may follow hostile bytes to any depth, and types that nobody has thought about."""
    match kind:
        case shape.Metadata():
            _require_bounded(kind.type, above)
        case shape.StructType():
            if kind.cls in above:
                raise TypeError(f"{kind.cls.__name__} holds itself, which nests without bound")
            if not kind.forbid_unknown_fields:
                raise TypeError(f"{kind.cls.__name__} must be declared with forbid_unknown_fields=True")
            for field in kind.fields:
                _require_bounded(field.type, (*above, kind.cls))
        case shape.NamedTupleType():
            for field in kind.fields:
                _require_bounded(field.type, above)
        case shape.UnionType():
            for option in kind.types:
                _require_bounded(option, above)
        case shape.DictType():
            _require_bounded(kind.key_type, above)
            _require_bounded(kind.value_type, above)
        case shape.TupleType():
            for item in kind.item_types:
                _require_bounded(item, above)
        case shape.CollectionType():
            _require_bounded(kind.item_type, above)
        case _ if not isinstance(kind, _LEAVES):
            name = type(kind).__name__.removesuffix("Type")
            raise TypeError(f"{name} may nest without bound: use bytes, str, or a Struct that forbids unknown fields")


def _operation_type(name: str, fields: Fields) -> type[msgspec.Struct]:
    return msgspec.defstruct(name, fields, array_like=True, tag=name, frozen=True, forbid_unknown_fields=True, gc=False)


def _invoker(function: Callable[..., object], arguments: int, keywords: tuple[str, ...]) -> Invoke:
    """Call `function` with the fields of an operation, without a loop where that is common."""
    unpack = msgspec.structs.astuple
    if keywords:
        first = arguments - len(keywords)

        def invoke(service: Any, operation: Any) -> object:
            values = unpack(operation)
            return function(service, *values[:first], **dict(zip(keywords, values[first:], strict=True)))

        return invoke
    if arguments == 0:
        return lambda service, operation: function(service)
    if arguments == 1:
        return lambda service, operation: function(service, operation.a0)
    if arguments == 2:
        return lambda service, operation: function(service, operation.a0, operation.a1)
    return lambda service, operation: function(service, *unpack(operation))
