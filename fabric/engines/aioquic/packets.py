"""The invariants of QUIC packets (RFC 8999): what a demultiplexer may know without keys."""

from __future__ import annotations

from typing import NamedTuple

VERSION_1 = 1
SMALLEST_INITIAL = 1200
"""RFC 9000, section 14.1: a datagram with an Initial packet is never smaller."""
SMALLEST_FIRST_ID = 8
"""RFC 9000, section 7.2: bytes of the destination id that a client makes up."""
LARGEST_ID = 20
ID_BYTES = 8
"""Length of the connection ids that we issue."""


class LongHeader(NamedTuple):
    """A long header: version, destination and source connection id, and Initial's token."""

    version: int
    destination: bytes
    source: bytes
    initial: bool
    token: bytes


def long_header(datagram: bytes) -> LongHeader | None:
    """The long header that a datagram begins with; None if it has none or is cut short.

    1 byte    1L TT xxxx   L: fixed bit, TT: type (00 Initial in version 1)
    4 bytes   version
    1 + n     destination id     1 + n     source id
    varint    length of the token, then the token (Initial, version 1)
    """
    if len(datagram) < 7 or not datagram[0] & 0x80:
        return None
    version = int.from_bytes(datagram[1:5], "big")
    end = 6 + datagram[5]
    destination = datagram[6:end]
    if end >= len(datagram):
        return None
    source = datagram[end + 1 : end + 1 + datagram[end]]
    end += 1 + datagram[end]
    if end >= len(datagram):
        return None
    if version != VERSION_1 or datagram[0] & 0x70 != 0x40:
        return LongHeader(version, destination, source, False, b"")
    width = 1 << (datagram[end] >> 6)
    size = int.from_bytes(datagram[end : end + width], "big") & ((1 << (8 * width - 2)) - 1)
    token = datagram[end + width : end + width + size]
    if len(token) != size:
        return None
    return LongHeader(version, destination, source, True, token)


def initial_of(datagram: bytes) -> LongHeader | None:
    """The header of a client's first datagram: an Initial of version 1, large enough, its ids of a legal length."""
    header = long_header(datagram) if len(datagram) >= SMALLEST_INITIAL else None
    if header is None or not header.initial:
        return None
    if not SMALLEST_FIRST_ID <= len(header.destination) <= LARGEST_ID or len(header.source) > LARGEST_ID:
        return None
    return header
