"""Byzantine fault-tolerant state-machine replication for Python services.

Public names live here; they are loaded on first use, so that `import bft` is cheap and needs no network library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from bft.compiled import require_fresh

if TYPE_CHECKING:
    from bft.client.blocking import Blocking, connect_blocking
    from bft.client.client import Client, Result, connect
    from bft.client.receipts import Receipt
    from bft.errors import (
        BFTError,
        ClientClosed,
        ClientError,
        ConfigError,
        EvidenceError,
        KeyFileError,
        NonDeterminism,
        OutcomeUnknown,
        Overloaded,
        ServiceError,
        SessionExpired,
        SigningError,
        StorageError,
        TransportError,
        VotesLost,
    )
    from bft.ports import ExecutionContext, StateMachine
    from bft.runtime.forensics import forensics
    from bft.runtime.local import local_cluster
    from bft.services.service import Service, command, context, query
    from bft.state.map import Map

__all__ = [
    "BFTError",
    "Blocking",
    "Client",
    "ClientClosed",
    "ClientError",
    "ConfigError",
    "EvidenceError",
    "ExecutionContext",
    "KeyFileError",
    "Map",
    "NonDeterminism",
    "OutcomeUnknown",
    "Overloaded",
    "Receipt",
    "Result",
    "Service",
    "ServiceError",
    "SessionExpired",
    "SigningError",
    "StateMachine",
    "StorageError",
    "TransportError",
    "VotesLost",
    "command",
    "connect",
    "connect_blocking",
    "context",
    "forensics",
    "local_cluster",
    "query",
]

if not __debug__:
    raise ImportError(
        "bft refuses to run under python -O: its assertions stop a faulty replica before it misleads others"
    )
require_fresh()

_ERRORS = [
    name
    for name in __all__
    if name.endswith(("Error", "Unknown", "Expired", "Closed", "Determinism", "Overloaded", "Lost"))
]
_HOMES = {
    "Blocking": "bft.client.blocking",
    "connect_blocking": "bft.client.blocking",
    "Client": "bft.client.client",
    "Receipt": "bft.client.receipts",
    "Result": "bft.client.client",
    "connect": "bft.client.client",
    "ExecutionContext": "bft.ports",
    "StateMachine": "bft.ports",
    "forensics": "bft.runtime.forensics",
    "local_cluster": "bft.runtime.local",
    "Service": "bft.services.service",
    "command": "bft.services.service",
    "context": "bft.services.service",
    "query": "bft.services.service",
    "Map": "bft.state.map",
} | dict.fromkeys(_ERRORS, "bft.errors")


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'bft' has no attribute {name!r}")
    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value
