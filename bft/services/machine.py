"""Runs a `Service` as a `StateMachine` on bytes.

Per operation: one decoding, one call, one encoding. Per checkpoint: a page for the plain attributes, then the pages
of each `Map` in order of attribute name.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MemberDescriptorType
from typing import cast, get_args, get_origin, get_type_hints

import msgspec

from bft.digests import page_digest
from bft.messages import OPERATION_BYTES_MAX, STATUS_ERROR, STATUS_FAILED, STATUS_OK
from bft.ports import ExecutionContext
from bft.services.anatomy import Head, head_decoder, state_differences
from bft.services.interface import Method, interface_of
from bft.services.service import Service, current
from bft.state.encoding import encode, require_sortable
from bft.state.map import Guard, Map, ReadOnlyError

RESULT_BYTES_MAX = OPERATION_BYTES_MAX
DETAIL_CHARACTERS_MAX = 1024
ENVIRONMENT_ERRORS = (MemoryError, OSError, RecursionError, ImportError, SystemError)
"""Raised here but perhaps not on other replicas: never results, always the end of this replica."""


class ServiceMachine:
    """A `StateMachine` around a service.

    Attributes:
        service: the service; only this machine may touch it once operations execute.
    """

    def __init__(self, service: Service) -> None:
        """Take over a service whose `__init__` has run.

        Raises:
            TypeError: the class's methods or the instance's attributes cannot be replicated; the text says why.
        """
        self.service = service
        kind = type(service)
        interface = interface_of(kind)
        self._decode = interface.decode
        self._methods = interface.by_type
        self._refuse = interface.refuse
        self._errors = {name: (*kind.errors, *method.errors) for name, method in interface.methods.items()}
        _require_replicable(kind, {error for errors in self._errors.values() for error in errors})
        self._guard = Guard()
        self._view = _read_only_view(service)
        self._annotations = get_type_hints(kind)
        self._decoders: dict[str, msgspec.msgpack.Decoder[object]] = {}
        self._maps: dict[str, Map[str, object]] = {}
        for name, value in sorted(vars(service).items()):
            if isinstance(value, Map):
                value.guard = self._guard
                self._declare(name, value)
                self._maps[name] = value
        self._restore_attributes(self._encoded_attributes())

    # --- operations -----------------------------------------------------------------------------------------------

    def execute(self, operation: bytes, context: ExecutionContext, /) -> tuple[int, bytes]:
        """Apply one ordered operation, command or query; see `Service` for what exceptions become."""
        try:
            call = self._decode(operation)
        except Exception as error:  # of hostile bytes, alike everywhere; `_undecoded` tells what is none
            return self._undecoded(operation, error)
        method = self._methods[type(call)]
        if method.kind == "query":
            return self._read(method, call)
        current.set(context)
        try:
            value = encode(method.invoke(self.service, call))
        except Exception as error:  # a result, alike everywhere; `_failure` tells what is none
            return self._failure(method, error)
        return (STATUS_OK, value) if len(value) <= RESULT_BYTES_MAX else _too_large(value)

    def query(self, operation: bytes, /) -> tuple[int, bytes]:
        """Answer a read-only operation; a command is refused."""
        try:
            call = self._decode(operation)
        except Exception as error:  # of hostile bytes, alike everywhere; `_undecoded` tells what is none
            return self._undecoded(operation, error)
        method = self._methods[type(call)]
        if method.kind != "query":
            return STATUS_ERROR, encode(("NotAQuery", method.name))
        return self._read(method, call)

    def _read(self, method: Method, call: object) -> tuple[int, bytes]:
        current.set(None)
        self._guard.closed = True
        try:
            value = encode(method.invoke(self._view, call))
        except Exception as error:  # a result, alike everywhere; `_failure` tells what is none
            return self._failure(method, error)
        finally:
            self._guard.closed = False
        return (STATUS_OK, value) if len(value) <= RESULT_BYTES_MAX else _too_large(value)

    def _undecoded(self, operation: bytes, error: Exception) -> tuple[int, bytes]:
        """Refuse an operation: a function of its bytes and the class, whatever of them the decoder met first.

        Also when that was too deep for it. How deep it can follow depends on the process, and it passes over values of
        any depth to find a Struct's tag behind them; but no valid one is deeper than its type, so with more room the
        operation would be refused all the same. A RecursionError of the service's own code has no such excuse.
        """
        is_decoders = error.__traceback__ is not None and error.__traceback__.tb_next is None
        if isinstance(error, ENVIRONMENT_ERRORS) and not (isinstance(error, RecursionError) and is_decoders):
            raise error
        return STATUS_ERROR, encode(self._refuse(operation))

    def _failure(self, method: Method, error: Exception) -> tuple[int, bytes]:
        if isinstance(error, ENVIRONMENT_ERRORS):
            raise error
        if isinstance(error, self._errors[method.name]):
            detail = str(error)[:DETAIL_CHARACTERS_MAX].encode("utf-8", "replace").decode()
            return STATUS_ERROR, encode((type(error).__name__, detail))
        return STATUS_FAILED, type(error).__name__.encode("utf-8", "replace")

    # --- state ----------------------------------------------------------------------------------------------------

    def checkpoint(self) -> tuple[tuple[bytes, ...], dict[bytes, bytes]]:
        """Digests of all pages, in order, and the bytes of pages not reported before."""
        attributes = self._encoded_attributes()
        found = self._pages(attributes)
        self._restore_attributes(attributes)
        return found

    def observe(self) -> tuple[tuple[bytes, ...], dict[bytes, bytes]]:
        """What `checkpoint` would report now, without its one effect: attributes stay the objects that they are.

        For a checker that looks between two checkpoints. Pages reported here are not reported again.
        """
        return self._pages(self._encoded_attributes())

    def explain(self, ours: Sequence[bytes], theirs: Sequence[bytes], /) -> list[str]:
        """Where two states of this service differ, as lines for people; needs only the pages."""
        return [str(difference) for difference in state_differences(ours, theirs)]

    def _pages(self, attributes: dict[str, msgspec.Raw]) -> tuple[tuple[bytes, ...], dict[bytes, bytes]]:
        fresh: dict[bytes, bytes] = {}
        digests: list[bytes] = []
        counts: dict[str, int] = {}
        for name, content in self._maps.items():
            pages = content.checkpoint(fresh)
            counts[name] = len(pages)
            digests += pages
        head = encode(Head(attributes, counts))
        digest = page_digest(head)
        fresh[digest] = head
        return (digest, *digests), fresh

    def restore(self, pages: Sequence[bytes], /) -> None:
        """Replace the whole state by these pages."""
        head = head_decoder.decode(pages[0])
        assert list(head.maps) == list(self._maps), f"pages of maps {list(head.maps)}, not {list(self._maps)}"
        start = 1
        for name, count in head.maps.items():
            self._maps[name].restore(pages[start : start + count])
            start += count
        assert start == len(pages), f"the head announces {start} pages, found {len(pages)}"
        for name in [name for name in vars(self.service) if name not in self._maps]:
            delattr(self.service, name)
        self._restore_attributes(head.attributes)

    def _encoded_attributes(self) -> dict[str, msgspec.Raw]:
        attributes: dict[str, msgspec.Raw] = {}
        for name, value in sorted(vars(self.service).items()):
            if isinstance(value, Map):
                if self._maps.get(name) is not value:
                    raise TypeError(f"{name} is a new Map: maps are created in __init__ and never replaced; clear them")
                continue
            try:
                attributes[name] = msgspec.Raw(encode(value))
            except (TypeError, OverflowError, UnicodeEncodeError) as error:
                raise TypeError(f"attribute {name} cannot be part of a checkpoint: {error}") from error
        missing = [name for name in self._maps if not isinstance(getattr(self.service, name, None), Map)]
        if missing:
            raise TypeError(f"{missing[0]} was a Map and is no more: maps are never replaced; clear them")
        return attributes

    def _restore_attributes(self, attributes: dict[str, msgspec.Raw]) -> None:
        for name, raw in attributes.items():
            decoder = self._decoders.get(name)
            if decoder is None:
                decoder = self._decoders[name] = _decoder(self._annotations.get(name, object))
            setattr(self.service, name, decoder.decode(raw))

    def _declare(self, name: str, content: Map[str, object]) -> None:
        annotation = self._annotations.get(name)
        arguments = get_args(annotation)
        if get_origin(annotation) is Map and len(arguments) == 2:
            content.declare(*arguments)


def _require_replicable(kind: type[Service], errors: set[type[Exception]]) -> None:
    """Refuse what looks like a part of the state or an error of the service, and would be neither."""
    for error in errors:
        if issubclass(error, ENVIRONMENT_ERRORS):
            raise TypeError(f"{kind.__name__} declares {error.__name__}, which stops a replica: it is no result")
    for name, value in ((name, value) for owner in kind.__mro__[:-1] for name, value in vars(owner).items()):
        if isinstance(value, Map):
            raise TypeError(f"{kind.__name__}.{name} is a Map of the class: maps are created in __init__")
        if isinstance(value, MemberDescriptorType):
            raise TypeError(f"{kind.__name__}.{name} is a slot: state is what instances have in their __dict__")


def _decoder(kind: object) -> msgspec.msgpack.Decoder[object]:
    if kind is object:
        return msgspec.msgpack.Decoder()
    require_sortable(kind)
    return cast("msgspec.msgpack.Decoder[object]", msgspec.msgpack.Decoder(kind))


def _too_large(value: bytes) -> tuple[int, bytes]:
    return STATUS_ERROR, encode(("ResultTooLarge", f"{len(value)} bytes, allowed are {RESULT_BYTES_MAX}"))


def _read_only_view(service: Service) -> Service:
    """The same state seen through a class that refuses assignments; queries run on it."""
    kind = type(service)

    def refuse(self: object, name: str, value: object = None) -> None:
        raise ReadOnlyError(f"a query cannot assign to {name}")

    view_kind = type(kind.__name__, (kind,), {"__setattr__": refuse, "__delattr__": refuse})
    view: Service = object.__new__(view_kind)
    object.__setattr__(view, "__dict__", vars(service))
    return view
