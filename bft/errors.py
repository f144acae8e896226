"""Errors that a user of the library can meet.

Faults of *peers* are never exceptions: they are `Report`s (see `bft.events`). Faults of the environment or of the
caller derive from `BFTError`. Faults of our own are `assert`s: the replica crashes and f others carry on.
"""

from __future__ import annotations


class BFTError(Exception):
    """Base of every error that this library raises on purpose."""


class ConfigError(BFTError):
    """A configuration file or value is malformed: the text names the field, the value and the rule."""


class KeyFileError(BFTError):
    """A key file is missing, unreadable, too open to others, or not the key that was expected."""


class SigningError(BFTError):
    """The signing agent refuses to sign, or cannot be reached: the replica stops.

    Attributes:
        code: why, as `bft.signing.rules.CODES` lists them, or `unavailable`, or `protocol`.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{detail} ({code})")
        self.code = code


class StorageError(BFTError):
    """Stable storage refused: corrupt, locked by another process, full, read-only, or belonging to somebody else."""


class VotesLost(StorageError):
    """A store cannot be trusted with the votes of its replica any more: it is empty, foreign, an old copy or damaged.

    A full disk, or a store that another process holds, is none of this.
    """


class TransportError(BFTError):
    """A socket could not be opened or bound, or a TLS peer is not who the cluster file says."""


class NonDeterminism(BFTError):
    """A service executed one operation twice and the two runs differ: its replicas would not agree.

    Attributes:
        operation: the method's name.
        arguments: as text.
        path: where the two differ: `result[0]`, `event 0`, `accounts['alice'].balance`, `attribute total`.
        first, second: what stands there after either run, as text.
        number: which operation it was, counting from 1.
        page: the page of the state, as `accounts page 3`; empty for results and events.
        cause: what the difference comes from, where that was found out.
    """

    def __init__(
        self,
        operation: str,
        arguments: str,
        path: str,
        first: str,
        second: str,
        *,
        number: int = 0,
        page: str = "",
        cause: str = "",
    ) -> None:
        super().__init__(
            f"{operation}({arguments}) is not deterministic: {path} is {first} in one run and {second} in another"
            f"{f' ({page})' if page else ''}{f': {cause}' if cause else ''}"
        )
        self.operation = operation
        self.arguments = arguments
        self.path = path
        self.first = first
        self.second = second
        self.number = number
        self.page = page
        self.cause = cause


class EvidenceError(BFTError):
    """A receipt or certificate does not prove what it is said to, or what is at hand does not explain a fork."""


class ClientError(BFTError):
    """Base of what a client call can raise."""


class ServiceError(ClientError):
    """The service itself answered with a declared error; the operation executed, and its outcome is this error.

    Attributes:
        code: the error's name as declared by the service.
        detail: a text for people.
    """

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code
        self.detail = detail


class OutcomeUnknown(ClientError):
    """The call ended before f + 1 replicas agreed on its result: it may or may not have executed (once at most)."""


class SessionExpired(OutcomeUnknown):
    """A newer session of the same client key has taken this session's place, or the session was evicted."""


class Overloaded(ClientError):
    """The replicas or the client have too much to do; nothing of the operation was sent, and it will not execute."""


class ClientClosed(ClientError):
    """The client was closed before this operation was sent."""
