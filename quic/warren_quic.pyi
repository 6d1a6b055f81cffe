"""A sans-I/O QUIC engine: bytes and `now` go in; bytes, a timer and events come out.

`now` is integer nanoseconds of any clock that does not go backwards. Mutate, then drain `poll_events` and `transmit`
until they give nothing, then arm one timer from `timer()`: in that order, always. A buffer that is given to a call
must not be changed before it returns. Every call is safe from any thread; calls on one connection wait for each other.

`InvalidInputError` (a ValueError) is all that calls raise, and only for arguments of our own side's: never for bytes
that came from a peer.
"""

from typing import Literal, TypeAlias, final

Buffer: TypeAlias = bytes | bytearray | memoryview

__version__: str

Event: TypeAlias = (
    tuple[Literal["connected"], str, bytes | None, str]
    | tuple[Literal["opened"], int, bool]
    | tuple[Literal["readable", "writable"], int]
    | tuple[Literal["reset", "stopped"], int, int]
    | tuple[Literal["available"], bool]
    | tuple[Literal["datagrams"]]
    | tuple[Literal["closed"], int, str, bool]
)
"""connected: ALPN, DER of the verified leaf (client) or None, name of the key exchange · opened: stream,
bidirectional · reset, stopped: stream, code · closed: code, reason, whether this side ended it; nothing follows."""

class InvalidInputError(ValueError):
    """An argument or a setting is wrong. The text is one line that says what is allowed."""

@final
class Settings:
    """Transport settings, checked once and frozen.

    idle_timeout, keep_alive: seconds, 0 is never. size: UDP payload of datagrams, header not counted; largest: what
    `resize` may ever ask for. stream_window: bytes that the peer may send on one stream beyond what has
    arrived. connection_window: bytes unread on all streams; the peer's credit follows their reading. streams: of each
    kind that the peer may have open.
    send_buffer: bytes that `write` takes on one stream beyond what is on its way. datagram_queue: bytes of DATAGRAM
    frames that wait; drop: what gives way when it is full. controller: "model" is described in src/controller.rs.
    seed: repeatable connection ids and packet numbers, for tests only.
    """

    def __new__(
        cls,
        *,
        idle_timeout: float = 30.0,
        keep_alive: float = 0.0,
        size: int = 1224,
        largest: int | None = None,
        stream_window: int = 16_777_216,
        connection_window: int = 67_108_864,
        streams: int = 128,
        datagrams: bool = False,
        send_buffer: int = 1_048_576,
        datagram_queue: int = 65_536,
        drop: Literal["newest", "oldest"] = "newest",
        controller: Literal["model", "cubic"] = "model",
        seed: int | None = None,
    ) -> Settings: ...

@final
class Client:
    """Who is called and how it is verified: against one root (PEM of one certificate), by one DNS name.

    A leaf that says CA:TRUE is refused. X25519MLKEM768 is offered first. No resumption, no 0-RTT.
    """

    def __new__(cls, server_name: str, root: bytes, alpn: str, settings: Settings) -> Client: ...
    def connect(self, now: int) -> Connection:
        """Calls; what to send comes out of `transmit`."""

@final
class Server:
    """How we show ourselves. chain: PEM, leaf first. key: PEM of the leaf's private key (PKCS 8)."""

    def __new__(cls, chain: bytes, key: bytes, alpn: list[str], settings: Settings) -> Server: ...
    def accept(self, now: int) -> Connection:
        """A connection for the one client whose packets will be given to `receive`."""

    def endpoint(self, now: int, *, retry: bool = False, half_open: int = 256) -> Endpoint:
        """Many connections on one socket. half_open: handshakes under way at once, more are dropped and counted;
        retry: from half of that on ask for a Retry."""

