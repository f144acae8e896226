"""A cluster's folder: which files `bft cluster init` writes, and where everything else expects them.

cluster.toml            shared by all replicas and clients; holds public keys only
keys/r0.pem ...         private keys of the replicas, mode 0600
keys/client.pem         a client's private key, used by commands that are given no other
keys/admin.pem ...      private keys of those who may change the membership; keep them elsewhere where it matters
r0/replica.toml ...     each replica's own configuration; also of replicas that were added later
r0/replica.log|pid      of a replica that `bft cluster up` has started
r0/data/                its store
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bft.cli.folders import make_folder
from bft.config import Cluster, Durability, Local, load_cluster, load_local
from bft.crypto.keys import KeyPair, load_key, save_key
from bft.errors import ConfigError
from bft.runtime.own_keys import RETIRED, beside

CLUSTER_FILE = "cluster.toml"
DEFAULT_SERVICE = "bft.services.kv:KeyValue"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a new cluster should be.

    Attributes:
        hosts: one for all replicas, or one per replica.
        base_port: replica i listens on base_port + i.
        clients: name and key file of known clients, beside the one that is made here.
        protocol: parameters that differ from their defaults.
        signed_replies: replicas sign what they answer, for receipts.
        key_folder: where private keys go; `keys` in the cluster's folder if None.
        admins: how many administrators' keys to make; without any the membership stays as it is.
        admin_threshold: how many of them must sign a change.
    """

    name: str = "local"
    n: int = 4
    hosts: Sequence[str] = ("127.0.0.1",)
    base_port: int = 7400
    service: str = DEFAULT_SERVICE
    durability: Durability = "power"
    enrolment: str = "open"
    clients: Sequence[tuple[str, Path]] = ()
    protocol: Mapping[str, int] = field(default_factory=dict)
    key_folder: Path | None = None
    signed_replies: bool = False
    admins: int = 0
    admin_threshold: int = 1

    @property
    def admin_names(self) -> list[str]:
        """Names of the administrators' keys."""
        return ["admin"] if self.admins == 1 else [f"admin{index + 1}" for index in range(self.admins)]


def replica_folder(folder: Path, replica: int) -> Path:
    """Where a replica's files are."""
    return folder / f"r{replica}"


def write_cluster(folder: Path, plan: Plan) -> Cluster:
    """Make keys and write all configuration files of a new cluster.

    Raises:
        ConfigError: there is a cluster here already, or the plan breaks a rule of the cluster file.
        KeyFileError: a key file exists already or cannot be written.
    """
    path = folder / CLUSTER_FILE
    if path.exists():
        raise ConfigError(f"{path}: a cluster exists here: choose another --dir, or remove it")
    if len(plan.hosts) not in (1, plan.n):
        raise ConfigError(f"--host is given {len(plan.hosts)} times: give it once, or once per replica ({plan.n})")
    key_folder = plan.key_folder or folder / "keys"
    known = [(name, load_key(key).public_hex) for name, key in plan.clients]
    pairs = [KeyPair.generate() for _ in range(plan.n)]
    client = KeyPair.generate()
    if plan.enrolment == "known":
        known.append(("client", client.public_hex))
    admins = [(name, KeyPair.generate()) for name in plan.admin_names]
    cluster = _checked(folder, _cluster_toml(plan, pairs, known, admins))
    make_folder(key_folder)
    save_key(key_folder / "client.pem", client)
    for name, admin in admins:
        save_key(key_folder / f"{name}.pem", admin)
    for replica, pair in enumerate(pairs):
        key = key_folder / f"r{replica}.pem"
        save_key(key, pair)
        home = replica_folder(folder, replica)
        home.mkdir(parents=True, exist_ok=True)
        _write(home / "replica.toml", _replica_toml(plan, replica, key))
    (folder / f"{CLUSTER_FILE}.new").rename(path)
    return cluster


def replica_configs(folder: Path) -> list[Path]:
    """Paths of all `replica.toml`s of a cluster's folder, by replica id; without replicas that have left the cluster.

    Raises:
        ConfigError: the cluster file is missing or malformed, or a replica's file is malformed.
    """
    load_cluster(folder / CLUSTER_FILE)
    found = {load_local(path).id: path for path in folder.glob("r*/replica.toml")}
    if not found:
        raise ConfigError(f"{folder}: has no r0/replica.toml nor any other: no replica of the cluster lives here")
    return [found[replica] for replica in sorted(found) if not has_left(found[replica])]


