"""The UDP socket: whole GRO buffers in, whole GSO batches out.

1. The kernel joins datagrams of one 4-tuple and one length into a buffer (UDP_GRO); `recvmsg` tells the stride.
2. `Receiver.handle_buffer(buffer, stride, address)` is called for each, at most BURST a wake-up.
3. `Receiver.handle_received()` once after them: now cores are drained and batches sent.
4. `send` hands a batch to the kernel in one `sendmsg` (UDP_SEGMENT). When the kernel has no room it says False:
   nothing is queued here, the caller keeps the batch and waits for `Receiver.handle_writable()`.

What waits here while this process stands still for long is thrown away (standstill.py).
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from functools import lru_cache
from typing import Protocol

from warren.fabric.aio.standstill import Standstill
from warren.fabric.core.engine import Address, Batch
from warren.fabric.core.errors import ConfigError

SOL_UDP = 17
UDP_SEGMENT = 103
UDP_GRO = 104
IP_MTU_DISCOVER = 10
IPV6_MTU_DISCOVER = 23
PMTUDISC_PROBE = 3
SO_MARK = 36
SO_RCVBUFFORCE = 33
SO_SNDBUFFORCE = 32
BURST = 8
"""Buffers read in one wake-up (512 KiB): enough for a full window, short enough for other sockets."""
KERNEL_BUFFER = 4 << 20
"""Bytes asked of the kernel for each direction: 80 ms at 400 Mbit/s; where it gives less, loss is the engine's."""
LARGEST = 65_535
_STRIDE = struct.Struct("=i")
_ANCILLARY = socket.CMSG_SPACE(_STRIDE.size)
STOOD_STILL = 15.0
"""Seconds of a standstill after which what came meanwhile is not read. After a short one it is: the other end waits for
nothing else than to have it acknowledged."""
OLD = 65_536
"""Buffers that are thrown away at once: more than the kernel keeps."""
IGNORED = frozenset(
    {
        errno.ECONNREFUSED,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.ENETDOWN,
        errno.EMSGSIZE,
        errno.EPERM,
        errno.EADDRNOTAVAIL,
        errno.EINVAL,
    }
)
"""Errors of a send that count as loss (no route, a packet too large for it): the cores find out and bind anew."""
TOO_LARGE = frozenset({errno.EMSGSIZE, errno.EINVAL})
"""EINVAL: of a batch, whose segments are too large, on older kernels."""


@lru_cache(maxsize=4096)
def _segmented(stride: int) -> tuple[tuple[int, int, bytes], ...]:
    """The ancillary data for a batch."""
    return ((SOL_UDP, UDP_SEGMENT, struct.pack("=H", stride)),)


class Receiver(Protocol):
    """Who owns a socket."""

    def handle_buffer(self, buffer: bytes, stride: int, address: Address) -> None:
        """`stride`: bytes of each segment; 0 or the whole length: one datagram."""

    def handle_received(self) -> None: ...

    def handle_writable(self) -> None: ...


class _Nobody:
    """The receiver of a socket that is closed: it holds nobody any more."""

    def handle_buffer(self, buffer: bytes, stride: int, address: Address) -> None:
        pass

    def handle_received(self) -> None:
        pass

    handle_writable = handle_received


_NOBODY = _Nobody()