@final
class Connection:
    """One QUIC connection. One made by `Client` or `Server.accept` sees one constant pseudo-address: its paths are
    the caller's, migration is off."""

    def receive(self, buffer: Buffer, stride: int, header: bytes, now: int) -> tuple[bool, bool, list[tuple[int, int]]]:
        """Takes a buffer of datagrams of `stride` bytes (0: one datagram), those of ours beginning with `header`.

        Returns whether a packet authenticated that was no duplicate; whether its number was the largest so far; and
        the spans (start, end) of runs of datagrams that began otherwise. Any bytes are allowed.
        """

    def transmit(self, now: int, header: bytes, segments: int) -> tuple[bytes, int, int] | None:
        """At most `segments` datagrams (65,000 bytes) with `header` in front of each: bytes, stride, how many.
        All but the last have `stride` bytes: one send with UDP_SEGMENT."""

    def timer(self) -> int | None:
        """When `handle_timer` wants to be called; rounded up to a millisecond."""

    def handle_timer(self, now: int) -> None: ...
    def poll_events(self) -> list[Event]: ...
    def close(self, code: int, reason: str, now: int) -> None:
        """Ends the connection: "closed" follows at once, CONNECTION_CLOSE in the next `transmit`."""

    def open_stream(self, bidirectional: bool) -> int | None:
        """A new stream's id; None while the peer allows no more."""

    def write(self, stream: int, data: Buffer) -> int:
        """How many of the bytes were taken; if not all, "writable" follows. 0 on a stream that was reset, stopped or
        finished."""

    def finish(self, stream: int) -> None:
        """No more will be written (FIN behind what still waits)."""

    def read(self, stream: int, limit: int) -> bytes:
        """At most `limit` bytes in order; b"" if none are there now."""

    def finished(self, stream: int) -> bool:
        """Everything was read and the peer has finished the stream. False for one that was reset."""

    def reset(self, stream: int, code: int) -> None: ...
    def stop(self, stream: int, code: int) -> None: ...
    def set_priority(self, stream: int, priority: int) -> None:
        """Streams of a higher priority go first; all have 0 to begin with."""

    def send_datagram(self, data: Buffer) -> bool:
        """Whether it was queued."""

    def read_datagram(self) -> bytes | None: ...
    def datagram_room(self) -> int:
        """Largest payload of a DATAGRAM frame that fits now; 0 if the peer takes none."""

    def path_changed(self, now: int, kind: Literal["moved", "rebound", "resumed"]) -> None:
        """moved: another path, window and round trip start anew. rebound, resumed: the same one. All probe."""

    def resize(self, size: int) -> None:
        """Datagrams may have `size` bytes from now on. Smaller is enforced at once and costs a few losses; larger is
        found out within two minutes."""

    def probe(self, now: int) -> None:
        """Something that has to be acknowledged leaves in the next `transmit`, past window and pacer."""

    def pto(self) -> float:
        """The probe time-out without back-off, in seconds."""

    def sampled(self) -> bool: ...
    def in_flight(self) -> bool: ...
    def large_lost(self) -> int:
        """Packets above 1224 bytes lost since one was acknowledged, or the size was changed."""

    def address(self) -> tuple[str, int] | None:
        """Where the peer is now, as the connection sees it."""

    def statistics(self) -> Statistics: ...

@final
class Statistics:
    """Seconds, bytes, bytes a second; counters of packets since the start."""

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
    size: int
    black_holes: int
    unread: int

@final
class Endpoint:
    """Many server connections on one socket: ordinary QUIC, with migration and path validation."""

    def receive(self, buffer: Buffer, stride: int, host: str, port: int, now: int) -> None: ...
    def accept(self) -> tuple[int, Connection] | None:
        """The next new connection and its name here; its handshake may still be under way."""

    def touch(self, name: int) -> None:
        """Something was done with this connection: look at it in `transmit`."""

    def active(self) -> int | None:
        """The next connection that has events since it was last named here."""

    def transmit(self, now: int, segments: int) -> tuple[str, int, bytes, int, int] | None:
        """Host, port, bytes, stride, how many."""

    def timer(self) -> int | None: ...
    def handle_timer(self, now: int) -> None: ...
    def counters(self) -> tuple[int, int, int, int, int, int, int]:
        """Connections, handshakes under way; since the start: accepted, retried, dropped, given up, failed."""

def memory_used() -> int:
    """Bytes that the streams of this process hold unread."""

def set_memory_limit(limit: int) -> None:
    """How many bytes they may hold before no peer gets further credit (256 MiB). At twice as many a connection that
    brings more is closed."""
