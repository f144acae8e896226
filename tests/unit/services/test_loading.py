"""`load_service`, and the services that are state machines on bytes."""

from __future__ import annotations

import pytest

from bft.errors import ConfigError
from bft.messages import OPERATION_BYTES_MAX, STATUS_ERROR, STATUS_OK
from bft.services.loading import load_service
from bft.services.machine import ServiceMachine
from bft.services.null import Null, operation
from bft.state.context import Context


def test_load_service_makes_a_machine_of_a_service() -> None:
    """And takes the port on bytes as it is."""
    assert isinstance(load_service("bft.services.kv:KeyValue"), ServiceMachine)
    assert isinstance(load_service("bft.services.null:Null"), Null)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("nonsense", "package.module:Class"),
        ("bft.nowhere:X", "cannot import"),
        ("bft.services.kv:Nothing", "has no Nothing"),
        ("bft.services.kv:SCAN_MAX", "does not mean a class"),
        ("bft.services.kv:KeyTooLong", "neither a bft.Service"),
        ("bft.services.machine:ServiceMachine", "missing 1 required"),
        ("bft.services.service:Service", "no method"),
    ],
)
def test_load_service_says_what_is_wrong(path: str, why: str) -> None:
    """A clear ConfigError for every mistake."""
    with pytest.raises(ConfigError, match=why):
        load_service(path)


def test_null_replies_as_large_as_asked() -> None:
    """0/0, 1 KiB/0 and 0/1 KiB are one service."""
    machine = Null()
    assert machine.execute(operation(), Context()) == (STATUS_OK, b"")
    assert machine.execute(operation(padding_bytes=1024), Context()) == (STATUS_OK, b"")
    assert machine.execute(operation(reply_bytes=1024), Context()) == (STATUS_OK, bytes(1024))
    assert machine.query(operation(reply_bytes=OPERATION_BYTES_MAX)) == (STATUS_OK, bytes(OPERATION_BYTES_MAX))
    for hostile in (b"", b"\0\0\0", b"\xff\xff\xff\xff", operation(reply_bytes=OPERATION_BYTES_MAX + 1)):
        assert machine.execute(hostile, Context())[0] == STATUS_ERROR
    assert machine.executed == 7


def test_null_state_is_its_count() -> None:
    """So that checkpoints differ."""
    machine = Null()
    machine.execute(operation(), Context())
    (digest,), pages = machine.checkpoint()
    copy = Null()
    copy.restore([pages[digest]])
    assert copy.executed == 1 and copy.checkpoint() == machine.checkpoint()
