"""The keys of a local session: made at its first start, kept in its folder, readable by their owner only.

On Kubernetes they come from Secrets. `psephos.control` makes those that every session has; here are the ones that
a local session gets in place of an identity provider: a key for voter tokens, and the credential of the batch
endpoint.
"""

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from psephos.platform.files import write_whole

_PRIVATE = 0o600
_KEY_BYTES = 32
_RSA_BITS = 2048


class DoorKeys(NamedTuple):
    """Key files. `token_signing` signs voter tokens; ingest verifies them with `token` (HS256: the same)."""

    token: Path
    token_signing: Path
    batch_credential: Path


def make_door_keys(folder: Path, algorithm: str = "HS256") -> DoorKeys:
    """Returns the endpoints' keys in this folder; makes those that are missing. Text keys are hexadecimal."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    credential = _ensure(folder / "batch-credential", _text_key)
    if algorithm == "HS256":
        key = _ensure(folder / "tokens-hs256", _text_key)
        return DoorKeys(key, key, credential)
    name = f"tokens-{algorithm.lower()}"
    private = _ensure(folder / f"{name}-private.pem", lambda: _private_pem(algorithm))
    public = _ensure(folder / f"{name}-public.pem", lambda: _public_pem(private.read_bytes()))
    return DoorKeys(public, private, credential)


def _ensure(path: Path, make: Callable[[], bytes]) -> Path:
    """Makes the file whole or not at all: a start that is killed here leaves no half-written key behind."""
    if not path.exists():
        write_whole(path, make(), mode=_PRIVATE)
    return path


def _text_key() -> bytes:
    return secrets.token_hex(_KEY_BYTES).encode()


def _private_pem(algorithm: str) -> bytes:
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
    if algorithm == "RS256":
        key = rsa.generate_private_key(public_exponent=65_537, key_size=_RSA_BITS)
    elif algorithm == "ES256":
        key = ec.generate_private_key(ec.SECP256R1())
    else:
        key = ed25519.Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _public_pem(private: bytes) -> bytes:
    key = load_pem_private_key(private, password=None)
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
