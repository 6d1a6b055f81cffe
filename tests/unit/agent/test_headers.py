"""Packet headers: what is read, and that nothing a packet holds can raise. Built packets are checked by scapy."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.agent.capture.headers import (
    ACK,
    FIN,
    PROTOCOL_TCP,
    PROTOCOL_UDP,
    RST,
    SYN,
    VNET_HEADER,
    Datagram,
    Echo,
    FlowKey,
    Segment,
    Unread,
    build_echo,
    build_icmp_error,
    build_ip,
    build_ipv4,
    build_tcp,
    build_udp,
    flow_key,
    read,
    reversed_wire_key,
    wire_key,
)

APP, ORIGIN = socket.inet_aton("100.80.0.1"), socket.inet_aton("10.10.0.5")
TCP_KEY = FlowKey(PROTOCOL_TCP, APP, 40000, ORIGIN, 5432)
UDP_KEY = FlowKey(PROTOCOL_UDP, APP, 40000, ORIGIN, 53)


def parsed(packet: bytes) -> Segment | Datagram | Unread:
    return read(memoryview(packet), VNET_HEADER)


def by_scapy(packet: bytes) -> Any:
    """The packet as scapy reads it, after checking that its checksums are what scapy computes."""
    inet = pytest.importorskip("scapy.layers.inet")
    seen = inet.IP(packet[VNET_HEADER:])
    fresh = seen.copy()
    for layer in ("IP", "TCP", "UDP", "ICMP"):
        if fresh.haslayer(layer) and not (layer != "ICMP" and fresh.haslayer("ICMP") and layer != "IP"):
            del fresh[layer].chksum
    assert bytes(inet.IP(bytes(fresh))) == packet[VNET_HEADER:]
    return seen


def test_tcp_round_trip() -> None:
    packet = build_tcp(wire_key(TCP_KEY), 7, 9, SYN | ACK)
    assert parsed(packet) == Segment(wire_key(TCP_KEY), 7, 9, SYN | ACK, 1)
    seen = by_scapy(packet)
    assert (seen.src, seen.dst, seen["TCP"].dport, seen["TCP"].flags) == ("100.80.0.1", "10.10.0.5", 5432, "SA")


@given(st.binary(max_size=1400))
def test_udp_round_trip(payload: bytes) -> None:
    packet = build_udp(wire_key(UDP_KEY), payload)
    datagram = parsed(packet)
    assert isinstance(datagram, Datagram)
    assert packet[datagram.start : datagram.end] == payload
    assert flow_key(PROTOCOL_UDP, datagram.key) == UDP_KEY


def test_udp_and_icmp_as_scapy_sees_them() -> None:
    datagram = build_udp(wire_key(UDP_KEY), b"odd")
    assert bytes(by_scapy(datagram)["UDP"].payload) == b"odd"
    error = build_icmp_error(3, 1, ORIGIN, datagram[VNET_HEADER:])
    seen = by_scapy(error)
    assert (seen.src, seen.dst, seen["ICMP"].type, seen["ICMP"].code) == ("10.10.0.5", "100.80.0.1", 3, 1)
    assert bytes(seen["ICMP"].payload)[:28] == datagram[VNET_HEADER : VNET_HEADER + 28]


def test_options_payload_and_flags_count() -> None:
    tcp = bytearray(build_tcp(wire_key(TCP_KEY), 0, 0, SYN | FIN)[VNET_HEADER + 20 :])
    tcp[12] = 6 << 4  # one word of TCP options
    body = bytes(tcp) + b"\1\1\1\0" + b"hello"
    packet = bytearray(build_ipv4(PROTOCOL_TCP, APP, ORIGIN, b"\1\1\1\0" + body))
    packet[VNET_HEADER] = 0x46  # one word of IPv4 options
    segment = parsed(bytes(packet))
    assert isinstance(segment, Segment)
    assert (segment.key, segment.length) == (wire_key(TCP_KEY), 5 + 2)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({0: 0x60}, Unread.PROTOCOL),
        ({0: 0x44}, Unread.MALFORMED),
        ({2: 0xFF}, Unread.MALFORMED),
        ({6: 0x20}, Unread.FRAGMENT),
        ({7: 0x01}, Unread.FRAGMENT),
        ({16: 224}, Unread.MULTICAST),
        ({16: 255}, Unread.MULTICAST),
        ({9: 1}, Unread.ICMP),
        ({9: 47}, Unread.PROTOCOL),
        ({32: 0x40}, Unread.MALFORMED),
        ({32: 0xF0}, Unread.MALFORMED),
    ],
)
def test_what_is_not_read(change: dict[int, int], why: Unread) -> None:
    packet = bytearray(build_tcp(wire_key(TCP_KEY), 0, 0, RST))
    for at, value in change.items():
        packet[VNET_HEADER + at] = value
    assert parsed(bytes(packet)) is why


def test_cut_short_anywhere() -> None:
    for packet in (build_tcp(wire_key(TCP_KEY), 0, 0, SYN), build_udp(wire_key(UDP_KEY), b"x")):
        for size in range(len(packet)):
            assert parsed(packet[:size]) is Unread.MALFORMED


@given(st.binary(max_size=120), st.sampled_from([0x45, 0x46, 0x4F, 0x60]), st.sampled_from([1, 6, 17, 58]))
def test_total(data: bytes, first: int, protocol: int) -> None:
    for packet in (
        data,
        bytes([first]) + data[1:],
        bytes([first, 0, 0, len(data)]) + data[4:9] + bytes([protocol]) + data,
    ):
        got = read(memoryview(packet))
        if isinstance(got, Datagram):
            assert 0 <= got.start <= got.end <= len(packet)
        assert isinstance(got, Segment | Datagram | Echo | Unread)


@given(st.sampled_from([4, 16]), st.binary(min_size=32, max_size=32), st.integers(0, 65535), st.integers(0, 65535))
def test_keys(size: int, addresses: bytes, source: int, destination: int) -> None:
    key = FlowKey(PROTOCOL_TCP, addresses[:size], source, addresses[16 : 16 + size], destination)
    wire = wire_key(key)
    assert flow_key(PROTOCOL_TCP, wire) == key
    back = flow_key(PROTOCOL_TCP, reversed_wire_key(wire))
    assert back == FlowKey(PROTOCOL_TCP, key.destination, destination, key.source, source)


# ---- IPv6

APP6, ORIGIN6 = socket.inet_pton(socket.AF_INET6, "fd77::1"), socket.inet_pton(socket.AF_INET6, "fd00:10::5")
KEY6 = FlowKey(PROTOCOL_TCP, APP6, 40000, ORIGIN6, 443)
DATAGRAM6 = build_udp(wire_key(FlowKey(PROTOCOL_UDP, APP6, 40000, ORIGIN6, 53)), b"hello")


def by_scapy6(packet: bytes) -> Any:
    inet6 = pytest.importorskip("scapy.layers.inet6")
    seen = inet6.IPv6(packet[VNET_HEADER:])
    fresh = seen.copy()
    for layer in fresh.layers()[1:2]:
        field = "chksum" if layer.__name__ in ("TCP", "UDP") else "cksum"
        delattr(fresh[layer], field)
    assert bytes(inet6.IPv6(bytes(fresh))) == packet[VNET_HEADER:]
    return seen


def test_ipv6_round_trips() -> None:
    packet = build_tcp(wire_key(KEY6), 7, 9, SYN | ACK)
    assert parsed(packet) == Segment(wire_key(KEY6), 7, 9, SYN | ACK, 1)
    assert by_scapy6(packet).dst == "fd00:10::5"
    datagram = parsed(DATAGRAM6)
    assert isinstance(datagram, Datagram) and DATAGRAM6[datagram.start : datagram.end] == b"hello"
    by_scapy6(DATAGRAM6)
    asked = build_echo(APP6, ORIGIN6, 5, 6, b"data", reply=False)
    echo = parsed(asked)
    assert isinstance(echo, Echo) and (echo.ident, echo.sequence, echo.hops) == (5, 6, 64)
    assert asked[echo.start : echo.end] == b"data"
    by_scapy6(asked)


def test_an_icmpv6_error_quotes_as_much_as_fits() -> None:
    long = build_udp(wire_key(FlowKey(PROTOCOL_UDP, APP6, 1, ORIGIN6, 2)), bytes(3000))
    error = build_icmp_error(1, 3, ORIGIN6, long[VNET_HEADER:])
    assert len(error) - VNET_HEADER == 1280 and by_scapy6(error).dst == "fd77::1"


def chained(*headers: tuple[int, bytes], last: int = PROTOCOL_UDP) -> bytes:
    """The datagram behind extension headers: (protocol number of the header, its bytes from the second on)."""
    kinds = [kind for kind, _ in headers] + [last]
    chain = b"".join(bytes([kinds[index + 1]]) + body for index, (_, body) in enumerate(headers))
    return build_ip(kinds[0], APP6, ORIGIN6, chain + DATAGRAM6[VNET_HEADER + 40 :])


@pytest.mark.parametrize("kind", [0, 43, 60])
def test_what_stands_behind_extension_headers_is_read(kind: int) -> None:
    packet = chained((kind, bytes(7)), (60, b"\1" + bytes(14)), (44, bytes(7)))  # the last: an atomic fragment
    datagram = parsed(packet)
    assert isinstance(datagram, Datagram) and packet[datagram.start : datagram.end] == b"hello"


def test_a_chain_that_never_ends_or_is_cut_off() -> None:
    assert parsed(chained(*[(60, bytes(7))] * 9)) is Unread.PROTOCOL
    assert parsed(chained((60, b"\xff" + bytes(6)))) is Unread.MALFORMED
    assert parsed(chained((44, b"\0\0\1" + bytes(4)))) is Unread.FRAGMENT
    assert parsed(chained(last=59)) is Unread.PROTOCOL


@pytest.mark.parametrize("destination", ["ff02::1", "fe80::1", "febf::1"])
def test_nothing_of_the_link_is_carried(destination: str) -> None:
    packet = build_ip(PROTOCOL_UDP, APP6, socket.inet_pton(socket.AF_INET6, destination), bytes(8))
    assert parsed(packet) is Unread.MULTICAST


@given(st.integers(0, 255), st.binary(max_size=200), st.integers(-8, 8))
def test_total_over_ipv6(following: int, data: bytes, lie: int) -> None:
    packet = bytearray(build_ip(following, APP6, ORIGIN6, data))
    packet[VNET_HEADER + 4 : VNET_HEADER + 6] = max(0, len(data) + lie).to_bytes(2, "big")
    got = parsed(bytes(packet))
    if isinstance(got, Datagram | Echo):
        assert VNET_HEADER <= got.start <= got.end <= len(packet)
