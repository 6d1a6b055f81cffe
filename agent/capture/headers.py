"""Packet headers: what stands in a captured packet, and packets of our own.

Everything here is pure and total: whatever the bytes, `read` returns a value and never raises. Only IPv4 is read today;
addresses are packed bytes and a `WireKey` is simply "addresses and ports as they stand in the packet", so that IPv6
(36 bytes instead of 12) needs no other type. Sources: RFC 791 (IPv4), RFC 9293 (TCP), RFC 768 (UDP), RFC 792 (ICMP).
"""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple, TypeAlias

VNET_HEADER = 10
"""Bytes of virtio-net header in front of every packet of a TUN device with IFF_VNET_HDR; all zero: nothing to do."""

PROTOCOL_ICMP, PROTOCOL_TCP, PROTOCOL_UDP = 1, 6, 17
FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10

_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_PSEUDO = struct.Struct("!4s4sBBH")
_TCP = struct.Struct("!HHIIBBHHH")
_UDP = struct.Struct("!HHHH")
_ICMP = struct.Struct("!BBHI")
_ECHO = struct.Struct("!BBHHH")
_ECHO_REQUEST, _ECHO_REPLY = 8, 0
_PORTS = struct.Struct("!HH")
_DONT_FRAGMENT = 0x4000
_HOPS = 64
MAX_UDP_PAYLOAD = 65535 - 20 - 8

WireKey: TypeAlias = bytes
"""Source address, destination address, source port, destination port, as they stand in the packet."""


class FlowKey(NamedTuple):
    """The 5-tuple as the app sees it: `source` is the app, `destination` the origin. Addresses: packed bytes."""

    protocol: int
    source: bytes
    source_port: int
    destination: bytes
    destination_port: int


class Unread(enum.Enum):
    """Why a packet is not one that is read; the value is the word for logs and metrics."""

    MALFORMED = "malformed"
    FRAGMENT = "fragment"
    IPV6 = "ipv6"
    MULTICAST = "multicast"
    ICMP = "icmp"
    PROTOCOL = "protocol"


class Segment(NamedTuple):
    """A TCP segment. `length` is what it takes of sequence space: payload bytes, and one each for SYN and FIN."""

    key: WireKey
    sequence: int
    acknowledgement: int
    flags: int
    length: int


class Datagram(NamedTuple):
    """A UDP datagram; the payload is packet[start:end]."""

    key: WireKey
    start: int
    end: int


class Echo(NamedTuple):
    """An ICMP echo request (RFC 792); its data is packet[start:end]. `hops`: the packet's TTL."""

    source: bytes
    destination: bytes
    ident: int
    sequence: int
    hops: int
    start: int
    end: int


def read(packet: memoryview, offset: int = 0) -> Segment | Datagram | Echo | Unread:
    """Read the IP packet that begins at `offset` (`VNET_HEADER` for what comes from a TUN device)."""
    size = len(packet) - offset
    if size < 1:
        return Unread.MALFORMED
    version = packet[offset] >> 4
    if version == 6:
        return Unread.IPV6
    header = (packet[offset] & 15) * 4
    if version != 4 or header < 20 or size < header:
        return Unread.MALFORMED
    total = packet[offset + 2] << 8 | packet[offset + 3]
    if not header <= total <= size:
        return Unread.MALFORMED
    if packet[offset + 6] & 0x3F or packet[offset + 7]:  # "more fragments", or an offset
        return Unread.FRAGMENT
    if packet[offset + 16] >= 224:  # 224/4 multicast (RFC 5771), 240/4 with the broadcast address
        return Unread.MULTICAST
    protocol = packet[offset + 9]
    start, end = offset + header, offset + total
    addresses = bytes(packet[offset + 12 : offset + 20])
    if protocol == PROTOCOL_TCP:
        return _read_tcp(packet, addresses, start, end)
    if protocol == PROTOCOL_UDP:
        return _read_udp(packet, addresses, start, end)
    if protocol == PROTOCOL_ICMP and end - start >= _ECHO.size and packet[start] == _ECHO_REQUEST:
        _, _, _, ident, sequence = _ECHO.unpack_from(packet, start)
        return Echo(addresses[:4], addresses[4:], ident, sequence, packet[offset + 8], start + _ECHO.size, end)
    return Unread.ICMP if protocol == PROTOCOL_ICMP else Unread.PROTOCOL


def _read_tcp(packet: memoryview, addresses: bytes, start: int, end: int) -> Segment | Unread:
    if end - start < _TCP.size:
        return Unread.MALFORMED
    _, _, sequence, acknowledgement, words, flags, _, _, _ = _TCP.unpack_from(packet, start)
    header = (words >> 4) * 4
    if not _TCP.size <= header <= end - start:
        return Unread.MALFORMED
    length = end - start - header + (flags & SYN != 0) + (flags & FIN != 0)
    return Segment(addresses + bytes(packet[start : start + 4]), sequence, acknowledgement, flags, length)


