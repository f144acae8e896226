"""Ed25519 signatures under a domain prefix that names library, cluster, role and signer.

What is signed is `b"bft/1\\0" + cluster id (32) + role (b"R" or b"C") + sender + BLAKE2b-256(payload)`; the sender is a
replica id (4 bytes, big-endian) or a client's public key (32 bytes). So no signature is good in another cluster, for
another signer or for another purpose (nor as a TLS CertificateVerify, which starts with 64 spaces). Strictness is
libsodium's: S >= L and points of small order are refused. The payload enters as a digest since Ed25519 hashes all that
it signs twice, with SHA-512, at a quarter of BLAKE2b's speed: envelopes of 200 KiB took longer to hash than to order.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence

from nacl import bindings
from nacl.exceptions import CryptoError

from bft.digests import payload_digest
from bft.ids import DIGEST_BYTES, KEY_BYTES, SIGNATURE_BYTES, ClientId, Peer, ReplicaId

MESSAGE_DOMAIN = b"bft/1\0"
CLIENT_PREFIXES_MAX = 4096


def domain_prefix(cluster_id: bytes, sender: Peer) -> bytes:
    """What a message's signature covers before its payload's digest."""
    assert len(cluster_id) == DIGEST_BYTES, f"a cluster id has {DIGEST_BYTES} bytes, not {len(cluster_id)}"
    return MESSAGE_DOMAIN + cluster_id + sender_bytes(sender)


def sender_bytes(sender: Peer) -> bytes:
    """Role and name of a signer: `R` and 4 bytes of replica id, or `C` and 32 bytes of client key."""
    if isinstance(sender, int):
        return b"R" + sender.to_bytes(4, "big")
    assert len(sender) == KEY_BYTES, f"a client is named by {KEY_BYTES} bytes, not {len(sender)}"
    return b"C" + sender


def is_valid_key(key: bytes) -> bool:
    """True if `key` is the canonical encoding of a point of the prime-order group (not small, not mixed)."""
    if len(key) != KEY_BYTES:
        return False
    return bool(bindings.crypto_core_ed25519_is_valid_point(key))


def verify_signed(key: bytes, signed: bytes) -> bool:
    """True if `signed`, a 64-byte signature followed by what it covers, verifies under `key`."""
    try:
        bindings.crypto_sign_open(signed, key)
    except CryptoError:
        return False
    return True


class Ed25519Signer:
    """A `Signer` that holds the private key of one identity in one cluster.

    Attributes:
        sender: whose signatures these are.
        public: the 32-byte public key that belongs to them.
    """

    def __init__(self, cluster_id: bytes, sender: Peer, seed: bytes) -> None:
        """Take a 32-byte private seed; `sender` is a replica id or the client's own public key."""
        public, self._secret = bindings.crypto_sign_seed_keypair(seed)
        assert isinstance(sender, int) or sender == public, "a client is named by the key that it signs with"
        self._prefix = domain_prefix(cluster_id, sender)
        self.sender = sender
        self.public: bytes = public

    def sign(self, payload: bytes, /) -> bytes:
        """64-byte signature over the identity's domain prefix and the digest of `payload`."""
        signed = bindings.crypto_sign(self._prefix + payload_digest(payload), self._secret)
        signature: bytes = signed[:SIGNATURE_BYTES]
        return signature


class Ed25519Verifier:
    """A `Verifier` for the keys of a cluster file."""

    def __init__(
        self,
        cluster_id: bytes,
        replica_keys: Sequence[bytes] | Mapping[int, bytes],
        client_keys: Collection[bytes] | None,
    ) -> None:
        """Register the replicas' public keys, by id, and the clients that may use the cluster (None: anybody).

        A key that is no valid point never verifies anything: a cluster file with a bad key has a replica or client
        that nobody believes, not a cluster that cannot start.
        """
        self._cluster_id = cluster_id
        named = replica_keys.items() if isinstance(replica_keys, Mapping) else enumerate(replica_keys)
        self._replicas = {
            replica: (key, domain_prefix(cluster_id, ReplicaId(replica))) for replica, key in named if is_valid_key(key)
        }
        self._known = None if client_keys is None else frozenset(client_keys)
        self._clients: OrderedDict[bytes, bytes] = OrderedDict()

    def verify_replica(self, sender: int, payload: bytes, signature: bytes, /) -> bool:
        """True if replica `sender` signed `payload`. False for unknown senders; never raises on hostile input."""
        entry = self._replicas.get(sender)
        if len(signature) != SIGNATURE_BYTES:
            return False
        return entry is not None and verify_signed(entry[0], signature + entry[1] + payload_digest(payload))

    def verify_client(self, client: bytes, digest: bytes, signature: bytes, /) -> bool:
        """True if the holder of the 32-byte key `client` may use the cluster and signed what has this digest."""
        if len(signature) != SIGNATURE_BYTES:
            return False
        prefix = self._client_prefix(client)
        return prefix is not None and verify_signed(client, signature + prefix + digest)

    def verify_key(self, key: bytes, signer: Peer, payload: bytes, signature: bytes, /) -> bool:
        """True if the holder of `key`, which need not be registered, signed `payload` as `signer` in this cluster."""
        if len(signature) != SIGNATURE_BYTES or not is_valid_key(key):
            return False
        return verify_signed(key, signature + domain_prefix(self._cluster_id, signer) + payload_digest(payload))

    def replica_key(self, replica: int, /) -> bytes | None:
        """The public key of a replica; None if there is no such replica, or its key is no valid point."""
        entry = self._replicas.get(replica)
        return None if entry is None else entry[0]

    def may_use(self, client: bytes, /) -> bool:
        """True if enrolment lets this client key in and the key is a valid point."""
        return self._client_prefix(client) is not None

    def _client_prefix(self, client: bytes) -> bytes | None:
        """The client's domain prefix, from a bounded cache of the keys that were checked; None if it is not let in."""
        prefix = self._clients.get(client)
        if prefix is not None:
            self._clients.move_to_end(client)
            return prefix
        if (self._known is not None and client not in self._known) or not is_valid_key(client):
            return None
        prefix = self._clients[client] = domain_prefix(self._cluster_id, ClientId(client))
        if len(self._clients) > CLIENT_PREFIXES_MAX:
            self._clients.popitem(last=False)
        return prefix
