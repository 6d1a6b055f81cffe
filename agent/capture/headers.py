"""Packet headers: what stands in a captured packet, and packets of our own.

Everything here is pure and total: whatever the bytes, `read` returns a value and never raises. Addresses are packed
bytes, whose length tells the family; a `WireKey` is simply "addresses and ports as they stand in the packet": 12 bytes
of IPv4, 36 of IPv6. Sources: RFC 791 (IPv4), RFC 8200 (IPv6 and its extension headers), RFC 9293 (TCP), RFC 768 (UDP),
RFC 792 (ICMP), RFC 4443 (ICMPv6).
"""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple, TypeAlias

from warren.fabric.core.checksum import checksum

VNET_HEADER = 10
"""Bytes of virtio-net header in front of every packet of a TUN device with IFF_VNET_HDR; all zero: nothing to do."""

PROTOCOL_ICMP, PROTOCOL_TCP, PROTOCOL_UDP = 1, 6, 17
"""Protocols of flows; an ICMPv6 echo is a flow of PROTOCOL_ICMP too, with addresses of 16 bytes."""
PROTOCOL_ICMPV6 = 58
FRAGMENT_HEADER = 44
IPV6_HEADER = 40
EXTENSION_HEADERS = 8
"""Extension headers that are looked behind in one packet; real ones have one or two."""
FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10

_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_IPV6 = struct.Struct("!IHBB16s16s")
_PSEUDO, _PSEUDO6 = struct.Struct("!4s4sBBH"), struct.Struct("!16s16sIHBB")
_TCP = struct.Struct("!HHIIBBHHH")
_UDP = struct.Struct("!HHHH")
_ICMP = struct.Struct("!BBHI")
_ECHO = struct.Struct("!BBHHH")
_ECHO_REQUEST, _ECHO_REPLY = 8, 0
_ECHO_REQUEST6, _ECHO_REPLY6 = 128, 129
_CHAINED = frozenset({0, 43, 60})  # hop-by-hop options, routing, destination options: length in units of 8 bytes
_QUOTED6 = 1280 - IPV6_HEADER - 8  # RFC 4443, section 2.4 (c)
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
    MULTICAST = "multicast"  # and broadcast, and IPv6's link-local: nothing that leaves a link
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
    """An ICMP or ICMPv6 echo request; its data is packet[start:end]. `hops`: the packet's TTL or hop limit."""

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
        return _read_ipv6(packet, offset, size)
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


def _read_ipv6(packet: memoryview, offset: int, size: int) -> Segment | Datagram | Echo | Unread:
    if size < IPV6_HEADER:
        return Unread.MALFORMED
    total = IPV6_HEADER + (packet[offset + 4] << 8 | packet[offset + 5])
    if total > size:
        return Unread.MALFORMED
    first = packet[offset + 24]
    if first == 0xFF or (first == 0xFE and packet[offset + 25] >= 0x80):  # ff00::/8, fe80::/10, fec0::/10
        return Unread.MULTICAST
    found = upper_layer(packet[offset : offset + total])
    if isinstance(found, Unread):
        return found
    protocol, start, end = found.protocol, offset + found.start, offset + total
    if found.fragment:
        return Unread.FRAGMENT
    addresses = bytes(packet[offset + 8 : offset + IPV6_HEADER])
    if protocol == PROTOCOL_TCP:
        return _read_tcp(packet, addresses, start, end)
    if protocol == PROTOCOL_UDP:
        return _read_udp(packet, addresses, start, end)
    if protocol == PROTOCOL_ICMPV6 and end - start >= _ECHO.size and packet[start] == _ECHO_REQUEST6:
        _, _, _, ident, sequence = _ECHO.unpack_from(packet, start)
        return Echo(addresses[:16], addresses[16:], ident, sequence, packet[offset + 7], start + _ECHO.size, end)
    return Unread.ICMP if protocol == PROTOCOL_ICMPV6 else Unread.PROTOCOL


class UpperLayer(NamedTuple):
    """Where extension headers end: `protocol` begins at `start`. `named_at`: the byte that says so. `fragment`: where a
    fragment header of a true fragment begins (then `start` is behind it); else 0."""

    protocol: int
    start: int
    named_at: int
    fragment: int


def upper_layer(packet: memoryview) -> UpperLayer | Unread:
    """Walks the extension headers of an IPv6 packet of at least 40 bytes (RFC 8200, section 4)."""
    named_at, at, end = 6, IPV6_HEADER, len(packet)
    for _ in range(EXTENSION_HEADERS):
        protocol = packet[named_at]
        if protocol not in _CHAINED and protocol != FRAGMENT_HEADER:
            return UpperLayer(protocol, at, named_at, 0)
        if at + 8 > end:
            return Unread.MALFORMED
        if protocol == FRAGMENT_HEADER:
            if packet[at + 2] or packet[at + 3] & 0xF9:  # not atomic (RFC 6946)
                return UpperLayer(packet[at], at + 8, named_at, at)
            length = 8
        else:
            length = 8 + packet[at + 1] * 8
        if at + length > end:
            return Unread.MALFORMED
        named_at, at = at, at + length
    return Unread.PROTOCOL


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


