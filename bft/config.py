"""Configuration: what all replicas and clients of a cluster share, and what is a replica's own.

`cluster.toml` is shared by everybody and defines the cluster's identity; `replica.toml` is local. Values are checked
here, once; an error names the file, the field, the value and the rule.
"""

from __future__ import annotations

import re
import tomllib
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from bft.digests import config_digest
from bft.errors import ConfigError
from bft.headers import ADMINS_BOUND
from bft.ids import KEY_BYTES, REPLICA_ID_MAX
from bft.membership import REPLICAS_MAX, REPLICAS_MIN, Quorums
from bft.messages import PAYLOAD_BYTES_MAX

T = TypeVar("T")
MILLISECOND = 1_000_000
ENDORSEMENT_BYTES = 72
PRE_PREPARE_BYTES = 256
HexKey = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Name = Annotated[str, Meta(pattern="^[A-Za-z0-9_.-]{1,64}$")]
LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
"""A part of a host name [RFC 1123 2.1], and underscores, which names of containers have."""
Durability = Literal["power", "process", "memory"]


def require_host(what: str, host: str) -> None:
    """Refuse what no resolver could mean.

    Args:
        what: the field that holds it.
        host: a name or an address.

    Raises:
        ValueError: it is neither.
    """
    address, percent, zone = host.partition("%")
    try:
        ip_address(address)
        fits = not percent or (":" in address and LABEL.fullmatch(zone) is not None)
    except ValueError:
        labels = host.removesuffix(".").split(".")
        is_like_address = len(labels) > 1 and all(label.isdecimal() for label in labels)
        fits = not is_like_address and all(map(LABEL.fullmatch, labels))
    if not fits:
        raise ValueError(
            f"{what} is {host!r}: it must be an IPv4 or IPv6 address (no brackets) or a host name: labels of 1 to 63"
            " letters, digits, - and _, no - at either end, with dots between them"
        )


