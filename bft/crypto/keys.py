"""Private keys and their files: PKCS#8 PEM that openssl can read, for the owner's eyes only.

A key file has mode 0600; one that group or others can read is refused, since whoever could read it may already vote
in the replica's name. The same Ed25519 key signs messages and identifies the TLS endpoint (`bft.crypto.tls`).
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID
from nacl import bindings

from bft.errors import KeyFileError
from bft.ids import KEY_BYTES, SIGNATURE_BYTES

KEY_FILE_BYTES_MAX = 16 * 1024


@dataclass(frozen=True, slots=True)
class KeyPair:
    """An Ed25519 key.

    Attributes:
        seed: the 32-byte private seed; never printed.
        public: the 32-byte public key.
    """

    seed: bytes = field(repr=False)
    public: bytes

    @classmethod
    def generate(cls) -> KeyPair:
        """A fresh key from the system's randomness."""
        return cls.of_seed(os.urandom(KEY_BYTES))

    @classmethod
    def of_seed(cls, seed: bytes) -> KeyPair:
        """The key with this 32-byte private seed."""
        public, _ = bindings.crypto_sign_seed_keypair(seed)
        return cls(seed, public)

    @property
    def public_hex(self) -> str:
        """The public key as the cluster file writes it: 64 hex digits."""
        return self.public.hex()

    def sign(self, data: bytes) -> bytes:
        """64-byte signature over exactly `data`; whoever calls this has put a domain prefix in front."""
        secret = self.seed + self.public
        signature: bytes = bindings.crypto_sign(data, secret)[:SIGNATURE_BYTES]
        return signature

    def certificate_pem(self, name: str) -> bytes:
        """A self-signed X.509 certificate over this key, PEM; equal for equal key and name, and never expiring.

        Peers trust the key that the cluster file pins, not what the certificate says.
        """
        key = Ed25519PrivateKey.from_private_bytes(self.seed)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = x509.CertificateBuilder(
            issuer_name=subject,
            subject_name=subject,
            public_key=key.public_key(),
            serial_number=int.from_bytes(self.public[:16], "big") | 1,
            not_valid_before=datetime(2020, 1, 1),
            not_valid_after=datetime(9999, 12, 31),
        )
        return builder.sign(key, None).public_bytes(serialization.Encoding.PEM)


def save_key(path: Path, keys: KeyPair, passphrase: bytes | None = None) -> None:
    """Write a new key file (PKCS#8 PEM, mode 0600, synced), encrypted if a passphrase is given.

    Raises:
        KeyFileError: the file exists already (keys are never overwritten) or cannot be written.
    """
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        encryption = serialization.BestAvailableEncryption(passphrase)
    pem = Ed25519PrivateKey.from_private_bytes(keys.seed).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise KeyFileError(f"{path}: a file exists here: keys are never overwritten") from None
    except OSError as error:
        raise KeyFileError(f"{path}: key file cannot be created: {error.strerror}") from error
    try:
        with open(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(descriptor)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise KeyFileError(f"{path}: key file cannot be written: {error.strerror}") from error


def load_key(path: Path, passphrase: bytes | None = None) -> KeyPair:
    """Read a private key.

    Raises:
        KeyFileError: the file is missing, unreadable, readable by others than its owner, no PKCS#8 PEM of an Ed25519
            key, or the passphrase is missing or wrong.
    """
    pem = _read_private(path)
    try:
        key = serialization.load_pem_private_key(pem, passphrase or None)
    except TypeError as error:  # cryptography's way to say that passphrase and file do not fit
        needed = "is encrypted: give its passphrase (commands take BFT_PASSPHRASE)"
        rule = "is not encrypted: give no passphrase" if passphrase else needed
        raise KeyFileError(f"{path}: key {rule}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        rule = "or the passphrase is wrong" if passphrase else "as `bft keys new` or openssl genpkey write it"
        raise KeyFileError(f"{path}: not a PKCS#8 PEM private key, {rule}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{path}: found a {type(key).__name__}, expected an Ed25519 private key")
    return KeyPair.of_seed(key.private_bytes_raw())


def _read_private(path: Path) -> bytes:
    """The bytes of a file that only its owner can read; checked on the open file, so that no swap slips between."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise KeyFileError(f"{path}: not a regular file")
            if mode & 0o077:
                raise KeyFileError(
                    f"{path}: mode is {stat.S_IMODE(mode):04o}: a private key must not be accessible to group or"
                    f" others (chmod 600)"
                )
            return file.read(KEY_FILE_BYTES_MAX)
    except FileNotFoundError:
        raise KeyFileError(f"{path}: no such key file") from None
    except OSError as error:
        raise KeyFileError(f"{path}: key file cannot be read: {error.strerror}") from error
