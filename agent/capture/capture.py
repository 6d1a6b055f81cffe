"""The shell of the capture: two TUN devices, the listener, one timer, and the flow table that decides.

1. a packet of the app's comes out of the outer TUN;
2. of a flow that is let through: written to the inner TUN as it is, nothing else is looked at;
3. otherwise it is read (`headers`), the table says what becomes of it (`table`), and events go to the handler;
4. what the private namespace sends comes out of the inner TUN and goes back into the outer one;
5. connections that the namespace's kernel has ended are accepted and handed over.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections import Counter
from dataclasses import dataclass
from typing import Any, Protocol, Self

import structlog

from warren.agent.capture.answers import (
    Answer,
    answer_for,
    answer_packet,
    echo_error,
    port_unreachable,
    reset_for,
    unreachable_datagram,
)
from warren.agent.capture.fragments import Fragments
from warren.agent.capture.headers import (
    ACK,
    FIN,
    MAX_UDP_PAYLOAD,
    PROTOCOL_ICMP,
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
    WireKey,
    build_echo,
    build_udp,
    flow_key,
    read,
    reversed_wire_key,
    wire_key,
)
from warren.agent.capture.namespace import PrivateNamespace
from warren.agent.capture.table import FlowSyn, Table, Verdict
from warren.agent.capture.tun import MAX_PACKET, Tun
from warren.fabric.aio.timer import Timer
from warren.fabric.core.reasons import Reason

READS_PER_WAKE = 32
"""Packets of one TUN taken in one go: 2 MiB at most, a millisecond, before the loop looks at anything else."""
ACCEPTS_PER_WAKE = 64
"""Connections accepted in one go, for the same reason."""
ACCEPT_PAUSE_S = 0.1
"""After a failed accept: the time in which some connection may end and give its descriptor back."""

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger: on, 0 s

# Where things stand in a packet with vnet header, IPv4 without options: the fast path slices, and parses nothing.
# The same with 6 for IPv6 without extension headers.
_FIRST, _PROTOCOL, _ADDRESSES, _FLAGS, _SHORTEST = VNET_HEADER, VNET_HEADER + 9, VNET_HEADER + 12, VNET_HEADER + 33, 50
_PORTS_END = VNET_HEADER + 24
_PLAIN_IPV4 = 0x45
_PROTOCOL6, _ADDRESSES6, _FLAGS6, _SHORTEST6 = VNET_HEADER + 6, VNET_HEADER + 8, VNET_HEADER + 53, 70
_PORTS_END6 = VNET_HEADER + 44
_TURNING = SYN | FIN | RST

_log = structlog.get_logger(__name__)


class Handler(Protocol):
    """Who owns the flows. Called from the event loop's thread; must not block."""

    def syn(self, key: FlowKey) -> None:
        """A new TCP flow; its SYN is held. Answer with `Capture.release` or `Capture.refuse`, at once or later."""

    def cancelled(self, key: FlowKey) -> None:
        """The app gave up, or replaced the flow, before or after its release: forget it, and call nothing for it."""

    def accepted(self, key: FlowKey, sock: socket.socket) -> None:
        """A released flow has become a connection. `sock` is non-blocking, TCP_NODELAY, and the handler's to close.

        Flows to a local service arrive here without `syn`. Call `Capture.forget` after closing it.
        """

    def datagram(self, key: FlowKey, payload: memoryview) -> None:
        """UDP to a local service or to a captured address. `payload` is good during the call only. Answer with
        `Capture.send_datagram`, or `Capture.unreachable`."""

    def echo(self, key: FlowKey, sequence: int, hops: int, data: memoryview) -> None:
        """An ICMP echo request; `key.source_port` is its identifier. Answer with `send_echo_reply` or
        `send_echo_error`."""


@dataclass(frozen=True, slots=True)
class CaptureConfig:
    """`name`: the interface that the host sees. `mtu`: of both TUN devices (TCP super-packets are larger anyway).

    `local`: (packed address, port) of services that the agent itself offers on addresses routed to the TUN (the
    virtual resolver): TCP to them is released without asking, UDP is handed over; their other ports are closed.
    """

    name: str = "warren0"
    mtu: int = 1500
    local: frozenset[tuple[bytes, int]] = frozenset()


