"""What the app is answered when its connection is not let through: the mapping from reason to packet. Pure.

So that `connect()` fails as it would beside the origin: a refusal is a RST, unreachable and denied are ICMP errors from
the *origin's* address (from another one, reverse path filters drop them), a time-out is silence. What Linux makes of
them in SYN_SENT (`icmp_err_convert` in net/ipv4/icmp.c): 3/1 and 3/13 EHOSTUNREACH, 3/0 ENETUNREACH. Over IPv6
(`tab_unreach` in net/ipv6/icmp.c): 1/3 EHOSTUNREACH, 1/0 ENETUNREACH, 1/1 EACCES, 1/4 ECONNREFUSED.
"""

from __future__ import annotations

import enum

from warren.agent.capture.headers import (
    ACK,
    PROTOCOL_ICMP,
    RST,
    SYN,
    VNET_HEADER,
    FlowKey,
    Segment,
    build_echo,
    build_icmp_error,
    build_tcp,
    build_udp,
    read,
    reversed_wire_key,
    wire_key,
)
from warren.fabric.core.reasons import Reason

_UNREACHABLE = 3  # ICMP type (RFC 792)
_PORT_UNREACHABLE = 3
_TO_ICMPV6 = {(3, 0): (1, 0), (3, 3): (1, 4), (3, 9): (1, 1), (3, 10): (1, 1), (3, 13): (1, 1), (11, 0): (3, 0)}
"""(type, code) of ICMP → of ICMPv6, as RFC 7915, section 4.2, has it; what is not here becomes 1/3."""


class Answer(enum.Enum):
    """How a held SYN is answered. The value is the code of ICMP "destination unreachable" where there is one."""

    NET_UNREACHABLE = 0
    HOST_UNREACHABLE = 1
    PROHIBITED = 13
    RESET = -1
    SILENCE = -2


_ANSWERS = {
    Reason.REFUSED: Answer.RESET,
    Reason.CANCELLED: Answer.RESET,
    Reason.TIMED_OUT: Answer.SILENCE,
    Reason.NET_UNREACHABLE: Answer.NET_UNREACHABLE,
    Reason.PROHIBITED: Answer.PROHIBITED,
    Reason.POLICY: Answer.PROHIBITED,
    Reason.DEVICE_UNKNOWN: Answer.PROHIBITED,
    Reason.CEILING: Answer.PROHIBITED,
    Reason.RESERVED_ADDRESS: Answer.PROHIBITED,
}


def answer_for(reason: Reason) -> Answer:
    """The answer to a SYN that was refused for `reason`; HOST_UNREACHABLE (EHOSTUNREACH) for all without their own."""
    return _ANSWERS.get(reason, Answer.HOST_UNREACHABLE)


def answer_packet(answer: Answer, packet: bytes) -> bytes | None:
    """The packet that answers a held SYN (`packet`, with its vnet header); None for silence or if it is no TCP."""
    if answer is Answer.SILENCE:
        return None
    segment = read(memoryview(packet), VNET_HEADER)
    if not isinstance(segment, Segment):
        return None
    if answer is Answer.RESET:
        return reset_for(segment)
    return _unreachable(answer.value, packet)


def reset_for(segment: Segment) -> bytes | None:
    """The RST that a closed port gives (RFC 9293, 3.10.7.1); None for a RST, which is never answered.

    A SYN is answered by RST+ACK that acknowledges all of it (sequence number + 1 + payload): in SYN_SENT a kernel
    ignores anything else.
    """
    if segment.flags & RST:
        return None
    back = reversed_wire_key(segment.key)
    if segment.flags & ACK and not segment.flags & SYN:
        return build_tcp(back, segment.acknowledgement, 0, RST)
    return build_tcp(back, 0, (segment.sequence + segment.length) & 0xFFFFFFFF, RST | ACK)


def port_unreachable(packet: bytes) -> bytes:
    """The ICMP error that answers a well-formed UDP packet (with its vnet header) to a port where nobody listens."""
    return _unreachable(_PORT_UNREACHABLE, packet)


def unreachable_datagram(key: FlowKey, reason: Reason) -> bytes | None:
    """The ICMP error for a UDP flow that can't go on for `reason`; None for silence. It quotes a header made anew."""
    answer = answer_for(reason)
    if answer is Answer.SILENCE:
        return None
    if key.protocol == PROTOCOL_ICMP:
        code = Answer.HOST_UNREACHABLE.value if answer is Answer.RESET else answer.value
        return echo_error(key, 0, _UNREACHABLE, code, key.destination)
    code = _PORT_UNREACHABLE if answer is Answer.RESET else answer.value
    return _unreachable(code, build_udp(wire_key(key), b""))


def echo_error(key: FlowKey, sequence: int, kind: int, code: int, source: bytes) -> bytes:
    """The ICMP error that `source` sent about an echo request of this flow; it quotes the request's header.

    `kind` and `code` as in ICMP for IPv4. A source of the other family (a name led there) can't be told to the app:
    the destination speaks for it.
    """
    asked = build_echo(key.source, key.destination, key.source_port, sequence, b"", reply=False)
    return _error(kind, code, source if len(source) == len(key.source) else key.destination, asked[VNET_HEADER:])


def _unreachable(code: int, packet: bytes) -> bytes:
    original = packet[VNET_HEADER:]
    source = original[24:40] if original[0] >> 4 == 6 else original[16:20]
    return _error(_UNREACHABLE, code, source, original)


def _error(kind: int, code: int, source: bytes, original: bytes) -> bytes:
    if original[0] >> 4 == 6:
        kind, code = _TO_ICMPV6.get((kind, code), (1, 3))
    return build_icmp_error(kind, code, source, original)
