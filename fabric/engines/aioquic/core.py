"""aioquic's `QuicConnection` with what Warren needs otherwise. Every private name of the library is explained here.

Relied on (1.7.2), and checked by tests/unit/fabric/engines:

    _payload_received      is reached only by packets that authenticated and are no duplicates
    _write_*_limits        the library doubles its windows as bytes arrive, without end; ours slide
    _loss                  loss recovery: round trip, probe time-out, controller, pacer, packets in flight
    _spaces                packet number spaces: the largest number received tells "newest"
    _state, _close_event   how the connection stands; the public event comes three probe time-outs later
    _datagrams_pending     DATAGRAM frames that wait; one that no longer fits would block the rest for ever
    _streams, sender       what waits for an acknowledgement: the library has no bound of its own
    _get_or_create_stream_for_send   the only way to take a stream's id without writing to it
    _remote_max_streams_*  beyond them the library queues silently
    _logger, _quic_logger  its logs carry what peers sent, and cost time in every packet
"""

from __future__ import annotations

import math
from typing import Any

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import (
    END_STATES,
    MAX_STREAM_DATA_FRAME_CAPACITY,
    QuicConnection,
    QuicConnectionAdapter,
    QuicConnectionState,
    QuicReceiveContext,
    logger,
)
from aioquic.quic.packet import QuicErrorCode, QuicFrameType
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream
from aioquic.tls import CipherSuite

from warren.fabric.core.engine import ClientConfig, Limits, ServerConfig
from warren.fabric.engines.aioquic.controller import Controller, Pacer, Recovery, Tally
from warren.fabric.engines.aioquic.credentials import check_root, identity
from warren.fabric.engines.aioquic.packets import ID_BYTES, VERSION_1

PACKETS_PER_KEY = 1 << 22
"""A key update is asked for after so many packets sent; the library never does it by itself."""
ROUNDING = 1e-6
"""Seconds; above the rounding of any clock reading."""
LARGEST_DATAGRAM_FRAME = 65_535
DATAGRAM_OVERHEAD = 1 + 2 + 16 + 1 + 2
"""Bytes of a packet around a DATAGRAM's payload: first byte, packet number, tag, frame type, length; and the id."""


def _configuration(limits: Limits, **more: Any) -> QuicConfiguration:
    return QuicConfiguration(
        connection_id_length=ID_BYTES,
        idle_timeout=limits.idle_timeout,
        max_data=limits.connection_window,
        max_stream_data=limits.stream_window,
        max_datagram_size=limits.size,
        max_datagram_frame_size=LARGEST_DATAGRAM_FRAME if limits.datagrams else None,
        supported_versions=[VERSION_1],
        # The order is ours: the library would begin with AES-256, which is a tenth slower and buys nothing here.
        cipher_suites=[
            CipherSuite.AES_128_GCM_SHA256,
            CipherSuite.CHACHA20_POLY1305_SHA256,
            CipherSuite.AES_256_GCM_SHA384,
        ],
        **more,
    )


def client_configuration(config: ClientConfig) -> QuicConfiguration:
    """aioquic's settings for a client. Raises ConfigError."""
    check_root(config.root)
    return _configuration(
        config.limits,
        is_client=True,
        alpn_protocols=[config.alpn],
        server_name=config.server_name,
        cadata=config.root,
    )


def server_configuration(config: ServerConfig) -> QuicConfiguration:
    """aioquic's settings for a server. Raises ConfigError."""
    shown = identity(config.chain, config.key)
    return _configuration(
        config.limits,
        is_client=False,
        alpn_protocols=list(config.alpn),
        certificate=shown.leaf,
        certificate_chain=shown.between,
        private_key=shown.key,
    )


class _Silent(QuicConnectionAdapter):
    """Takes the library's log lines and forgets them: they repeat what peers sent, and cost time."""

    def __init__(self) -> None:
        super().__init__(logger, {"id": ""})

    def debug(self, *args: Any, **kwargs: Any) -> None: ...

    def info(self, *args: Any, **kwargs: Any) -> None: ...

    def warning(self, *args: Any, **kwargs: Any) -> None: ...

    def error(self, *args: Any, **kwargs: Any) -> None: ...


_SILENT = _Silent()


