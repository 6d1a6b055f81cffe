"""What is kept for a stream beside the library's own record of it."""

from __future__ import annotations

from collections import deque

from aioquic.quic.stream import QuicStream


class Stream:
    """One stream: what was received and not read yet; which sides are done, and how.

    Read side done, write side done, and reset are three facts.
    """

    __slots__ = ("announced", "chunks", "core", "ended", "read_over", "taken", "unread", "wanting", "write_over")

    def __init__(self, core: QuicStream, *, readable: bool, writable: bool) -> None:
        self.core = core
        self.chunks: deque[bytes | memoryview] = deque()
        self.unread = 0
        self.taken = 0
        """Bytes read so far, or discarded after `stop`: the window slides with it."""
        self.announced = False
        """A Readable was told and the stream has not been read to empty since."""
        self.ended = False
        """FIN and everything before it has come."""
        self.read_over = not readable
        """Nothing more will come for the caller: read to the end, reset by the peer, or stopped by us."""
        self.write_over = not writable
        """Nothing more may be written: finished, reset, or stopped by the peer."""
        self.wanting = False
        """A write was short: Writable is owed."""

    def waiting(self) -> int:
        """Bytes written and not acknowledged, sent or not."""
        # The library's buffer begins at the first byte that is not acknowledged, and knows no bound.
        return len(self.core.sender._buffer)

    def take(self, limit: int) -> bytes:
        """At most `limit` of the bytes received, in order."""
        chunks = self.chunks
        if not chunks or limit <= 0:
            return b""
        first = chunks[0]
        if len(chunks) == 1 and len(first) <= limit:
            chunks.clear()
            self.unread = 0
            self.taken += len(first)
            return bytes(first)
        parts: list[bytes | memoryview] = []
        left = limit
        while chunks and left:
            chunk = chunks[0]
            if len(chunk) <= left:
                parts.append(chunks.popleft())
            else:
                view = memoryview(chunk)
                parts.append(view[:left])
                chunks[0] = view[left:]
            left -= len(parts[-1])
        self.unread -= limit - left
        self.taken += limit - left
        return b"".join(parts)

    def discard(self) -> None:
        """Forgets what was not read."""
        self.chunks.clear()
        self.taken += self.unread
        self.unread = 0

    def slide(self, window: int) -> bool:
        """Moves the peer's limit on once half of the window is used; whether it has to be sent."""
        if self.core.receiver.is_finished or self.core.max_stream_data_local - self.taken > window // 2:
            return False
        self.core.max_stream_data_local = self.taken + window
        return True
