"""The Internet checksum. Pure."""

from __future__ import annotations


def checksum(data: bytes) -> int:
    """RFC 1071, of bytes that are not all zero: 16 bits, never 0 (as RFC 8200, section 8.1, asks of UDP)."""
    if len(data) & 1:
        data += b"\0"
    return 0xFFFF - int.from_bytes(data, "big") % 0xFFFF  # 2**16 = 1 (mod 2**16-1): that is the folded sum
