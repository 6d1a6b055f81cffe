"""The engine on `warren_quic` (folder `quic/`): noq-proto, driven directly. Fast, and not always there.

The module does the work; here its integers, tuples and words become the face's seconds, events and classes. A symbol of
the module's is imported, since a bare folder of its name on the path imports too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any, Literal
from weakref import WeakValueDictionary

import warren_quic  # type: ignore[import-not-found, unused-ignore]  # not installed everywhere
from warren_quic import InvalidInputError  # type: ignore[import-not-found, unused-ignore]  # see above

from warren.fabric.core import engine as face
from warren.fabric.core.engine import (
    DATAGRAM_SIZES,
    Address,
    Batch,
    Buffer,
    ClientConfig,
    Controller,
    Event,
    Limits,
    PathChange,
    Received,
    ServerConfig,
    Statistics,
)
from warren.fabric.core.errors import ConfigError

SEGMENTS = 44
"""Datagrams of one send by an endpoint."""
SMALL = 1224
"""Bytes that every path carries."""
SMALLEST_INITIAL = 1200
"""Bytes of a datagram that carries a client's Initial (RFC 9000, section 14.1)."""
LONG_INITIAL, VERSION_1 = 0xC0, b"\x00\x00\x00\x01"
"""First byte (without its lower half) and version of an Initial packet (RFC 9000, section 17.2.2)."""

_CONTROLLERS: dict[Controller, Literal["model", "cubic"]] = {"warren": "model", "cubic": "cubic"}
"""The module's words."""


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


def _seconds(ns: int | None) -> float | None:
    return None if ns is None else ns / 1e9


def _connected(alpn: str, certificate: bytes | None, group: str) -> Event:
    return face.Connected(alpn, certificate)


def _datagrams() -> Event:
    return face.DatagramsReceived()


_EVENTS: dict[str, Callable[..., Event]] = {
    "connected": _connected,
    "opened": face.StreamOpened,
    "readable": face.Readable,
    "writable": face.Writable,
    "reset": face.StreamReset,
    "stopped": face.StreamStopped,
    "datagrams": _datagrams,
    "closed": face.Closed,
}
"""What the module tells, by word. "available" is not among them: the face has no such event."""


