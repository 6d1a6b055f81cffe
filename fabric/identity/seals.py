"""Signed statements: `signature (64 bytes) | MessagePack body`, signed over label ‖ NUL ‖ body.

The label says what kind of statement it is, so that none can be taken for another, nor for a certificate.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from warren.fabric.core.errors import WireError
from warren.fabric.identity import keys

S = TypeVar("S", bound=msgspec.Struct)


class Seal(Generic[S]):
    """One kind of statement: its label, its type and the longest that is looked at (bytes)."""

    def __init__(self, label: bytes, kind: type[S], limit: int = 8192) -> None:
        self._label = label + b"\0"
        self._limit = limit
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[S] = msgspec.msgpack.Decoder(kind)

    def sign(self, key: Ed25519PrivateKey, statement: S) -> bytes:
        """The statement with its signature in front."""
        body = self._encoder.encode(statement)
        return key.sign(self._label + body) + body

    def read(self, data: bytes) -> S:
        """What it says, not yet verified. Raises WireError."""
        if not keys.SIGNATURE_LENGTH < len(data) <= self._limit:
            raise WireError(f"a signed statement of {len(data)} bytes")
        try:
            return self._decoder.decode(memoryview(data)[keys.SIGNATURE_LENGTH :])
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
            raise WireError(f"not a statement of this kind: {error}") from None

    def signed_by(self, data: bytes, public: bytes) -> bool:
        """Whether the raw key `public` signed it. Never raises."""
        signature, body = data[: keys.SIGNATURE_LENGTH], data[keys.SIGNATURE_LENGTH :]
        return keys.verified(public, signature, self._label + body)
