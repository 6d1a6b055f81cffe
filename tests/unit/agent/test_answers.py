"""What a refused SYN is answered."""

from __future__ import annotations

import socket

import pytest

from warren.agent.capture.answers import Answer, answer_for, answer_packet, port_unreachable, reset_for
from warren.agent.capture.headers import (
    ACK,
    PROTOCOL_TCP,
    PROTOCOL_UDP,
    RST,
    SYN,
    VNET_HEADER,
    FlowKey,
    Segment,
    build_ipv4,
    build_tcp,
    build_udp,
    read,
    reversed_wire_key,
    wire_key,
)
from warren.fabric.core.reasons import Reason

APP, ORIGIN = socket.inet_aton("100.80.0.1"), socket.inet_aton("10.10.0.5")
KEY = wire_key(FlowKey(PROTOCOL_TCP, APP, 40000, ORIGIN, 5432))
SYN_PACKET = build_tcp(KEY, 0xFFFFFFFF, 0, SYN)


def segment(packet: bytes) -> Segment:
    got = read(memoryview(packet), VNET_HEADER)
    assert isinstance(got, Segment)
    return got


@pytest.mark.parametrize(
    ("reason", "answer"),
    [
        (Reason.REFUSED, Answer.RESET),
        (Reason.TIMED_OUT, Answer.SILENCE),
        (Reason.HOST_UNREACHABLE, Answer.HOST_UNREACHABLE),
        (Reason.NET_UNREACHABLE, Answer.NET_UNREACHABLE),
        (Reason.POLICY, Answer.PROHIBITED),
        (Reason.TUNNEL_DOWN, Answer.HOST_UNREACHABLE),
    ],
)
def test_every_reason_has_an_answer(reason: Reason, answer: Answer) -> None:
    assert answer_for(reason) is answer
    assert all(isinstance(answer_for(any_reason), Answer) for any_reason in Reason)


def test_a_refusal_acknowledges_the_whole_syn() -> None:
    packet = answer_packet(Answer.RESET, SYN_PACKET)
    assert packet is not None
    assert segment(packet) == Segment(reversed_wire_key(KEY), 0, 0, RST | ACK, 0)  # the sequence number wraps
    with_payload = bytearray(build_ipv4(PROTOCOL_TCP, APP, ORIGIN, SYN_PACKET[VNET_HEADER + 20 :] + b"early"))
    packet = answer_packet(Answer.RESET, bytes(with_payload))
    assert packet is not None
    assert segment(packet).acknowledgement == 5


def test_an_unknown_segment_is_reset_where_the_other_side_stands() -> None:
    packet = reset_for(segment(build_tcp(KEY, 100, 777, ACK)))
    assert packet is not None
    assert segment(packet) == Segment(reversed_wire_key(KEY), 777, 0, RST, 0)
    assert reset_for(segment(build_tcp(KEY, 100, 777, RST))) is None


@pytest.mark.parametrize("answer", [Answer.NET_UNREACHABLE, Answer.HOST_UNREACHABLE, Answer.PROHIBITED])
def test_icmp_errors_come_from_the_origin_and_quote_the_syn(answer: Answer) -> None:
    packet = answer_packet(answer, SYN_PACKET)
    assert packet is not None
    assert packet[:VNET_HEADER] == bytes(VNET_HEADER)
    ip = packet[VNET_HEADER:]
    assert (ip[12:16], ip[16:20], ip[9]) == (ORIGIN, APP, 1)
    assert (ip[20], ip[21]) == (3, answer.value)
    assert ip[28:] == SYN_PACKET[VNET_HEADER : VNET_HEADER + 28]


def test_silence_and_ports() -> None:
    assert answer_packet(Answer.SILENCE, SYN_PACKET) is None
    assert answer_packet(Answer.RESET, b"") is None
    datagram = build_udp(wire_key(FlowKey(PROTOCOL_UDP, APP, 40000, ORIGIN, 53)), b"x")
    assert port_unreachable(datagram)[VNET_HEADER + 20 : VNET_HEADER + 22] == b"\3\3"


@pytest.mark.parametrize(
    ("answer", "code"), [(Answer.NET_UNREACHABLE, 0), (Answer.HOST_UNREACHABLE, 3), (Answer.PROHIBITED, 1)]
)
def test_icmpv6_errors_have_codes_of_their_own(answer: Answer, code: int) -> None:
    app, origin = bytes([0xFD]) + bytes(14) + b"\1", bytes([0xFD]) + bytes(14) + b"\2"
    syn = build_tcp(wire_key(FlowKey(PROTOCOL_TCP, app, 40000, origin, 443)), 1, 0, SYN)
    packet = answer_packet(answer, syn)
    assert packet is not None
    ip = packet[VNET_HEADER:]
    assert (ip[6], ip[8:24], ip[24:40], ip[40:42]) == (58, origin, app, bytes((1, code)))
    assert ip[48:] == syn[VNET_HEADER:]
    refused = answer_packet(Answer.RESET, syn)
    assert refused is not None and segment(refused).flags == RST | ACK
