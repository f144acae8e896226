"""How a replica is let in before an epoch names its key, and what it signs so that one may: voucher, ready words."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from bft.config import Cluster, Local
from bft.core.replica import Replica
from bft.crypto.signatures import Ed25519Signer, verify_signed
from bft.epochs import genesis
from bft.errors import ConfigError, KeyFileError
from bft.ids import KEY_BYTES, SIGNATURE_BYTES, ReplicaId
from bft.messages import Signed
from bft.runtime.assembly import NOBODY, STORE_FILE, Keys
from bft.runtime.own_keys import USED, VOUCHER, OwnKeys, beside
from bft.transport.handshake import Voucher, vouch, voucher_bytes
from bft.wire.codec import DECODE_ERRORS, encode


def require_key(cluster: Cluster, local: Local, keys: Keys) -> None:
    """See that the key may be this replica's before a store, or a note that the key is used, is made for it.

    Where nobody can change the membership, the cluster file names the only key that will ever do. Else the store tells
    which epoch names it; where there is none yet, or the key is another replica's, the first epoch does, or somebody
    has vouched. A key that is noted as used is the store's matter, which knows what to advise; an agent guards its own.

    Raises:
        ConfigError: the cluster has no such replica, or nobody vouches for its key.
        KeyFileError: the cluster file names another key.
    """
    first = genesis(cluster)
    entry = first.member(local.id)
    if cluster.admin:
        is_named = entry is not None and keys.find(entry.key) is not None
        is_foreign = keys.current.public in first.keys.values()
        is_new = is_foreign or not (Path(local.data) / STORE_FILE).exists()
        if local.key and is_new and not is_named and not beside(Path(local.key), USED).exists():
            voucher_for(cluster, local, keys)
        return
    if entry is None:
        last = len(cluster.replica) - 1
        raise ConfigError(f"id is {local.id}: cluster {cluster.name} has replicas 0 to {last}")
    if keys.current.public != entry.key:
        raise KeyFileError(
            f"{local.key or local.signer}: holds the key {keys.current.public_hex},"
            f" the cluster file says {entry.key.hex()} for replica {local.id}"
        )


def voucher_for(cluster: Cluster, local: Local, keys: Keys) -> Voucher:
    """What lets this replica in before an epoch names its key: an administrator's word, or that of its former key.

    The word that let in a former key lies beside the present one when a newcomer has lost its store since: it says
    nothing about this key, and nobody would believe it.

    Raises:
        ConfigError: there is neither.
        KeyFileError: the administrator's cannot be read.
    """
    file = beside(keys.path, VOUCHER)
    is_there = file.exists()
    if is_there:
        voucher = load_voucher(file)
        if verify_signed(voucher.by, voucher.signature + voucher_bytes(cluster.id, local.id, keys.current.public)):
            return voucher
    if keys.old is not None:
        return vouch(cluster.id, local.id, keys.current.public, keys.old)
    owners = [f" (that of replica {entry.id})" for entry in cluster.replica if entry.key == keys.current.public_hex]
    raise ConfigError(
        f"replica {local.id} is no member of cluster {cluster.name} with the key {keys.current.public_hex}"
        f"{''.join(owners)}, and nobody vouches for it: {file} (bft cluster add makes it)"
        f" {'is for another replica or key' if is_there else 'is not there'}, nor is the key that it replaces"
    )


def load_voucher(file: Path) -> Voucher:
    """Read a voucher.

    Raises:
        KeyFileError: it cannot be read, or is none.
    """
    try:
        tree = json.loads(file.read_text())
        voucher = Voucher(bytes.fromhex(tree["by"]), bytes.fromhex(tree["signature"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise KeyFileError(f"{file}: is no voucher: {error}") from error
    if (len(voucher.by), len(voucher.signature)) != (KEY_BYTES, SIGNATURE_BYTES):
        raise KeyFileError(f"{file}: is no voucher: a key or a signature has the wrong length")
    return voucher


def save_voucher(file: Path, voucher: Voucher) -> None:
    """Write a voucher; it is no secret.

    Raises:
        ConfigError: the file cannot be written.
    """
    try:
        file.write_text(json.dumps({"by": voucher.by.hex(), "signature": voucher.signature.hex()}) + "\n")
    except OSError as error:
        raise ConfigError(f"{file}: cannot be written: {error.strerror}") from error


def ready_words(cluster: Cluster, local: Local, keys: Keys, replica: Replica, me: ReplicaId) -> list[Signed]:
    """What this replica signs so that a change of membership may name its key; nothing while it cannot take part.

    A newcomer signs when it holds the cluster's state, a member when there is a next key; and who comes back, whose
    node has no name (`me` is `NOBODY`), with the key that it had and the one that it has.
    """
    following = keys.next
    if me != NOBODY:
        is_member = replica.summary()["member"]
        key = keys.current if not is_member else following
        return list(replica.ready(key.public)) if key is not None else []
    old, words = keys.old, replica.ready(keys.current.public)
    if not words or old is None or not isinstance(keys, OwnKeys):
        return []
    signers = [Ed25519Signer(cluster.id, ReplicaId(local.id), pair.seed) for pair in (old, keys.current)]
    return [Signed(local.id, words[0].payload, signer.sign(words[0].payload)) for signer in signers]


def ready_hex(words: list[Signed]) -> list[str]:
    """For an account in JSON."""
    return [encode(word).hex() for word in words]


def ready_from(value: object) -> tuple[Signed, ...]:
    """The words in an account; none if they are malformed."""
    if not isinstance(value, list):
        return ()
    try:
        return tuple(_signed.decode(bytes.fromhex(str(word))) for word in value)
    except (ValueError, *DECODE_ERRORS):
        return ()


_signed = msgspec.msgpack.Decoder(Signed)