class Capture:
    """Make it with `open` (before or outside the event loop), then `start` it in the loop, and `close` it."""

    def __init__(self, outer: Tun, inner: PrivateNamespace, config: CaptureConfig) -> None:
        self.counters: Counter[str] = Counter()
        """Packets by what became of them: `syn`, `reset_answered`, `dropped_WORD`; not those that are forwarded."""
        self.lost = asyncio.Event()
        """Set when a device was removed under us: nothing is captured any more, and the agent has to end."""
        self._outer = outer
        self._inner = inner
        self._local = config.local
        self._local_addresses = frozenset(address for address, _ in config.local)
        self._table = Table()
        self._fragments = Fragments()
        self._buffer = bytearray(MAX_PACKET)
        self._view = memoryview(self._buffer)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handler: Handler | None = None
        self._timer: Timer | None = None
        self._accept_pauses: dict[int, asyncio.TimerHandle] = {}  # by listener

    @classmethod
    def open(cls, config: CaptureConfig) -> Self:
        """Make both devices and the private namespace. Blocks for about 0.1 s; `ConfigError` if something is missing.

        Routes and addresses of the outer device are `warren.agent.host.routes`' affair.
        """
        outer = Tun.open(config.name, config.mtu)
        try:
            inner = PrivateNamespace.create(config.mtu)
        except BaseException:
            outer.close()
            raise
        return cls(outer, inner, config)

    def start(self, handler: Handler) -> None:
        """Begin to capture; to be called in the running event loop, once."""
        self._handler = handler
        self._loop = loop = asyncio.get_running_loop()
        self._timer = Timer(self._table.poll_timeout, self._timeout)
        loop.add_reader(self._outer.fd, self._from_host)
        loop.add_reader(self._inner.tun.fd, self._from_namespace)
        for listener in self._inner.listeners:
            loop.add_reader(listener.fileno(), self._accept, listener)

    def close(self) -> None:
        """Stop, and remove both devices. Sockets that were handed over stay the handler's to close."""
        if self._loop is not None:
            for fd in (self._outer.fd, self._inner.tun.fd, *(each.fileno() for each in self._inner.listeners)):
                self._loop.remove_reader(fd)
            self._loop = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for pause in self._accept_pauses.values():
            pause.cancel()
        self._accept_pauses.clear()
        self._inner.close()
        self._outer.close()

    @property
    def flows(self) -> int:
        """Flows in the table, in whatever state."""
        return len(self._table)

    # ── what the handler decides ──

    def release(self, key: FlowKey) -> None:
        """The origin has accepted: let the SYN through; `accepted` follows. Without effect if the app gave up."""
        if self._loop is None:
            return
        packet = self._table.release(wire_key(key), self._now())
        if packet is not None:
            self._write_inner(packet)
        self._settle()

    def refuse(self, key: FlowKey, reason: Reason) -> None:
        """Answer the held SYN as the origin would (see `answers`). Without effect if the app gave up."""
        if self._loop is None:
            return
        answer = answer_for(reason)
        if answer is Answer.SILENCE:
            self._table.silence(wire_key(key))
        else:
            syn = self._table.remove(wire_key(key))
            packet = answer_packet(answer, syn) if syn is not None else None
            if packet is not None:
                self._write_outer(packet)
                self.counters[f"answered_{answer.name.lower()}"] += 1
        self._settle()

    def forget(self, key: FlowKey) -> None:
        """The accepted socket has been closed. What the kernel still has to deliver passes; then the flow leaves."""
        if self._loop is not None:
            self._table.forget(wire_key(key), self._now())
            self._settle()

    def send_datagram(self, key: FlowKey, payload: bytes) -> None:
        """Send a UDP answer: from `key`'s destination to its source. May exceed the MTU; 65,507 bytes at most."""
        if self._loop is None:
            return
        if len(payload) > MAX_UDP_PAYLOAD:
            self.counters["dropped_answer_too_long"] += 1
            return
        self._write_outer(build_udp(reversed_wire_key(wire_key(key)), payload))

    def unreachable(self, key: FlowKey, reason: Reason) -> None:
        """Answer a UDP flow as its origin's host would: the ICMP error that `reason` stands for, or silence."""
        packet = unreachable_datagram(key, reason)
        if packet is not None and self._loop is not None:
            self._write_outer(packet)
            self.counters["answered_unreachable"] += 1

    def send_echo_reply(self, key: FlowKey, sequence: int, data: bytes) -> None:
        """The origin's answer to an echo request. `key.source_port` is the identifier."""
        if self._loop is not None:
            self._write_outer(build_echo(key.destination, key.source, key.source_port, sequence, data, reply=True))

    def send_echo_error(self, key: FlowKey, sequence: int, kind: int, code: int, source: bytes) -> None:
        """What a router on the way, or the origin's host, said instead (ICMP type and code)."""
        if self._loop is not None:
            self._write_outer(echo_error(key, sequence, kind, code, source))

    def set_mtu(self, mtu: int) -> None:
        """Of the outer device: what goes through unfragmented has changed."""
        if self._loop is not None:
            self._outer.set_mtu(mtu)

    # ── packets ──

    def _from_host(self) -> None:
        buffer, view, passing = self._buffer, self._view, self._table.passing
        fd, inner, buffers = self._outer.fd, self._inner.tun.fd, [self._buffer]
        for _ in range(READS_PER_WAKE):
            try:
                size = os.readv(fd, buffers)
            except BlockingIOError:
                break
            except OSError as error:
                self._lose(fd, error)
                break
            if (
                buffer[_FIRST] == _PLAIN_IPV4
                and buffer[_PROTOCOL] == PROTOCOL_TCP
                and not buffer[_FLAGS] & _TURNING
                and size >= _SHORTEST
                and bytes(view[_ADDRESSES:_PORTS_END]) in passing
            ) or (
                buffer[_FIRST] >> 4 == 6
                and buffer[_PROTOCOL6] == PROTOCOL_TCP
                and not buffer[_FLAGS6] & _TURNING
                and size >= _SHORTEST6
                and bytes(view[_ADDRESSES6:_PORTS_END6]) in passing
            ):
                try:
                    os.write(inner, view[:size])
                except OSError:
                    self.counters["dropped_inner_full"] += 1
            else:
                self._look_at(view[:size])
        self._settle()

    def _look_at(self, packet: memoryview) -> None:
        what = read(packet, VNET_HEADER)
        if isinstance(what, Segment):
            self._segment(what, packet)
        elif isinstance(what, Datagram):
            self._datagram(what, packet)
        elif isinstance(what, Echo):
            self._echo(what, packet)
        elif what is Unread.FRAGMENT:
            whole = self._fragments.take(packet, self._now())
            if whole is not None:
                self._look_at(memoryview(whole))
        else:
            self.counters[f"dropped_{what.value}"] += 1

    def _segment(self, segment: Segment, packet: memoryview) -> None:
        now = self._now()
        if segment.flags & (SYN | ACK | RST) == SYN:
            self.counters["syn"] += 1
            if self._is_closed_local_port(PROTOCOL_TCP, segment.key):
                verdict = Verdict.RESET
            else:
                verdict = self._table.handle_syn(segment.key, segment.sequence, bytes(packet), now)
        else:
            verdict = self._table.handle_segment(segment.key, segment.flags, now)
        if verdict is Verdict.FORWARD:
            self._write_inner(packet)
        elif verdict is Verdict.RESET:
            answer = reset_for(segment)
            if answer is not None:
                self._write_outer(answer)
            self.counters["reset_answered"] += 1
        elif verdict is Verdict.FULL:
            self.counters["dropped_limit"] += 1

    def _datagram(self, datagram: Datagram, packet: memoryview) -> None:
        key = flow_key(PROTOCOL_UDP, datagram.key)
        if self._is_closed_local_port(PROTOCOL_UDP, datagram.key):
            self._write_outer(port_unreachable(bytes(packet)))
            self.counters["answered_port_unreachable"] += 1
        else:
            assert self._handler is not None
            self._handler.datagram(key, packet[datagram.start : datagram.end])

    def _echo(self, echo: Echo, packet: memoryview) -> None:
        data = packet[echo.start : echo.end]
        if echo.destination in self._local_addresses:
            back = build_echo(echo.destination, echo.source, echo.ident, echo.sequence, bytes(data), reply=True)
            self._write_outer(back)
            return
        assert self._handler is not None
        key = FlowKey(PROTOCOL_ICMP, echo.source, echo.ident, echo.destination, 0)
        self._handler.echo(key, echo.sequence, echo.hops, data)

    def _is_closed_local_port(self, protocol: int, wire: WireKey) -> bool:
        key = flow_key(protocol, wire)
        local = (key.destination, key.destination_port) in self._local
        return key.destination in self._local_addresses and not local

    def _from_namespace(self) -> None:
        buffer, view = self._buffer, self._view
        fd, outer, buffers = self._inner.tun.fd, self._outer.fd, [self._buffer]
        for _ in range(READS_PER_WAKE):
            try:
                size = os.readv(fd, buffers)
            except BlockingIOError:
                break
            except OSError as error:
                self._lose(fd, error)
                break
            six = buffer[_FIRST] >> 4 == 6
            if buffer[_PROTOCOL6 if six else _PROTOCOL] != PROTOCOL_TCP:
                self.counters["dropped_from_namespace"] += 1
                continue
            if buffer[_FLAGS6 if six else _FLAGS] & (FIN | RST):
                self._origin_ends(view[:size])
            try:
                os.write(outer, view[:size])
            except OSError:
                self.counters["dropped_outer_full"] += 1
        self._settle()

    def _origin_ends(self, packet: memoryview) -> None:
        segment = read(packet, VNET_HEADER)
        if isinstance(segment, Segment):
            self._table.handle_origin_segment(reversed_wire_key(segment.key), segment.flags, self._now())

    def _lose(self, fd: int, error: OSError) -> None:
        """Somebody removed the device: a reader left in place would be called for ever."""
        assert self._loop is not None
        self._loop.remove_reader(fd)
        self.lost.set()
        _log.error("capture.device_lost", error=error.strerror)

    def _write_inner(self, packet: memoryview | bytes) -> None:
        if not self._inner.tun.write(packet):
            self.counters["dropped_inner_full"] += 1

    def _write_outer(self, packet: bytes) -> None:
        if not self._outer.write(packet):
            self.counters["dropped_outer_full"] += 1

    # ── connections, events, time ──

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS_PER_WAKE):
            try:
                sock, peer = listener.accept()
            except BlockingIOError:
                break
            except OSError as error:
                self.counters["accept_failed"] += 1
                self._pause_accepting(listener, error)
                break
            self._hand_over(sock, peer)
        self._settle()

    def _pause_accepting(self, listener: socket.socket, error: OSError) -> None:
        """Out of descriptors, most likely: the connections wait in the backlog, and trying on at once would spin."""
        loop, fd = self._loop, listener.fileno()
        assert loop is not None
        _log.warning("capture.accept_failed", error=error.strerror)
        loop.remove_reader(fd)
        self._accept_pauses[fd] = loop.call_later(ACCEPT_PAUSE_S, lambda: loop.add_reader(fd, self._accept, listener))

    def _hand_over(self, sock: socket.socket, peer: tuple[Any, ...]) -> None:
        here, family = sock.getsockname(), sock.family
        source, destination = (socket.inet_pton(family, end[0].partition("%")[0]) for end in (peer, here))
        key = FlowKey(PROTOCOL_TCP, source, peer[1], destination, here[1])
        if not self._table.accept(wire_key(key)):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            sock.close()
            self.counters["accepted_too_late"] += 1
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        assert self._handler is not None
        self._handler.accepted(key, sock)

    def _settle(self) -> None:
        """After every input: drain the table's events, then re-arm the timer."""
        handler = self._handler
        assert handler is not None
        while (event := self._table.poll_event()) is not None:
            key = flow_key(PROTOCOL_TCP, event.key)
            if not isinstance(event, FlowSyn):
                handler.cancelled(key)
            elif (key.destination, key.destination_port) in self._local:
                self.release(key)
            else:
                handler.syn(key)
        if self._timer is not None:
            self._timer.arm()

    def _timeout(self, now: float) -> None:
        self._table.handle_timeout(now)
        self._settle()

    def _now(self) -> float:
        assert self._loop is not None
        return self._loop.time()
