"""What is said on an attachment, in a session and on a peer connection: three families, one typed class per message.

On the wire every message is `length (4 bytes, big-endian) | MessagePack map with a tag`. Unknown fields are ignored, an
unknown tag is a `WireError`. `Codec` is total: a message or `WireError`, nothing else; a length above the
family's bound is refused before a byte of the body is kept.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec

from warren.fabric.core.errors import WireError

LENGTH = 4
MESSAGE_LIMIT = 65_536
"""Longest body that is accepted: the longest honest message (a list of routes) is far below it."""

M = TypeVar("M", bound=msgspec.Struct)


class Message(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """Base of every message. The tag is the class's name."""


class Codec(Generic[M]):
    """Encodes and decodes the messages of one family (`union`: a Union of its classes)."""

    def __init__(self, union: Any, limit: int = MESSAGE_LIMIT) -> None:
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[M] = msgspec.msgpack.Decoder(union)
        self.limit = limit

    def encode(self, message: M) -> bytes:
        """The message with its length in front."""
        body = self._encoder.encode(message)
        return len(body).to_bytes(LENGTH, "big") + body

    def decode(self, body: bytes) -> M:
        """One message from its body. Raises WireError."""
        try:
            return self._decoder.decode(body)
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
            raise WireError(f"not a message of this family: {error}") from None

    def split(self, buffer: bytearray) -> M | None:
        """Takes one whole message off the front of `buffer`; None if it is not all there yet. Raises WireError."""
        if len(buffer) < LENGTH:
            return None
        length = int.from_bytes(buffer[:LENGTH], "big")
        if length > self.limit:
            raise WireError(f"a message of {length} bytes, {self.limit} are allowed")
        if len(buffer) < LENGTH + length:
            return None
        body = bytes(buffer[LENGTH : LENGTH + length])
        del buffer[: LENGTH + length]
        return self.decode(body)