class Protocol(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of the protocol, equal on all replicas (a replica with other values is faulty).

    Attributes:
        checkpoint_interval: K, slots between checkpoints [CL99 4.3].
        window: L, slots between the low and the high watermark; a multiple of K, at least 2 K.
        pipeline: slots that the primary has in flight at once.
        batch_operations_max: operations in a batch.
        batch_bytes_max: bytes of a batch's envelopes.
        session_window: W, unfinished operations of one session.
        sessions_max: live sessions of all clients; the least recently used one is evicted beyond it.
        sessions_per_client: live sessions of one client key, hence processes that can use it at once; a further one
            ends the one with the lowest incarnation.
        session_reply_bytes_max: reply bytes kept per session for retransmission; older ones shrink to their digest. A
            session must fit into one page, which caps this at about 4 MiB for the default session_window; all
            sessions together have a bound of their own (`bft.core.clients`).
        request_timeout_ms: a request older than this in an active view makes a backup suspect the primary.
        view_change_timeout_ms: patience with a new primary, doubled per failed view change and halved per checkpoint.
        backoff_exponent_max: cap of that doubling.
        status_interval_ms: how often a replica that lacks something says where it stands.
        time_ahead_max_ms: how far a proposed time may lie ahead of a backup's clock.
        time_behind_max_ms: how far it may lag before the backup suspects the primary.
        lease_step_max_ms: cap of the lease clock's advance per batch.
        slow_floor_ms: how slow a primary may be before there is another to compare it with, and what a comparison
            leaves it on top; several round trips, below request_timeout_ms. 0 does without all of `core.monitor`.
        slow_factor: how many times slower than the others a primary may be.
        fair_slack_ms: a request older than this should not be passed over; a few round trips.
        skips_max: batches that may pass over such a request before its backup complains. One client's full quota of
            16 MiB fills 16 batches before its newest request's turn comes, which is no unfairness.
        witness_interval_ms: a client sends an envelope to all replicas, not the primary alone, about this often, so
            that backups know how long requests take; 0 for never.
    """

    checkpoint_interval: Annotated[int, Meta(ge=1, le=4096)] = 128
    window: Annotated[int, Meta(ge=2, le=4096)] = 256
    pipeline: Annotated[int, Meta(ge=1, le=256)] = 4
    batch_operations_max: Annotated[int, Meta(ge=1, le=4096)] = 2048
    batch_bytes_max: Annotated[int, Meta(ge=1024, le=8 * 1024 * 1024)] = 1024 * 1024
    session_window: Annotated[int, Meta(ge=1, le=65536)] = 4096
    sessions_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 4096
    sessions_per_client: Annotated[int, Meta(ge=1, le=64)] = 8
    session_reply_bytes_max: Annotated[int, Meta(ge=0, le=1 << 30)] = 4 * 1024 * 1024
    request_timeout_ms: Annotated[int, Meta(ge=10, le=3_600_000)] = 1000
    view_change_timeout_ms: Annotated[int, Meta(ge=10, le=3_600_000)] = 1000
    backoff_exponent_max: Annotated[int, Meta(ge=0, le=16)] = 6
    status_interval_ms: Annotated[int, Meta(ge=5, le=60_000)] = 200
    time_ahead_max_ms: Annotated[int, Meta(ge=1)] = 1000
    time_behind_max_ms: Annotated[int, Meta(ge=1)] = 30_000
    lease_step_max_ms: Annotated[int, Meta(ge=1)] = 1000
    slow_floor_ms: Annotated[int, Meta(ge=0, le=3_600_000)] = 200
    slow_factor: Annotated[int, Meta(ge=1, le=100)] = 3
    fair_slack_ms: Annotated[int, Meta(ge=1, le=3_600_000)] = 100
    skips_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 32
    witness_interval_ms: Annotated[int, Meta(ge=0, le=60_000)] = 25

    def __post_init__(self) -> None:
        if self.window % self.checkpoint_interval or self.window < 2 * self.checkpoint_interval:
            raise ValueError(
                f"window is {self.window}: it must be a multiple of checkpoint_interval"
                f" ({self.checkpoint_interval}), at least twice as large"
            )
        if self.pipeline > self.window:
            raise ValueError(f"pipeline is {self.pipeline}: it cannot exceed window ({self.window})")


class ReplicaEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A replica in the cluster file: where it listens, and its 32-byte public key in hex."""

    id: Annotated[int, Meta(ge=0, le=REPLICAS_MAX - 1)]
    host: Annotated[str, Meta(min_length=1, max_length=255)]
    port: Annotated[int, Meta(ge=1, le=65535)]
    key: HexKey


class ClientEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A known client: a name for people, and its public key in hex."""

    name: Name
    key: HexKey


class AdminEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Somebody who may change the membership: a name for people, and a public key in hex."""

    name: Name
    key: HexKey


def new_view_bytes_max(n: int, window: int) -> int:
    """Bytes of the largest NEW-VIEW that `n` replicas can need."""
    strong = Quorums.of(n).strong
    return strong * window * (strong * ENDORSEMENT_BYTES + PRE_PREPARE_BYTES)


class Cluster(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The content of `cluster.toml`.

    Attributes:
        name: for people; part of the cluster's identity.
        service: import path of the replicated service, `package.module:Class`.
        enrolment: "open" lets any client key in, "known" only those listed under `client`.
        replica: the first members; later ones are learnt from the cluster itself (`bft.epochs`).
        admin: who may change the membership; nobody can if there is none.
        admin_threshold: how many of them must sign a change.
        signed_replies: replicas sign what they answer, so that clients get receipts and can prove a wrong reply; costs
            a signature per session and slot.
    """

    name: Name
    service: Annotated[str, Meta(pattern="^[A-Za-z_][\\w.]*:[A-Za-z_]\\w*$")] = "bft.services.kv:KeyValue"
    enrolment: Literal["open", "known"] = "open"
    signed_replies: bool = False
    protocol: Protocol = msgspec.field(default_factory=Protocol)
    replica: tuple[ReplicaEntry, ...]
    client: tuple[ClientEntry, ...] = ()
    admin: Annotated[tuple[AdminEntry, ...], Meta(max_length=ADMINS_BOUND)] = ()
    admin_threshold: Annotated[int, Meta(ge=1, le=ADMINS_BOUND)] = 1

    def __post_init__(self) -> None:
        n = len(self.replica)
        if not REPLICAS_MIN <= n <= REPLICAS_MAX:
            raise ValueError(f"replica has {n} entries: a cluster has {REPLICAS_MIN} to {REPLICAS_MAX}")
        for index, entry in enumerate(self.replica):
            if entry.id != index:
                raise ValueError(f"replica[{index}].id is {entry.id}: ids count from 0 in the order of the file")
            require_host(f"replica[{index}].host", entry.host)
        for what, values in (
            ("key", [entry.key for entry in self.replica]),
            ("address", [f"{entry.host}:{entry.port}" for entry in self.replica]),
        ):
            for index, value in enumerate(values):
                if value in values[:index]:
                    raise ValueError(f"replica[{index}].{what} is {value}: two replicas cannot share it")
        self._require_admins()
        self._require_new_view_fits()

    def _require_admins(self) -> None:
        keys = [entry.key for entry in self.admin]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                raise ValueError(f"admin[{index}].key is {key}: an administrator signs once")
        if self.admin_threshold > max(len(keys), 1):
            raise ValueError(f"admin_threshold is {self.admin_threshold}: there are {len(keys)} administrators")

    def _require_new_view_fits(self) -> None:
        """A view change must be possible when the window is full, which is when it is needed."""
        worst = new_view_bytes_max(len(self.replica), self.protocol.window)
        if worst > PAYLOAD_BYTES_MAX:
            raise ValueError(
                f"protocol.window is {self.protocol.window}: with {len(self.replica)} replicas a NEW-VIEW could take"
                f" {worst} bytes, more than a message may ({PAYLOAD_BYTES_MAX}); choose a smaller window"
            )

    @property
    def quorums(self) -> Quorums:
        """Thresholds of the membership."""
        return Quorums.of(len(self.replica))

    @property
    def replica_keys(self) -> tuple[bytes, ...]:
        """Public keys, by replica id; 32 bytes each."""
        return tuple(bytes.fromhex(entry.key) for entry in self.replica)

    @property
    def client_keys(self) -> frozenset[bytes] | None:
        """Public keys of the clients that may use the cluster; None when enrolment is open."""
        if self.enrolment == "open":
            return None
        return frozenset(bytes.fromhex(entry.key) for entry in self.client)

    @property
    def admin_keys(self) -> frozenset[bytes]:
        """Public keys of those who may change the membership."""
        return frozenset(bytes.fromhex(entry.key) for entry in self.admin)

    @property
    def id(self) -> bytes:
        """32-byte fingerprint of everything that replicas must agree on at first (not of addresses, which may move).

        It stays the cluster's name when the membership changes: `bft.epochs` leads from here to today's members.
        """
        identity = (
            self.name,
            self.service,
            self.enrolment,
            tuple((field, getattr(self.protocol, field)) for field in self.protocol.__struct_fields__),
            tuple(entry.key for entry in self.replica),
            tuple(entry.key for entry in self.client),
            *(("signed_replies",) if self.signed_replies else ()),
        )
        if self.admin:
            administration = (self.admin_threshold, tuple(sorted(entry.key for entry in self.admin)))
            return config_digest(msgspec.msgpack.encode((*identity, administration)))
        return config_digest(msgspec.msgpack.encode(identity))


class ClientLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one client key may send to a replica; more waits unread in the sender's socket.

    The defaults lie far above what a busy client of this library sends: a thousand callers that complete 100 000
    operations a second share about a hundred envelopes.

    Attributes:
        envelopes_per_second: REQUEST envelopes, each of which costs a signature check at every replica.
        messages_per_second: frames of any kind; of reads that share a frame, four count as one more.
        bytes_per_second: bytes of all frames.
        burst_seconds: so many seconds' worth may come at once.
        bad_signatures_max: after so many signatures that do not hold, or malformed frames, nothing of the client is
            read for a tenth of a second, then for twice as long each time, up to a minute.
    """

    envelopes_per_second: Annotated[int, Meta(ge=1, le=1_000_000)] = 500
    messages_per_second: Annotated[int, Meta(ge=1, le=10_000_000)] = 50_000
    bytes_per_second: Annotated[int, Meta(ge=1024, le=1 << 40)] = 64 * 1024 * 1024
    burst_seconds: Annotated[int, Meta(ge=1, le=60)] = 2
    bad_signatures_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 8


class Local(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The content of `replica.toml`; relative paths are relative to the file.

    Attributes:
        id: which replica of the cluster this is; one that is to join has an id that no replica had before.
        cluster: path of the cluster file.
        key: path of the private key (PEM, PKCS#8).
        data: folder of the store.
        durability: "power" survives power loss (fsync), "process" survives kill -9, "memory" survives nothing: a
            restart then counts as one of the f faults. A machine that goes down under "process" while the replica runs
            takes the replica's key along: it refuses to vote with what may be an old store.
        signer: `unix:PATH` of the signing agent that holds the key, instead of `key`.
        host: address to listen on, if it is not the one that the cluster knows (that of a replica that is to join).
        port: TCP port to listen on; 0 for the one that the cluster knows.
        transfer_bytes_per_second: how much a state transfer may bring, so that catching up leaves room for others; 0
            for no cap. Below the rate at which pages change, it ends only when writes pause.
        scrub_pages_per_second: how fast stored pages are read again and checked for bit rot; 0 for never.
        metrics_port: serve Prometheus metrics on 127.0.0.1 at this port; 0 for none.
        archive_slots: decided slots whose certificates are kept to explain a fork (`bft evidence forensics`); 0 for
            none.
        client_limits: what one client key may send; the table `[client_limits]`.
    """

    id: Annotated[int, Meta(ge=0, le=REPLICA_ID_MAX)]
    cluster: str
    key: str = ""
    signer: Annotated[str, Meta(pattern="^(unix:.+)?$")] = ""
    data: str
    durability: Durability = "power"
    host: Annotated[str, Meta(min_length=1, max_length=255)] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 0
    transfer_bytes_per_second: Annotated[int, Meta(ge=0, le=1 << 40)] = 0
    scrub_pages_per_second: Annotated[int, Meta(ge=0, le=1_000_000)] = 20
    metrics_port: Annotated[int, Meta(ge=0, le=65535)] = 0
    archive_slots: Annotated[int, Meta(ge=0, le=1_000_000)] = 8192
    client_limits: ClientLimits = ClientLimits()

    def __post_init__(self) -> None:
        require_host("host", self.host)
        if bool(self.key) == bool(self.signer):
            raise ValueError(
                "give either key, the key's file, or signer, the socket of the agent that holds it"
            )
        if self.signer and self.durability == "memory":
            raise ValueError('durability is "memory": a replica that forgets its votes cannot use a signing agent')


def load_cluster(path: Path) -> Cluster:
    """Read and check a `cluster.toml`.

    Raises:
        ConfigError: the file is missing, is no TOML, or breaks a rule.
    """
    return _load(path, Cluster)


def load_local(path: Path) -> Local:
    """Read and check a `replica.toml`; its paths come back absolute.

    Raises:
        ConfigError: the file is missing, is no TOML, or breaks a rule.
    """
    local = _load(path, Local)
    base = path.resolve().parent
    return msgspec.structs.replace(
        local,
        cluster=str(base / local.cluster),
        key=str(base / local.key) if local.key else "",
        signer=f"unix:{base / local.signer.removeprefix('unix:')}" if local.signer else "",
        data=str(base / local.data),
    )


def _load(path: Path, kind: type[T]) -> T:
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        tree = tomllib.loads(text.decode())
    except (ValueError, RecursionError) as error:  # not only TOMLDecodeError: thousands of digits, or of brackets
        raise ConfigError(f"{path}: is not TOML: {error}") from error
    try:
        return msgspec.convert(tree, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {error}{_found(tree, str(error))}") from error


def _found(tree: object, message: str) -> str:
    """The offending value, found by the path (`$.replica[0].port`) that msgspec puts into its message."""
    _, _, tail = message.rpartition(" - at `$")
    value: object = tree
    for step in tail.rstrip("`").replace("[", ".").replace("]", "").split("."):
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
    is_long = isinstance(value, int) and value.bit_length() > 64  # Python refuses to print thousands of digits
    return f", found {value!r}" if not isinstance(value, dict | list) and not is_long else ""


assert KEY_BYTES == 32, "the hex pattern above says 64 digits"
