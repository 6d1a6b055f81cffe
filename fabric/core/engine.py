"""The QUIC engine's face: what we ask of it, what it tells us. Sans-I/O.

Every engine (aioquic, native) stands behind these classes; nothing above `fabric/engines/` imports a QUIC library.

Contract of every call: `now` is seconds on a monotonic clock, never decreasing. Mutate, then drain `poll_event` and
`transmit` until each returns None, then re-arm one timer from `timer()`: in that order, always.

Streams are read, not pushed: `Readable` says that there is something, `read` takes it. A write says how much was
taken; what was not taken is offered again after `Writable`.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

Buffer = bytes | bytearray | memoryview
Address = tuple[str, int]

DATAGRAM_SIZES = (1444, 1392, 1224)
"""UDP payload that an engine may fill behind an 8-byte circuit header (protocol.md, section 2)."""


Controller = Literal["warren", "cubic"]
"""Congestion control. warren: a rate-based one that tells random loss from congestion (quic/src/controller.rs)."""


class PathChange(enum.Enum):
    """What happened to a path (protocol.md, section 3)."""

    MOVED = "moved"
    """Other circuit or network: all in flight is lost without a congestion event, round trip and window begin anew."""
    REBOUND = "rebound"
    """Same path, other port: PTO count 0, one probe that carries data."""
    RESUMED = "resumed"
    """The way works again after a silence: as REBOUND."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Transport settings. The credit above the engine bounds memory; these only have to be above it."""

    idle_timeout: float = 30.0
    """Seconds without a packet after which the connection is closed."""
    keep_alive: float = 0.0
    """Seconds of idleness after which a PING is sent; 0: never."""
    size: int = 1224
    """UDP payload that datagrams may have, without a circuit header."""
    stream_window: int = 16 << 20
    connection_window: int = 64 << 20
    streams: int = 128
    """Bidirectional and unidirectional streams that the peer may have open at once."""
    datagrams: bool = False
    """Whether DATAGRAM frames are offered (RFC 9221)."""
    send_buffer: int = 1 << 20
    """Bytes that `write` takes on one stream before they are acknowledged."""
    datagram_queue: int = 65_536
    """Bytes of DATAGRAM frames that wait; beyond, `send_datagram` says no."""


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """Who is called and how it is verified: against one root, by one DNS name; a CA:TRUE leaf is refused."""

    alpn: str
    server_name: str
    root: bytes
    """PEM of the one certificate that the server's chain has to end in."""
    limits: Limits = Limits()


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """How we show ourselves."""

    alpn: tuple[str, ...]
    chain: bytes
    """PEM: leaf first, then what leads to the root."""
    key: bytes
    """PEM of the leaf's private key (PKCS 8)."""
    limits: Limits = Limits()
    retry: bool = False
    """Endpoint only: ask for a Retry once `half_open` // 2 handshakes are under way."""
    half_open: int = 256
    """Endpoint only: handshakes under way at once; beyond, a new one is dropped and counted."""


# ---- events ----


class Connected(NamedTuple):
    """The handshake is complete and the peer's certificate verified. `certificate`: DER of its leaf (client side)."""

    alpn: str
    certificate: bytes | None


class StreamOpened(NamedTuple):
    """The peer opened a stream."""

    stream: int
    bidirectional: bool


class Readable(NamedTuple):
    """`read` has something, or the stream has ended (`finished`)."""

    stream: int


class Writable(NamedTuple):
    """A write that had not taken everything may be tried again."""

    stream: int


class StreamReset(NamedTuple):
    """The peer ended its direction early (RESET_STREAM)."""

    stream: int
    code: int


class StreamStopped(NamedTuple):
    """The peer no longer reads (STOP_SENDING)."""

    stream: int
    code: int


class DatagramsReceived(NamedTuple):
    """`read_datagram` has something."""

    def __bool__(self) -> bool:
        return True  # an empty tuple is false: `while event := poll_event()` would stop at it


class Closed(NamedTuple):
    """The connection is over; nothing follows. `ours`: this side ended it. `code`: application or transport code."""

    code: int
    reason: str
    ours: bool


Event = Connected | StreamOpened | Readable | Writable | StreamReset | StreamStopped | DatagramsReceived | Closed


class Received(NamedTuple):
    """What became of a buffer. `foreign`: spans (start, end) of runs of segments that carried another header."""

    authenticated: bool
    """A packet authenticated that was no duplicate."""
    newest: bool
    """Its packet number was the largest so far."""
    foreign: Sequence[tuple[int, int]] = ()


