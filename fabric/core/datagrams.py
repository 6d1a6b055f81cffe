"""Datagrams of flows inside DATAGRAM frames: header, fragments, reassembly, and whose turn it is to send. Pure.

    flow (32 bits) | part (8 bits) | [ packet (16 bits), if it is a fragment ] | payload

    part: 0: the whole datagram. Else bit 7 set, bit 6: the last fragment, bits 5-0: its index.

`flow` is the number of the stream that opened it (stream id / 4), which QUIC never uses twice on a connection.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable

from warren.fabric.core.engine import Buffer

WHOLE = struct.Struct("!IB")
PART = struct.Struct("!IBH")
FRAGMENT, LAST, INDEX = 0x80, 0x40, 0x3F
LONGEST = 65_507
"""Payload of the longest UDP datagram over IPv4."""
QUEUE_FLOW = 128 << 10
"""Bytes of one flow that wait for their turn: two of the longest datagrams; beyond, the newest is dropped."""
QUEUE_ALL = 2 << 20
"""Bytes of all flows of a connection that wait."""
QUANTUM = 1500
"""Bytes that a flow may send in its turn (deficit round robin): about one datagram of an ordinary path."""
ASSEMBLIES = 64
"""Datagrams that are being put together on one connection; a new one beyond pushes the oldest out."""
ASSEMBLY_BYTES = 1 << 20
PATIENCE = 1.0
"""Seconds that a datagram may lack a fragment: paths reorder by milliseconds."""


def header_room(room: int) -> int:
    """Payload of a datagram that goes unfragmented through a DATAGRAM frame of `room` bytes."""
    return max(0, room - WHOLE.size)


def split(flow: int, payload: Buffer, room: int, packet: int) -> list[bytes]:
    """DATAGRAM payloads of at most `room` bytes for one datagram; none if it needs more than 64 of them.
    `packet`: a number that no other fragmented datagram of the flow has had lately."""
    if len(payload) + WHOLE.size <= room:
        return [WHOLE.pack(flow, 0) + payload]
    step = room - PART.size
    if step <= 0 or len(payload) > step * (INDEX + 1):
        return []
    view = memoryview(payload)
    starts = range(0, len(payload), step)
    last = starts[-1]
    return [
        PART.pack(flow, FRAGMENT | (LAST if start == last else 0) | index, packet & 0xFFFF) + view[start : start + step]
        for index, start in enumerate(starts)
    ]


class Assembly:
    """Puts fragments together again, bounded in number, bytes and time."""

    def __init__(self) -> None:
        self._open: dict[tuple[int, int], _Partial] = {}
        self._bytes = 0
        self.dropped = 0
        """Datagrams that never became whole, and DATAGRAM payloads that are none of ours."""

    def take(self, data: bytes, now: float) -> tuple[int, bytes] | None:
        """(flow, payload) once a datagram is whole. Any bytes are allowed."""
        if len(data) < WHOLE.size:
            self.dropped += 1
            return None
        flow, part = WHOLE.unpack_from(data)
        if part == 0:
            return flow, data[WHOLE.size :]
        if not part & FRAGMENT or len(data) < PART.size:
            self.dropped += 1
            return None
        packet = PART.unpack_from(data)[2]
        return self._fragment((flow, packet), part, data[PART.size :], now)

    def _fragment(self, key: tuple[int, int], part: int, payload: bytes, now: float) -> tuple[int, bytes] | None:
        partial = self._open.get(key)
        if partial is None:
            self._make_room(now)
            partial = self._open[key] = _Partial(now + PATIENCE)
        index = part & INDEX
        if index not in partial.pieces:
            partial.pieces[index] = payload
            self._bytes += len(payload)
        if part & LAST:
            partial.count = index + 1
        if len(partial.pieces) != partial.count:
            return None
        self._close(key)
        if set(partial.pieces) != set(range(partial.count)):
            self.dropped += 1
            return None
        return key[0], b"".join(partial.pieces[index] for index in range(partial.count))

    def _make_room(self, now: float) -> None:
        while self._open:
            oldest = next(iter(self._open))
            late = self._open[oldest].until <= now
            if not late and len(self._open) < ASSEMBLIES and self._bytes < ASSEMBLY_BYTES:
                return
            self._close(oldest)
            self.dropped += 1

    def _close(self, key: tuple[int, int]) -> None:
        partial = self._open.pop(key)
        self._bytes -= sum(map(len, partial.pieces.values()))


class _Partial:
    __slots__ = ("count", "pieces", "until")

    def __init__(self, until: float) -> None:
        self.until = until
        self.pieces: dict[int, bytes] = {}
        self.count = -1


class Turns:
    """Deficit round robin over the flows of one connection (RFC 8290 has the idea): a flood waits for itself."""

    def __init__(self) -> None:
        self._queues: dict[int, deque[bytes]] = {}
        self._sizes: dict[int, int] = {}
        self._deficit: dict[int, int] = {}
        self._round: deque[int] = deque()
        self._bytes = 0
        self.dropped = 0
        """Datagrams that found their flow's queue, or all together, full."""

    def __bool__(self) -> bool:
        return bool(self._round)

    def add(self, flow: int, parts: list[bytes]) -> bool:
        """Queues one datagram's parts; False if there was no room for them."""
        size = sum(map(len, parts))
        if self._sizes.get(flow, 0) + size > QUEUE_FLOW or self._bytes + size > QUEUE_ALL:
            self.dropped += 1
            return False
        if flow not in self._queues:
            self._queues[flow] = deque()
            self._sizes[flow] = self._deficit[flow] = 0
            self._round.append(flow)
        self._queues[flow].extend(parts)
        self._sizes[flow] += size
        self._bytes += size
        return True

    def send(self, offer: Callable[[bytes], bool]) -> bool:
        """Offers parts to the engine in turn until it takes no more; whether it took any."""
        sent = False
        while self._round:
            flow = self._round[0]
            queue = self._queues[flow]
            self._deficit[flow] += QUANTUM
            while queue and len(queue[0]) <= self._deficit[flow]:
                if not offer(queue[0]):
                    self._deficit[flow] -= QUANTUM
                    return sent
                sent = True
                size = len(queue.popleft())
                self._deficit[flow] -= size
                self._sizes[flow] -= size
                self._bytes -= size
            self._round.popleft()
            if queue:
                self._round.append(flow)
            else:
                self._remove(flow)
        return sent

    def forget(self, flow: int) -> None:
        """The flow is over: what waits is dropped."""
        if flow in self._queues:
            self._bytes -= self._sizes[flow]
            self._round.remove(flow)
            self._remove(flow)

    def _remove(self, flow: int) -> None:
        del self._queues[flow], self._sizes[flow], self._deficit[flow]
