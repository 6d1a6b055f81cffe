"""The face `Endpoint` on aioquic: many server connections on one socket, with migration and path validation.

    receive → each segment: connection by destination id → library → that connection is looked at again
            ↘ unknown Initial: new connection, or Retry, or dropped and counted
            ↘ unknown version: Version Negotiation

No call costs more with more connections: what has something to do stands in `_outgoing` and `_lively`, timers in a heap
whose entries are checked when they come up.
"""

from __future__ import annotations

import heapq
import os
from collections import Counter, deque

from aioquic.quic.packet import encode_quic_retry, encode_quic_version_negotiation
from aioquic.quic.retry import QuicRetryTokenHandler

from warren.fabric.core.engine import Address, Batch, Buffer, Connection, ServerConfig
from warren.fabric.engines.aioquic.connection import AioquicConnection
from warren.fabric.engines.aioquic.core import Core, server_configuration
from warren.fabric.engines.aioquic.packets import (
    ID_BYTES,
    SMALLEST_INITIAL,
    VERSION_1,
    LongHeader,
    initial_of,
    long_header,
)

HANDSHAKE_TIME = 10.0
"""Seconds after which a handshake that is still under way is given up."""
ANSWERS = 64
"""Datagrams without a connection (Retry, Version Negotiation) that wait; beyond, dropped and counted."""


class _Served(AioquicConnection):
    """A connection of an endpoint: it keeps the endpoint's table of ids, and when its timer was armed for."""

    def __init__(self, core: Core, config: ServerConfig, table: dict[bytes, _Served], now: float) -> None:
        super().__init__(core, config.limits, now)
        self.armed: float | None = None
        self.gone = False
        self._table = table
        self.ids: set[bytes] = set()
        self._id_issued(core.host_cid)

    def name(self, identifier: bytes) -> None:
        """Datagrams to this id belong to this connection until it is retired or the connection forgotten."""
        self._id_issued(identifier)

    def _id_issued(self, identifier: bytes) -> None:
        if not self.gone:
            self.ids.add(identifier)
            self._table[identifier] = self

    def _id_retired(self, identifier: bytes) -> None:
        self.ids.discard(identifier)
        if self._table.get(identifier) is self:
            del self._table[identifier]

    def forget(self) -> None:
        """Takes all its ids out of the table."""
        self.gone = True
        for identifier in tuple(self.ids):
            self._id_retired(identifier)

    # What the endpoint needs beyond the face.

    def take(self, datagram: bytes, address: Address, now: float) -> None:
        """One datagram; `settle` has to follow."""
        self._take(datagram, address, now)

    def settle(self, now: float, authentic: int) -> None:
        """After the last `take`; `authentic` as it was before the first."""
        self._settle(now, heard=self._core.authentic != authentic)

    def next_batch(self, now: float) -> tuple[Address, Batch] | None:
        """`transmit` with the address."""
        return self._next_batch(now, b"", 44)

    def has_events(self) -> bool:
        """Whether `poll_event` has something."""
        return bool(self._events)

    @property
    def core(self) -> Core:
        """The library's connection."""
        return self._core

    @property
    def connected(self) -> bool:
        """Whether the handshake is over."""
        return self._connected


