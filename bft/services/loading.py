"""Find a service by the name that the cluster file gives it."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from bft.errors import ConfigError
from bft.ports import StateMachine
from bft.services.machine import ServiceMachine
from bft.services.service import Service

_PORT = ("execute", "query", "checkpoint", "restore")


def load_class(path: str) -> type:
    """The class named by `package.module:Class`.

    Raises:
        ConfigError: there is no such module or class, or importing it fails.
    """
    module_name, _, name = path.partition(":")
    if not module_name or not name:
        raise ConfigError(f"service is {path!r}: expected package.module:Class")
    try:
        module = import_module(module_name)
    except ImportError as error:
        raise ConfigError(f"service is {path!r}: cannot import {module_name}: {error}") from error
    found = getattr(module, name, None)
    if not isinstance(found, type):
        what = "has no" if found is None else "does not mean a class by"
        raise ConfigError(f"service is {path!r}: {module_name} {what} {name}")
    return found


def load_service_class(path: str) -> type:
    """The class named by `package.module:Class`: a `Service`, or a state machine on bytes.

    Raises:
        ConfigError: there is no such class, or it is neither of the two.
    """
    found = load_class(path)
    if not issubclass(found, Service) and not all(callable(getattr(found, name, None)) for name in _PORT):
        raise ConfigError(f"service is {path!r}: neither a bft.Service nor a class with {', '.join(_PORT)}")
    return found


def load_service(path: str) -> StateMachine:
    """A fresh state machine of the class named by `package.module:Class`: a `Service`, or the port on bytes itself.

    Raises:
        ConfigError: the class is missing, is neither of the two, needs arguments, or cannot be replicated.
    """
    found = load_service_class(path)
    try:
        instance: object = found()
        return ServiceMachine(instance) if isinstance(instance, Service) else cast("StateMachine", instance)
    except TypeError as error:
        raise ConfigError(f"service is {path!r}: {error}") from error