class UdpSocket:
    """One UDP socket on the running loop. `lost` counts datagrams that the kernel refused, `too_large` those of them
    that are larger than the interface's MTU, `old` buffers that were thrown away."""

    def __init__(self, receiver: Receiver, bind: Address, *, mark: int = 0) -> None:
        """Raises ConfigError if the address can't be bound. `mark`: SO_MARK, by which our packets avoid our routes."""
        self._receiver: Receiver = receiver
        self._loop = asyncio.get_running_loop()
        self._waiting = False
        self.lost = self.too_large = self.old = 0
        self.socket = open_socket(bind, mark)
        self._standstill = Standstill(self._throw_away, STOOD_STILL)
        self._loop.add_reader(self.socket.fileno(), self._readable)

    @property
    def address(self) -> Address:
        host, port = self.socket.getsockname()[:2]
        return str(host), int(port)

    def send(self, batch: Batch, address: Address) -> bool:
        """False: the kernel has no room now; `handle_writable` follows."""
        try:
            self.socket.sendmsg(batch.parts, _segmented(batch.stride) if batch.segments > 1 else (), 0, address)
        except (BlockingIOError, InterruptedError):
            self._wait()
            return False
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                self._wait()
                return False
            if error.errno not in IGNORED:
                raise
            self.lost += batch.segments
            if error.errno in TOO_LARGE:
                self.too_large += batch.segments
        return True

    def send_one(self, data: bytes, address: Address) -> None:
        """One datagram of control, dropped if there is no room for it."""
        try:
            self.socket.sendto(data, address)
        except (BlockingIOError, InterruptedError):
            self.lost += 1
        except OSError as error:
            if error.errno not in IGNORED and error.errno != errno.ENOBUFS:
                raise
            self.lost += 1

    def close(self) -> None:
        self._standstill.close()
        if self.socket.fileno() >= 0:
            self._loop.remove_reader(self.socket.fileno())
            self._loop.remove_writer(self.socket.fileno())
            self.socket.close()
            self._receiver = _NOBODY

    def _throw_away(self) -> None:
        for _ in range(OLD):
            try:
                self.socket.recvmsg(1, 0)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                continue  # what became of something that was sent
            self.old += 1

    def _readable(self) -> None:
        self._standstill.look()
        receiver = self._receiver
        for _ in range(BURST):
            try:
                buffer, control, _, address = self.socket.recvmsg(LARGEST, _ANCILLARY)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                if error.errno not in IGNORED:
                    raise
                continue
            stride = 0
            for level, kind, value in control:
                if level == SOL_UDP and kind == UDP_GRO:
                    stride = _STRIDE.unpack_from(value)[0]
            if buffer:
                receiver.handle_buffer(buffer, stride, address if len(address) == 2 else address[:2])
            if self.socket.fileno() < 0:
                return
        receiver.handle_received()

    def _wait(self) -> None:
        if not self._waiting:
            self._waiting = True
            self._loop.add_writer(self.socket.fileno(), self._writable)

    def _writable(self) -> None:
        self._waiting = False
        self._loop.remove_writer(self.socket.fileno())
        self._receiver.handle_writable()


def open_socket(bind: Address, mark: int = 0, *, tos: bool = False) -> socket.socket:
    """A UDP socket with everything that circuits need of the kernel; `::` takes both families. `tos`: whether it tells
    the TOS byte of what it receives. Raises ConfigError."""
    family = socket.AF_INET6 if ":" in bind[0] else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(SOL_UDP, UDP_GRO, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(bind[0] != "::"))
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_PROBE)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, int(tos))
        sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_PROBE)  # also of `::`, which takes IPv4 too
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, int(tos))
        for plain, force in ((socket.SO_RCVBUF, SO_RCVBUFFORCE), (socket.SO_SNDBUF, SO_SNDBUFFORCE)):
            try:
                sock.setsockopt(socket.SOL_SOCKET, force, KERNEL_BUFFER)
            except PermissionError:
                sock.setsockopt(socket.SOL_SOCKET, plain, KERNEL_BUFFER)
        if mark:
            sock.setsockopt(socket.SOL_SOCKET, SO_MARK, mark)
        sock.bind(bind)
    except OSError as error:
        sock.close()
        raise _bind_error(bind, error) from None
    return sock


def _bind_error(bind: Address, error: OSError) -> ConfigError:
    where = f"UDP {bind[0]} port {bind[1]}"
    if error.errno == errno.EADDRINUSE:
        return ConfigError(f"{where} is in use: stop what listens there, or choose another port")
    if error.errno in (errno.EACCES, errno.EPERM):
        return ConfigError(f"{where} is not allowed to this user: run as root, or choose a port above 1023")
    return ConfigError(f"{where} can't be opened: {error.strerror}")
