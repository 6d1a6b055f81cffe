"""Ed25519 keys (RFC 8032): made, kept in files, named by thumbprint.

A public key is its 32 raw bytes everywhere; a thumbprint is their SHA-256 in lower-case hex.
"""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from warren.fabric.core.errors import ConfigError
from warren.fabric.identity.files import read_private, write_private

RAW_LENGTH = 32
SIGNATURE_LENGTH = 64
ID_BYTES = 10
"""80 random bits: ids are readable in SNI, so they say nothing, and nobody guesses one."""


def generate() -> Ed25519PrivateKey:
    """A new key."""
    return Ed25519PrivateKey.generate()


def new_id() -> str:
    """A new random id of a device, edge, tunnel or route: 20 lower-case hex digits."""
    return secrets.token_hex(ID_BYTES)


def save(path: Path, key: Ed25519PrivateKey, *, replace: bool = False) -> None:
    """Writes the key as PEM into a 0600 file. Raises ConfigError."""
    write_private(path, private_pem(key), replace=replace)


def load(path: Path) -> Ed25519PrivateKey:
    """Reads what `save` wrote. Raises ConfigError, also when others can read the file."""
    data = read_private(path)
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigError(f"{path} holds no private key (PEM, without a password)") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path} holds a key of another kind: Ed25519 is needed")
    return key


def private_pem(key: Ed25519PrivateKey) -> bytes:
    """PKCS 8 in PEM, as the engine's `ServerConfig.key` wants it."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def private_raw(key: Ed25519PrivateKey) -> bytes:
    """The 32 secret bytes."""
    return key.private_bytes_raw()


def from_raw(raw: bytes) -> Ed25519PrivateKey:
    """The key with these 32 secret bytes. Raises ValueError."""
    return Ed25519PrivateKey.from_private_bytes(raw)


def public(key: Ed25519PrivateKey) -> bytes:
    """Its public half, 32 raw bytes."""
    return key.public_key().public_bytes_raw()


def thumbprint(raw: bytes) -> str:
    """What a public key is called in grants, in the store and on the screen: SHA-256 in hex."""
    return hashlib.sha256(raw).hexdigest()


def verified(raw: bytes, signature: bytes, data: bytes) -> bool:
    """Whether `signature` over `data` was made with the private half of the public key `raw`. Never raises."""
    try:
        Ed25519PublicKey.from_public_bytes(raw).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True
