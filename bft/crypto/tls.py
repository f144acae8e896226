"""TLS 1.3 material: contexts, and the key of a peer's certificate.

Nobody signs certificates here. A server shows a self-signed one over its replica key; the handshake's
CertificateVerify proves that it holds the key; the dialer then compares the key with the one that the cluster file
pins (`bft.transport.handshake`). A dialer that forgets the comparison has verified nothing: contexts made here check no
chain.
"""

from __future__ import annotations

import ssl
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

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


def dialer_context() -> ssl.SSLContext:
    """The connecting side: verifies possession of the shown key, but leaves the check of *which* key to the caller."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _harden(context)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def certificate_key(der: bytes) -> bytes | None:
    """The 32-byte Ed25519 public key of a DER certificate; None if it cannot be read or is of another kind."""
    try:
        key = x509.load_der_x509_certificate(der).public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key.public_bytes_raw() if isinstance(key, Ed25519PublicKey) else None


def _harden(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_TICKET
