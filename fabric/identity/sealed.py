"""A few kilobytes sealed with a passphrase: for what leaves the directory that only its owner can read.

    "warren-sealed/1\\n" | salt, 16 bytes | nonce, 12 bytes | AES-256-GCM of the content

The key is scrypt (RFC 7914) of the passphrase and the salt, N = 2^17, r = 8, p = 1: 128 MiB and 0.3 s for each guess.
What stands before the ciphertext is authenticated with it.
"""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from warren.fabric.core.errors import ConfigError

MAGIC = b"warren-sealed/1\n"
SALT, NONCE, TAG = 16, 12, 16
"""Bytes each."""
PASSPHRASE_LEAST = 12
"""Characters: somebody who has the file can guess for as long as he likes."""


def seal(content: bytes, passphrase: str) -> bytes:
    """The sealed content. Raises ConfigError for a passphrase that is too short."""
    if len(passphrase) < PASSPHRASE_LEAST:
        raise ConfigError(f"the passphrase is too short: at least {PASSPHRASE_LEAST} characters are needed")
    head = MAGIC + os.urandom(SALT + NONCE)
    return head + AESGCM(_key(passphrase, head)).encrypt(head[-NONCE:], content, head)


def unseal(sealed: bytes, passphrase: str) -> bytes:
    """What was sealed. Raises ConfigError: not one of ours, damaged, or another passphrase."""
    end = len(MAGIC) + SALT + NONCE
    if not sealed.startswith(MAGIC) or len(sealed) < end + TAG:
        raise ConfigError("this is nothing that was sealed by Warren, or by a newer one")
    head = sealed[:end]
    try:
        return AESGCM(_key(passphrase, head)).decrypt(head[-NONCE:], sealed[end:], head)
    except InvalidTag:
        raise ConfigError("the passphrase is another one, or the file is damaged") from None


def _key(passphrase: str, head: bytes) -> bytes:
    salt = head[len(MAGIC) : len(MAGIC) + SALT]
    return Scrypt(salt=salt, length=32, n=1 << 17, r=8, p=1).derive(passphrase.encode())
