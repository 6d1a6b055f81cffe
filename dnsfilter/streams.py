"""Queries over TCP (RFC 7766) and TLS (RFC 7858): any number on a connection, answered as they are ready."""

from __future__ import annotations

import asyncio
import time
from typing import Final, cast

from warren.dnsfilter.core.verdict import Asked, Client, Resolved
from warren.dnsfilter.front import Front, Transport
from warren.fabric.core import dnswire as wire

CONNECTIONS_MAX: Final = 512
"""Of one listener; more are closed."""
PIPELINED_MAX: Final = 64
"""Queries in work on one connection (RFC 7766, section 6.2.1.1); then nothing is read until one is answered."""
IDLE_S: Final = 10.0
"""A connection without a query, or whose client takes no answer, is closed (RFC 7766, section 6.2.3)."""


class Connections:
    """The connections of one listener, and the clock that closes idle ones: one timer for all of them."""

    def __init__(self) -> None:
        self._open: dict[IdleProtocol, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._open)

    def add(self, connection: IdleProtocol) -> bool:
        """False: there are too many."""
        if len(self._open) >= CONNECTIONS_MAX:
            return False
        self._open[connection] = None
        if self._timer is None:
            self._look_again()
        return True

    def remove(self, connection: IdleProtocol) -> None:
        self._open.pop(connection, None)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for connection in list(self._open):
            connection.abort()

    def _look_again(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(IDLE_S / 4, self._look_again)
        now = time.monotonic()
        for connection in list(self._open):
            if now - connection.active >= IDLE_S:
                connection.abort()


class IdleProtocol(asyncio.Protocol):
    """A connection with somebody, that ends when nothing happens on it."""

    active = 0.0
    """When something last did, monotonic."""

    def __init__(self, front: Front, connections: Connections, transport: Transport) -> None:
        self._front = front
        self._connections = connections
        self._kind = transport
        self._transport: asyncio.Transport | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._full = False
        """The client does not take its answers."""
        self._busy = False
        """It asked as much at once as it may."""
        self.address = ""
        self.client = Client()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclasses
        self.active = time.monotonic()
        peer = transport.get_extra_info("peername")
        if not peer or not self._connections.add(self):
            self.abort()
            return
        self.address = str(peer[0])
        self.client = self._front.clients.of(self.address)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.remove(self)
        self._transport = None
        for task in self._tasks:
            task.cancel()

    def pause_writing(self) -> None:
        self._full = True
        self._hold_or_read()

    def resume_writing(self) -> None:
        self._full = False
        self._hold_or_read()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _hold_or_read(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            (self._transport.pause_reading if self._full or self._busy else self._transport.resume_reading)()

    def _take(self, data: bytes, handle: int) -> None:
        """Decide on one query, now or when upstreams answered. `handle` tells `_reply` which one it was."""
        self.active = started = time.monotonic()
        decided = self._front.take(data, self.address, self._kind, started)
        if decided is None:
            self._reply(handle, b"", None)
        elif isinstance(decided, Resolved):
            self._done(decided, handle, started)
        else:
            task = asyncio.create_task(self._forward(decided, handle, started), name="dns query")
            self._tasks.add(task)
            task.add_done_callback(self._settled)

    def _settled(self, task: asyncio.Task[None]) -> None:
        """A query that waited for upstreams has its answer."""
        self._tasks.discard(task)

    async def _forward(self, asked: Asked, handle: int, started: float) -> None:
        self._done(await self._front.forward(asked), handle, started)

    def _done(self, resolved: Resolved, handle: int, started: float) -> None:
        self.active = now = time.monotonic()
        message = self._front.finished(resolved, self.address, self._kind)
        if self._transport is not None and not self._transport.is_closing():
            self._reply(handle, message, resolved)
        self._front.note(resolved, self.client, now - started)

    def _reply(self, handle: int, message: bytes, resolved: Resolved | None) -> None:
        """Send it; empty: there is none to send."""
        raise NotImplementedError


class StreamProtocol(IdleProtocol):
    """Two bytes of length in front of each message (RFC 1035, section 4.2.2)."""

    def __init__(self, front: Front, connections: Connections, transport: Transport) -> None:
        super().__init__(front, connections, transport)
        self._buffer = bytearray()
        self._out: list[bytes] | None = None
        """Answers of one turn, sent together: with TLS each write is a record."""
        self._ended = False

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._go_on()

    def eof_received(self) -> bool:
        """What is in work is still answered: half-closed connections are allowed (RFC 7766, section 6.2.4)."""
        self._ended = True
        return bool(self._tasks)

    def _go_on(self) -> None:
        """Take whole messages off the buffer; what is answered at once is sent at once, together."""
        buffer, at, self._out = self._buffer, 0, []
        while len(self._tasks) < PIPELINED_MAX and at + 2 <= len(buffer):
            end = at + 2 + (buffer[at] << 8 | buffer[at + 1])
            if end - at - 2 > wire.QUERY_MAX:
                self._flush()
                self.abort()
                return
            if end > len(buffer):
                break
            message, at = bytes(buffer[at + 2 : end]), end
            self._take(message, 0)
        del buffer[:at]
        self._flush()
        self._set_busy(len(self._tasks) >= PIPELINED_MAX)

    def _set_busy(self, busy: bool) -> None:
        if busy != self._busy:
            self._busy = busy
            self._hold_or_read()

    def _flush(self) -> None:
        out, self._out = self._out, None
        if out and self._transport is not None:
            self._transport.write(b"".join(out))

    def _reply(self, handle: int, message: bytes, resolved: Resolved | None) -> None:
        if not message or self._transport is None:
            return
        framed = len(message).to_bytes(2, "big") + message
        if self._out is not None:
            self._out.append(framed)
        else:
            self._transport.write(framed)

    def _settled(self, task: asyncio.Task[None]) -> None:
        """Go on reading, or end what the client has ended."""
        super()._settled(task)
        if self._transport is None or self._transport.is_closing():
            return
        if self._ended and not self._tasks:
            self._transport.close()
        else:
            self._go_on()
