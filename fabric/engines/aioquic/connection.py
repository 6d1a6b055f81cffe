"""The face `Connection` on aioquic.

    receive → library → _collect (its events become ours) → poll_event, read, read_datagram
    write, finish … → library's buffers → transmit → _produce (the library builds) → _batch (one GSO send)

What the library raises for bytes of a peer's ends that connection and nothing else (`_guarded`).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

import structlog
from aioquic.quic import events
from aioquic.quic.packet import QuicErrorCode, QuicFrameType

from warren.fabric.core.engine import (
    Batch,
    Buffer,
    Closed,
    Connected,
    DatagramsReceived,
    Event,
    Limits,
    PathChange,
    Readable,
    Received,
    Statistics,
    StreamOpened,
    StreamReset,
    StreamStopped,
    Writable,
)
from warren.fabric.engines.aioquic.core import Core
from warren.fabric.engines.aioquic.credentials import der, leaf_fault
from warren.fabric.engines.aioquic.streams import Stream

log = structlog.get_logger(__name__)

PSEUDO = ("peer", 1)
"""The one address that a connection sees whose paths are the caller's."""
LARGEST_BATCH = 65_000
"""Bytes of one GSO send; the kernel takes 65,507."""
LARGEST_SEND_BUFFER = 4 << 20
"""Bytes that a stream's write buffer may grow to with the congestion window. Each write copies the whole buffer once
(the library appends to a bytearray whose front was cut off), so larger ones cost more than they bring."""
RECEIVED_DATAGRAMS = 1 << 20
"""Bytes of received DATAGRAM payloads that wait for `read_datagram`; beyond, new ones are dropped and counted."""
RESETS_REMEMBERED = 1024
"""Streams that the peer reset and that are over: `finished` stays False for so many of them."""
LEFT_REMEMBERED = 64
"""Streams, beyond those that may be open, that are over here and not yet in the library, before they are counted."""
CRYPTO_ERRORS = 0x100
"""From here on 256 codes are TLS alerts (RFC 9001, section 4.8)."""
NO_ALPN = CRYPTO_ERRORS + 120
"""TLS alert no_application_protocol."""
BAD_CERTIFICATE = CRYPTO_ERRORS + 42
"""TLS alert bad_certificate (RFC 9001, section 4.8)."""


