"""What is kept for a stream beside the library's own record of it."""

from __future__ import annotations

from collections import deque

from aioquic.quic.stream import QuicStream

from warren.fabric.engines.aioquic.core import Core

RESETS_REMEMBERED = 1024
"""Streams that the peer reset and that are over: `finished` stays False for so many of them."""
LEFT_REMEMBERED = 64
"""Streams, beyond those that may be open, that are over here and not yet in the library, before they are counted."""


class Stream:
    """One stream: what was received and not read yet; which sides are done, and how.

    Read side done, write side done, and reset are three facts.
    """

    __slots__ = ("announced", "chunks", "core", "ended", "read_over", "taken", "unread", "write_over")

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


class Streams:
    """The records of a connection's streams, and what has to be remembered of those that are over."""

    def __init__(self, core: Core, at_once: int) -> None:
        self.wanting: dict[int, Stream] = {}
        """Streams with a write that was short: Writable is owed."""
        self._core = core
        self._at_once = at_once
        self._records: dict[int, Stream] = {}
        self._resets: dict[int, None] = {}
        self._left: set[int] = set()

    def __len__(self) -> int:
        return len(self._records)

    def get(self, stream: int) -> Stream | None:
        """The record of a stream that is not over on both sides."""
        return self._records.get(stream)

    def add(self, stream: int, record: Stream) -> None:
        """A stream of ours."""
        self._records[stream] = record

    def opened_by_peer(self, stream: int) -> Stream | None:
        """A record for a stream that the peer has just opened; None if it is ours, over, or unknown to the library."""
        core = self._core.stream(stream)
        ours = (stream & 1 == 0) == self._core.configuration.is_client
        if core is None or ours or stream in self._left:
            return None
        record = self._records[stream] = Stream(core, readable=True, writable=not stream & 2)
        return record

    def no_more_writes(self, stream: int, record: Stream) -> None:
        """The write side is done; no Writable is owed any more."""
        record.write_over = True
        self.wanting.pop(stream, None)

    def satisfied(self, bound: int) -> list[int]:
        """Streams that wait for room, and of whose `bound` a quarter is free again; they wait no more."""
        found = [stream for stream, record in self.wanting.items() if bound - record.waiting() >= bound // 4]
        for stream in found:
            del self.wanting[stream]
        return found

    def remember_reset(self, stream: int) -> None:
        """The peer ended it early."""
        self._resets[stream] = None
        if len(self._resets) > RESETS_REMEMBERED:
            del self._resets[next(iter(self._resets))]

    def was_reset(self, stream: int) -> bool:
        """Whether the peer ended it early."""
        return stream in self._resets

    def forget(self, stream: int, record: Stream) -> None:
        """Drops the record of a stream that is over on both sides; the library keeps its own until all is acknowledged,
        and late frames must not make it look like a new one."""
        if record.read_over and record.write_over and self._records.pop(stream, None) is not None:
            left = self._left
            left.add(stream)
            if len(left) > 2 * self._at_once + LEFT_REMEMBERED:
                left.intersection_update([known for known in left if self._core.stream(known) is not None])
