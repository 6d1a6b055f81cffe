"""One flow of ICMP echo at the connector: an unprivileged ping socket where `ping_group_range` allows, else a raw one.

A ping socket is the kernel's (icmp(7)): it fills in identifier and checksum, hands over only our own replies, and
puts errors into the error queue with the address that sent them (ip(7), IP_RECVERR). A raw socket gives everything as
it is.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from typing import NamedTuple

from warren.connector.datagrams import DatagramFlow, Drops
from warren.fabric.core.connector_peer import ConnectorPeer
from warren.fabric.core.echo import EXCEEDED, REPLY, UNREACHABLE, Answer, pack_answer, read_request
from warren.fabric.core.errors import DeniedError
from warren.fabric.core.flow import Flow
from warren.fabric.core.reasons import Reason

BURST = 32
IDLE = 60.0
"""Seconds without an echo either way."""
LONGEST = 65_535
IP_RECVERR = 11
MSG_ERRQUEUE = 0x2000
_ECHO = 8
_ICMP = struct.Struct("!BBHHH")
_ERROR = struct.Struct("=IBBBBII")
_ORIGIN_ICMP = 2
_NOBODY = bytes(4)


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
    ) -> None:
        """Raises DeniedError if neither kind of socket can be had."""
        sock, self._raw = _open()
        self._address = address
        self._ident = int.from_bytes(os.urandom(2), "big")
        self._hops = 0
        super().__init__(peer, flow, sock, IDLE, flush, done, drops)

    def send(self, payload: bytes) -> None:
        """An echo request of the app's."""
        request = read_request(payload)
        if request is None or self._socket.fileno() < 0:
            self._drops["malformed"] += request is None
            return
        self._used = self._loop.time()
        message = _ICMP.pack(_ECHO, 0, 0, self._ident, request.sequence) + request.data
        if self._raw:
            total = checksum(message)
            message = message[:2] + total.to_bytes(2, "big") + message[4:]
        try:
            if request.hops != self._hops:
                self._hops = request.hops
                self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, request.hops)
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
                self._heard(data, socket.inet_aton(source[0]))
        self._read_errors()
        self._flush()

    def _heard(self, data: bytes, source: bytes) -> None:
        if not self._raw:
            if len(data) >= _ICMP.size and data[0] == REPLY:
                self._answer(Answer(REPLY, 0, _ICMP.unpack_from(data)[4], _NOBODY, data[_ICMP.size :]))
            return
        message = data[(data[0] & 15) * 4 :] if data else b""
        if len(message) < _ICMP.size:
            return
        kind, code, _, ident, sequence = _ICMP.unpack_from(message)
        if kind == REPLY and ident == self._ident and source == socket.inet_aton(self._address):
            self._answer(Answer(REPLY, 0, sequence, _NOBODY, message[_ICMP.size :]))
        elif kind in (UNREACHABLE, EXCEEDED):
            quoted = message[_ICMP.size :]
            inner = quoted[(quoted[0] & 15) * 4 :] if quoted else b""
            if len(inner) >= _ICMP.size and inner[0] == _ECHO and _ICMP.unpack_from(inner)[3] == self._ident:
                self._answer(Answer(kind, code, _ICMP.unpack_from(inner)[4], source, b""))

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
        self._used = self._loop.time()
        self._pass_on(pack_answer(answer))


def _open() -> tuple[socket.socket, bool]:
    for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
        try:
            sock = socket.socket(socket.AF_INET, kind, socket.IPPROTO_ICMP)
        except OSError:
            continue
        sock.setblocking(False)
        if kind == socket.SOCK_DGRAM:
            sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        return sock, kind == socket.SOCK_RAW
    raise DeniedError(Reason.UNSUPPORTED, "the connector may open no ICMP socket: see ping_group_range in icmp(7)")


def _error(control: list[tuple[int, int, bytes]]) -> _Error | None:
    for level, kind, value in control:
        if level == socket.IPPROTO_IP and kind == IP_RECVERR and len(value) >= _ERROR.size + 8:
            _, origin, icmp_type, code, _, _, _ = _ERROR.unpack_from(value)
            if origin == _ORIGIN_ICMP and icmp_type in (UNREACHABLE, EXCEEDED):
                return _Error(icmp_type, code, value[_ERROR.size + 4 : _ERROR.size + 8])
    return None


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(data) & 1:
        data += b"\0"
    return 0xFFFF - int.from_bytes(data, "big") % 0xFFFF
