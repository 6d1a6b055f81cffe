"""The face `Connection` on aioquic.

    receive → library → _collect (its events become ours) → poll_event, read, read_datagram
    write, finish … → library's buffers → transmit → _produce (the library builds) → Outbox (one GSO send)

What the library raises for bytes of a peer's ends that connection and nothing else (`_guarded`).
"""

from __future__ import annotations

from collections import Counter, deque
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
from warren.fabric.engines.aioquic.outbox import Outbox
from warren.fabric.engines.aioquic.segments import split
from warren.fabric.engines.aioquic.streams import Stream, Streams

log = structlog.get_logger(__name__)

PSEUDO = ("peer", 1)
"""The one address that a connection sees whose paths are the caller's."""
LARGEST_SEND_BUFFER = 4 << 20
"""Bytes that a stream's write buffer may grow to with the congestion window. Each write copies the whole buffer once
(the library appends to a bytearray whose front was cut off), so larger ones cost more than they bring."""
RECEIVED_DATAGRAMS = 1 << 20
"""Bytes of received DATAGRAM payloads that wait for `read_datagram`; beyond, new ones are dropped and counted."""
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
        self._streams = Streams(core, limits.streams)
        self._datagrams: deque[bytes] = deque()
        self._datagram_bytes = 0
        self._queued = 0
        self._outbox = Outbox()
        self._dirty = False
        self._timer: float | None = None
        self._timer_stale = True
        self._heard_at = now
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
        own, foreign = split(data, stride, header)
        for datagram in own:
            self._take(datagram, PSEUDO, now)
        fresh = core.authentic != authentic
        self._settle(now, heard=fresh)
        return Received(fresh, fresh and core.tops() > tops, foreign)

    def _take(self, datagram: bytes, address: Any, now: float) -> None:
        """One datagram into the library. What it raises before anything authenticated is the datagram's fault alone."""
        core = self._core
        if core.over:
            self._outbox.answer_late()
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

    def transmit(self, now: float, header: bytes = b"", segments: int = 44) -> Batch | None:
        """See `Connection.transmit`."""
        batch = self._next_batch(now, header, segments)
        return None if batch is None else batch[1]

    def _next_batch(self, now: float, header: bytes, segments: int) -> tuple[Any, Batch] | None:
        if not self._outbox and self._dirty:
            self._produce(now)
        return self._outbox.batch(header, segments) if self._outbox else None

    def _produce(self, now: float) -> None:
        """Has the library build all that may go now: its pacer bounds it (`controller.LARGEST_BURST`)."""
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
        self._outbox.fill(built, farewell=closing)
        if self._queued:
            self._queued = core.datagrams_waiting()
        core.renew_keys()
        self._collect()

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
            if core.in_flight():  # a full window holds a PING back, and the library's own probes have no cap
                core.probe(now)
            else:
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
        elif self._streams.wanting:
            self._events.extend(map(Writable, self._streams.satisfied(self._send_buffer())))

    def _id_issued(self, identifier: bytes) -> None:
        """Another connection id of ours is in use; for a demultiplexer."""

    def _id_retired(self, identifier: bytes) -> None:
        """The peer will not use this id again."""

    def _end(self) -> None:
        if not self._closed:
            self._closed = True
            self._streams.wanting.clear()
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
        """Our record of a stream that an event is about; tells of one that the peer has just opened."""
        record = self._streams.get(stream)
        if record is None:
            record = self._streams.opened_by_peer(stream)
            if record is not None:
                self._events.append(StreamOpened(stream, not stream & 2))
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
            self._streams.remember_reset(event.stream_id)
            self._events.append(StreamReset(event.stream_id, event.error_code))
        self._streams.forget(event.stream_id, record)

    def _stream_stopped(self, event: events.StopSendingReceived) -> None:
        record = self._opened(event.stream_id)
        if record is None:
            return
        self._streams.no_more_writes(event.stream_id, record)
        self._events.append(StreamStopped(event.stream_id, event.error_code))
        self._streams.forget(event.stream_id, record)

    # ---- streams

    def open_stream(self, *, bidirectional: bool = True) -> int | None:
        """See `Connection.open_stream`."""
        if self._closed:
            return None
        core = self._core.open(bidirectional)
        if core is None or core.stream_id is None:
            return None
        self._streams.add(core.stream_id, Stream(core, readable=bidirectional, writable=True))
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
            self._streams.wanting[stream] = record
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
        self._dirty = True
        self._no_more_writes(stream, record)

    def _no_more_writes(self, stream: int, record: Stream) -> None:
        self._streams.no_more_writes(stream, record)
        self._streams.forget(stream, record)

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
                self._streams.forget(stream, record)
        if data and record.slide(self._limits.stream_window):
            self._dirty = True
        return data

    def finished(self, stream: int) -> bool:
        """See `Connection.finished`. Never True of a stream that the peer reset."""
        record = self._streams.get(stream)
        if record is None:
            return not self._streams.was_reset(stream)
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
        self._streams.forget(stream, record)

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
        elif kind is PathChange.RESUMED:
            core.resume(now)
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