def _read_udp(packet: memoryview, addresses: bytes, start: int, end: int) -> Datagram | Unread:
    if end - start < _UDP.size:
        return Unread.MALFORMED
    _, _, length, _ = _UDP.unpack_from(packet, start)
    if not _UDP.size <= length <= end - start:
        return Unread.MALFORMED
    return Datagram(addresses + bytes(packet[start : start + 4]), start + _UDP.size, start + length)


def flow_key(protocol: int, wire: WireKey) -> FlowKey:
    """The flow that a packet with these addresses and ports belongs to. `wire` is 12 (IPv4) or 36 bytes (IPv6)."""
    size = (len(wire) - 4) // 2
    source_port, destination_port = _PORTS.unpack_from(wire, 2 * size)
    return FlowKey(protocol, wire[:size], source_port, wire[size : 2 * size], destination_port)


def wire_key(key: FlowKey) -> WireKey:
    """The inverse of `flow_key`."""
    return key.source + key.destination + _PORTS.pack(key.source_port, key.destination_port)


def reversed_wire_key(wire: WireKey) -> WireKey:
    """The same flow's key in packets that travel the other way."""
    size = (len(wire) - 4) // 2
    return wire[size : 2 * size] + wire[:size] + wire[-2:] + wire[-4:-2]


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of bytes that are not all zero: 16 bits, never 0."""
    if len(data) & 1:
        data += b"\0"
    return 0xFFFF - int.from_bytes(data, "big") % 0xFFFF  # 2**16 = 1 (mod 2**16-1): that is the folded sum


def build_ipv4(protocol: int, source: bytes, destination: bytes, payload: bytes) -> bytes:
    """A packet for a TUN device: an empty vnet header, an IPv4 header without options, the payload (≤ 65515 bytes)."""
    fields = (0x45, 0, _IPV4.size + len(payload), 0, _DONT_FRAGMENT, _HOPS, protocol)
    total = checksum(_IPV4.pack(*fields, 0, source, destination))
    return bytes(VNET_HEADER) + _IPV4.pack(*fields, total, source, destination) + payload


def build_tcp(wire: WireKey, sequence: int, acknowledgement: int, flags: int) -> bytes:
    """A bare TCP segment over IPv4, window 0, for the TUN device."""
    key = flow_key(PROTOCOL_TCP, wire)
    fields = (key.source_port, key.destination_port, sequence, acknowledgement, 5 << 4, flags, 0)
    pseudo = _PSEUDO.pack(key.source, key.destination, 0, PROTOCOL_TCP, _TCP.size)
    total = checksum(pseudo + _TCP.pack(*fields, 0, 0))
    return build_ipv4(PROTOCOL_TCP, key.source, key.destination, _TCP.pack(*fields, total, 0))


def build_udp(wire: WireKey, payload: bytes) -> bytes:
    """A UDP datagram over IPv4 for the TUN device; `payload` is at most MAX_UDP_PAYLOAD bytes."""
    key = flow_key(PROTOCOL_UDP, wire)
    fields = (key.source_port, key.destination_port, _UDP.size + len(payload))
    pseudo = _PSEUDO.pack(key.source, key.destination, 0, PROTOCOL_UDP, _UDP.size + len(payload))
    total = checksum(pseudo + _UDP.pack(*fields, 0) + payload)
    return build_ipv4(PROTOCOL_UDP, key.source, key.destination, _UDP.pack(*fields, total) + payload)


def build_echo(source: bytes, destination: bytes, ident: int, sequence: int, data: bytes, *, reply: bool) -> bytes:
    """An ICMP echo request or reply over IPv4 for the TUN device."""
    kind = _ECHO_REPLY if reply else _ECHO_REQUEST
    total = checksum(_ECHO.pack(kind, 0, 0, ident, sequence) + data)
    return build_ipv4(PROTOCOL_ICMP, source, destination, _ECHO.pack(kind, 0, total, ident, sequence) + data)


def build_icmp_error(kind: int, code: int, source: bytes, original: bytes) -> bytes:
    """An ICMP error about `original` (an IPv4 packet without vnet header), from `source` to who sent it.

    It quotes the original's header and its first 8 bytes of payload (RFC 792), by which the kernel finds the socket.
    """
    quoted = original[: (original[0] & 15) * 4 + 8]
    total = checksum(_ICMP.pack(kind, code, 0, 0) + quoted)
    return build_ipv4(PROTOCOL_ICMP, source, original[12:16], _ICMP.pack(kind, code, total, 0) + quoted)