class NativeConnection:
    """One QUIC connection (see `Connection` in fabric/core/engine.py).

    Differences from the face: `resize` to less costs a handful of losses and a round trip or two until it is in effect,
    to more takes effect within two minutes. What is asked of a stream that never was, or of the direction that it does
    not have, does nothing (the module raises).
    """

    def __init__(self, core: Any) -> None:
        self._core = core
        self._events: deque[Event] = deque()
        self._small = False
        self.name: int | None = None
        """What the endpoint calls this connection; None if it belongs to none."""
        self.last_address: Address = ("", 0)

    # ---- bytes

    def receive(self, buffer: Buffer, stride: int, header: bytes, now: float) -> Received:
        """See `Connection.receive`. Foreign spans hold one header each."""
        return Received(*self._core.receive(buffer, stride, header, _ns(now)))

    def transmit(self, now: float, header: bytes = b"", segments: int = 44) -> Batch | None:
        """See `Connection.transmit`."""
        made = self._core.transmit(_ns(now), header, segments)
        return None if made is None else Batch((made[0],), made[1], made[2])

    def timer(self) -> float | None:
        """See `Connection.timer`; rounded up to a millisecond."""
        return _seconds(self._core.timer())

    def handle_timer(self, now: float) -> None:
        """See `Connection.handle_timer`."""
        self._core.handle_timer(_ns(now))

    def poll_event(self) -> Event | None:
        """See `Connection.poll_event`."""
        if not self._events:
            for word, *what in self._core.poll_events():
                make = _EVENTS.get(word)
                if make is not None:
                    self._events.append(make(*what))
        return self._events.popleft() if self._events else None

    def close(self, code: int, reason: str, now: float) -> None:
        """See `Connection.close`. `Closed` follows at once, CONNECTION_CLOSE in the next `transmit`."""
        self._core.close(code, reason, _ns(now))

    # ---- streams

    def open_stream(self, *, bidirectional: bool = True) -> int | None:
        """See `Connection.open_stream`."""
        stream: int | None = self._core.open_stream(bidirectional)
        return stream

    def write(self, stream: int, data: Buffer) -> int:
        """See `Connection.write`."""
        try:
            taken: int = self._core.write(stream, data)
        except InvalidInputError:
            return 0
        return taken

    def finish(self, stream: int) -> None:
        """See `Connection.finish`."""
        with suppress(InvalidInputError):
            self._core.finish(stream)

    def read(self, stream: int, limit: int) -> bytes:
        """See `Connection.read`."""
        try:
            data: bytes = self._core.read(stream, limit)
        except InvalidInputError:
            return b""
        return data

    def finished(self, stream: int) -> bool:
        """See `Connection.finished`. Never True of a stream that the peer reset."""
        try:
            over: bool = self._core.finished(stream)
        except InvalidInputError:
            return False
        return over

    def reset(self, stream: int, code: int) -> None:
        """See `Connection.reset`."""
        with suppress(InvalidInputError):
            self._core.reset(stream, code)

    def stop(self, stream: int, code: int) -> None:
        """See `Connection.stop`."""
        with suppress(InvalidInputError):
            self._core.stop(stream, code)

    # ---- datagrams

    def send_datagram(self, data: bytes) -> bool:
        """See `Connection.send_datagram`."""
        queued: bool = self._core.send_datagram(data)
        return queued

    def read_datagram(self) -> bytes | None:
        """See `Connection.read_datagram`."""
        data: bytes | None = self._core.read_datagram()
        return data

    def datagram_room(self) -> int:
        """See `Connection.datagram_room`."""
        room: int = self._core.datagram_room()
        return room

    # ---- paths

    def path_changed(self, now: float, kind: PathChange) -> None:
        """See `Connection.path_changed`."""
        self._core.path_changed(_ns(now), kind.value)

    def resize(self, size: int) -> None:
        """See `Connection.resize`, and above."""
        self._core.resize(size)
        self._small = size <= SMALL

    def probe(self, now: float) -> None:
        """See `Connection.probe`."""
        self._core.probe(_ns(now))

    def pto(self) -> float:
        """See `Connection.pto`."""
        seconds: float = self._core.pto()
        return seconds

    def sampled(self) -> bool:
        """See `Connection.sampled`."""
        sampled: bool = self._core.sampled()
        return sampled

    def in_flight(self) -> bool:
        """See `Connection.in_flight`."""
        flying: bool = self._core.in_flight()
        return flying

    def large_lost(self) -> int:
        """See `Connection.large_lost`."""
        lost: int = 0 if self._small else self._core.large_lost()  # those that were sent before the resize
        return lost

    def statistics(self) -> Statistics:
        """See `Connection.statistics`. `sent`, `received` and `lost` count packets."""
        s = self._core.statistics()
        return Statistics(
            round_trip=s.round_trip,
            smallest_round_trip=s.smallest_round_trip,
            window=s.window,
            in_flight=s.in_flight,
            rate=s.rate,
            sent=s.sent,
            received=s.received,
            lost=s.lost,
            congestion_events=s.congestion_events,
            phase=s.phase,
        )

    def address(self) -> Address:
        """Where the peer is, or was last."""
        found = self._core.address()
        if found is not None:
            self.last_address = found
        return self.last_address