class Core(QuicConnection):
    """One `QuicConnection`: sliding windows, our controller, no logs; and readings of its private state."""

    def __init__(
        self,
        configuration: QuicConfiguration,
        limits: Limits,
        original: bytes | None = None,
        retry_source: bytes | None = None,
    ) -> None:
        self._loss: Recovery
        super().__init__(
            configuration=configuration,
            original_destination_connection_id=original,
            retry_source_connection_id=retry_source,
        )
        self.authentic = 0
        """Packets that authenticated and were no duplicates."""
        self.tally = Tally()
        self._keys = 0
        self._window = limits.connection_window
        self._logger = _SILENT
        self._loss = Recovery(
            congestion_control_algorithm=configuration.congestion_control_algorithm,
            initial_rtt=configuration.initial_rtt,
            max_datagram_size=configuration.max_datagram_size,
            peer_completed_address_validation=not configuration.is_client,
            send_probe=self._send_probe,
        )
        # The library has no setting for how many streams a peer may open; the numbers go out with the handshake.
        for limit in (self._local_max_streams_bidi, self._local_max_streams_uni):
            limit.value = limit.sent = limits.streams
        self._renew_controller()

    # ---- what the library does otherwise

    def _payload_received(
        self, context: QuicReceiveContext, plain: bytes, crypto_frame_required: bool = False
    ) -> tuple[bool, bool]:
        self.authentic += 1
        return super()._payload_received(context, plain, crypto_frame_required)

    def _write_connection_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace) -> None:
        """MAX_DATA slides with what arrived (the credit above bounds memory); the rest is the library's."""
        limit = self._local_max_data
        if limit.value - limit.used < self._window // 2:
            limit.value = limit.used + self._window
        used, limit.used = limit.used, 0  # so that the library sees no reason to double it
        try:
            super()._write_connection_limits(builder, space)
        finally:
            limit.used = used

    def _write_stream_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace, stream: QuicStream) -> None:
        """MAX_STREAM_DATA as `credit` has set it: the library would double it as bytes arrive."""
        if stream.max_stream_data_local_sent == stream.max_stream_data_local:
            return
        frame = builder.start_frame(
            QuicFrameType.MAX_STREAM_DATA,
            capacity=MAX_STREAM_DATA_FRAME_CAPACITY,
            handler=self._on_max_stream_data_delivery,
            handler_args=(stream,),
        )
        frame.push_uint_var(stream.stream_id or 0)
        frame.push_uint_var(stream.max_stream_data_local)
        stream.max_stream_data_local_sent = stream.max_stream_data_local

    # ---- how it stands

    @property
    def begun(self) -> bool:
        """Whether there is a path to send on (a server has none before its first Initial)."""
        return bool(self._network_paths)

    @property
    def confirmed(self) -> bool:
        """Whether the handshake is confirmed (RFC 9001, section 4.1.2)."""
        return bool(self._handshake_confirmed)

    @property
    def first_flight(self) -> bool:
        """Whether nothing of the peer's has authenticated yet."""
        return self._state is QuicConnectionState.FIRSTFLIGHT

    @property
    def over(self) -> bool:
        """Whether nothing but a CONNECTION_CLOSE will be sent."""
        return self._close_event is not None or self._state in END_STATES

    @property
    def forgotten(self) -> bool:
        """Whether the closing period is over as well."""
        return self._state is QuicConnectionState.TERMINATED

    def ending(self) -> tuple[int, str, bool]:
        """Code, reason and whether this side ended the connection, once `over`."""
        event = self._close_event
        if event is None:
            return 0, "closed", True
        if event.error_code == QuicErrorCode.INTERNAL_ERROR and event.reason_phrase == "Idle timeout":
            return 0, "idle time-out", True
        return int(event.error_code), event.reason_phrase, self._state is not QuicConnectionState.DRAINING

    def leaf(self) -> Any:
        """The peer's certificate (client side), None before it came."""
        return self.tls._peer_certificate  # no public way to it

    def tops(self) -> int:
        """Grows if, and only if, a packet with the largest number so far arrives."""
        return sum(space.largest_received_packet for space in self._spaces.values()) if self._spaces else -3

    def packets_sent(self) -> int:
        """Packets sent so far."""
        return int(self._packet_number)

    # ---- time

    def wake_at(self) -> float | None:
        """`get_timer`, also before the first datagram, when the library has none."""
        return None if self._close_at is None else self.get_timer()

    def wake(self, now: float) -> None:
        """`handle_timer`, also before the first datagram and after the end."""
        if self._close_at is not None and not self.forgotten:
            # A little later than it is: the library compares `sent <= now - delay` when `sent + delay` has come, and
            # where rounding makes the two differ, its timer would ring at the same moment again and again.
            self.handle_timer(now + ROUNDING)

    def renew_keys(self) -> None:
        """Asks for a key update once per `PACKETS_PER_KEY` packets sent."""
        if self._packet_number // PACKETS_PER_KEY != self._keys:
            self._keys = self._packet_number // PACKETS_PER_KEY
            self.request_key_update()

    # ---- streams

    def open(self, bidirectional: bool) -> QuicStream | None:
        """A new stream; None while the peer allows no more (the library would queue it silently)."""
        stream = self.get_next_available_stream_id(is_unidirectional=not bidirectional)
        allowed = self._remote_max_streams_bidi if bidirectional else self._remote_max_streams_uni
        return None if stream // 4 >= allowed else self._get_or_create_stream_for_send(stream)

    def stream(self, stream: int) -> QuicStream | None:
        """The library's record of a stream that is not over."""
        return self._streams.get(stream)

    # ---- DATAGRAM frames

    def datagram_room(self) -> int:
        """Largest payload of a DATAGRAM frame in a packet of its own; 0 if the peer takes none."""
        theirs = self._remote_max_datagram_frame_size
        if not theirs:
            return 0
        ours = self._max_datagram_size - DATAGRAM_OVERHEAD - len(self._peer_cid.cid)
        return max(0, min(ours, theirs - 3))

    def datagrams_waiting(self) -> int:
        """Bytes of DATAGRAM frames that wait."""
        return sum(map(len, self._datagrams_pending)) if self._datagrams_pending else 0

    def drop_large_datagrams(self) -> int:
        """Drops waiting DATAGRAM frames that do not fit; says how many."""
        room = self.datagram_room()
        kept = [data for data in self._datagrams_pending if len(data) <= room]
        dropped = len(self._datagrams_pending) - len(kept)
        if dropped:
            self._datagrams_pending.clear()
            self._datagrams_pending.extend(kept)
        return dropped

    # ---- paths

    def resize(self, size: int) -> None:
        """Datagrams have `size` bytes from now on; neither window nor round trip changes."""
        self._max_datagram_size = size
        self._pacing.resize(size)
        self._controller.resize(size)
        self._loss.size = size
        self.forget_large()

    def probe(self, now: float) -> None:
        """The oldest data in flight once more, past the window. (`_send_probe` alone sends a bare PING.)"""
        self._loss.reschedule_data(now=now)

    def forget_back_off(self) -> None:
        """Probe time-out without back-off from now on: the library's has no cap."""
        self._loss._pto_count = 0

    def resume(self, now: float) -> None:
        """The way works again after a silence: see `Controller.resume`."""
        self._controller.resume(now)

    def begin_anew(self, now: float) -> None:
        """Another path: all in flight is lost without a congestion event; window and round trip start anew.

        First the books are closed: a new controller would be driven below zero by acknowledgements of what the old
        one sent, and they would be round-trip samples of the old path.
        """
        loss = self._loss
        for space in loss.spaces:
            packets = list(space.sent_packets.values())
            loss._on_packets_lost(congestion_event=False, now=now, packets=packets, space=space)
            space.loss_time = None
        self._renew_controller()
        loss._rtt_initialized = False
        loss._rtt_latest = loss._rtt_smoothed = loss._rtt_variance = 0.0
        loss._rtt_min = math.inf
        self.forget_large()

    def forget_large(self) -> None:
        """Large packets lost count from here."""
        self.tally.large_lost = 0
        self.tally.large_from = self._packet_number

    def _renew_controller(self) -> None:
        # The library makes its controller by name and without knowing for whom; ours counts for this connection.
        self._loss.size = self._max_datagram_size
        self._loss._cc = self._controller = Controller(self._max_datagram_size, self.tally)
        self._loss._pacer = self._pacing = Pacer(max_datagram_size=self._max_datagram_size)

    # ---- readings

    def pto(self) -> float:
        """Probe time-out without back-off, seconds."""
        return float(self._loss.get_probe_timeout())

    def sampled(self) -> bool:
        """Whether there is a round-trip sample."""
        return bool(self._loss._rtt_initialized)

    def in_flight(self) -> bool:
        """Whether anything ack-eliciting is unacknowledged."""
        return any(space.ack_eliciting_in_flight for space in self._loss.spaces)

    def round_trips(self) -> tuple[float, float]:
        """Smoothed and smallest round trip in seconds, 0 before the first sample."""
        loss = self._loss
        return (loss._rtt_smoothed, loss._rtt_min) if loss._rtt_initialized else (0.0, 0.0)

    def window(self) -> int:
        """Congestion window in bytes."""
        return int(self._controller.congestion_window)

    def bytes_in_flight(self) -> int:
        """Bytes in flight, as the controller counts them."""
        return int(self._controller.bytes_in_flight)

    def phase(self) -> str:
        """What the controller is doing: slow start or avoidance."""
        controller = self._controller
        slow = controller.ssthresh is None or controller.congestion_window < controller.ssthresh
        return "slow start" if slow else "avoidance"