def build_ipv4(protocol: int, source: bytes, destination: bytes, payload: bytes) -> bytes:
    """A packet for a TUN device: an empty vnet header, an IPv4 header without options, the payload (≤ 65515 bytes)."""
    fields = (0x45, 0, _IPV4.size + len(payload), 0, _DONT_FRAGMENT, _HOPS, protocol)
    total = checksum(_IPV4.pack(*fields, 0, source, destination))
    return bytes(VNET_HEADER) + _IPV4.pack(*fields, total, source, destination) + payload


def build_ip(protocol: int, source: bytes, destination: bytes, payload: bytes) -> bytes:
    """The same in the family of the addresses; for IPv6: no extension headers, at most 65535 bytes of payload."""
    if len(source) == 4:
        return build_ipv4(protocol, source, destination, payload)
    return bytes(VNET_HEADER) + _IPV6.pack(6 << 28, len(payload), protocol, _HOPS, source, destination) + payload


def _pseudo(protocol: int, source: bytes, destination: bytes, length: int) -> bytes:
    """What TCP, UDP and ICMPv6 sum up besides themselves (RFC 9293, section 3.1; RFC 8200, section 8.1)."""
    if len(source) == 4:
        return _PSEUDO.pack(source, destination, 0, protocol, length)
    return _PSEUDO6.pack(source, destination, length, 0, 0, protocol)


def build_tcp(wire: WireKey, sequence: int, acknowledgement: int, flags: int) -> bytes:
    """A bare TCP segment, window 0, for the TUN device."""
    key = flow_key(PROTOCOL_TCP, wire)
    fields = (key.source_port, key.destination_port, sequence, acknowledgement, 5 << 4, flags, 0)
    pseudo = _pseudo(PROTOCOL_TCP, key.source, key.destination, _TCP.size)
    total = checksum(pseudo + _TCP.pack(*fields, 0, 0))
    return build_ip(PROTOCOL_TCP, key.source, key.destination, _TCP.pack(*fields, total, 0))


def build_udp(wire: WireKey, payload: bytes) -> bytes:
    """A UDP datagram for the TUN device; `payload` is at most MAX_UDP_PAYLOAD bytes."""
    key = flow_key(PROTOCOL_UDP, wire)
    fields = (key.source_port, key.destination_port, _UDP.size + len(payload))
    pseudo = _pseudo(PROTOCOL_UDP, key.source, key.destination, _UDP.size + len(payload))
    total = checksum(pseudo + _UDP.pack(*fields, 0) + payload)
    return build_ip(PROTOCOL_UDP, key.source, key.destination, _UDP.pack(*fields, total) + payload)


def build_echo(source: bytes, destination: bytes, ident: int, sequence: int, data: bytes, *, reply: bool) -> bytes:
    """An ICMP or ICMPv6 echo request or reply for the TUN device."""
    request, answer = (_ECHO_REQUEST, _ECHO_REPLY) if len(source) == 4 else (_ECHO_REQUEST6, _ECHO_REPLY6)
    kind = answer if reply else request
    return _icmp(source, destination, _ECHO.pack(kind, 0, 0, ident, sequence) + data)


def build_icmp_error(kind: int, code: int, source: bytes, original: bytes, extra: int = 0) -> bytes:
    """An ICMP error (ICMPv6 for an IPv6 packet) about `original` (without vnet header), from `source` to its sender.

    It quotes the original's header and its first 8 bytes of payload (RFC 792), by which the kernel finds the socket;
    over IPv6 as much as fits (RFC 4443). `extra`: the last 32 bits of the header (the MTU).
    """
    if original[0] >> 4 == 6:
        return _icmp(source, original[8:24], _ICMP.pack(kind, code, 0, extra) + original[:_QUOTED6])
    return _icmp(source, original[12:16], _ICMP.pack(kind, code, 0, extra) + original[: (original[0] & 15) * 4 + 8])


def _icmp(source: bytes, destination: bytes, message: bytes) -> bytes:
    """`message`: with zeros for its checksum."""
    if len(source) == 4:
        protocol, pseudo = PROTOCOL_ICMP, b""
    else:
        protocol, pseudo = PROTOCOL_ICMPV6, _pseudo(PROTOCOL_ICMPV6, source, destination, len(message))
    total = checksum(pseudo + message)
    return build_ip(protocol, source, destination, message[:2] + total.to_bytes(2, "big") + message[4:])
