"""Congestion control and pacing for aioquic: its CUBIC (RFC 9438), counted; its pacer, in batches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from aioquic.quic.congestion.cubic import CubicCongestionControl
from aioquic.quic.packet_builder import QuicSentPacket
from aioquic.quic.recovery import QuicPacketPacer, QuicPacketRecovery

SMALL = 1224
"""Bytes that every path carries; packets above tell of a path that swallows large ones."""
LONGEST_WAIT = 0.001
"""Seconds: timers of an event loop are no finer, so at high rates the pacer waits once for several packets."""
LARGEST_BURST = 128
"""Packets that the pacer lets go at once: with wake-ups 2 ms apart, as a loop of 1 ms timers has them, enough for
740 Mbit/s, more than this engine can. (64 held a transfer over loopback at 350 Mbit/s.)"""


@dataclass(slots=True)
class Tally:
    """Counters of one connection; they outlive a controller that MOVED replaces."""

    lost: int = 0
    events: int = 0
    large_lost: int = 0
    large_from: int = 0
    """Packet number from which large packets count: what was sent before a resize says nothing about the new size."""


class Controller(CubicCongestionControl):
    """CUBIC that counts losses, and apart from them large packets lost since one was acknowledged."""

    def __init__(self, max_datagram_size: int, tally: Tally) -> None:
        super().__init__(max_datagram_size=max_datagram_size)
        self._tally = tally
        self._resumed_at = 0.0
        self._lost_sent_at = 0.0

    def resume(self, now: float) -> None:
        """The way works again after a silence: begin as a new connection would (RFC 9002, section 7.2).

        What was sent into the silence says nothing about the path's rate; the library takes its loss for an event
        with next to nothing in flight, so two packets a round trip were left of any window.
        """
        self.reset()
        self._congestion_recovery_start_time = self._resumed_at = now

    def resize(self, size: int) -> None:
        """Grow by packets of `size` bytes from now on; window and history stay."""
        # Set by the base class's constructor only; there is no public way to change them.
        self._max_datagram_size = self.additive_increase_factor = size

    def on_packet_acked(self, *, now: float, packet: QuicSentPacket) -> None:
        if packet.sent_bytes > SMALL:
            self._tally.large_lost = 0
        super().on_packet_acked(now=now, packet=packet)
        # The base class notes when the packet was *sent*: with a round trip above 2 s it would take every moment for
        # the end of an idle time, and begin anew with ten packets.
        self.last_ack = now

    def on_packets_lost(self, *, now: float, packets: Iterable[QuicSentPacket]) -> None:
        before = self._congestion_recovery_start_time
        lost = self._counted(packets)
        self._lost_sent_at = lost[-1].sent_time or 0.0
        super().on_packets_lost(now=now, packets=lost)
        self._tally.events += self._congestion_recovery_start_time != before

    def on_persistent_congestion(self) -> None:
        if self._lost_sent_at > self._resumed_at:
            super().on_persistent_congestion()

    def on_packets_expired(self, *, packets: Iterable[QuicSentPacket]) -> None:
        super().on_packets_expired(packets=self._counted(packets))

    def _counted(self, packets: Iterable[QuicSentPacket]) -> list[QuicSentPacket]:
        listed = list(packets)
        tally = self._tally
        tally.lost += len(listed)
        tally.large_lost += sum(
            packet.sent_bytes > SMALL and packet.packet_number >= tally.large_from for packet in listed
        )
        return listed


class Pacer(QuicPacketPacer):
    """Paces by the window over the round trip, in bursts that suit a timer of one millisecond and a GSO batch."""

    def next_send_time(self, now: float) -> float | None:  # type: ignore[override]  # the library's annotation forgets None
        at: float | None = super().next_send_time(now)
        if at is None or self.packet_time is None:
            return at
        return max(at, now + min(self.bucket_max / 2, LONGEST_WAIT))

    def update_rate(self, congestion_window: int, smoothed_rtt: float) -> None:
        saved = self.bucket_time  # which the base class cuts to its own, smaller bucket
        super().update_rate(congestion_window, smoothed_rtt)
        if self.packet_time is not None:
            burst = min(4 * LONGEST_WAIT, LARGEST_BURST * self.packet_time, smoothed_rtt / 4)
            self.bucket_max = max(self.bucket_max, burst)
        self.bucket_time = min(saved, self.bucket_max)

    def resize(self, size: int) -> None:
        """Packets have `size` bytes from now on; the rate follows with the next acknowledgement."""
        self._max_datagram_size = size


class Recovery(QuicPacketRecovery):
    """Loss recovery that offers the window in whole datagrams.

    The library fills a window to the last byte: an acknowledgement of 75 bytes lets a packet of 75 bytes go, which is
    acknowledged in turn, until most packets are fragments. What is left over waits for the next acknowledgement; one
    is due, since without anything in flight at least two datagrams fit.
    """

    size: int
    """Bytes of a datagram."""

    @property
    def congestion_window(self) -> int:
        """Bytes that may be in flight; its only reader is the library's `datagrams_to_send`."""
        in_flight = self._cc.bytes_in_flight
        free: int = self._cc.congestion_window - in_flight
        return in_flight + free // self.size * self.size
