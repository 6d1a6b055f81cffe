"""Kernel socket ↔ flow: bytes both ways, half-close, and a reset that overtakes nothing.

Out: `recv` from the socket → `flow.write`; what credit or the engine does not take waits here, and the socket is
not read meanwhile. In: `flow.read` → `send`; what the kernel does not take waits here, and no credit is returned
for it. So each direction holds at most one chunk, and a slow reader slows its own flow only.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import struct
import sys
import termios
from collections.abc import Callable

from warren.fabric.core.engine import Buffer
from warren.fabric.core.flow import Flow

CHUNK = 256 << 10
"""Bytes moved at a time: what a connection's first window holds."""
_SCRATCH = memoryview(bytearray(CHUNK))
"""What is read lands here and is copied into the engine at once: a new object of this size each time would cost the
kernel a page fault for every 4 KiB."""
TURNS = 4
"""Chunks read from one socket in a wake-up before others get their turn."""
UNDELIVERED = 30.0
"""Seconds without an acknowledgement after which a reset overtakes what the socket's other end does not take."""
LOOK_AGAIN = 0.01
"""Seconds between two looks at what is unacknowledged."""
LOOK_FOR_RESET = 1.0
"""Seconds between two looks whether somebody has reset a connection whose end he had said before: it is not read from
any more, and only a write would tell."""
TCP_CLOSE = 7
"""tcpi_state of a connection that was reset (include/net/tcp_states.h)."""


class Pump:
    """Owns the socket of one opened flow until both directions are over."""

    def __init__(
        self, sock: socket.socket, flow: Flow, touched: Callable[[], None], done: Callable[[Flow], None]
    ) -> None:
        """`touched`: something was written to the flow or its credit (drain and transmit). `done`: it is over."""
        self._loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):  # (no TCP) urgent data stays where it was sent (RFC 6093, section 5)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        self._socket = sock
        self._flow = flow
        self._touched = touched
        self._done = done
        self._out: Buffer = b""
        self._in: Buffer = b""
        self._reading = False
        self._read_over = False
        self._write_over = False
        self._writing = False
        self._aborting = False
        self._looking: asyncio.TimerHandle | None = None
        self.bytes_in = 0
        self.bytes_out = 0

    def start(self) -> None:
        """After this the pump answers `handle_readable` and `handle_writable` of its flow."""
        self._read_socket()
        self.handle_readable()

    # ---- out: socket → flow ----

    def _read_socket(self) -> None:
        if not self._reading and not self._read_over and not self._aborting:
            self._reading = True
            self._loop.add_reader(self._socket.fileno(), self._socket_readable)

    def _pause_socket(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._socket.fileno())

    def _socket_readable(self) -> None:
        for _ in range(TURNS):
            try:
                data = _SCRATCH[: self._socket.recv_into(_SCRATCH)]
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                self._broken()
                return
            if not self._socket_said(data):
                break
        else:
            self._watch_again()
        self._touched()
        self._look_done()

    def _socket_said(self, data: memoryview) -> bool:
        """Whether the socket may be read on. `data` is good during the call only."""
        if not data:
            self._read_over = True
            self._pause_socket()
            self._flow.end()
            self._looking = self._loop.call_later(LOOK_FOR_RESET, self._look_for_reset)
            return False
        self.bytes_out += len(data)
        taken = self._flow.write(data)
        if taken < len(data):
            self._out = bytes(data[taken:])
            self._pause_socket()
            return False
        return True

    def _look_for_reset(self) -> None:
        if _state(self._socket) == TCP_CLOSE:
            self._broken()
        else:
            self._looking = self._loop.call_later(LOOK_FOR_RESET, self._look_for_reset)

    def _watch_again(self) -> None:
        """libuv stops watching a socket with an error (a reset behind data) that was not read up to yet."""
        self._pause_socket()
        self._read_socket()

    def handle_writable(self) -> None:
        """The flow takes more (FlowWritable). The owner drains and transmits after it."""
        if self._out:
            taken = self._flow.write(self._out)
            self._out = memoryview(self._out)[taken:] if taken < len(self._out) else b""
        if not self._out and not self._closed:
            self._read_socket()

    # ---- in: flow → socket ----

    def handle_readable(self) -> None:
        """The flow has something, or has ended (FlowReadable). The owner drains and transmits after it."""
        while not self._writing and not self._closed:
            chunk: Buffer = self._in or self._flow.read(CHUNK)
            if not chunk:
                break
            self._in = b""
            if not self._send(chunk):
                return
        if not self._writing:
            self._look_end()

    def _send(self, chunk: Buffer) -> bool:
        """Whether the socket took all of it."""
        try:
            sent = self._socket.send(chunk)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._broken()
            return False
        if sent:
            self.bytes_in += sent
            self._flow.took(sent, self._loop.time())
        if sent < len(chunk):
            self._in = memoryview(chunk)[sent:]
            self._writing = True
            self._loop.add_writer(self._socket.fileno(), self._socket_writable)
            return False
        return True

    def _socket_writable(self) -> None:
        self._writing = False
        self._loop.remove_writer(self._socket.fileno())
        self.handle_readable()
        self._touched()

    def _look_end(self) -> None:
        """Everything that came was delivered: pass on how the other side ended."""
        match self._flow.ended:
            case "end" if not self._write_over:
                self._write_over = True
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_WR)
            case "reset":
                self._deliver_and_abort()
                return
        self._look_done()

    # ---- ends ----

    @property
    def _closed(self) -> bool:
        return self._socket.fileno() < 0

    def _broken(self) -> None:
        """The kernel's connection was reset or timed out: nothing more can be read from it or written to it."""
        self._flow.reset()
        self._close()
        self._touched()

    def _deliver_and_abort(self) -> None:
        """The other side reset; its last bytes are still in our kernel, where a reset would throw them away."""
        if not self._aborting:
            self._aborting = True
            self._pause_socket()
            self._flow.reset()
            self._abort_when_delivered(0, 0.0)

    def _abort_when_delivered(self, left: int, since: float) -> None:
        """Waits for the last acknowledgement, or for none to come."""
        if self._closed:
            return
        unsent, now = _undelivered(self._socket), self._loop.time()
        if unsent != left:
            left, since = unsent, now
        if not unsent or now - since >= UNDELIVERED:
            self._abort()
        else:
            self._loop.call_later(LOOK_AGAIN, self._abort_when_delivered, left, since)

    def _abort(self) -> None:
        """The other side reset: so does this socket (RST instead of FIN)."""
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
        self._flow.reset()
        self._close()

    def abandon(self) -> None:
        """Ends the flow from this side, with a reset both ways."""
        if not self._closed:
            self._abort()

    def _look_done(self) -> None:
        if self._read_over and self._write_over and not self._out and not self._in and not self._closed:
            self._close()

    def _close(self) -> None:
        if self._closed:
            return
        self._pause_socket()
        if self._writing:
            self._loop.remove_writer(self._socket.fileno())
        if self._looking is not None:
            self._looking.cancel()
        self._socket.close()
        self._out = self._in = b""
        self._done(self._flow)


def _state(sock: socket.socket) -> int | None:
    """tcpi_state of the kernel's connection; None: no TCP."""
    with contextlib.suppress(OSError):
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    return None


def _undelivered(sock: socket.socket) -> int:
    """Bytes that the other end's kernel has not acknowledged (SIOCOUTQ, tcp(7)); none once the connection is over."""
    if _state(sock) not in (None, TCP_CLOSE):
        with contextlib.suppress(OSError):
            return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0" * 4), sys.byteorder)
    return 0