class AioquicConnection:
    """One QUIC connection (see `Connection` in fabric/core/engine.py)."""

    def __init__(self, core: Core, limits: Limits, now: float) -> None:
        self.dropped: Counter[str] = Counter()
        """What was thrown away, by word: `datagram_full`, `datagram_large`, `library_raised` …"""
        self._core = core
        self._limits = limits
        self._events: deque[Event] = deque()
        self._streams: dict[int, Stream] = {}
        self._wanting: dict[int, Stream] = {}
        self._resets: dict[int, None] = {}
        self._left: set[int] = set()
        self._datagrams: deque[bytes] = deque()
        self._datagram_bytes = 0
        self._queued = 0
        self._ready: list[tuple[bytes, Any]] = []
        self._ready_at = 0
        self._farewell: list[tuple[bytes, Any]] = []
        self._late = 0
        self._dirty = False
        self._timer: float | None = None
        self._timer_stale = True
        self._heard_at = now
        self._sent = 0
        self._connected = False
        self._closed = False
        if core.configuration.is_client:
            core.connect(PSEUDO, now)
            self._dirty = True

    # ---- bytes

    def receive(self, buffer: Buffer, stride: int, header: bytes, now: float) -> Received:
        """See `Connection.receive`. Foreign spans hold one header each."""
        data = buffer if type(buffer) is bytes else bytes(buffer)
        core = self._core
        authentic, tops = core.authentic, core.tops()
        foreign: Sequence[tuple[int, int]] = ()
        if not 0 < stride < len(data):
            if not data.startswith(header):
                return Received(False, False, ((0, len(data)),))
            self._take(data[len(header) :] if header else data, PSEUDO, now)
        else:
            skip = len(header)
            if skip and _mixed(data, stride, header):
                foreign = self._take_own(data, stride, header, now)
            else:
                for start in range(0, len(data), stride):
                    self._take(data[start + skip : start + stride], PSEUDO, now)
        fresh = core.authentic != authentic
        self._settle(now, heard=fresh)
        return Received(fresh, fresh and core.tops() > tops, foreign)

    def _take_own(self, data: bytes, stride: int, header: bytes, now: float) -> list[tuple[int, int]]:
        """Takes the segments with our header; returns the runs of each other one."""
        foreign: list[tuple[int, int]] = []
        skip = len(header)
        other: bytes | None = None
        for start in range(0, len(data), stride):
            end = min(start + stride, len(data))
            found = data[start : start + skip]
            if found == header:
                other = None
                self._take(data[start + skip : end], PSEUDO, now)
            elif found == other:
                foreign[-1] = (foreign[-1][0], end)
            else:
                other = found
                foreign.append((start, end))
        return foreign

    def _take(self, datagram: bytes, address: Any, now: float) -> None:
        """One datagram into the library. What it raises before anything authenticated is the datagram's fault alone."""
        core = self._core
        if core.over:
            self._answer_late()
            return
        authentic = core.authentic
        try:
            core.receive_datagram(datagram, address, now)
        except Exception as error:  # any: the library's parsers were given bytes of a stranger's
            self.dropped["library_raised"] += 1
            if core.authentic != authentic:
                self._broken(error)

    def _settle(self, now: float, *, heard: bool) -> None:
        if heard:
            self._heard_at = now
        self._dirty = self._timer_stale = True
        self._collect()

    def _answer_late(self) -> None:
        """In the closing period packets are answered by CONNECTION_CLOSE again, ever more rarely (RFC 9000, 10.2.1)."""
        self._late += 1
        if self._farewell and self._late & (self._late - 1) == 0:
            self._ready.extend(self._farewell)

    def transmit(self, now: float, header: bytes = b"", segments: int = 44) -> Batch | None:
        """See `Connection.transmit`."""
        batch = self._next_batch(now, header, segments)
        return None if batch is None else batch[1]

    def _next_batch(self, now: float, header: bytes, segments: int) -> tuple[Any, Batch] | None:
        if self._ready_at >= len(self._ready):
            if not self._dirty:
                return None
            self._produce(now)
            if not self._ready:
                return None
        return self._batch(header, segments)

    def _produce(self, now: float) -> None:
        """Has the library build all that may go now: its pacer bounds it (`controller.LARGEST_BURST`)."""
        self._ready.clear()
        self._ready_at = 0
        self._dirty = False
        core = self._core
        if not core.begun:
            return
        self._timer_stale = True
        closing = core.over
        try:
            built = core.datagrams_to_send(now)
        except Exception as error:  # any: its state was shaped by what a peer sent
            self.dropped["library_raised"] += 1
            if not closing:
                self._broken(error)
            return
        if not built:
            return
        self._ready.extend(built)
        self._sent += len(built)
        if closing:
            self._farewell = built
        if self._queued:
            self._queued = core.datagrams_waiting()
        core.renew_keys()
        self._collect()

    def _batch(self, header: bytes, segments: int) -> tuple[Any, Batch]:
        """A run of equal datagrams to one address, with a shorter last one."""
        ready, at = self._ready, self._ready_at
        first, address = ready[at]
        size = len(first)
        stop = min(len(ready), at + max(1, min(segments, LARGEST_BATCH // (size + len(header)))))
        parts: list[Buffer] = [header, first] if header else [first]
        end = at + 1
        while end < stop:
            datagram, to = ready[end]
            if len(datagram) > size or (to is not address and to != address):
                break
            if header:
                parts.append(header)
            parts.append(datagram)
            end += 1
            if len(datagram) < size:
                break
        self._ready_at = end
        return address, Batch(parts, size + len(header), end - at)

    def timer(self) -> float | None:
        """See `Connection.timer`."""
        if self._timer_stale:
            self._timer_stale = False
            at = self._core.wake_at()
            if self._limits.keep_alive and self._connected and not self._closed:
                ping = self._heard_at + self._limits.keep_alive
                at = ping if at is None else min(at, ping)
            self._timer = at
        return self._timer

    def handle_timer(self, now: float) -> None:
        """See `Connection.handle_timer`."""
        core = self._core
        try:
            core.wake(now)
        except Exception as error:  # any: as in `_produce`
            self.dropped["library_raised"] += 1
            self._broken(error)
        if self._limits.keep_alive and self._connected and now >= self._heard_at + self._limits.keep_alive:
            self._heard_at = now
            core.send_ping(0)
        self._settle(now, heard=False)

    def poll_event(self) -> Event | None:
        """See `Connection.poll_event`."""
        return self._events.popleft() if self._events else None

    def close(self, code: int, reason: str, now: float) -> None:
        """See `Connection.close`. `Closed` follows at once, CONNECTION_CLOSE in the next `transmit`."""
        self._core.close(error_code=code, reason_phrase=reason)
        self._settle(now, heard=False)

    def _broken(self, error: Exception) -> None:
        """The library raised with this connection half changed: nobody knows its state, so it ends."""
        log.warning("quic_library_raised", error=type(error).__name__)
        self._core.close(
            error_code=QuicErrorCode.INTERNAL_ERROR,
            frame_type=QuicFrameType.PADDING,
            reason_phrase=f"{type(error).__name__} in the QUIC library",
        )
        self._dirty = self._timer_stale = True
        self._collect()

    # ---- the library's events

    def _collect(self) -> None:
        core = self._core
        event = core.next_event()
        while event is not None:
            if isinstance(event, events.StreamDataReceived):
                self._data_received(event)
            elif isinstance(event, events.DatagramFrameReceived):
                self._datagram_received(event.data)
            elif isinstance(event, events.StreamReset):
                self._stream_reset(event)
            elif isinstance(event, events.StopSendingReceived):
                self._stream_stopped(event)
            elif isinstance(event, events.HandshakeCompleted):
                self._handshake_completed(event)
            elif isinstance(event, events.ConnectionIdIssued):
                self._id_issued(event.connection_id)
            elif isinstance(event, events.ConnectionIdRetired):
                self._id_retired(event.connection_id)
            event = core.next_event()
        if core.over:
            self._end()
        elif self._wanting:
            self._offer()

    def _id_issued(self, identifier: bytes) -> None:
        """Another connection id of ours is in use; for a demultiplexer."""

    def _id_retired(self, identifier: bytes) -> None:
        """The peer will not use this id again."""

    def _end(self) -> None:
        if not self._closed:
            self._closed = True
            self._wanting.clear()
            code, reason, ours = self._core.ending()
            if not reason and CRYPTO_ERRORS <= code < CRYPTO_ERRORS + 256:
                reason = f"TLS alert {code - CRYPTO_ERRORS}"
            self._events.append(Closed(code, reason, ours))

    def _handshake_completed(self, event: events.HandshakeCompleted) -> None:
        certificate = None
        if not event.alpn_protocol:  # the library lets a client pass that offers none (RFC 9001, section 8.1)
            self._core.close(error_code=NO_ALPN, frame_type=QuicFrameType.CRYPTO, reason_phrase="no ALPN was offered")
            return
        if self._core.configuration.is_client:
            leaf = self._core.leaf()
            fault = leaf_fault(leaf)
            if fault is not None:
                self._core.close(error_code=BAD_CERTIFICATE, frame_type=QuicFrameType.CRYPTO, reason_phrase=fault)
                return
            certificate = der(leaf)
        self._connected = True
        self._events.append(Connected(event.alpn_protocol, certificate))

    def _opened(self, stream: int) -> Stream | None:
        """Our record of a stream that an event is about; makes it for a stream that the peer has just opened."""
        record = self._streams.get(stream)
        if record is None:
            core = self._core.stream(stream)
            ours = (stream & 1 == 0) == self._core.configuration.is_client
            if core is None or ours or stream in self._left:
                return None
            bidirectional = not stream & 2
            record = self._streams[stream] = Stream(core, readable=True, writable=bidirectional)
            self._events.append(StreamOpened(stream, bidirectional))
        return record

    def _data_received(self, event: events.StreamDataReceived) -> None:
        record = self._opened(event.stream_id)
        if record is None:
            return
        if record.read_over:  # stopped by us: it still counts as taken, so that the peer's reset gets through
            record.taken += len(event.data)
            return
        if event.data:
            record.chunks.append(event.data)
            record.unread += len(event.data)
        if event.end_stream:
            record.ended = True
        if not record.announced:
            record.announced = True
            self._events.append(Readable(event.stream_id))

    def _stream_reset(self, event: events.StreamReset) -> None:
        record = self._opened(event.stream_id)
        if record is None:
            return
        if not record.read_over:
            record.discard()
            record.read_over = True
            self._resets[event.stream_id] = None
            if len(self._resets) > RESETS_REMEMBERED:
                del self._resets[next(iter(self._resets))]
            self._events.append(StreamReset(event.stream_id, event.error_code))
        self._forget(event.stream_id, record)

    def _stream_stopped(self, event: events.StopSendingReceived) -> None:
        record = self._opened(event.stream_id)
        if record is None:
            return
        self._wanting.pop(event.stream_id, None)
        record.wanting = False
        record.write_over = True
        self._events.append(StreamStopped(event.stream_id, event.error_code))
        self._forget(event.stream_id, record)

    def _forget(self, stream: int, record: Stream) -> None:
        """A stream that is over on both sides needs no record; the library keeps its own until all is acknowledged."""
        if record.read_over and record.write_over and self._streams.pop(stream, None) is not None:
            left = self._left
            left.add(stream)
            if len(left) > 2 * self._limits.streams + LEFT_REMEMBERED:
                left.intersection_update([known for known in left if self._core.stream(known) is not None])

    def _offer(self) -> None:
        """Writable, once a quarter of the send buffer is free again."""
        bound = self._send_buffer()
        for stream, record in list(self._wanting.items()):
            if bound - record.waiting() >= bound // 4:
                del self._wanting[stream]
                record.wanting = False
                self._events.append(Writable(stream))

    # ---- streams

    def open_stream(self, *, bidirectional: bool = True) -> int | None:
        """See `Connection.open_stream`."""
        if self._closed:
            return None
        core = self._core.open(bidirectional)
        if core is None or core.stream_id is None:
            return None
        self._streams[core.stream_id] = Stream(core, readable=bidirectional, writable=True)
        return core.stream_id

    def _send_buffer(self) -> int:
        return max(self._limits.send_buffer, min(2 * self._core.window(), LARGEST_SEND_BUFFER))

    def write(self, stream: int, data: Buffer) -> int:
        """See `Connection.write`."""
        record = self._streams.get(stream)
        if record is None or record.write_over or self._closed:
            return 0
        size = len(data)
        room = self._send_buffer() - record.waiting()
        if size > room:
            if not record.wanting:
                record.wanting = True
                self._wanting[stream] = record
            if room <= 0:
                return 0
            data = memoryview(data)[:room]
            size = room
        if size:
            # The library copies it into a bytearray, so a view will do.
            self._core.send_stream_data(stream, data)  # type: ignore[arg-type]
            self._dirty = True
        return size

    def finish(self, stream: int) -> None:
        """See `Connection.finish`; nothing on a stream that is finished, reset or stopped."""
        record = self._streams.get(stream)
        if record is None or record.write_over or self._closed:
            return
        self._core.send_stream_data(stream, b"", end_stream=True)
        self._no_more_writes(stream, record)

    def _no_more_writes(self, stream: int, record: Stream) -> None:
        record.write_over = True
        record.wanting = False
        self._wanting.pop(stream, None)
        self._forget(stream, record)
        self._dirty = True

    def read(self, stream: int, limit: int) -> bytes:
        """See `Connection.read`."""
        record = self._streams.get(stream)
        if record is None:
            return b""
        data = record.take(limit)
        if not record.unread:
            record.announced = False
            if record.ended:
                record.read_over = True
                self._forget(stream, record)
        if data and record.slide(self._limits.stream_window):
            self._dirty = True
        return data

    def finished(self, stream: int) -> bool:
        """See `Connection.finished`. Never True of a stream that the peer reset."""
        record = self._streams.get(stream)
        if record is None:
            return stream not in self._resets
        return record.ended and not record.unread

    def reset(self, stream: int, code: int) -> None:
        """See `Connection.reset`; also after `finish`, while not everything is acknowledged."""
        if self._closed or self._core.stream(stream) is None:
            return
        self._core.reset_stream(stream, code)
        self._dirty = True
        record = self._streams.get(stream)
        if record is not None:
            self._no_more_writes(stream, record)

    def stop(self, stream: int, code: int) -> None:
        """See `Connection.stop`; nothing more is told of this stream's read side."""
        record = self._streams.get(stream)
        if record is None or record.read_over or self._closed:
            return
        record.discard()
        record.read_over = True
        if not record.core.receiver.is_finished:
            self._core.stop_stream(stream, code)
            self._dirty = True
        self._forget(stream, record)

    # ---- datagrams

    def send_datagram(self, data: bytes) -> bool:
        """See `Connection.send_datagram`."""
        size, room = len(data), self._core.datagram_room()
        if self._closed or not room or size > room:
            self.dropped["datagram_large"] += 1
            return False
        if self._queued + size > self._limits.datagram_queue:
            self.dropped["datagram_full"] += 1
            return False
        self._queued += size
        self._core.send_datagram_frame(data)
        self._dirty = True
        return True

    def _datagram_received(self, data: bytes) -> None:
        if self._datagram_bytes + len(data) > RECEIVED_DATAGRAMS:
            self.dropped["datagram_unread"] += 1
            return
        if not self._datagrams:
            self._events.append(DatagramsReceived())
        self._datagram_bytes += len(data)
        self._datagrams.append(data)

    def read_datagram(self) -> bytes | None:
        """See `Connection.read_datagram`."""
        if not self._datagrams:
            return None
        data = self._datagrams.popleft()
        self._datagram_bytes -= len(data)
        return data

    def datagram_room(self) -> int:
        """See `Connection.datagram_room`."""
        return 0 if self._closed else self._core.datagram_room()

    # ---- paths

    def path_changed(self, now: float, kind: PathChange) -> None:
        """See `Connection.path_changed`. Before the handshake is confirmed MOVED is as REBOUND: its books differ."""
        core = self._core
        if core.over or not core.begun:
            return
        if kind is PathChange.MOVED and core.confirmed:
            core.begin_anew(now)
        core.forget_back_off()
        self.probe(now)

    def resize(self, size: int) -> None:
        """See `Connection.resize`."""
        self._core.resize(size)
        dropped = self._core.drop_large_datagrams()
        if dropped:
            self.dropped["datagram_resized"] += dropped
            self._queued = self._core.datagrams_waiting()
        self._dirty = True

    def probe(self, now: float) -> None:
        """See `Connection.probe`."""
        if not self._core.over and self._core.begun:
            self._core.probe(now)
            self._dirty = self._timer_stale = True

    def pto(self) -> float:
        """See `Connection.pto`."""
        return self._core.pto()

    def sampled(self) -> bool:
        """See `Connection.sampled`."""
        return self._core.sampled()

    def in_flight(self) -> bool:
        """See `Connection.in_flight`."""
        return self._core.in_flight()

    def large_lost(self) -> int:
        """See `Connection.large_lost`."""
        return self._core.tally.large_lost

    def statistics(self) -> Statistics:
        """See `Connection.statistics`. `sent`, `received` and `lost` count packets; `rate` is the pacer's."""
        core = self._core
        smoothed, smallest = core.round_trips()
        window = core.window()
        return Statistics(
            round_trip=smoothed,
            smallest_round_trip=smallest,
            window=window,
            in_flight=core.bytes_in_flight(),
            rate=window / smoothed if smoothed else 0.0,
            sent=core.packets_sent(),
            received=core.authentic,
            lost=core.tally.lost,
            congestion_events=core.tally.events,
            phase=core.phase(),
        )


def _mixed(data: bytes, stride: int, header: bytes) -> bool:
    """Whether not every segment begins with `header`: a few slices instead of one comparison per segment."""
    count = -(-len(data) // stride)
    return any(data[place::stride].count(byte) != count for place, byte in enumerate(header))
