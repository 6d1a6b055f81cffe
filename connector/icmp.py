"""One flow of ICMP echo at the connector: an unprivileged ping socket where `ping_group_range` allows, else a raw one.

A ping socket is the kernel's (icmp(7)): it fills in identifier and checksum, hands over only our own replies, and
puts errors into the error queue with the address that sent them (ip(7), IP_RECVERR). A raw socket gives everything as
it is (of ICMPv6, without the IPv6 header, and the kernel sums it up: RFC 3542, sections 3 and 3.1).
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from warren.connector.datagrams import DatagramFlow, Drops
from warren.fabric.core.checksum import checksum
from warren.fabric.core.connector_peer import ConnectorPeer
from warren.fabric.core.echo import EXCEEDED, REPLY, UNREACHABLE, Answer, pack_answer, read_request
from warren.fabric.core.errors import DeniedError
from warren.fabric.core.flow import Flow
from warren.fabric.core.reasons import Reason

BURST = 32
IDLE = 120.0
"""Seconds without an echo either way: longer than the agent waits, who ends flows as a rule."""
LONGEST = 65_535
IP_RECVERR, IPV6_RECVERR = 11, 25
MSG_ERRQUEUE = 0x2000
_ICMP = struct.Struct("!BBHHH")
_ERROR = struct.Struct("=IBBBBII")
_ORIGIN_ICMP, _ORIGIN_ICMP6 = 2, 3
_NOBODY = bytes(4)
_AS_ICMP = {(1, 0): (3, 0), (1, 1): (3, 13), (1, 3): (3, 1), (1, 4): (3, 3), (1, 5): (3, 13), (1, 6): (3, 13)}
"""(type, code) of ICMPv6 errors → of ICMP."""


@dataclass(frozen=True, slots=True)
class _Family:
    """What differs between ICMP and ICMPv6."""

    family: socket.AddressFamily
    protocol: int
    echo: int
    reply: int
    level: int
    hops: int
    errors: int


_V4 = _Family(socket.AF_INET, socket.IPPROTO_ICMP, 8, 0, socket.IPPROTO_IP, socket.IP_TTL, IP_RECVERR)
_V6 = _Family(
    socket.AF_INET6, socket.IPPROTO_ICMPV6, 128, 129, socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, IPV6_RECVERR
)


class _Error(NamedTuple):
    kind: int
    code: int
    source: bytes


def kind_of_socket() -> str:
    """For readiness: "unprivileged", "raw", or "none"."""
    for word, kind in (("unprivileged", socket.SOCK_DGRAM), ("raw", socket.SOCK_RAW)):
        try:
            socket.socket(socket.AF_INET, kind, socket.IPPROTO_ICMP).close()
        except OSError:
            continue
        return word
    return "none"


class EchoFlow(DatagramFlow):
    """One flow of its kind."""

    def __init__(
        self,
        peer: ConnectorPeer,
        flow: Flow,
        address: str,
        flush: Callable[[], None],
        done: Callable[[Flow], None],
        drops: Drops,
        clock: Callable[[], float],
    ) -> None:
        """Raises DeniedError if neither kind of socket can be had."""
        self._kind = _V6 if ":" in address else _V4
        sock, self._raw = _open(self._kind)
        self._address = address
        self._origin = socket.inet_pton(self._kind.family, address.partition("%")[0])
        self._ident = int.from_bytes(os.urandom(2), "big")
        self._hops = 0
        super().__init__(peer, flow, sock, IDLE, flush, done, drops, clock)

    def send(self, payload: bytes) -> None:
        """An echo request of the app's."""
        request = read_request(payload)
        if request is None or self._socket.fileno() < 0:
            self._drops["malformed"] += request is None
            return
        self._used = self._clock()
        message = _ICMP.pack(self._kind.echo, 0, 0, self._ident, request.sequence) + request.data
        if self._raw and self._kind is _V4:
            total = checksum(message)
            message = message[:2] + total.to_bytes(2, "big") + message[4:]
        try:
            if request.hops != self._hops:
                self._hops = request.hops
                self._socket.setsockopt(self._kind.level, self._kind.hops, request.hops)
            self._socket.sendto(message, (self._address, 0))
        except BlockingIOError:
            self._drops["kernel"] += 1
        except OSError:
            self._read_errors()

    def _readable(self) -> None:
        for _ in range(BURST):
            try:
                data, source = self._socket.recvfrom(LONGEST)
            except BlockingIOError:
                break
            except OSError:
                pass  # an error is pending: it is in the queue
            else:
                self._heard(data, socket.inet_pton(self._kind.family, source[0].partition("%")[0]))
        self._read_errors()
        self._flush()

    def _heard(self, data: bytes, source: bytes) -> None:
        if not self._raw:
            if len(data) >= _ICMP.size and data[0] == self._kind.reply:
                self._answer(Answer(REPLY, 0, _ICMP.unpack_from(data)[4], _NOBODY, data[_ICMP.size :]))
            return
        message = _behind_header(data) if self._kind is _V4 else data
        if len(message) < _ICMP.size:
            return
        kind, code, _, ident, sequence = _ICMP.unpack_from(message)
        if kind == self._kind.reply and ident == self._ident and source == self._origin:
            self._answer(Answer(REPLY, 0, sequence, _NOBODY, message[_ICMP.size :]))
        elif (told := _as_icmp(self._kind, kind, code)) is not None:
            quoted = message[_ICMP.size :]
            inner = _behind_header(quoted) if self._kind is _V4 else quoted[40:]
            if len(inner) >= _ICMP.size and inner[0] == self._kind.echo and _ICMP.unpack_from(inner)[3] == self._ident:
                self._answer(Answer(*told, _ICMP.unpack_from(inner)[4], source, b""))

    def _read_errors(self) -> None:
        while not self._raw:
            try:
                data, control, _, _ = self._socket.recvmsg(512, 512, MSG_ERRQUEUE)
            except OSError:
                return
            error = _error(control)
            if error is not None and len(data) >= _ICMP.size:
                sequence = _ICMP.unpack_from(data)[4]
                self._answer(Answer(error.kind, error.code, sequence, error.source, b""))

    def _answer(self, answer: Answer) -> None:
        self._used = self._clock()
        self._pass_on(pack_answer(answer))


