"""A connector process on TLS: nothing but that it is there (protocol.md, section 3, "Who is gone").

The edge sends a challenge of 32 bytes; the connector answers with `Present`, and the edge, if it believes it, with one
byte, `SEEN`. Nothing follows. When the process ends, its kernel closes the connection.
"""

from __future__ import annotations

from warren.fabric.core.messages import Codec, Message

LABEL = b"warren-presence/1 proof"
ALPN = "warren-presence/1"
CHALLENGE = 32
"""Bytes."""
SEEN = b"\x01"


class Present(Message, frozen=True):
    """Connector → edge: the process whose attachment was proved with this key."""

    key: bytes
    """Public half of the leaf's key, 32 raw bytes of Ed25519."""
    signature: bytes
    """Over LABEL ‖ challenge ‖ SHA-256(the edge's leaf)."""
    certificates: tuple[bytes, ...]
    """DER of leaf and tunnel CA."""
    statement: bytes
    """The network key's signed statement on the tunnel."""


PRESENT: Codec[Present] = Codec(Present, 16_384)
