"""One QUIC connection on a socket: mutate, drain every event, send every batch, re-arm one timer. In that order.

The engine gets the time of each call, for it makes rates and round trips of it; what is above it the loop's.

`Drive` is for any connection; who uses it says how events are drained and where batches go. Whatever is done to the
connection outside (a flow written to, credit returned) is followed by `flush()`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from warren.fabric.aio.timer import Timer, clock
from warren.fabric.core.engine import Batch, Buffer, Connection, Received

ROUNDS = 64
"""Times that events are drained in one flush before other sockets get their turn."""


class Drive:
    """Drains one connection into a socket, and calls it when its timer is due."""

    def __init__(
        self,
        connection: Connection,
        header: bytes,
        drain: Callable[[float], bool],
        send: Callable[[Batch], bool],
        timeout: Callable[[], float | None] = lambda: None,
        timed_out: Callable[[float], None] = lambda now: None,
        more: Callable[[], bool] = lambda: False,
    ) -> None:
        """`header`: in front of every datagram. `drain(now)`: handles all events of the cores above; whether there were
        any. `send(batch)`: False when the socket is full (then `flush` again once it is writable).
        `timeout`, `timed_out`: the timer of the cores above. `more`: whether a drain has more to give to the engine
        once batches have left (datagrams that wait for room)."""
        self.connection = connection
        self.header = header
        self._drain = drain
        self._send = send
        self._timeout = timeout
        self._timed_out = timed_out
        self._more = more
        self._loop = asyncio.get_running_loop()
        self._clock = clock(self._loop)
        self._stuck: Batch | None = None
        self._timer = Timer(self._earliest, self._due)
        self._soon: asyncio.Handle | None = None
        self._flushing = False
        self._again = False
        self.closed = False

    def receive(self, buffer: Buffer, stride: int, header: bytes | None = None) -> Received:
        """Hands a buffer to the engine; `flush` after the last one. `header`: if another one is in front."""
        return self.connection.receive(buffer, stride, self.header if header is None else header, self._clock())

    def flush(self) -> None:
        """Drains events and sends what there is to send; may be called from within itself."""
        if self._flushing:
            self._again = True
            return
        self._flushing = True
        try:
            for _ in range(ROUNDS):
                self._again = False
                if self._drain(self._loop.time()):
                    continue
                if not (self._transmit() and self._more()) and not self._again:
                    break
            else:
                self._transmit()
                self._flush_soon()
        finally:
            self._flushing = False
        if not self.closed:
            self._timer.arm()

    def _flush_soon(self) -> None:
        if self._soon is None and not self.closed:
            self._soon = self._loop.call_soon(self._flush_later)

    def _flush_later(self) -> None:
        self._soon = None
        self.flush()

    def _transmit(self) -> bool:
        """Whether anything was sent. A batch that the socket had no room for is the first to go next time."""
        sent, now = False, self._clock()
        while True:
            batch = self._stuck or self.connection.transmit(now, self.header)
            if batch is None:
                return sent
            self._stuck = None if self._send(batch) else batch
            if self._stuck is not None:
                return False
            sent = True

    def _earliest(self) -> float | None:
        mine, above = self.connection.timer(), self._timeout()
        if mine is None or above is None:
            return above if mine is None else mine
        return min(mine, above)

    def _due(self, now: float) -> None:
        self.connection.handle_timer(max(now, self._clock()))
        self._timed_out(now)
        self.flush()

    def close(self) -> None:
        """Nothing more is sent or timed. The connection should have been closed and flushed before."""
        self.closed = True
        self._timer.cancel()
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        self._loop.call_soon(self._let_go)  # the last words may be on their way just now

    def _let_go(self) -> None:
        """Of whoever holds us, and holds with us all that the engine keeps."""
        self._timer.end()
        self._drain, self._send, self._more = lambda now: False, lambda batch: True, lambda: False
        self._timeout, self._timed_out = lambda: None, lambda now: None
