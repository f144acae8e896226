"""What a caller makes of (status, value): the method's result, or the service's error."""

from __future__ import annotations

from typing import Protocol

import msgspec

from bft.errors import ServiceError
from bft.messages import STATUS_ERROR, STATUS_FAILED, STATUS_OK
from bft.services.interface import Method

_error = msgspec.msgpack.Decoder(tuple[str, str])


class Remote(Protocol):
    """Calls methods of a replicated service by name; what typed clients stand on."""

    async def invoke(self, name: str, /, *args: object) -> object:
        """Call the method `name` and return its result.

        Raises:
            ServiceError: the service answered with an error.
            OutcomeUnknown: the call ended before enough replicas agreed; it may or may not have executed.
        """
        ...


def require_ok(status: int, value: bytes) -> bytes:
    """The value of an operation that went well.

    Raises:
        ServiceError: the service answered with an error, or failed with one that it does not declare.
    """
    if status == STATUS_OK:
        return value
    if status == STATUS_ERROR:
        try:
            code, detail = _error.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError):
            code, detail = "Error", value[:200].hex()
        raise ServiceError(code, detail)
    if status == STATUS_FAILED:
        raise ServiceError(
            "Failed", f"the service raised {value.decode('utf-8', 'replace')}, which it does not declare"
        )
    raise ServiceError("UnknownStatus", f"status {status}")


def result_of(method: Method, status: int, value: bytes) -> object:
    """The result of a typed method. Raises as `require_ok` does, also for a result that is not of the promised type."""
    content = require_ok(status, value)
    try:
        return method.result.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ServiceError("BadResult", f"{method.name} did not return what it promises: {error}") from error
