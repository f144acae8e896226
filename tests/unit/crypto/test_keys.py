"""Key files: for the owner only, readable by openssl, and errors that name file and rule."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bft.crypto.keys import KeyPair, load_key, save_key
from bft.crypto.tls import certificate_key, server_context
from bft.errors import KeyFileError

KEYS = KeyPair.of_seed(b"s" * 32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "r0.pem"


@pytest.mark.parametrize("passphrase", [None, b"secret"])
def test_saved_key_loads_again(path: Path, passphrase: bytes | None) -> None:
    """A key survives its file, with and without passphrase."""
    save_key(path, KEYS, passphrase)
    assert load_key(path, passphrase) == KEYS
    assert path.stat().st_mode & 0o777 == 0o600
    assert server_context(KEYS, path, "r0", passphrase) is not None


def test_key_is_not_printed() -> None:
    """The seed does not leak into logs by accident."""
    assert KEYS.seed.hex() not in repr(KEYS) and repr(KEYS.seed) not in repr(KEYS)
    assert KEYS.public_hex == KEYS.public.hex()


def test_key_file_is_never_overwritten(path: Path) -> None:
    """An existing key is somebody's identity."""
    save_key(path, KEYS)
    with pytest.raises(KeyFileError, match=r"r0.pem: .*never overwritten"):
        save_key(path, KeyPair.generate())


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_key_file_that_others_can_access_is_refused(path: Path, mode: int) -> None:
    """Who can read the file can vote."""
    save_key(path, KEYS)
    path.chmod(mode)
    with pytest.raises(KeyFileError, match=f"r0.pem: mode is {mode:04o}.*chmod 600"):
        load_key(path)


def test_missing_and_unwritable_files_are_named(tmp_path: Path) -> None:
    """The error names the file."""
    with pytest.raises(KeyFileError, match=r"none\.pem: no such key file"):
        load_key(tmp_path / "none.pem")
    with pytest.raises(KeyFileError, match="key file cannot be created"):
        save_key(tmp_path / "no folder" / "r0.pem", KEYS)
    with pytest.raises(KeyFileError, match=r"(not a regular file|cannot be read)"):
        load_key(tmp_path)


def test_passphrase_and_file_must_fit(path: Path, tmp_path: Path) -> None:
    """Missing, wrong and needless passphrases are told apart."""
    save_key(path, KEYS, b"secret")
    with pytest.raises(KeyFileError, match="is encrypted: give its passphrase"):
        load_key(path)
    with pytest.raises(KeyFileError, match="passphrase is wrong"):
        load_key(path, b"guess")
    save_key(tmp_path / "plain.pem", KEYS)
    with pytest.raises(KeyFileError, match="is not encrypted"):
        load_key(tmp_path / "plain.pem", b"secret")


def test_other_kinds_of_keys_are_refused(path: Path) -> None:
    """Only Ed25519 private keys, only PEM."""
    other = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for content, text in ((other, "expected an Ed25519 private key"), (b"junk", "not a PKCS#8 PEM"), (b"", "not a")):
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(KeyFileError, match=text):
            load_key(path)


def test_certificate_carries_the_key_and_is_reproducible() -> None:
    """The certificate is a function of key and name."""
    pem = KEYS.certificate_pem("r0")
    der = ssl.PEM_cert_to_DER_cert(pem.decode())
    assert certificate_key(der) == KEYS.public
    assert pem == KeyPair.of_seed(KEYS.seed).certificate_pem("r0")


def test_hostile_certificates_have_no_key() -> None:
    """Damaged or foreign DER is None."""
    assert certificate_key(b"") is None
    assert certificate_key(os.urandom(200)) is None


def test_context_needs_the_matching_key_file(path: Path) -> None:
    """A certificate over one key and the file of another do not make a server."""
    save_key(path, KeyPair.generate())
    with pytest.raises(KeyFileError, match="not the private key of"):
        server_context(KEYS, path, "r0")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl program")
def test_openssl_reads_the_key_file(path: Path) -> None:
    """Key files are ordinary: openssl prints the same public key."""
    save_key(path, KEYS)
    command = ["openssl", "pkey", "-in", str(path), "-pubout", "-outform", "der"]
    der = subprocess.run(command, capture_output=True, check=True).stdout
    assert der[-32:] == KEYS.public
