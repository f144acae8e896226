"""TLS 1.3 material: contexts, and the key of a peer's certificate.

Nobody signs certificates here. A server shows a self-signed one over its replica key; the handshake's
CertificateVerify proves that it holds the key; the dialer then compares the key with the one that the cluster file
pins (`bft.transport.handshake`). A dialer that forgets the comparison has verified nothing: contexts made here check no
chain.
"""

from __future__ import annotations

import ssl
import tempfile
import warnings
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import NameOID

from bft.crypto.keys import KeyPair
from bft.errors import KeyFileError


def server_context(keys: KeyPair, key_path: Path, name: str, passphrase: bytes | None = None) -> ssl.SSLContext:
    """The listening side: shows a certificate over `keys`, whose private half is in the file at `key_path`.

    Python's ssl loads keys from files only, so the key file is read again; only the certificate, which is public, goes
    through a temporary file.

    Raises:
        KeyFileError: the file does not hold the private half of `keys`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _harden(context)
    context.num_tickets = 0
    with tempfile.NamedTemporaryFile(suffix=".pem") as certificate:
        certificate.write(keys.certificate_pem(name))
        certificate.flush()
        try:
            context.load_cert_chain(certificate.name, key_path, passphrase or b"")
        except (ssl.SSLError, OSError) as error:
            raise KeyFileError(f"{key_path}: not the private key of {keys.public_hex}: {error}") from error
    return context


def endpoint_certificate(keys: KeyPair, endpoint: bytes, name: str) -> bytes:
    """A DER certificate over another 32-byte Ed25519 key, signed by `keys`: lets a process be a replica's TLS endpoint
    without holding the replica's key.

    What is signed is a DER sequence and never a message of the protocol, which begins with its domain. Who holds the
    endpoint's key can be taken for the replica on a connection, but cannot vote for it.

    Raises:
        ValueError: `endpoint` is no key.
    """
    return (
        x509.CertificateBuilder(
            issuer_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]),
            subject_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} endpoint")]),
            public_key=Ed25519PublicKey.from_public_bytes(endpoint),
            serial_number=int.from_bytes(endpoint[:16], "big") | 1,
            not_valid_before=datetime(2020, 1, 1),
            not_valid_after=datetime(9999, 12, 31),
        )
        .sign(Ed25519PrivateKey.from_private_bytes(keys.seed), None)
        .public_bytes(serialization.Encoding.DER)
    )


def endpoint_context(endpoint: KeyPair, certificate: bytes) -> ssl.SSLContext:
    """The listening side of a process that shows an `endpoint_certificate` (DER) over its own key.

    The key is made for this process and goes through a temporary file that only its owner can read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _harden(context)
    context.num_tickets = 0
    private = Ed25519PrivateKey.from_private_bytes(endpoint.seed).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with tempfile.NamedTemporaryFile(suffix=".pem") as file:
        file.write(private + ssl.DER_cert_to_PEM_cert(certificate).encode())
        file.flush()
        context.load_cert_chain(file.name)
    return context


def vouches_for(key: bytes, der: bytes) -> bool:
    """True if a DER certificate is one over the 32-byte Ed25519 key `key`, or was signed by it for an endpoint.

    TLS has proven that the other side holds the certificate's key; this proves that `key` stands behind it.
    """
    if certificate_key(der) == key:
        return True
    certificate = _certificate(der)
    if certificate is None:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(certificate.signature, certificate.tbs_certificate_bytes)
    except (ValueError, UnsupportedAlgorithm, InvalidSignature):
        return False
    return True


def dialer_context() -> ssl.SSLContext:
    """The connecting side: verifies possession of the shown key, but leaves the check of *which* key to the caller."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _harden(context)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def certificate_key(der: bytes) -> bytes | None:
    """The 32-byte Ed25519 public key of a DER certificate; None if it cannot be read or is of another kind."""
    certificate = _certificate(der)
    try:
        key = certificate.public_key() if certificate is not None else None
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key.public_bytes_raw() if isinstance(key, Ed25519PublicKey) else None


def _certificate(der: bytes) -> x509.Certificate | None:
    """Whoever answers chooses these bytes: no warning about them for our log, and `InvalidVersion` is no ValueError."""
    try:
        with warnings.catch_warnings(action="ignore"):
            return x509.load_der_x509_certificate(der)
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion):
        return None


def _harden(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_TICKET