class Batch(NamedTuple):
    """Datagrams ready for one GSO send: `sendmsg(parts, UDP_SEGMENT=stride)`. All but the last have `stride` bytes."""

    parts: Sequence[Buffer]
    """Together the segments, the caller's header in front of each."""
    stride: int
    """Bytes of a segment, header included."""
    segments: int


class Statistics(NamedTuple):
    """Seconds, bytes, bytes a second; counters since the start."""

    round_trip: float
    smallest_round_trip: float
    window: int
    in_flight: int
    rate: float
    sent: int
    received: int
    lost: int
    congestion_events: int
    phase: str


class Connection(Protocol):
    """One QUIC connection.

    A connection made by `Engine.connect` or `Engine.accept` sees one constant pseudo-address: paths are the caller's.
    """

    # bytes

    def receive(self, buffer: Buffer, stride: int, header: bytes, now: float) -> Received:
        """Takes one GRO buffer. `stride`: bytes of each segment (0: one datagram). `header`: what every segment of
        ours begins with (may be b""); segments with another one are not touched and their spans are returned.
        Any bytes are allowed; never raises for them."""

    def transmit(self, now: float, header: bytes = b"", segments: int = 44) -> Batch | None:
        """The next batch of at most `segments` datagrams (65,000 bytes in all), or None."""

    def timer(self) -> float | None:
        """When `handle_timer` wants to be called."""

    def handle_timer(self, now: float) -> None: ...

    def poll_event(self) -> Event | None: ...

    def close(self, code: int, reason: str, now: float) -> None: ...

    # streams

    def open_stream(self, *, bidirectional: bool = True) -> int | None:
        """A new stream's id; None while the peer allows no more."""

    def write(self, stream: int, data: Buffer) -> int:
        """How many of the bytes were taken; 0 on a stream that was reset or stopped."""

    def finish(self, stream: int) -> None:
        """No more will be written (FIN)."""

    def read(self, stream: int, limit: int) -> bytes:
        """At most `limit` bytes in order; b"" if none are there now."""

    def finished(self, stream: int) -> bool:
        """Everything was read and the peer has finished the stream."""

    def reset(self, stream: int, code: int) -> None:
        """End our direction early; what was not delivered is discarded."""

    def stop(self, stream: int, code: int) -> None:
        """Ask the peer to stop writing; what arrives is discarded."""

    # datagrams

    def send_datagram(self, data: bytes) -> bool:
        """Whether it was queued: False when the queue is full or it can't fit (the caller counts the drop)."""

    def read_datagram(self) -> bytes | None: ...

    def datagram_room(self) -> int:
        """Largest payload of a DATAGRAM frame that fits now; 0 if the peer takes none."""

    # paths

    def path_changed(self, now: float, kind: PathChange) -> None: ...

    def resize(self, size: int) -> None:
        """Datagrams may have `size` bytes from now on, header not counted; nothing else changes. Queued DATAGRAM
        frames that no longer fit are dropped."""

    def probe(self, now: float) -> None:
        """Send something ack-eliciting now, past the window; data if there is any."""

    def pto(self) -> float:
        """The probe time-out without back-off, in seconds."""

    def sampled(self) -> bool:
        """Whether the path has given a round-trip sample since the start or the last MOVED."""

    def in_flight(self) -> bool:
        """Whether anything ack-eliciting is unacknowledged."""

    def large_lost(self) -> int:
        """Packets above 1224 bytes lost since one was acknowledged (a path that swallows only these)."""

    def statistics(self) -> Statistics: ...


class Endpoint(Protocol):
    """Many server connections on one socket: ordinary QUIC, with migration and path validation."""

    def receive(self, buffer: Buffer, stride: int, address: Address, now: float) -> None:
        """Any bytes are allowed; never raises for them."""

    def accept(self) -> Connection | None:
        """The next new connection; its handshake may still be under way."""

    def touch(self, connection: Connection) -> None:
        """Something was written to or done with this connection outside `receive`: look at it in `transmit`."""

    def active(self) -> Connection | None:
        """The next connection that may have events since it was last returned here, or None."""

    def transmit(self, now: float) -> tuple[Address, Batch] | None: ...

    def timer(self) -> float | None: ...

    def handle_timer(self, now: float) -> None: ...

    def address(self, connection: Connection) -> Address:
        """Where the connection's peer is now."""


class Engine(Protocol):
    """One QUIC library."""

    name: Literal["aioquic", "native"]
    controller: Controller

    def connect(self, config: ClientConfig, now: float) -> Connection: ...

    def accept(self, config: ServerConfig, first: Buffer, now: float) -> Connection | None:
        """A server connection for the datagram `first` (its header taken off), which has still to be given to
        `receive`; None if it is no Initial packet of this version."""

    def endpoint(self, config: ServerConfig, now: float) -> Endpoint: ...