def _open(wanted: _Family) -> tuple[socket.socket, bool]:
    for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
        try:
            sock = socket.socket(wanted.family, kind, wanted.protocol)
        except OSError:
            continue
        sock.setblocking(False)
        if kind == socket.SOCK_DGRAM:
            sock.setsockopt(wanted.level, wanted.errors, 1)
        return sock, kind == socket.SOCK_RAW
    raise DeniedError(Reason.UNSUPPORTED, "the connector may open no ICMP socket: see ping_group_range in icmp(7)")


def _behind_header(packet: bytes) -> bytes:
    return packet[(packet[0] & 15) * 4 :] if packet else b""


def _as_icmp(family: _Family, kind: int, code: int) -> tuple[int, int] | None:
    """(type, code) in ICMP's numbers; None for what is no error that is passed on."""
    if family is _V4:
        return (kind, code) if kind in (UNREACHABLE, EXCEEDED) else None
    if kind == 3:
        return EXCEEDED, code
    return _AS_ICMP.get((kind, code), (UNREACHABLE, 1)) if kind == 1 else None


def _error(control: list[tuple[int, int, bytes]]) -> _Error | None:
    for level, kind, value in control:
        for family, origin, start, size in ((_V4, _ORIGIN_ICMP, 4, 4), (_V6, _ORIGIN_ICMP6, 8, 16)):
            end = _ERROR.size + start + size
            if (level, kind) != (family.level, family.errors) or len(value) < end:
                continue
            _, said, icmp_type, code, _, _, _ = _ERROR.unpack_from(value)
            told = _as_icmp(family, icmp_type, code) if said == origin else None
            if told is not None:
                return _Error(*told, value[end - size : end])
    return None