def has_left(config: Path) -> bool:
    """True if the replica was removed from its cluster and has erased its key; no agent ever does that."""
    local = load_local(config)
    if local.signer:
        return False
    key = Path(local.key)
    return beside(key, RETIRED).exists() and not key.exists()


def key_path(local: Local) -> Path:
    """A replica's key file, for whoever makes, reads or replaces it.

    Raises:
        ConfigError: there is none here.
    """
    if local.signer:
        raise ConfigError(
            f"the key is held by an agent: replica {local.id} has signer = {_text(local.signer)}, and this needs its"
            f" key file (key in replica.toml, with the replica and the agent stopped)"
        )
    return Path(local.key)


def add_replica(folder: Path, replica: int, address: tuple[str, int], durability: Durability) -> Path:
    """Make the files of a replica that is to join; those of an earlier attempt are kept. Returns its `replica.toml`.

    Raises:
        ConfigError: a file cannot be written.
        KeyFileError: the key cannot be written.
    """
    home = replica_folder(folder, replica)
    config = home / "replica.toml"
    if config.exists():
        return config
    make_folder(folder / "keys")
    key = folder / "keys" / f"r{replica}.pem"
    if not key.exists():
        save_key(key, KeyPair.generate())
    home.mkdir(parents=True, exist_ok=True)
    plan = Plan(durability=durability)
    _write(config, _replica_toml(plan, replica, key) + f"host = {_text(address[0])}\nport = {address[1]}\n")
    return config


def _checked(folder: Path, text: str) -> Cluster:
    """Write the cluster file as a draft and read it by the rules; other files are written only if it keeps them."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: folder cannot be made: {error.strerror}") from error
    draft = folder / f"{CLUSTER_FILE}.new"
    _write(draft, text)
    try:
        return load_cluster(draft)
    except ConfigError as error:
        draft.unlink()
        raise ConfigError(str(error).replace(str(draft), "the cluster asked for")) from error


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error


def _cluster_toml(
    plan: Plan,
    pairs: Sequence[KeyPair],
    known: Sequence[tuple[str, str]],
    admins: Sequence[tuple[str, KeyPair]],
) -> str:
    lines = [
        "# Shared by all replicas and clients; no secrets. Whoever changes a value makes another cluster.",
        "# Replicas that joined later are not listed: everybody learns of them from the cluster itself.",
        f"name = {_text(plan.name)}",
        f"service = {_text(plan.service)}",
        f"enrolment = {_text(plan.enrolment)}",
        *([f"admin_threshold = {plan.admin_threshold}"] if admins or plan.admin_threshold > 1 else []),
    ]
    if plan.signed_replies:
        lines.append("signed_replies = true")
    if plan.protocol:
        lines += ["", "[protocol]", *(f"{name} = {value}" for name, value in plan.protocol.items())]
    for replica, pair in enumerate(pairs):
        host = plan.hosts[replica % len(plan.hosts)]
        lines += ["", "[[replica]]", f"id = {replica}", f"host = {_text(host)}", f"port = {plan.base_port + replica}"]
        lines.append(f"key = {_text(pair.public_hex)}")
    for name, key in known:
        lines += ["", "[[client]]", f"name = {_text(name)}", f"key = {_text(key)}"]
    for name, pair in admins:
        lines += ["", "[[admin]]", f"name = {_text(name)}", f"key = {_text(pair.public_hex)}"]
    return "\n".join(lines) + "\n"


def _replica_toml(plan: Plan, replica: int, key: Path) -> str:
    own_key = f"../keys/r{replica}.pem" if plan.key_folder is None else str(key.resolve())
    return (
        f"# Replica {replica}'s own; paths are relative to this file.\n"
        f"id = {replica}\n"
        f'cluster = "../{CLUSTER_FILE}"\n'
        f"key = {_text(own_key)}\n"
        f'data = "data"\n'
        f"durability = {_text(plan.durability)}\n"
    )


def _text(value: str) -> str:
    """A TOML basic string; JSON's escapes are a subset of TOML's."""
    return json.dumps(value, ensure_ascii=False)