class AioquicEndpoint:
    """Many server connections on one socket (see `Endpoint` in fabric/core/engine.py)."""

    def __init__(self, config: ServerConfig) -> None:
        self.dropped: Counter[str] = Counter()
        """Datagrams thrown away, by word: `half_open`, `unknown_id`, `no_quic`, `bad_token`, `answers` …"""
        self._config = config
        self._configuration = server_configuration(config)
        self._table: dict[bytes, _Served] = {}
        self._half_open: dict[_Served, float] = {}
        self._new: deque[_Served] = deque()
        self._lively: dict[_Served, None] = {}
        self._outgoing: dict[_Served, None] = {}
        self._timers: list[tuple[float, int, _Served]] = []
        self._entry = 0
        self._answers: deque[tuple[Address, bytes]] = deque()
        self._retry = QuicRetryTokenHandler() if config.retry else None

    # ---- bytes in

    def receive(self, buffer: Buffer, stride: int, address: Address, now: float) -> None:
        """See `Endpoint.receive`."""
        data = buffer if type(buffer) is bytes else bytes(buffer)
        step = stride if 0 < stride < len(data) else max(1, len(data))
        touched: dict[_Served, int] = {}
        table = self._table
        for start in range(0, len(data), step):
            datagram = data[start : start + step]
            if datagram[0] & 0x80:
                served = self._by_long_header(datagram, address, now)
            else:
                served = table.get(datagram[1 : 1 + ID_BYTES])
                if served is None:
                    self.dropped["unknown_id"] += 1
            if served is not None:
                if served not in touched:
                    touched[served] = served.core.authentic
                served.take(datagram, address, now)
        for served, authentic in touched.items():
            served.settle(now, authentic)
            self._look_at(served)

    def _by_long_header(self, datagram: bytes, address: Address, now: float) -> _Served | None:
        header = long_header(datagram)
        if header is None or header.version == 0:
            self.dropped["no_quic"] += 1
            return None
        if header.version != VERSION_1:
            self._negotiate(header, len(datagram), address)
            return None
        served = self._table.get(header.destination)
        if served is not None:
            return served
        header = initial_of(datagram)
        if header is None:
            self.dropped["unknown_id"] += 1
            return None
        return self._begin(header, datagram, address, now)

    def _negotiate(self, header: LongHeader, size: int, address: Address) -> None:
        if size < SMALLEST_INITIAL:  # the answer may not be larger than the question (RFC 9000, section 6)
            self.dropped["no_quic"] += 1
            return
        self._answer(
            address,
            encode_quic_version_negotiation(
                source_cid=header.destination, destination_cid=header.source, supported_versions=[VERSION_1]
            ),
        )

    def _answer(self, address: Address, datagram: bytes) -> None:
        if len(self._answers) >= ANSWERS:
            self.dropped["answers"] += 1
            return
        self._answers.append((address, datagram))

    def _begin(self, header: LongHeader, datagram: bytes, address: Address, now: float) -> _Served | None:
        """A new connection for a client's first Initial, within bounds. None: the datagram is dealt with."""
        under_way = len(self._half_open)
        original, retry_source = header.destination, None
        if self._retry is not None and (header.token or under_way >= self._config.half_open // 2):
            if not header.token:
                self._ask_again(header, address, now)
                return None
            try:
                original = self._retry.validate_token(
                    address=address, destination_cid=header.destination, token=header.token, now=now
                )
            except ValueError:
                self.dropped["bad_token"] += 1
                return None
            retry_source = header.destination
        if under_way >= self._config.half_open:
            self.dropped["half_open"] += 1
            return None
        core = Core(self._configuration, self._config.limits, original=original, retry_source=retry_source)
        served = _Served(core, self._config, self._table, now)
        served.take(datagram, address, now)
        if core.first_flight:  # it was no Initial of a client's after all
            served.forget()
            self.dropped["no_quic"] += 1
            return None
        served.name(header.destination)
        self._half_open[served] = now + HANDSHAKE_TIME
        self._new.append(served)
        served.settle(now, -1)
        self._look_at(served)
        return None

    def _ask_again(self, header: LongHeader, address: Address, now: float) -> None:
        assert self._retry is not None
        source = os.urandom(ID_BYTES)
        token = self._retry.create_token(
            address=address,
            original_destination_connection_id=header.destination,
            retry_source_connection_id=source,
            now=now,
        )
        self._answer(
            address,
            encode_quic_retry(
                version=VERSION_1,
                source_cid=source,
                destination_cid=header.source,
                original_destination_cid=header.destination,
                retry_token=token,
            ),
        )

    # ---- connections

    def accept(self) -> AioquicConnection | None:
        """See `Endpoint.accept`."""
        return self._new.popleft() if self._new else None

    def touch(self, connection: Connection) -> None:
        """See `Endpoint.touch`."""
        if isinstance(connection, _Served) and not connection.gone:
            self._look_at(connection)

    def active(self) -> AioquicConnection | None:
        """See `Endpoint.active`."""
        while self._lively:
            served = next(iter(self._lively))
            del self._lively[served]
            if served.has_events():
                return served
        return None

    def address(self, connection: Connection) -> Address:
        """See `Endpoint.address`."""
        assert isinstance(connection, _Served)
        address: Address = connection.core.get_peer_address() or ("", 0)
        return address

    def _look_at(self, served: _Served) -> None:
        """Something happened to it: events and datagrams may wait. `transmit` arms its timer when nothing does any more
        (before that an overdue acknowledgement would be due at once, again and again)."""
        if served.connected or served.core.over:
            self._half_open.pop(served, None)
        self._outgoing[served] = None
        if served.has_events():
            self._lively[served] = None

    def _arm(self, served: _Served) -> None:
        """An entry in the heap if the timer is earlier than the one that stands there; a later one is found when it
        comes up."""
        at = served.timer()
        if at is None:
            if served.core.forgotten:
                served.forget()
            return
        if served.armed is None or at < served.armed:
            served.armed = at
            self._entry += 1
            heapq.heappush(self._timers, (at, self._entry, served))

    # ---- bytes out, time

    def transmit(self, now: float) -> tuple[Address, Batch] | None:
        """See `Endpoint.transmit`: one batch of each connection in turn."""
        if self._answers:
            address, datagram = self._answers.popleft()
            return address, Batch([datagram], len(datagram), 1)
        while self._outgoing:
            served = next(iter(self._outgoing))
            del self._outgoing[served]
            found = served.next_batch(now)
            if served.has_events():
                self._lively[served] = None
            if found is not None:
                self._outgoing[served] = None
                return found
            self._arm(served)
        return None

    def timer(self) -> float | None:
        """See `Endpoint.timer`."""
        timers = self._timers
        while timers and (timers[0][2].gone or timers[0][2].armed != timers[0][0]):
            heapq.heappop(timers)
        at = timers[0][0] if timers else None
        if self._half_open:
            oldest = next(iter(self._half_open.values()))
            return oldest if at is None else min(at, oldest)
        return at

    def handle_timer(self, now: float) -> None:
        """See `Endpoint.handle_timer`."""
        while self._half_open:
            served, until = next(iter(self._half_open.items()))
            if until > now:
                break
            del self._half_open[served]
            self.dropped["handshake_time"] += 1
            served.close(0, "the handshake took too long", now)
            self._look_at(served)
        timers = self._timers
        while timers and timers[0][0] <= now:
            at, _, served = heapq.heappop(timers)
            if served.gone or served.armed != at:
                continue
            served.armed = None
            due = served.timer()
            if due is not None and due <= now:
                served.handle_timer(now)
                self._look_at(served)
            else:
                self._arm(served)
