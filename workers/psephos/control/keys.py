"""A session's secrets: the key for the voters' pseudonyms, the signing key, the seed of the lot."""

import os
import secrets
from pathlib import Path
from typing import NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from psephos.platform.settings import PREFIX, Settings, SettingsError, read_key

SESSION_KEY_BYTES = 32
LOT_SEED_BYTES = 16


class SessionKeys(NamedTuple):
    """session: key for the voters' pseudonyms; signing: signs the final result; lot_seed: for ties by lot."""

    session: bytes
    signing: Ed25519PrivateKey
    lot_seed: bytes

    @property
    def public_key(self) -> str:
        """The signing key's public half in hex, as genesis publishes it."""
        return self.signing.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


def read_keys(settings: Settings) -> SessionKeys:
    """The keys in the files that the settings name. Raises SettingsError, which never contains a key."""
    return SessionKeys(
        read_key(settings.session_key_file, "SESSION_KEY_FILE", SESSION_KEY_BYTES),
        read_signing_key(settings),
        read_lot_seed(settings),
    )


def read_signing_key(settings: Settings) -> Ed25519PrivateKey:
    """The Ed25519 private key that signs the final result. Raises SettingsError."""
    pem = read_key(settings.signing_key_file, "SIGNING_KEY_FILE")
    try:
        return signing_key(pem)
    except ValueError as error:
        raise SettingsError(f"{PREFIX}SIGNING_KEY_FILE: {settings.signing_key_file} {error}") from None


def signing_key(pem: bytes) -> Ed25519PrivateKey:
    """The key in this PEM. Raises ValueError, which never contains the key."""
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("is no Ed25519 private key in PEM; `openssl genpkey -algorithm ed25519` makes one")
    return key


def read_lot_seed(settings: Settings) -> bytes:
    """The seed that genesis committed to. Raises SettingsError."""
    return read_key(settings.lot_seed_file, "LOT_SEED_FILE", LOT_SEED_BYTES)


def make_keys(folder: Path) -> dict[str, Path]:
    """Creates the keys that are not yet in `folder`, readable only by the owner.

    Returns the settings that name them: session_key_file, signing_key_file, lot_seed_file.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    made = new_keys()
    paths = {f"{name.replace('-', '_')}_file": folder / name for name in made}
    for path in paths.values():
        _write_new(path, made[path.name])
    return paths


def new_keys() -> dict[str, bytes]:
    """New values of session-key, signing-key and lot-seed, as files and Secrets hold them."""
    signing = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return {
        "session-key": secrets.token_hex(SESSION_KEY_BYTES).encode(),
        "signing-key": signing,
        "lot-seed": secrets.token_hex(SESSION_KEY_BYTES).encode(),
    }


def _write_new(path: Path, content: bytes) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    with open(descriptor, "wb") as file:
        file.write(content)