class NativeEndpoint:
    """Many server connections on one socket (see `Endpoint` in fabric/core/engine.py)."""

    def __init__(self, core: Any) -> None:
        self._core = core
        self._fresh: deque[NativeConnection] = deque()
        self._known: WeakValueDictionary[int, NativeConnection] = WeakValueDictionary()

    def receive(self, buffer: Buffer, stride: int, address: Address, now: float) -> None:
        """See `Endpoint.receive`."""
        self._core.receive(buffer, stride, address[0], address[1], _ns(now))
        while (made := self._core.accept()) is not None:
            connection = NativeConnection(made[1])
            connection.name = made[0]
            self._known[made[0]] = connection
            self._fresh.append(connection)

    def accept(self) -> NativeConnection | None:
        """See `Endpoint.accept`."""
        return self._fresh.popleft() if self._fresh else None

    def touch(self, connection: face.Connection) -> None:
        """See `Endpoint.touch`."""
        if isinstance(connection, NativeConnection) and connection.name is not None:
            self._core.touch(connection.name)

    def active(self) -> NativeConnection | None:
        """See `Endpoint.active`."""
        while (name := self._core.active()) is not None:
            connection = self._known.get(name)
            if connection is not None:
                return connection
        return None

    def transmit(self, now: float) -> tuple[Address, Batch] | None:
        """See `Endpoint.transmit`: one batch of each connection in turn."""
        made = self._core.transmit(_ns(now), SEGMENTS)
        if made is None:
            return None
        host, port, data, stride, segments = made
        return (host, port), Batch((data,), stride, segments)

    @property
    def dropped(self) -> dict[str, int]:
        """What was not taken since the start, by word."""
        dropped, late, failed = self._core.counters()[-3:]
        return {"half_open": dropped, "handshake_time": late, "handshake_failed": failed}

    def timer(self) -> float | None:
        """See `Endpoint.timer`."""
        return _seconds(self._core.timer())

    def handle_timer(self, now: float) -> None:
        """See `Endpoint.handle_timer`."""
        self._core.handle_timer(_ns(now))

    def address(self, connection: face.Connection) -> Address:
        """See `Endpoint.address`."""
        return connection.address() if isinstance(connection, NativeConnection) else ("", 0)


def _settings(limits: Limits, controller: Controller) -> Any:
    return warren_quic.Settings(
        idle_timeout=limits.idle_timeout,
        keep_alive=limits.keep_alive,
        size=limits.size,
        largest=max(limits.size, *DATAGRAM_SIZES),
        stream_window=limits.stream_window,
        connection_window=limits.connection_window,
        streams=limits.streams,
        datagrams=limits.datagrams,
        send_buffer=limits.send_buffer,
        datagram_queue=limits.datagram_queue,
        controller=_CONTROLLERS[controller],
    )


@lru_cache(maxsize=64)
def _client(config: ClientConfig, controller: Controller) -> Any:
    try:
        return warren_quic.Client(config.server_name, config.root, config.alpn, _settings(config.limits, controller))
    except InvalidInputError as error:
        raise ConfigError(str(error)) from error


@lru_cache(maxsize=8)
def _server(config: ServerConfig, controller: Controller) -> Any:
    try:
        return warren_quic.Server(config.chain, config.key, list(config.alpn), _settings(config.limits, controller))
    except InvalidInputError as error:
        raise ConfigError(str(error)) from error


class NativeEngine:
    """`Engine` on warren_quic."""

    name: Literal["aioquic", "native"] = "native"

    def __init__(self, controller: Controller = "warren") -> None:
        self.controller: Controller = controller

    def connect(self, config: ClientConfig, now: float) -> NativeConnection:
        """A client connection; its first datagrams wait in `transmit`. Raises ConfigError."""
        return NativeConnection(_client(config, self.controller).connect(_ns(now)))

    def accept(self, config: ServerConfig, first: Buffer, now: float) -> NativeConnection | None:
        """A server connection for the datagram `first`; None if that is no Initial packet of QUIC version 1."""
        start = bytes(first[:5])
        if len(first) < SMALLEST_INITIAL or start[0] & 0xF0 != LONG_INITIAL or start[1:] != VERSION_1:
            return None
        return NativeConnection(_server(config, self.controller).accept(_ns(now)))

    def endpoint(self, config: ServerConfig, now: float) -> NativeEndpoint:
        """Many server connections on one socket. Raises ConfigError if chain or key can't be read."""
        server = _server(config, self.controller)
        return NativeEndpoint(server.endpoint(_ns(now), retry=config.retry, half_open=config.half_open))
