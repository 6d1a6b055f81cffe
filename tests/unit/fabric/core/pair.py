"""A fake of the engine's face: two connections whose streams are joined in memory, without packets or time."""

from __future__ import annotations

from collections import deque
from typing import cast

from warren.fabric.core.engine import (
    Buffer,
    Closed,
    Connected,
    Connection,
    Event,
    Readable,
    StreamOpened,
    StreamReset,
    StreamStopped,
    Writable,
)


class Side:
    """One end. `room`: bytes that each stream takes before the peer has read (None: all)."""

    def __init__(self, first: int, room: int | None = None) -> None:
        self.other: Side
        self.events: deque[Event] = deque()
        self.inbox: dict[int, bytearray] = {}
        self.fins: set[int] = set()
        self.room = room
        self.closed: Closed | None = None
        self._next = {True: first, False: first + 2}
        self._short: set[int] = set()

    def poll_event(self) -> Event | None:
        return self.events.popleft() if self.events else None

    def open_stream(self, *, bidirectional: bool = True) -> int | None:
        stream = self._next[bidirectional]
        self._next[bidirectional] += 4
        return stream

    def write(self, stream: int, data: Buffer) -> int:
        if self.closed:
            return 0
        taken = bytes(data)
        if self.room is not None:
            taken = taken[: max(0, self.room - len(self.other.inbox.get(stream, b"")))]
        if len(taken) < len(data):
            self._short.add(stream)
        self.other.arrive(stream, taken, bool(stream % 4 < 2))
        return len(taken)

    def arrive(self, stream: int, data: bytes, bidirectional: bool) -> None:
        if stream not in self.inbox:
            self.inbox[stream] = bytearray()
            if stream % 2 != self._next[True] % 2:
                self.events.append(StreamOpened(stream, bidirectional))
        if data or stream in self.fins:
            self.inbox[stream] += data
            self.events.append(Readable(stream))

    def finish(self, stream: int) -> None:
        self.other.fins.add(stream)
        self.other.arrive(stream, b"", bool(stream % 4 < 2))

    def read(self, stream: int, limit: int) -> bytes:
        box = self.inbox.get(stream, bytearray())
        data = bytes(box[:limit])
        del box[:limit]
        if data and stream in self.other._short:
            self.other._short.discard(stream)
            self.other.events.append(Writable(stream))
        return data

    def finished(self, stream: int) -> bool:
        return stream in self.fins and not self.inbox.get(stream)

    def reset(self, stream: int, code: int) -> None:
        self.other.events.append(StreamReset(stream, code))

    def stop(self, stream: int, code: int) -> None:
        self.other.events.append(StreamStopped(stream, code))

    def close(self, code: int, reason: str, now: float) -> None:
        if self.closed:
            return
        self.closed = Closed(code, reason, True)
        self.other.closed = Closed(code, reason, False)
        self.events.append(self.closed)
        self.other.events.append(self.other.closed)


def pair(leaf: bytes = b"leaf", room: int | None = None) -> tuple[Side, Side]:
    """(client, server), already connected."""
    client, server = Side(0, room), Side(1, room)
    client.other, server.other = server, client
    client.events.append(Connected("test", leaf))
    server.events.append(Connected("test", None))
    return client, server


def face(side: Side) -> Connection:
    """The fake as what the code under test asks for."""
    return cast(Connection, side)
